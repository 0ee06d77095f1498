# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradients: seen, accumulated, sharpened, averaged
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/02_gradients.ipynb)
#
# **Claim.** Inside stock `model.fit`: `GradientMonitor` names the layers whose gradients vanish in a deep sigmoid
# network and shows that the cure works; eight micro-batches of 16 with `GradientAccumulation` train the same weights as
# one batch of 128, to 1e-10 of the weight change, where Keras's own accumulation is off by more than 1e-3; and the
# averaged weights of `WeightAveraging` are better on validation images than the raw ones of the same run. The last cell
# shows whether it holds, and what sharpness-aware minimization gained or lost here.

# %%
import os
import subprocess
import sys

if "google.colab" in sys.modules:  # keeps Colab's own TensorFlow
    url = "git+https://github.com/keras-opt/keras_opt"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", url], check=True)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
QUICK = os.environ.get("KERAS_OPT_QUICK") == "1"  # a short run that shows the steps, not the figures

# %%
import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_opt
from keras_opt.callbacks import GradientAccumulation, GradientMonitor, SharpnessAwareMinimization, WeightAveraging

x, y = keras_opt.data.load_fashion_mnist_sample("train")
x_train, y_train, x_val, y_val = x[1000:, ..., None], y[1000:], x[:1000, ..., None], y[:1000]
LOSS = "sparse_categorical_crossentropy"


def batches():
    """The training images in a new, seeded order every epoch: the same for everyone who asks."""
    return keras_opt.data.arrays(x_train, y_train, batch_size=128, seed=0)


validation = keras_opt.data.arrays(x_val, y_val, batch_size=128, shuffle=False)

# %% [markdown]
# ## A network that does not learn
# Ten sigmoid layers, as in 1998. The loss does not move, and it does not say why.

# %%
MLP_EPOCHS = 1 if QUICK else 4


def deep_network(activation, initializer):
    hidden = [
        keras.layers.Dense(64, activation=activation, kernel_initializer=initializer, name=f"hidden_{number}")
        for number in range(1, 11)
    ]
    ends = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()], [keras.layers.Dense(10, activation="softmax")]
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((28, 28, 1)), *ends[0], *hidden, *ends[1]], name="deep")


def train_deep_network(activation, initializer):
    model = deep_network(activation, initializer)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), LOSS, metrics=["accuracy"])
    monitor = GradientMonitor()
    history = model.fit(batches(), epochs=MLP_EPOCHS, callbacks=[monitor], shuffle=False, verbose=0).history
    print(f"{activation}: accuracy {history['accuracy'][-1]:.3f} after {MLP_EPOCHS} epochs")
    return monitor


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    sick = train_deep_network("sigmoid", "glorot_uniform")
vanishing = [str(warning.message) for warning in caught if "vanish" in str(warning.message)]
for message in vanishing:
    print(message)

# %% [markdown]
# The monitor says why: the deeper below the loss, the smaller the gradient, by orders of magnitude. ReLU with He's
# initialisation cures it.

# %%
healthy = train_deep_network("relu", "he_normal")

# %%
figure, axes = plt.subplots(1, 2, figsize=(14, 4), sharey=True, layout="constrained")
for ax, monitor, title in zip(axes, [sick, healthy], ["sigmoid: vanishing", "ReLU: cured"], strict=True):
    monitor.plot(ax)
    ax.set_title(title)

# %% [markdown]
# What limit for `global_clipnorm` would have touched a tenth of the steps?

# %%
healthy.suggest_clipnorm(percentile=90)

# %% [markdown]
# ## One batch of 128, eight micro-batches of 16
# For when the batch does not fit in memory. In float64, so that rounding does not hide anything. The last batch is a
# short one, and the rate follows a schedule: the two places where Keras's own accumulation goes another way.

# %%
COUNT = 900 if QUICK else 3000
keras.config.set_dtype_policy("float64")
keras.config.set_floatx("float64")


def small_network(**optimizer_settings):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(32, "relu")]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.Dense(10, "softmax")])
    rate = keras.optimizers.schedules.ExponentialDecay(0.002, decay_steps=10, decay_rate=0.9)
    model.compile(keras.optimizers.Adam(rate, **optimizer_settings), LOSS)
    return model


