"""Every callback can be copied before and after a fit, and used again and again, as scikit-learn's tools do."""

import copy
import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from public_names import BATCH_SIZE, InFit, X, Y, fit, made, rows
from sklearn.model_selection import cross_val_score

import keras_opt
from keras_opt import callbacks, compression

CALLBACKS = {name: row for name, row in rows(InFit).items() if issubclass(row.make, keras.callbacks.Callback)}

every_callback = pytest.mark.parametrize("name", CALLBACKS)


class Unregistered(keras.Model):
    """Keras cannot save it and load it again, hence not copy it; so it cannot copy its own callbacks beside it."""


def unregistered():
    inputs = keras.Input((5,))
    body = keras.layers.Dense(8, activation="tanh", name="body")(inputs)
    return Unregistered(inputs, keras.layers.Dense(2)(body))


class Copies(keras.callbacks.Callback):
    """Copies a callback in the middle of every epoch."""

    def __init__(self, used):
        super().__init__()
        self.used, self.made = used, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 5:
            self.made.append(copy.deepcopy(self.used))


@functools.cache
def fit_with_copies(name):
    """A fit with a copy of what a row describes, and the copies that were made of that in the fit."""
    row = CALLBACKS[name]
    used = copy.deepcopy(made(row))
    copies = Copies(used)
    with_copies = InFit(row.make, row.arguments, row.effect, lambda used: [*row.use(used), copies])
    return fit(with_copies, used, unregistered()), copies.made


@every_callback
def test_a_copy_made_before_a_fit_has_its_effect_and_copies_made_in_the_middle_leave_that_as_it_is(name):
    assert CALLBACKS[name].effect(fit_with_copies(name)[0])


@every_callback
def test_a_copy_made_in_the_middle_of_a_fit_has_its_effect(name):
    row = CALLBACKS[name]
    assert row.effect(fit(row, fit_with_copies(name)[1][-1]))


@every_callback
def test_a_copy_made_after_a_fit_has_its_effect_and_shares_nothing_but_the_model(name):
    row, fitted = CALLBACKS[name], fit_with_copies(name)[0]
    copied = copy.deepcopy(fitted.used)
    assert copied.model is fitted.model
    assert copied is not fitted.used
    assert row.effect(fit(row, copied))
    assert fitted.used.model is fitted.model


def test_keras_cannot_copy_its_own_beside_such_a_model():
    stop = keras.callbacks.EarlyStopping("loss")
    fit(InFit(lambda: stop, {}, lambda fitted: True), stop, unregistered())
    with pytest.raises(TypeError, match="Could not locate class 'Unregistered'"):
        copy.deepcopy(stop)


def test_the_results_are_copied_and_are_the_copys_own():
    monitor = callbacks.GradientMonitor()
    fit(CALLBACKS["callbacks.GradientMonitor"], monitor)
    copied = copy.deepcopy(monitor)
    np.testing.assert_array_equal(copied.series()["grad_norm"], monitor.series()["grad_norm"])
    fit(CALLBACKS["callbacks.GradientMonitor"], copied)
    fit(CALLBACKS["callbacks.GradientMonitor"], copied)
    assert len(monitor.series()["step"]) == 33


def test_a_dataset_is_taken_along():
    averaging = callbacks.WeightAveraging(reestimate_batch_norm=tf.data.Dataset.from_tensor_slices(X).batch(BATCH_SIZE))
    assert len(list(copy.deepcopy(averaging).reestimate_batch_norm)) == 11


# --- scikit-learn ----------------------------------------------------------------------------------------------------


def all_callbacks(folder):
    """Every callback that can be in one list with the others, in an order that none of them refuses."""
    return [
        callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=True),
        callbacks.GradientAccumulation(2),
        callbacks.ScheduleLearningRate(keras_opt.schedules.StepDecay(0.1, 2, 0.5)),
        callbacks.SharpnessAwareMinimization(),
        callbacks.GradientClipping(global_clipnorm=1.0),
        callbacks.GradientMonitor(),
        callbacks.LearningRateMonitor(),
        callbacks.SparseGradientFix(),
        compression.PruneLowMagnitude(compression.ConstantSparsity(0.5), include=["body"]),
        callbacks.WeightAveraging(ema_momentum=0.5),
        callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True),
        callbacks.ReduceLROnPlateau("loss", patience=2),
        callbacks.ModelCheckpoint(folder / "best.weights.h5", monitor="loss", save_weights_only=True),
        callbacks.ProgressBar(),
    ]


def classifier(X, y):
    model = keras.Sequential(
        [keras.Input((X.shape[1],)), keras.layers.Dense(8, activation="tanh", name="body"), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


class CountsEpochs(keras.callbacks.Callback):
    """How many epochs were run; no state to be resumed."""

    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """There is none."""


FIT = {"epochs": 3, "batch_size": BATCH_SIZE, "verbose": 0}
LABELS = np.where(X[:, 0] > 0, "high", "low")


@pytest.mark.filterwarnings("ignore::keras_opt.core.errors.NoEffectWarning")
def test_cross_validation_with_all_callbacks_at_once(tmp_path):
    """One list of callbacks serves all folds: every fold is a fit of a fresh model."""
    used, counter = all_callbacks(tmp_path), CountsEpochs()
    wrapped = keras.wrappers.SKLearnClassifier(classifier)
    scores = cross_val_score(
        wrapped, X, LABELS, cv=3, params={**FIT, "callbacks": [*used, counter]}, error_score="raise"
    )
    assert counter.epochs == 3 * FIT["epochs"]
    assert np.all(scores >= 0)
    assert len(used[5].series()["step"]) > 0


def test_cross_validation_with_a_callback_by_itself(request):
    """One of them by default, each of them in turn with `--full`."""
    for row in list(CALLBACKS.values())[: None if request.config.getoption("full") else 1]:
        used, counter = row.use(made(row)), CountsEpochs()
        wrapped = keras.wrappers.SKLearnClassifier(classifier)
        cross_val_score(wrapped, X, LABELS, cv=2, params={**FIT, "callbacks": [*used, counter]}, error_score="raise")
        assert counter.epochs > 0


def test_what_keras_does_with_fit_kwargs():
    """scikit-learn clones the wrapper for each fold, and Keras's clone forgets `fit_kwargs`: no callback is called.

    If this fails, Keras has mended it; then say in the docs that `fit_kwargs` does as well as `params`.
    """
    counter = CountsEpochs()
    wrapped = keras.wrappers.SKLearnClassifier(classifier, fit_kwargs={**FIT, "callbacks": [counter]})
    cross_val_score(wrapped, X, LABELS, cv=2)
    assert counter.epochs == 0
    wrapped.fit(X, LABELS)
    assert counter.epochs == FIT["epochs"]


def test_every_public_callback_is_here(tmp_path):
    rooms = (callbacks, compression)
    public = {
        value
        for room in rooms
        for value in vars(room).values()
        if inspect.isclass(value) and issubclass(value, keras.callbacks.Callback)
    }
    assert public - {type(each) for each in all_callbacks(tmp_path)} <= {callbacks.GradualUnfreezing}
    assert Y.shape == (44, 2)
