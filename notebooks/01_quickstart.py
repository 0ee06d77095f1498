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
# # keras_opt in five minutes
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/01_quickstart.ipynb)
#
# **Claim.** On 10,000 real Fashion-MNIST images, one small convolutional network reaches the best validation accuracy
# of its plain Keras training in less CPU time once it has BatchNorm and a one-cycle rate; pruned and made full int8 its
# file is at least 3.3 times smaller than the plain one and loses no more than half a point of the plain network's test
# accuracy. The last cell shows whether that holds, and `benchmarks/demo.py` how much it varies with the seed.

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
import time

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_opt
from keras_opt.callbacks import EarlyStopping, GradientMonitor, LearningRateMonitor, Plateau, Target

# %% [markdown]
# ## The data
# An embedded slice of Fashion-MNIST: no download. A tenth of the training images is held out for every decision; the
# test images are read at the very end. `arrays` gives the images in a new, seeded order every epoch, so both trainings
# below see the same batches.

# %%
x, y = keras_opt.data.load_fashion_mnist_sample("train")
names = keras_opt.data.FASHION_MNIST_CLASSES
x = x[..., None]
one_hot = keras.utils.to_categorical(y, 10)
x_train, y_train, x_val, y_val = x[1000:], one_hot[1000:], x[:1000], one_hot[:1000]


def batches():
    return keras_opt.data.arrays(x_train, y_train, batch_size=128, seed=0)


validation = keras_opt.data.arrays(x_val, y_val, batch_size=128, shuffle=False)

figure, axes = plt.subplots(1, 10, figsize=(12, 1.6))
for ax, name in zip(axes, names, strict=True):
    ax.imshow(x[np.flatnonzero(y == names.index(name))[0], ..., 0], cmap="gray_r")
    ax.set_title(name, fontsize=7)
    ax.axis("off")


# %%
class Clock(keras.callbacks.Callback):
    """CPU seconds since the start of this training, building and tracing included."""

    def __init__(self):
        super().__init__()
        self.start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        logs["cpu_seconds"] = time.process_time() - self.start


warm_up = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
warm_up.compile("adam", "mse")
_ = warm_up.fit(batches().take(1), verbose=0, shuffle=False)  # pays TensorFlow's first-use costs for both sides

# %% [markdown]
# ## Plain Keras
# The network of Keras's MNIST example with Adam at its default rate, for as long as its validation accuracy rises.

# %%
keras.utils.set_random_seed(0)
clock = Clock()
scale = keras.layers.Rescaling(1 / 255)
plain = keras_opt.models.convnet([32, 64], (28, 28, 1), 10, norm="none", dropout=0.5, preprocessing=scale)
plain.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
stop = keras.callbacks.EarlyStopping("val_accuracy", patience=10, restore_best_weights=True)
plain_history = plain.fit(
    batches(),
    validation_data=validation,
    epochs=4 if QUICK else 60,
    callbacks=[clock, stop],
    shuffle=False,
    verbose=0,
).history
best = max(plain_history["val_accuracy"])
print(f"best validation accuracy {best:.3f} after {len(plain_history['loss'])} epochs")

# %% [markdown]
# ## With keras_opt
# The same stack with BatchNorm, a one-cycle learning rate, label smoothing, stopping by criteria, and the gradients
# watched from inside the compiled step.

# %%
EPOCHS = 3 if QUICK else 20
keras.utils.set_random_seed(0)
clock = Clock()
scale = keras.layers.Rescaling(1 / 255)
model = keras_opt.models.convnet([32, 64], (28, 28, 1), 10, dropout=0.5, preprocessing=scale)
schedule = keras_opt.schedules.OneCycle(0.01, total_steps=EPOCHS * len(batches()))
loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
monitor = GradientMonitor()
stop = EarlyStopping(Plateau("val_accuracy", patience=12) | Target("val_accuracy", 0.99), restore_best_weights=True)
history = model.fit(
    batches(),
    validation_data=validation,
    epochs=EPOCHS,
    callbacks=[clock, monitor, LearningRateMonitor(), stop],
    shuffle=False,
    verbose=0,
).history
print(f"best validation accuracy {max(history['val_accuracy']):.3f}; {stop.stopped_because or 'the cycle is complete'}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
left.plot(plain_history["cpu_seconds"], plain_history["val_accuracy"], label="plain Keras")
left.plot(history["cpu_seconds"], history["val_accuracy"], label="with keras_opt")
left.axhline(best, linestyle="--", linewidth=1, color="gray")
left.set(title="Validation accuracy", xlabel="CPU seconds")
left.legend()
middle.plot(history["learning_rate"])
middle.set(title="Learning rate", xlabel="epoch")
_ = monitor.plot(right)

# %% [markdown]
# ## Prune and fine-tune
# Half of the kernel weights go, inside stock `fit`; the masks stay.

# %%
PRUNING_EPOCHS = 1 if QUICK else 4
dense_accuracy = model.evaluate(validation, verbose=0)[1]
steps = PRUNING_EPOCHS * len(batches())
sparsity = keras_opt.compression.PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=steps // 2)
rate = keras.optimizers.schedules.CosineDecay(0.001, steps)
model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
prune = keras_opt.compression.PruneLowMagnitude(sparsity, every=10)
model.fit(batches(), epochs=PRUNING_EPOCHS, callbacks=[prune], shuffle=False, verbose=0)
print(f"validation accuracy {dense_accuracy:.3f} before, {model.evaluate(validation, verbose=0)[1]:.3f} after")
keras_opt.compression.sparsity(model)

# %% [markdown]
# ## The device file
# Full int8, checked in the LiteRT interpreter before it is handed out. Labels and metadata are inside.

# %%
export = keras_opt.export.to_tflite(
    model, "model.tflite", quantize="int8", representative_data=x_train[:200], class_names=names
)
plain_export = keras_opt.export.to_tflite(plain, "plain.tflite", class_names=names)
print(export)

# %% [markdown]
# ## Does the claim hold?
# Now, and only now, the test images are read.

# %%
if QUICK:
    print("A short run: it shows the steps, not the figures.")
x_test, y_test = keras_opt.data.load_fashion_mnist_sample("test")
x_test = x_test[..., None]
device = keras_opt.export.LiteRTModel("model.tflite")
device_accuracy = float(np.mean(device.predict(x_test).argmax(axis=1) == y_test))
plain_accuracy = float(np.mean(plain.predict(x_test, verbose=0).argmax(axis=1) == y_test))
agreement = keras_opt.export.verify(model, "model.tflite", x_test).argmax_agreement
plain_cost = plain_history["cpu_seconds"][int(np.argmax(plain_history["val_accuracy"]))]
reached = [cpu for cpu, v in zip(history["cpu_seconds"], history["val_accuracy"], strict=True) if v >= best]
cost = reached[0] if reached else float("inf")

holds = {
    f"plain's best in {cost:.1f} CPU s instead of {plain_cost:.1f}": cost < plain_cost,
    f"{plain_export.size_bytes / export.size_bytes:.2f} times smaller": plain_export.size_bytes
    >= 3.3 * export.size_bytes,
    f"device file {device_accuracy:.4f}, plain Keras {plain_accuracy:.4f}": device_accuracy >= plain_accuracy - 0.005,
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")
print(f"the device file names the Keras model's class for {agreement:.1%} of the test images")
