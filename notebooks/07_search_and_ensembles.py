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
# # Search a recipe, then let several models agree
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/keras-opt/keras_opt/blob/main/notebooks/07_search_and_ensembles.ipynb)
#
# **Claim.** Networks are trained on 4,000 labelled images, decisions are made on 2,000 others, and accuracy is told on
# 6,000 more. A search of 16 trials that stops the unpromising ones trains at most three quarters of their epochs, and
# its best recipe is at least two points better than a usual first guess. Five networks of that recipe are at least half
# a point better together than by themselves in the mean; saved, loaded and exported as one int8 file they name the same
# class for at least 98% of the images. A soup of five fine-tunings is no worse than the one of them that validation
# would have chosen, at the cost of one. And a student with less than a tenth of the ensemble's multiplications learns
# at least half a point more from the ensemble than from the labels alone. The last cell shows whether it holds.

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
import keras
import keras_tuner
import matplotlib.pyplot as plt
import numpy as np

import keras_opt
from keras_opt.compression import cache_teacher, distill
from keras_opt.ensemble import PredictionEnsemble, diversity, greedy_soup, train_ensemble
from keras_opt.models import convnet, macs
from keras_opt.schedules import CosineDecay, OneCycle

SEED = 0  # try another

(x, y), (x_test, y_test) = keras_opt.data.load_fashion_mnist_sample()
x, x_test = x[..., None], x_test[..., None]
x_train, y_train = (x[:1000], y[:1000]) if QUICK else (x[:4000], y[:4000])
validation = x[4000:6000], y[4000:6000]
x_test, y_test = np.concatenate([x[6000:], x_test]), np.concatenate([y[6000:], y_test])

BATCH = 64
EPOCHS = 3 if QUICK else 8
STEPS = -(-len(x_train) // BATCH)  # an epoch
test_accuracy = {}


def tell(name, model):
    """Note the accuracy of a model on the test images, and print it."""
    named = model.predict(x_test, batch_size=500, verbose=0).argmax(-1)
    test_accuracy[name] = float(np.mean(named == y_test))
    print(f"{name}: test accuracy {test_accuracy[name]:.4f}, {macs(model):,} multiplications")


# %% [markdown]
# ## A search
# A function that asks for its settings is a search space. The same function, asked nothing, is a usual first guess: its
# defaults.


# %%
def build(settings):
    """A network with what `settings` gives."""
    width = settings.Int("width", 12, 24, sampling="log", default=16)
    dropout = settings.Float("dropout", 0.0, 0.4, default=0.3)
    rate = settings.Float("rate", 3e-4, 0.1, sampling="log", default=1e-3)
    decay = settings.Float("weight_decay", 1e-4, 0.1, sampling="log", default=4e-3)
    scaling = keras.layers.Rescaling(1 / 255)
    model = convnet([width, 2 * width], (28, 28, 1), 10, dropout=dropout, preprocessing=scaling)
    optimizer = keras.optimizers.AdamW(OneCycle(rate, total_steps=EPOCHS * STEPS), weight_decay=decay)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


TRIALS = 4 if QUICK else 16
oracle = keras_opt.tuning.OptunaOracle("val_accuracy", TRIALS, sampler="tpe", pruner="asha", seed=SEED)
tuner = keras_tuner.Tuner(oracle, build, directory="search", project_name="clothes")  # started again it goes on
tuner.search(
    x_train,
    y_train,
    validation_data=validation,
    epochs=EPOCHS,
    batch_size=BATCH,
    verbose=0,
    callbacks=[oracle.pruning_callback()],
)
best = tuner.get_best_hyperparameters()[0]
print(f"validation accuracy {oracle.get_best_trials()[0].score:.4f} with {best.values}")

# %% [markdown]
# The trials are an Optuna study: Optuna's own plots work on it, and `optuna-dashboard search/clothes/study.db` shows it
# live. Each line is a trial; one that is not among the best third after 2 or after 6 epochs ends there.

# %%
study = oracle.study
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for trial in study.trials:
    ax.plot(trial.intermediate_values.keys(), trial.intermediate_values.values(), ".-", alpha=0.7)
_ = ax.set(title="Validation accuracy of the trials", xlabel="epoch")

# %%
epochs = [len(trial.intermediate_values) for trial in study.trials]
figure, axes = plt.subplots(1, len(best.values), figsize=(14, 3), layout="constrained", sharey=True)
for ax, name in zip(axes, best.values, strict=True):
    points = ax.scatter(
        [trial.params[name] for trial in study.trials], [trial.value for trial in study.trials], c=epochs
    )
    ax.axvline(best[name], color="gray", linestyle="--", linewidth=1)
    ax.set(xlabel=name, xscale="log" if name in ("rate", "weight_decay") else "linear")
axes[0].set_ylabel("validation accuracy")
_ = figure.colorbar(points, label="epochs it was given")

# %% [markdown]
# ## Several networks of the best recipe
# `train_ensemble` trains them from different first weights; with a folder it goes on where it was broken off.
# `diversity` tells on images that none has seen how differently they err, and what each adds.

# %%
fit = {"epochs": EPOCHS, "batch_size": BATCH, "verbose": 0, "seed": SEED}
(first_guess,) = train_ensemble(lambda: build(keras_tuner.HyperParameters()), 1, (x_train, y_train), **fit)
members = train_ensemble(lambda: build(best), 2 if QUICK else 5, (x_train, y_train), folder="members", **fit)
errors = diversity(members, *validation)
print(errors)
_ = errors.plot()

# %% [markdown]
# Together they are one Keras model, which can be compiled, saved and exported like any other.

# %%
ensemble = PredictionEnsemble(members)
tell("first guess", first_guess)
for number, member in enumerate(members):
    tell(f"member {number}", member)
tell("ensemble", ensemble)

ensemble.save("ensemble.keras")
loaded = keras_opt.load_model("ensemble.keras")
labels = keras_opt.data.FASHION_MNIST_CLASSES
file = keras_opt.export.to_tflite(loaded, "ensemble.tflite", "int8", x_train[:200], class_names=labels)
checked = keras_opt.export.verify(loaded, file.path, x_test, y_test)
print(file, checked, sep="\n")

# %% [markdown]
# ## A soup
# An ensemble costs as much as all its members. Models that were fine-tuned from the same weights lie close to each
# other, and the mean of their *weights* is a model too: at the cost of one. Here the first member is trained further
# with augmentation, at five rates. `greedy_soup` puts in, the best first, what makes the mean no worse on validation
# images. Here it gains little over the best of the five, and they little over the member that they began with.

# %%
FINE = 1 if QUICK else 6
shifts = keras_opt.layers.RandomAffine(width_shift=0.04, height_shift=0.04, horizontal_flip=True)


def fine_tuned(rate, seed):
    """The first member, trained further."""
    keras.utils.set_random_seed(seed)
    model = build(best)
    model.set_weights(members[0].get_weights())
    batches = keras_opt.data.arrays(x_train, y_train, batch_size=BATCH, seed=seed)
    optimizer = keras.optimizers.Adam(CosineDecay(rate, FINE * STEPS))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(keras_opt.data.augment(batches, shifts, seed=seed), epochs=FINE, shuffle=False, verbose=0)
    return model


rates = [0.001, 0.004] if QUICK else [0.001, 0.002, 0.003, 0.004, 0.006]
tuned = [fine_tuned(rate, SEED + place) for place, rate in enumerate(rates)]
soup = greedy_soup(tuned, validation, reestimate_batch_norm=x_train)
print(soup.soup)
tell("best fine-tuning", tuned[int(np.argmax(soup.soup.values))])
tell("soup", soup)

# %% [markdown]
# ## A teacher
# The third way to have the ensemble's answers at the cost of one model: it teaches a small one. Its probabilities say
# more than a label, that this shirt looks much like a coat. `cache_teacher` asks it about each image once.

# %%
LESSONS = 2 if QUICK else 16


def student(teacher, seed):
    """A small network, trained on the labels, with or without a teacher."""
    keras.utils.set_random_seed(seed)
    small = convnet([6, 12], (28, 28, 1), 10, preprocessing=keras.layers.Rescaling(1 / 255))
    model = small if teacher is None else distill(small, teacher)
    data = keras_opt.data.arrays(x_train, y_train, batch_size=BATCH, seed=seed)
    if teacher is not None:
        data = cache_teacher(teacher, x_train, y_train, batch_size=BATCH, seed=seed, verbose=0)
    optimizer = keras.optimizers.Adam(OneCycle(0.01, total_steps=LESSONS * STEPS))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data, epochs=LESSONS, shuffle=False, verbose=0)
    return small


