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
# # At the right rate, to the right epoch, through a crash
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/03_stop_schedule_resume.ipynb)
#
# **Claim.** One small network, 9,000 Fashion-MNIST images, 30 epochs. With one cycle that peaks at the rate which a
# test of 100 updates suggests, SGD ends with a lower validation loss than with that rate held constant. Stopping
# criteria end an Adam training at the very epoch that their replay over a finished history predicts; a quarter of the
# epochs is saved, and the best validation loss of all 30 is kept. And that training, killed twice with `kill -9` and
# started again, ends with the same history, weights and optimizer state as one that was never killed, bit for bit. The
# last cell shows whether it holds, and what Keras's own `BackupAndRestore` makes of the same kills.

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
import json
import tempfile
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import keras_opt
from keras_opt.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    Plateau,
    Target,
    TimeBudget,
    find_learning_rate,
    suggest_patience,
)

SEED = 0  # try another
EPOCHS = 4 if QUICK else 30
tf.config.experimental.enable_op_determinism()  # the same bits in every run, on a GPU too

x, y = keras_opt.data.load_fashion_mnist_sample("train")
validation = keras_opt.data.arrays(x[:1000], y[:1000], batch_size=500, shuffle=False)


def batches():
    """The training images in a new, seeded order every epoch: the same for everyone who asks."""
    return keras_opt.data.arrays(x[1000:], y[1000:], batch_size=128, seed=SEED)


def network(optimizer):
    keras.utils.set_random_seed(SEED)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    for name in ("hidden_1", "hidden_2"):
        layers += [keras.layers.Dense(128, name=name), keras.layers.BatchNormalization(name=f"norm_{name[-1]}")]
        layers += [keras.layers.ReLU(), keras.layers.Dropout(0.25)]
    model = keras.Sequential(
        [keras.Input((28, 28)), *layers, keras.layers.Dense(10, "softmax", name="output")], name="net"
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


# %% [markdown]
# ## Which rate?
# A range test trains for a moment with rates that rise from tiny to huge, watches the loss, and puts everything back as
# it was. The suggestion is where most of the fall is done, before the rate is too high.

# %%
SGD, RMSprop, Adam = keras.optimizers.SGD, keras.optimizers.RMSprop, keras.optimizers.Adam
figure, axes = plt.subplots(1, 3, figsize=(15, 3.5), layout="constrained")
rates = {}
for ax, optimizer in zip(axes, [SGD, RMSprop, Adam], strict=True):
    found = find_learning_rate(network(optimizer()), batches())
    rates[optimizer] = found.suggestion
    found.plot(ax).set_title(f"{optimizer.__name__}: {found.suggestion:.2g}")

# %% [markdown]
# ## Which schedule?
# Two for SGD, made from what was found. Any schedule draws itself.

# %%
UPDATES = EPOCHS * len(batches())
one_cycle = keras_opt.schedules.OneCycle(rates[SGD], total_steps=UPDATES)
step_decay = keras_opt.schedules.StepDecay(rates[SGD], decay_steps=UPDATES // 3, decay_rate=0.1)
_ = step_decay.plot(steps=UPDATES, ax=one_cycle.plot())

# %% [markdown]
# ## Five trainings
# The same network from the same weights on the same batches, to the last epoch.

# %%
optimizers = {
    "SGD": SGD(rates[SGD]),
    "SGD + StepDecay": SGD(step_decay),
    "SGD + OneCycle": SGD(one_cycle),
    "RMSprop": RMSprop(rates[RMSprop]),
    "Adam": Adam(rates[Adam]),
}
histories, monitors, seconds_per_epoch = {}, {}, {}
for name, optimizer in optimizers.items():
    monitors[name] = LearningRateMonitor(effective=not name.startswith("SGD"))
    began = time.monotonic()
    histories[name] = network(optimizer).fit(
        batches(),
        validation_data=validation,
        epochs=EPOCHS,
        callbacks=[monitors[name]],
        shuffle=False,
        verbose=0,
    )
    seconds_per_epoch[name] = (time.monotonic() - began) / EPOCHS

figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4), layout="constrained")
for name, history in histories.items():
    left.plot(range(1, EPOCHS + 1), history.history["val_loss"], label=name)
    right.plot(range(1, EPOCHS + 1), history.history["val_accuracy"], label=name)
