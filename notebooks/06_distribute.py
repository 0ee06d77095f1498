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
# # From one device to several
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/06_distribute.ipynb)
#
# **Claim.** Two worker processes, started from this notebook by `launch`, train with stock `fit` the Fashion-MNIST
# network that one process trains: after all epochs the two have the same weights bit for bit, and in float64 these are
# within 1e-9 of those of one process. When one of them is killed by `kill -9` in the middle of training, both are
# started again by themselves and end with the same bits as the unbroken run. The last cell shows whether it holds.

# %%
import os
import subprocess
import sys

if "google.colab" in sys.modules:  # keeps Colab's own TensorFlow
    url = "keras_opt @ git+https://github.com/keras-opt/keras_opt"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", url], check=True)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # two processes cannot share one GPU; here each has some of the CPU's cores
QUICK = os.environ.get("KERAS_OPT_QUICK") == "1"  # a short run that shows the steps, not the figures

# %%
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import keras_opt

# %% [markdown]
# ## One script for one process and for several
# A worker is a process that runs a script of yours, so the training goes into a file. All that makes it one for several
# workers is the strategy's scope. `strategy()` finds out by itself whether there are other workers; `fit` gets the
# batch of the whole, and each worker takes its share. `BackupAndRestore` is there for the day when a worker dies. This
# script has a callback that kills its own worker, once, if it is asked to. The data keep one order, so that all runs
# see the same batches.

# %%
Path("train.py").write_text("""
import os, signal, sys
from pathlib import Path

import keras_opt

strategy = keras_opt.distribute.strategy()  # before anything else happens in TensorFlow

import keras
import numpy as np

folder, images, epochs, killed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
worker = getattr(strategy.cluster_resolver, "task_id", None) or 0

keras.utils.set_random_seed(0)
keras.config.set_floatx("float64")  # where a fault stands far above rounding; train in float32
keras.config.set_dtype_policy("float64")
with strategy.scope():
    layers = [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)]
    for filters in (8, 16):
        layers += [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.MaxPooling2D()]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])


class Killed(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        died = folder / "died"
        if worker == 1 and self.model.optimizer.iterations.numpy() == int(killed[0]) and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


x, y = keras_opt.data.load_fashion_mnist_sample("train")
data = keras_opt.data.arrays(x[:images, ..., None], y[:images], batch_size=128, shuffle=False)
callbacks = [keras_opt.callbacks.BackupAndRestore(folder / "backup", verbose=0)]
history = model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks + [Killed()] * len(killed))
np.savez(folder / f"weights{worker}.npz", *model.get_weights())
np.savez(folder / f"history{worker}.npz", **history.history)
if worker == 0:
    print(f"loss {history.history['loss'][-1]:.6f}, accuracy {history.history['accuracy'][-1]:.4f}")
""")
IMAGES, EPOCHS = (1000, 2) if QUICK else (6000, 4)
STEPS = -(-IMAGES // 128)  # an epoch


def run(name, start, *more):
    """Train in the folder `name`; the seconds, from start to end."""
    Path(name).mkdir()
    began = time.monotonic()
    start([name, str(IMAGES), str(EPOCHS), *more])
    return time.monotonic() - began


# %% [markdown]
# ## One process


# %%
def alone(arguments):
    """Run the script as any other."""
    done = subprocess.run([sys.executable, "train.py", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout)


seconds = {"one process": run("one", alone)}

# %% [markdown]
# ## Two workers
# `launch` starts the script twice, tells each of the other one, and shows what they print. In a shell it is
# `keras-opt launch --workers 2 train.py ...`.


# %%
def launched(arguments):
    """Run the script as two workers."""
    return keras_opt.distribute.launch("train.py", arguments, workers=2)


seconds["two workers"] = run("two", launched)

# %% [markdown]
# ## A worker is killed
# Worker 1 is killed in the second epoch. `launch` stops the other one, which could not go on alone, and starts both
# again; they go on from the newest backup that both have.

# %%
failures = []
killed_at = STEPS + STEPS // 2
seconds["one of two killed"] = run("killed", lambda arguments: failures.extend(launched(arguments)), str(killed_at))
print("\n".join(map(str, failures)))

# %% [markdown]
# The same training three times. The seconds are no race: the workers share the cores of one machine, so a second one
# pays only where a step takes long (`benchmarks/scaling.py`); what they are for is several machines.

# %%
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for (name, style), folder in zip(
    {"one process": "-", "two workers": "o", "one of two killed": "x"}.items(), ("one", "two", "killed"), strict=True
):
    with np.load(f"{folder}/history0.npz") as history:
        axes.plot(np.arange(1, EPOCHS + 1), history["loss"], style, label=f"{name}: {seconds[name]:.0f} s")
axes.set(xlabel="epoch", ylabel="training loss")
_ = axes.legend()

# %% [markdown]
# ## Does the claim hold?


# %%
def weights(folder, worker=0):
    """The weights with which a worker ended, in one row."""
    with np.load(f"{folder}/weights{worker}.npz") as file:
        return np.concatenate([file[name].ravel() for name in file.files])


if QUICK:
    print("A short run: it shows the steps, not the figures.")
gap = float(np.abs(weights("two") - weights("one")).max())
alike = all(np.array_equal(weights(folder, 0), weights(folder, 1)) for folder in ("two", "killed"))
holds = {
    f"the weights of two workers are within {gap:.1e} of those of one process": gap <= 1e-9,
    "both workers end with the same bits": alike,
    f"{len(failures)} worker was killed and training went on by itself": len(failures) == 1,
    "with a worker killed, training ends with the same bits": np.array_equal(weights("killed"), weights("two")),
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")
