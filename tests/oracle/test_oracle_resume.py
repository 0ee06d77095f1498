"""A training that is broken off and resumed equals one that never was, bit for bit, for each callback in the step.

One training runs through, and gives its variables and the states of its callbacks away on its way. A second one, all of
whose objects are new and whose weights start elsewhere, is given those and runs the rest. Float32, compared with `==`:
weights, optimizer variables, logs, `series()`, and at the end the states once more.
"""

import contextlib
import copy
import functools

import keras
import numpy as np
import oracle_models as models
import pytest
import tensorflow as tf
from full_rows import full

from keras_opt.callbacks import (
    GradientAccumulation,
    GradientClipping,
    GradientMonitor,
    SharpnessAwareMinimization,
    WeightAveraging,
)
from keras_opt.compression import PolynomialSparsity, PruneLowMagnitude
from keras_opt.training import attach

EPOCHS, BROKEN_OFF_IN = 2, 1
STEP = 6  # of 11, within the epoch: two micro-batches of four wait
X, Y = models.data("batch_norm")
BATCHES = models.dataset(X, Y)


def pruning():
    return PruneLowMagnitude(PolynomialSparsity(0.1, 0.6, begin_step=3, end_step=25), every=5)


CALLBACKS = {
    "monitor": lambda: [GradientMonitor(every=2, ratios=True)],
    "clipping": lambda: [GradientClipping(global_clipnorm=2.0)],
    "clipping_percentile": lambda: [GradientClipping(percentile=40)],
    "accumulation": lambda: [GradientAccumulation({0: 1, 1: 4})],
    "sharpness": lambda: [SharpnessAwareMinimization(0.1, interval=3)],
    "ema_later": lambda: [WeightAveraging("ema", ema_momentum=0.8, start=14, every=2)],
    "ema_by_epoch": lambda: [WeightAveraging("ema", ema_momentum=0.8, start=0.4)],
    "ema_statistics": lambda: [WeightAveraging("ema", ema_momentum=0.8, reestimate_batch_norm=BATCHES)],
    "swa": lambda: [WeightAveraging("swa", start=0.5)],
    "lookahead": lambda: [WeightAveraging("lookahead", every=4)],
    "pruning": lambda: [pruning()],
    "all": lambda: [
        GradientAccumulation({0: 2, 1: 4}),
        SharpnessAwareMinimization(0.1, interval=2),
        GradientMonitor(ratios=True),
        GradientClipping(percentile=60),
        pruning(),
        WeightAveraging("ema", ema_momentum=0.7),
    ],
}
SETS = {
    "some": lambda: [
        GradientAccumulation(4),
        GradientClipping(percentile=60),
        WeightAveraging("ema", ema_momentum=0.7),
    ],
    "ended": lambda: [GradientMonitor(), GradientClipping(clipnorm=0.5), WeightAveraging("ema", ema_momentum=0.7)],
}
MODES = {  # `train_on_batch` makes one step an execution, however many are compiled
    "plain": {},
    "steps_per_execution": {"steps_per_execution": 3},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
    "loss_scale": {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))},
    "two_replicas": {},
}


# --- one training and its rest ---------------------------------------------------------------------------------------


def built(seed, mode, strategy):
    """A compiled model with random weights, all of whose variables are there."""
    keras.utils.set_random_seed(seed)
    settings = dict(MODES[mode])
    with strategy.scope() if mode == "two_replicas" else contextlib.nullcontext():
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, name="hidden", use_bias=False),
                keras.layers.BatchNormalization(momentum=0.9, name="norm", synchronized=True),
                keras.layers.Dropout(0.3, seed=seed, name="dropout"),
                keras.layers.Dense(1, name="head"),
            ],
            name="net",
        )
        optimizer = settings.pop("optimizer", lambda: keras.optimizers.Adam(0.01))()
        model.compile(optimizer, "mse", metrics=["mae"], **settings)
    model.train_on_batch(X[:4], Y[:4])
    return model


def variables(model):
    return model.variables + model.optimizer.variables + model.metrics_variables


def values(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables(model)]


class Snapshot:
    """The variables of a model and the states of its callbacks, and that they hold only what a state may."""

    def __init__(self, model, callbacks):
        self.values = values(model)
        self.states = states(callbacks)
        self.as_taken = copy.deepcopy(self.states)
        assert all(is_plain(state) for state in self.states)

    def put(self, model):
        for variable, value in zip(variables(model), self.values, strict=True):
            variable.assign(value)

    def load(self, callbacks):
        assert same(self.states, self.as_taken)  # the training that went on has not written into them
        for callback, state in zip(stateful(callbacks), self.states, strict=True):
            callback.load_state_dict(copy.deepcopy(state))


def stateful(callbacks):
    return [callback for callback in callbacks if hasattr(callback, "state_dict")]


def states(callbacks):
    return [callback.state_dict() for callback in stateful(callbacks)]


def is_plain(value):
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return type(value) in (type(None), bool, int, float, str, np.ndarray)


