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
# # Prune, quantize, export: from float to a C array
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/05_prune_quantize_export.ipynb)
#
# **Claim.** `compress` makes of a trained Fashion-MNIST network, by validation images alone, a device file that is at
# least 6 times smaller under gzip, does at most 0.6 of the multiplications, and in TFLite Micro, the interpreter of
# microcontrollers, is within one and a half points of the float network's test accuracy. A Keras model of
# `quantize_aware`, for images or for sensor windows, predicts what its int8 file answers in LiteRT to the last bit, for
# at least 99.5% of the test inputs. TFLite Micro names the same class as LiteRT for 99% of them
# or more, and the C array holds the file's bytes. From the same start at the same budget, native quantization-aware
# training ends within a point of TF-MOT's test accuracy or above it, and predicts more of its file's answers. The last
# cell shows whether it holds.

# %%
import os
import subprocess
import sys

if "google.colab" in sys.modules:  # keeps Colab's own TensorFlow
    url = "keras_opt[micro] @ git+https://github.com/keras-opt/keras_opt"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", url], check=True)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
QUICK = os.environ.get("KERAS_OPT_QUICK") == "1"  # a short run that shows the steps, not the figures

# %%
import re

import keras
import matplotlib.pyplot as plt
import numpy as np
import tf_keras

import keras_opt
from keras_opt.compression import (
    CompressionRecipe,
    PolynomialSparsity,
    PruneLowMagnitude,
    compress,
    distill,
    for_tf_keras,
    prune_channels,
    quantize_aware,
    sparsity,
    tfmot_quantize,
)
from keras_opt.export import LiteRTModel, quantization_report, run_tflm, to_c_array, to_tflite, verify
from keras_opt.models import convnet, fold_batch_norm, macs

SEED = 0  # try another

# %% [markdown]
# ## A float network
# Ten thousand images of Fashion-MNIST come with the package. Decisions are made on 2,000 of them; the test images are
# read for figures only. The scaling of pixels is part of the network, so every file takes raw pixels (int8 files
# less 128).

# %%
x, y = keras_opt.data.load_fashion_mnist_sample("train")
x = x[..., None]
x_validation, y_validation, x_train, y_train = x[:2000], y[:2000], x[2000:], y[2000:]
if QUICK:
    x_train, y_train = x_train[:2000], y_train[:2000]


def train(model, x, y, epochs, rate, callbacks=()):
    """Fit with Adam, one cycle of its rate and batches of 128 in an order that follows from the seed."""
    keras.utils.set_random_seed(SEED)
    batches = keras_opt.data.arrays(x, y, batch_size=128, seed=SEED)
    schedule = keras_opt.schedules.OneCycle(rate, total_steps=epochs * len(batches))
    optimizer = keras.optimizers.Adam(schedule)
    if isinstance(model, tf_keras.Model):
        optimizer = tf_keras.optimizers.Adam(for_tf_keras(schedule))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0)
    return model


def validated(model):
    """The accuracy on the validation images."""
    return float(np.mean(model.predict(x_validation, verbose=0).argmax(-1) == y_validation))


keras.utils.set_random_seed(SEED)
scaling = keras.layers.Rescaling(1 / 255)
network = convnet([32, 64, 128], (28, 28, 1), 10, dropout=0.5, preprocessing=scaling, name="clothes")
train(network, x_train, y_train, 2 if QUICK else 16, 0.01)
print(f"validation accuracy {validated(network):.4f}, {macs(network):,} MACs")

# %% [markdown]
# ## Zeros
# `PruneLowMagnitude` takes the smallest weights away while stock `fit` goes on, and they stay away. Zeros shorten the
# download, not the time of a call.