SEEDS = range(SEED, SEED + (1 if QUICK else 2))
for seed in SEEDS:
    tell(f"student alone {seed}", student(None, seed))
    tell(f"student taught {seed}", taught := student(ensemble, seed))

# %% [markdown]
# ## What each costs


# %%
def mean_of(kind):
    """The mean test accuracy of all models whose name begins so."""
    return float(np.mean([value for name, value in test_accuracy.items() if name.startswith(kind)]))


models = {"first guess": first_guess, "member": members[0], "ensemble": ensemble, "soup": soup}
models |= {"student alone": taught, "student taught": taught}
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, model in models.items():
    ax.plot(macs(model), mean_of(name), "o", color="tab:blue")
    ax.annotate(
        name, (macs(model), mean_of(name)), xytext=(6, -12 if name == "member" else 4), textcoords="offset points"
    )
ax.set(xscale="log", xlabel="multiplications of one answer", ylabel="test accuracy")
ax.margins(x=0.2, y=0.15)
_ = ax.grid(alpha=0.25)

# %% [markdown]
# ## Does the claim hold?

# %%
if QUICK:
    print("A short run: it shows the steps, not the figures.")
trained = sum(len(trial.intermediate_values) for trial in oracle.study.trials) / (TRIALS * EPOCHS)
single, guess = mean_of("member"), mean_of("first guess")
together, same = mean_of("ensemble"), checked.argmax_agreement
tuning, mixed = mean_of("best fine-tuning"), mean_of("soup")
alone, told, share = mean_of("student alone"), mean_of("student taught"), macs(taught) / macs(ensemble)
holds = {
    f"{trained:.0%} of the epochs of {TRIALS} trials, {single:.4f} with the recipe found, {guess:.4f} before": (
        trained <= 3 / 4 and single >= guess + 0.02
    ),
    f"the ensemble has {together:.4f}, its members {single:.4f} in the mean": together >= single + 0.005,
    f"its int8 file names the same class for {same:.2%} of the images": same >= 0.98,
    f"the soup has {mixed:.4f}, the best fine-tuning {tuning:.4f}": mixed >= tuning,
    f"at {share:.1%} of the multiplications {told:.4f} from the ensemble, {alone:.4f} alone": (
        share < 0.1 and told >= alone + 0.005
    ),
}
for sentence, true in holds.items():
    print(f"{'holds' if true else 'does not hold'}: {sentence}")