def same(ours, theirs):
    """Bit-equal, NaN included."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    return type(ours) is type(theirs) and (ours == theirs or (ours != ours and theirs != theirs))


class Breaking(keras.callbacks.Callback):
    """Listed first: takes a snapshot before an epoch, or a step in it, begins; or puts one back there."""

    def __init__(self, callbacks, step=None, snapshot=None):
        super().__init__()
        self.callbacks = callbacks
        self.step = step
        self.snapshot = snapshot
        self.is_resumed = snapshot is not None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if self.is_resumed:
            self.put_back()
        elif (epoch, self.step) == (BROKEN_OFF_IN, None):
            self.snapshot = Snapshot(self.model, self.callbacks)

    def on_train_batch_begin(self, batch, logs=None):
        if self.is_resumed and self.step is not None and batch == 0:
            self.put_back()
        elif not self.is_resumed and (self.epoch, batch) == (BROKEN_OFF_IN, self.step):
            self.snapshot = Snapshot(self.model, self.callbacks)

    def on_epoch_end(self, epoch, logs=None):
        self.last = Snapshot(self.model, self.callbacks)

    def put_back(self):
        self.snapshot.put(self.model)
        self.snapshot.load(self.callbacks)


class Logs(keras.callbacks.Callback):
    """Listed last: keeps what the others have added."""

    def on_epoch_end(self, epoch, logs=None):
        self.last = dict(logs)


def fit(model, callbacks, step=None, snapshot=None):
    breaking, logs = Breaking(callbacks, step, snapshot), Logs()
    model.fit(
        BATCHES if snapshot is None or step is None else BATCHES.skip(step),
        validation_data=BATCHES,
        epochs=EPOCHS,
        initial_epoch=0 if snapshot is None else BROKEN_OFF_IN,
        callbacks=[breaking, *callbacks, logs],
        verbose=0,
    )
    return breaking.snapshot, breaking.last.states, logs.last


def loop(model, callbacks, snapshot=None):
    """The same with `train_on_batch`, broken off and resumed within an epoch."""
    kept, taken = Logs(), snapshot
    batches = list(BATCHES.as_numpy_iterator())
    first = (0, 0) if snapshot is None else (BROKEN_OFF_IN, STEP)
    with attach(model, *callbacks, kept, epochs=EPOCHS) as running:
        if snapshot is not None:
            snapshot.put(model)
            snapshot.load(callbacks)
        for epoch in range(first[0], EPOCHS):
            running.on_epoch_begin(epoch)
            model.reset_metrics()
            if snapshot is not None and epoch == first[0]:
                snapshot.put(model)
                snapshot.load(callbacks)
            for step in range(first[1] if epoch == first[0] else 0, len(batches)):
                if snapshot is None and (epoch, step) == (BROKEN_OFF_IN, STEP):
                    taken = Snapshot(model, callbacks)
                running.on_train_batch_begin(step)
                logs = model.train_on_batch(*batches[step], return_dict=True)
                running.on_train_batch_end(step, logs)
            running.on_epoch_end(epoch, logs)
        final_states = states(callbacks)
    return taken, final_states, kept.last


def series(callbacks):
    return [callback.series() for callback in callbacks if isinstance(callback, GradientMonitor)]


def check(train, name, mode="plain", strategy=None):
    through, callbacks = built(1, mode, strategy), (CALLBACKS | SETS)[name]()
    snapshot, final_states, logs = train(through, callbacks)
    resumed, new_callbacks = built(2, mode, strategy), (CALLBACKS | SETS)[name]()
    _, new_final_states, new_logs = train(resumed, new_callbacks, snapshot=snapshot)
    assert same(new_final_states, final_states)
    assert same(new_logs, logs)
    assert same(values(resumed), values(through))
    assert same(series(new_callbacks), series(callbacks))


# By default each callback once; what it keeps for the end of an epoch only matters at the begin of the next.
BY_EPOCH = ("ema_later", "ema_by_epoch", "ema_statistics", "swa")


@pytest.mark.parametrize("name", [name if name in BY_EPOCH else full(name) for name in CALLBACKS])
def test_resumed_at_the_begin_of_an_epoch(name):
    check(fit, name)


@pytest.mark.parametrize("name", [full(name) if name in BY_EPOCH else name for name in CALLBACKS])
def test_resumed_within_an_epoch(name):
    check(loop, name)


@pytest.mark.full
@pytest.mark.parametrize("train", [fit, loop])
@pytest.mark.parametrize("mode", list(MODES)[1:])
def test_all_callbacks_together_in_every_mode(mode, train, two_replicas):
    check(train, "all", mode, two_replicas)


def test_two_replicas_of_which_each_has_micro_batches_of_its_own(two_replicas):
    check(functools.partial(fit, step=STEP), "some", "two_replicas", two_replicas)


def test_nothing_is_left_to_train(recwarn):
    """The training was broken off after its last update: the averages are put in place, and nobody says "no update"."""
    through, callbacks = built(1, "plain", None), SETS["ended"]()
    breaking = Breaking(callbacks)
    through.fit(BATCHES, epochs=1, callbacks=[breaking, *callbacks], verbose=0)
    resumed, new_callbacks = built(2, "plain", None), SETS["ended"]()
    with attach(resumed, *new_callbacks):
        breaking.last.put(resumed)
        breaking.last.load(new_callbacks)
    assert same(values(resumed), values(through))
    assert same(series(new_callbacks), series(callbacks))
    assert not [warning for warning in recwarn if "keras_opt" in str(warning.category)]


def test_tensorboard_gets_every_update_once(tmp_path):
    """What was written after the snapshot is cut out of the event file, and written again by the resumed training."""

    def monitor():
        return [GradientMonitor(histograms=True, log_dir=tmp_path)]

    snapshot, _, _ = fit(built(1, "plain", None), monitor())
    [whole] = tmp_path.iterdir()
    expected = events(whole)
    fit(built(2, "plain", None), monitor(), snapshot=snapshot)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert sorted(event for file in files for event in events(file)) == sorted(expected)


def events(file):
    """Tag, step and value of all that is in an event file."""
    found = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            content = (
                value.tensor.SerializeToString()
                if value.HasField("tensor")
                else np.float32(value.simple_value).tobytes()
            )
            found.append((value.tag, event.step, content))
    return found