# %%
FINE = 1 if QUICK else 4  # epochs of each further training
sparse = keras.models.clone_model(network)
sparse.set_weights(network.get_weights())
steps = FINE * -(-len(x_train) // 128)
prune = PruneLowMagnitude(PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=2 * steps // 3), every=5)
train(sparse, x_train, y_train, FINE, 0.001, [prune])
print(f"validation accuracy {validated(network):.4f} before, {validated(sparse):.4f} after")

figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
for ax, (name, model) in zip(axes, {"before": network, "after": sparse}.items(), strict=True):
    kernel = np.abs(model.get_layer("conv2").get_weights()[0]).reshape(-1, 64)[:96].T
    ax.imshow(kernel, cmap="gray_r", vmax=0.2)
    ax.set(title=f"|conv2| {name}: {sparsity(model)['conv2']:.0%} zeros", xlabel="input", ylabel="output")

# %% [markdown]
# ## Fewer channels
# A channel that is gone saves time on every device. `prune_channels` builds the narrower network, and what it has lost
# the old one teaches it again (`distill`).

# %%
narrow = prune_channels(network, keep=0.5)
as_cut = validated(narrow)
train(distill(narrow, network), x_train, y_train, 2 * FINE, 0.005)
print(f"{macs(network):,} -> {macs(narrow):,} MACs")
print(f"validation accuracy {validated(network):.4f} before, {as_cut:.4f} as cut, {validated(narrow):.4f} once taught")

# %% [markdown]
# ## Eight bits
# An int8 file of the float network needs images to learn its ranges from. `quantization_report` shows what each layer
# loses.

# %%
ptq = to_tflite(network, "ptq.tflite", "int8", representative_data=x_train[:200])
quantization_report(network, ptq.path, x_validation).plot()

# %% [markdown]
# `quantize_aware` computes in Keras as the device will, and learns to make up for the rounding. Its file needs no
# images, and the Keras model says what the file will answer.

# %%
aware = train(quantize_aware(network), x_train, y_train, FINE, 0.0005)
aware_file = to_tflite(aware, "clothes.tflite", "int8", class_names=keras_opt.data.FASHION_MNIST_CLASSES)
print(aware_file)

# %% [markdown]
# ## All of it at once
# `compress` tries the recipes, from cheap to costly, and shows what each costs and keeps. Here: a few of them, and the
# smallest download that loses at most a point.

# %%
recipes = [
    CompressionRecipe("float32"),
    CompressionRecipe("int8"),
    CompressionRecipe("int8", aware=True),
    CompressionRecipe("int8", sparsity=0.5, aware=True),
    CompressionRecipe("int8", keep=0.75, aware=True),
    CompressionRecipe("int8", keep=0.5, aware=True),
    CompressionRecipe("int8", keep=0.25, aware=True),
]
found = compress(
    network,
    keras_opt.data.arrays(x_train, y_train, batch_size=128, seed=SEED),
    (x_validation, y_validation),
    max_drop=0.01,
    objective="size",
    epochs=FINE,
    learning_rate=0.003,
    recipes=recipes[:2] + recipes[-1:] if QUICK else recipes,
    seed=SEED,
    verbose=0,
)
print(found)
found.plot()

# %% [markdown]
# ## TF-MOT beside it
# `tfmot_quantize` brings TF-MOT's quantization-aware training to Keras 3 models. Both get the same start, batches, rate
# and epochs. The norms are folded away first, because TF-MOT refuses one behind a pooling. What does each trained model
# know of its own file's answers to the test images?

# %%
folded = fold_batch_norm(network)
x_test, y_test = keras_opt.data.load_fashion_mnist_sample("test")
x_test = x_test[..., None]


def predicted(model, path, x):
    """The share of rows for which the trained model says the very numbers that its file stores."""
    file = LiteRTModel(path)
    steps = np.abs(np.asarray(model.predict(x, verbose=0)) - file.predict(x)) / file.outputs[0].scale
    return float(np.mean(steps.max(axis=-1) < 0.01))


sides = {}
for side, wrap in {"native": quantize_aware, "TF-MOT": tfmot_quantize}.items():
    model = train(wrap(folded), x_train, y_train, FINE, 0.0005)
    file = to_tflite(model, f"{side}.tflite", "int8")
    checked = verify(model, file.path, x_test, y_test)
    sides[side] = checked.outputs[0].other_metric, predicted(model, file.path, x_test)
    print(f"{side}, predicted for {sides[side][1]:.2%} of the images: {checked}")

# %% [markdown]
# ## Sensor windows
# The same road for a sensor on a machine: 128 readings of three axes, and three states of the machine to tell apart.
# The windows are made by the formula below, so accuracy on them says nothing about a real machine; the file, its
# memory and its agreement are as real as with real readings.

# %%
STATES = ("healthy", "unbalanced", "worn bearing")


def windows(count, seed):
    """Vibrations of a shaft in m/s^2 at 1,000 readings a second, and the machine's states."""
    rng = np.random.default_rng(seed)
    states = rng.integers(0, len(STATES), count)
    seconds = np.arange(128) / 1000
    axes = np.array([0, np.pi / 2, np.pi / 5])
    turns = (rng.uniform(20, 40, (count, 1)) * seconds + rng.uniform(0, 1, (count, 1)))[..., None]
    sway = rng.uniform(0.3, 0.8, (count, 1, 1)) + (states == 1)[:, None, None] * np.array([0.3, 0.3, 0.1])
    hum = 0.3 * np.sin(4 * np.pi * turns + rng.uniform(0, 6, (count, 1, 3)))
    since_hit = (3.6 * turns) % 1 / (3.6 * 30)  # seconds since a ball rolled over the damage
    ring = np.exp(-since_hit / 0.004) * np.sin(2 * np.pi * 220 * since_hit)
    damage = (states == 2)[:, None, None] * rng.uniform(0.1, 1.0, (count, 1, 3)) * ring
    noise = rng.normal(0, 0.3, (count, 128, 3))
    return (sway * np.sin(2 * np.pi * turns + axes) + hum + damage + noise).astype("float32"), states


w_train, s_train = windows(1000 if QUICK else 4000, SEED)
w_test, s_test = windows(1000, SEED + 1)
figure, axes = plt.subplots(1, 3, figsize=(12, 2.4), layout="constrained", sharey=True)
for state, (ax, name) in enumerate(zip(axes, STATES, strict=True)):
    ax.plot(w_train[np.flatnonzero(s_train == state)[0]])
    ax.set(title=name, xlabel="ms")
axes[0].legend("xyz", ncols=3, loc="upper right")
_ = axes[0].set_ylabel("m/s$^2$")

# %% [markdown]
# The builders take windows as they take images. The statistics for the scaling come from the training windows and
# become a layer of the network, so the device feeds it plain readings.

# %%
scaling = keras_opt.data.arrays(w_train, s_train, normalize="standard").normalization
monitor = convnet([16, 32, 32], (128, 3), 3, pooling="avg", preprocessing=scaling, name="vibration")
train(monitor, w_train, s_train, 3 if QUICK else 10, 0.01)
aware_monitor = train(quantize_aware(monitor), w_train, s_train, 1 if QUICK else 3, 0.0005)
sensor_file = to_tflite(aware_monitor, "vibration.tflite", "int8", class_names=STATES)
print(sensor_file)
print(verify(aware_monitor, sensor_file.path, w_test, s_test))

# %% [markdown]
# ## On the microcontroller
# `run_tflm` runs a file in the interpreter of microcontrollers and measures the memory it needs. Its kernels round
# otherwise than LiteRT's on a host: a step in a logit is a few in a probability, and seldom another class.

# %%
micro, same_class = {}, {}
for path, inputs in ((found.best.path, x_test), (sensor_file.path, w_test)):
    micro[path] = run_tflm(path, inputs)
    host = LiteRTModel(path).predict(inputs)
    apart = np.abs(micro[path].outputs - host).max() / LiteRTModel(path).outputs[0].scale
    same_class[path] = float(np.mean(micro[path].outputs.argmax(-1) == host.argmax(-1)))
    print(micro[path])
    print(f"the same class as in LiteRT for {same_class[path]:.2%} of the rows, values up to {apart:.0f} LSB apart\n")

# %% [markdown]
# `to_c_array` turns it into C++ that compiles without a file system: the bytes, and a header with all that a program
# must know.

# %%
array = to_c_array(sensor_file.path)
print(array, array.header.read_text(), array.operators.read_text(), sep="\n\n")

# %% [markdown]
# ## Does the claim hold?

# %%
if QUICK:
    print("A short run: it shows the steps, not the figures.")
plain = found.candidates[0]
smaller, fewer = plain.gzip_bytes / found.best.gzip_bytes, plain.macs / found.best.macs
small = found.measure(micro[found.best.path].outputs, y_test)
full = found.measure(network.predict(x_test, verbose=0), y_test)
(ours, known), (theirs, known_to_theirs) = sides.values()
least = min(known, predicted(aware, aware_file.path, x_test), predicted(aware_monitor, sensor_file.path, w_test))
numbers = re.findall(r"0x(..),", array.source.read_text())
same_bytes = bytes.fromhex("".join(numbers)) == sensor_file.path.read_bytes()
same = min(same_class.values())
gains = smaller >= 6 and fewer >= 1 / 0.6
holds = {
    f"{smaller:.1f} times smaller under gzip, {fewer:.1f} times fewer multiplications ({found.best.name})": gains,
    f"test accuracy {small:.4f} in TFLite Micro, {full:.4f} of the float network": small >= full - 0.015,
    f"`quantize_aware` predicts its files' answers to the bit for {least:.2%} of the rows": least >= 0.995,
    f"TFLite Micro names LiteRT's class for {same:.2%} of the rows": same >= 0.99,
    f"the C array holds the file's {array.size_bytes:,} bytes": same_bytes,
    f"native {ours:.4f} and {known:.2%} predicted, TF-MOT {theirs:.4f} and {known_to_theirs:.2%}": ours >= theirs - 0.01
    and known > known_to_theirs,
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")