left.set(title="Validation loss", xlabel="epoch", ylim=(0.35, 0.8))
right.set(title="Validation accuracy", xlabel="epoch")
_ = left.legend()

# %% [markdown]
# Where the rate falls the curves come to rest, and where it stays they do not.
#
# RMSprop and Adam divide the rate by the size of recent gradients. `effective=True` reads what is left to multiply the
# gradients with; for SGD that is the rate itself.

# %%
figure, axes = plt.subplots(1, 2, figsize=(14, 4), layout="constrained")
for ax, name in zip(axes, ["RMSprop", "Adam"], strict=True):
    monitors[name].plot(ax).set_title(name)

# %% [markdown]
# Hundreds of times the rate that was given, several times more in one layer than in another. And Adam's dense layers
# learn faster and faster: the better they fit, the smaller their gradients are.
#
# ## When to stop?
# Criteria are combined with `&` and `|`. A finished history tells where they would have stopped, before any training
# depends on them.


# %%
def criteria():
    stale = Plateau("val_loss", patience=5) & Plateau("val_accuracy", patience=5)
    return stale | Target("val_accuracy", 0.99) | TimeBudget(max_seconds=3600)


replays = {}
for name, history in histories.items():
    replays[name] = EarlyStopping(criteria()).replay(history, seconds_per_epoch=seconds_per_epoch[name])
    reached, possible = replays[name].best, min(history.history["val_loss"])
    print(f"{name}: {replays[name].reason or 'runs to its end'}")
    print(f"    best validation loss {reached:.4f}, that of all {EPOCHS} epochs {possible:.4f}")

# %% [markdown]
# RMSprop and Adam have their best epoch behind them when the criteria hold. SGD at a constant rate jumps so much that a
# later epoch may be better by luck. And a cycle can look stuck in its middle, where the rate is highest: let it run to
# its end, where its best epochs are.
#
# Was a patience of 5 a good choice for Adam?

# %%
print(suggest_patience(histories["Adam"], "val_loss"))

# %% [markdown]
# ## Killed and started again
# The Adam training once more, now as a script that stops by the criteria. It knows nothing of being killed: all that
# it has is one more callback.

# %%
SCRIPT = """
import json
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_opt
from keras_opt.callbacks import EarlyStopping, Plateau, Target, TimeBudget

folder, owner, seed, epochs, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
tf.config.experimental.enable_op_determinism()
keras.utils.set_random_seed(seed)
layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
for number in range(2):
    layers += [keras.layers.Dense(128), keras.layers.BatchNormalization()]
    layers += [keras.layers.ReLU(), keras.layers.Dropout(0.25)]
model = keras.Sequential([keras.Input((28, 28)), *layers, keras.layers.Dense(10, "softmax")])
model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])

x, y = keras_opt.data.load_fashion_mnist_sample("train")
stale = Plateau("val_loss", patience=5) & Plateau("val_accuracy", patience=5)
stop = EarlyStopping(stale | Target("val_accuracy", 0.99) | TimeBudget(3600), verbose=1, restore_best_weights=True)
if owner == "keras_opt":
    backup = keras_opt.callbacks.BackupAndRestore(folder + "/backup", save_freq=25)  # these epochs are short
else:
    backup = keras.callbacks.BackupAndRestore(folder + "/backup")
history = model.fit(
    keras_opt.data.arrays(x[1000:], y[1000:], batch_size=128, seed=seed),
    validation_data=keras_opt.data.arrays(x[:1000], y[:1000], batch_size=500, shuffle=False),
    epochs=epochs,
    callbacks=[stop, backup],
    shuffle=False,
    verbose=2,
)
variables = {f"{n} {v.path}": v.numpy() for n, v in enumerate([*model.variables, *model.optimizer.variables])}
np.savez(folder + "/end.npz", epochs=history.epoch, history=json.dumps(history.history), **variables)
"""
Path("train.py").write_text(SCRIPT)
KILLS = [2] if QUICK else [5, 11]