def weight_changes(model, batch_size, callbacks=()):
    """The weights' change, as one vector, after each of three epochs."""
    start, ends = flat(model), []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(flat(model) - start))
    order = tf.data.Dataset.from_tensor_slices((x_train[:COUNT], y_train[:COUNT])).batch(batch_size)
    model.fit(order, epochs=3, callbacks=[*callbacks, note], verbose=0)
    return ends


def flat(model):
    return np.concatenate([weights.ravel() for weights in model.get_weights()])


big = weight_changes(small_network(), 128)
ours = weight_changes(small_network(), 16, [GradientAccumulation(8)])
keras_own = weight_changes(small_network(gradient_accumulation_steps=8), 16)
keras.config.set_dtype_policy("float32")
keras.config.set_floatx("float32")


def deviations(changes):
    return [
        float(np.linalg.norm(change - true) / np.linalg.norm(true)) for change, true in zip(changes, big, strict=True)
    ]


figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.semilogy([1, 2, 3], deviations(keras_own), "o-", label="Keras: gradient_accumulation_steps=8")
ax.semilogy([1, 2, 3], np.maximum(deviations(ours), 1e-17), "o-", label="keras_opt: GradientAccumulation(8)")
ax.axhline(1e-10, linestyle="--", linewidth=1, color="gray")
ax.set(title="Deviation from the batch of 128", xlabel="epoch", ylabel="of the weight change", xticks=[1, 2, 3])
_ = ax.legend()

# %% [markdown]
# ## Sharpened and averaged
# One convolutional network, the same batches, four ways. Validation, and whatever follows in the list of callbacks,
# sees the averaged weights; training goes on with the raw ones, so the plain line is also that of EMA's raw weights.

# %%
EPOCHS = 2 if QUICK else 8
STEPS = len(batches())


class RawAccuracy(keras.callbacks.Callback):
    """Validation accuracy of the weights that training goes on with: it stands before the averaging."""

    def on_epoch_end(self, epoch, logs=None):
        logs["raw_accuracy"] = self.model.evaluate(validation, verbose=0, return_dict=True)["accuracy"]


def train_convnet(*callbacks):
    keras.utils.set_random_seed(0)
    scale = keras.layers.Rescaling(1 / 255)
    model = keras_opt.models.convnet([16, 32], (28, 28, 1), 10, preprocessing=scale)
    model.compile(keras.optimizers.Adam(0.002), LOSS, metrics=["accuracy"])
    history = model.fit(
        batches(),
        validation_data=validation,
        epochs=EPOCHS,
        callbacks=[RawAccuracy(), *callbacks],
        shuffle=False,
        verbose=0,
    )
    return model, history.history


runs = {
    "plain": train_convnet(),
    "EMA": train_convnet(WeightAveraging("ema", ema_momentum=1 - 1 / STEPS, start=STEPS)),
    "lookahead": train_convnet(WeightAveraging("lookahead")),
    "SAM": train_convnet(SharpnessAwareMinimization(rho=0.05)),
}

# %%
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (_, history) in runs.items():
    ax.plot(range(1, EPOCHS + 1), history["val_accuracy"], label=name)
ax.set(title="Validation accuracy", xlabel="epoch")
_ = ax.legend()

# %% [markdown]
# ## Does the claim hold?

# %%
if QUICK:
    print("A short run: it shows the steps, not the figures.")
ema = runs["EMA"][1]
averaged, raw = np.mean(ema["val_accuracy"][1:]), np.mean(ema["raw_accuracy"][1:])
sick_norm, healthy_norm = (np.median(monitor.series()["deep/hidden_1"]) for monitor in (sick, healthy))
ours_off, keras_off = max(deviations(ours)), max(deviations(keras_own))
holds = {
    f"layers named; the cure made the first layer's gradient {healthy_norm / sick_norm:.0e} times as large": bool(
        vanishing
    )
    and healthy_norm > sick_norm,
    f"accumulation off by {ours_off:.0e}, Keras's by {keras_off:.0e}": ours_off < 1e-10 and keras_off > 1e-3,
    f"averaged {averaged:.3f}, raw {raw:.3f} (mean validation accuracy from the second epoch on)": averaged > raw,
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")

x_test, y_test = keras_opt.data.load_fashion_mnist_sample("test")
for name, (model, _) in runs.items():
    accuracy = float(np.mean(model.predict(x_test[..., None], verbose=0).argmax(axis=1) == y_test))
    print(f"{name}: test accuracy {accuracy:.4f}")