def start_script(folder, owner, kill_in_epoch=None):
    """Run the script; `kill -9` it half way through an epoch. Print how it went, and return the return code."""
    arguments = [folder, owner, str(SEED), str(EPOCHS), repr(rates[Adam])]
    command = [sys.executable, "-u", "train.py", *arguments]
    began = time.monotonic()
    with (
        open("errors.txt", "w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as job,
    ):
        for line in job.stdout:
            if line.startswith(("Resumed", "Stopped")):
                print("   ", line.strip().split(", from")[0])
            if line.startswith(f"Epoch {kill_in_epoch}/"):
                time.sleep((time.monotonic() - began) / 2)
                job.kill()
            if line.startswith("Epoch "):
                began = time.monotonic()
    why = {0: "ran to its end", -9: f"killed in epoch {kill_in_epoch}"}.get(job.returncode)
    print(f"    return code {job.returncode}: {why or Path('errors.txt').read_text().splitlines()[-1]}")
    return job.returncode


def run(owner, kills):
    """What a training that is killed in these epochs saves at its end, if it comes to one, and the return codes."""
    print(f"BackupAndRestore of {owner}, to be killed in epochs: {kills or 'none'}")
    with tempfile.TemporaryDirectory() as folder:
        codes = [start_script(folder, owner, epoch) for epoch in [*kills, None]]
        end = Path(folder, "end.npz")
        return (dict(np.load(end)) if end.exists() else {}), codes


whole, _ = run("keras_opt", [])
resumed, codes = run("keras_opt", KILLS)
keras_resumed, _ = run("keras", KILLS)

# %% [markdown]
# A return code of -9 says that the process died of signal 9, which no process can catch or prepare for. (Keras writes
# each backup over the last one. Should the kill fall into that moment, its training cannot be started again.)

# %%
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for end, style, label in [
    (whole, {"linewidth": 6, "alpha": 0.3}, "never killed"),
    (resumed, {"marker": "."}, "killed, keras_opt's BackupAndRestore"),
    (keras_resumed, {"marker": "."}, "killed, Keras's BackupAndRestore"),
]:
    if end:
        ax.plot(end["epochs"] + 1, json.loads(str(end["history"]))["val_loss"], label=label, **style)
for epoch in KILLS:
    ax.axvline(epoch, color="black", linestyle="--", linewidth=1)
ax.set(title="Validation loss; dashed: kill -9", xlabel="epoch")
_ = ax.legend()

# %% [markdown]
# ## Does the claim hold?


# %%
def equal(end):
    """How many of the arrays at the end are those of the training that was never killed, bit for bit."""
    return sum(np.array_equal(end.get(name), values) for name, values in whole.items())


if QUICK:
    print("A short run: it shows the steps, not the figures.")
cycle, constant = (histories[name].history["val_loss"][-1] for name in ("SGD + OneCycle", "SGD"))
predicted = EPOCHS if replays["Adam"].epoch is None else replays["Adam"].epoch + 1
stopped, kept, possible = len(whole["epochs"]), replays["Adam"].best, min(histories["Adam"].history["val_loss"])
holds = {
    f"last validation loss {cycle:.3f} with one cycle, {constant:.3f} at a constant rate": cycle < constant,
    f"stopped after epoch {stopped}, predicted {predicted}, of {EPOCHS}": stopped == predicted <= EPOCHS * 3 / 4,
    f"best validation loss up to there {kept:.4f}, of all epochs {possible:.4f}": kept == possible,
    f"return codes {codes}, and {equal(resumed)} of {len(whole)} arrays are equal": (
        codes == [-9] * len(KILLS) + [0] and equal(resumed) == len(whole)
    ),
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")
if keras_resumed:
    print(f"with Keras's own BackupAndRestore {equal(keras_resumed)} of {len(whole)} arrays are equal,", end=" ")
    print(f"and the history has {len(keras_resumed['epochs'])} epochs instead of {stopped}")
else:
    print("with Keras's own BackupAndRestore it never ends: the last start could not read the backup")
