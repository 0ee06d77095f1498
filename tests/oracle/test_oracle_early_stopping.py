"""EarlyStopping against Keras's on 500 random sequences, the criteria against their definitions, and Keras's faults."""

import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import (
    Divergence,
    EarlyStopping,
    GeneralizationLoss,
    Plateau,
    ProgressQuotient,
    SuccessiveIncreases,
    Target,
)


class OneWeight:
    """A model of one weight, as far as either EarlyStopping asks."""

    distribute_strategy = tf.distribute.get_strategy()
    metrics = ()

    def __init__(self):
        self.stop_training = False
        self.weights = [keras.Variable(0.0)]

    def get_weights(self):
        return [self.weights[0].numpy()]

    def set_weights(self, weights):
        self.weights[0].assign(weights[0])


def drive(callback, sequence, first_epoch=0, resumed=None, monitor="loss"):
    """Feed the callback as `fit` would, the weight being the epoch; return what it decided."""
    model = OneWeight()
    callback.set_params({"epochs": len(sequence)})
    callback.set_model(model)
    callback.on_train_begin()
    if resumed is not None:
        callback.load_state_dict(resumed)
    for epoch, value in enumerate(sequence):
        if epoch < first_epoch:
            continue
        model.weights[0].assign(float(epoch))
        callback.on_epoch_end(epoch, {monitor: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return {
        "epochs": epoch + 1,
        "stopped_epoch": callback.stopped_epoch,
        "best": callback.best,
        "best_epoch": callback.best_epoch,
        "wait": callback.wait,
        "weights": float(model.weights[0].numpy()),
    }


def settings_and_sequence(rng):
    mode = str(rng.choice(["min", "max"]))
    settings = {
        "monitor": "loss",
        "mode": mode,
        "patience": int(rng.integers(0, 5)),
        "min_delta": float(rng.choice([0.0, 0.125, 0.25])),
        "baseline": [None, 0.375, 0.625][rng.integers(3)],
        "start_from_epoch": int(rng.integers(0, 4)),
        "restore_best_weights": bool(rng.integers(2)),
    }
    epochs = int(rng.integers(2, 25))
    trend = np.linspace(0, rng.normal(scale=0.5), epochs)
    # Eighths: many ties, and exact in the float32 in which Keras compares.
    return settings, (((0.5 + trend + rng.normal(scale=0.2, size=epochs)) * 8).round() / 8).tolist()


def test_500_random_sequences_are_decided_as_in_keras():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(500):
        settings, sequence = settings_and_sequence(rng)
        theirs = drive(keras.callbacks.EarlyStopping(**settings), sequence)
        assert drive(EarlyStopping(**settings), sequence) == theirs, (settings, sequence)
        stopped += theirs["stopped_epoch"] > 0
    assert 100 < stopped < 500  # both outcomes were seen


# --- the criteria against their definitions --------------------------------------------------------------------------


def noisy(rng, epochs=40):
    """A loss that falls and rises again, with noise, ties, and a few NaN and inf."""
    loss = 1 + (np.linspace(-1, rng.uniform(0, 1.5), epochs) ** 2) + rng.normal(scale=0.1, size=epochs)
    loss = np.abs(loss).round(2)
    loss[rng.random(epochs) < 0.1] = rng.choice([math.nan, math.inf])
    return loss


def forward(values):
    """Each value, or the last finite one before it; NaN before the first."""
    filled, last = [], math.nan
    for value in values:
        last = value if math.isfinite(value) else last
        filled.append(last)
    return np.array(filled)


def first(conditions):
    found = np.flatnonzero(conditions)
    return int(found[0]) if len(found) else None


def plateau_by_definition(loss, patience, min_delta, smoothing):
    finite = [t for t in range(len(loss)) if math.isfinite(loss[t])]
    average = {}
    for place, t in enumerate(finite):  # as a weighted sum over all finite values so far
        weights = smoothing ** np.arange(place, -1, -1) * np.where(np.arange(place + 1) == 0, 1, 1 - smoothing)
        average[t] = float(weights @ loss[finite[: place + 1]])
    best_at, best = -1, math.inf
    for t in range(len(loss)):
        if t in average and (best == math.inf or average[t] + min_delta * abs(best) < best):
            best_at, best = t, average[t]
        elif t - best_at >= patience and t > 0:
            return t
    return None


def gl_by_definition(loss, alpha):
    loss = np.where(np.isfinite(loss), loss, np.nan)
    with np.errstate(invalid="ignore"):
        return first(100 * (loss / np.fmin.accumulate(loss) - 1) > alpha)


def pq_by_definition(train, loss, alpha, k):
    holds = []
    for t in range(k - 1, len(loss), k):
        seen = forward(loss[: t + 1])
        strip = [value for value in train[t - k + 1 : t + 1] if math.isfinite(value)]
        if not strip or math.isnan(seen[-1]):
            continue
        rise = 100 * (seen[-1] / np.nanmin(seen) - 1)
        progress = 1000 * (sum(strip) / (len(strip) * min(strip)) - 1)
        holds.append((t, rise > alpha * progress))
    return next((t for t, held in holds if held), None)


def up_by_definition(loss, count, k):
    ends = forward(loss)[k - 1 :: k]
    rises = np.concatenate([[False], ends[1:] > ends[:-1]])
    runs = [all(rises[max(0, i - count + 1) : i + 1]) and i >= count for i in range(len(rises))]
    found = first(runs)
    return None if found is None else (found + 1) * k - 1


def stop_at(criterion, *columns, names=("val_loss",)):
    for epoch, values in enumerate(zip(*columns, strict=True)):
        if criterion.update(epoch, dict(zip(names, map(float, values), strict=True))):
            return epoch
    return None


def test_200_random_losses_are_stopped_where_the_definitions_say():
    rng = np.random.default_rng(0)
    stopped = dict.fromkeys(("plateau", "gl", "pq", "up"), 0)
    for _ in range(200):
        loss, train = noisy(rng), noisy(rng)
        patience, smoothing = int(rng.integers(1, 8)), float(rng.choice([0.0, 0.3, 0.9]))
        alpha, k, count = float(rng.uniform(0.1, 20)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
        plateau = Plateau("val_loss", patience, 0.01, relative=True, smoothing=smoothing)
        found = {
            "plateau": (stop_at(plateau, loss), plateau_by_definition(loss, patience, 0.01, smoothing)),
            "gl": (stop_at(GeneralizationLoss(alpha), loss), gl_by_definition(loss, alpha)),
            "pq": (
                stop_at(ProgressQuotient(alpha, k), loss, train, names=("val_loss", "loss")),
                pq_by_definition(train, loss, alpha, k),
            ),
            "up": (stop_at(SuccessiveIncreases(count, k), loss), up_by_definition(loss, count, k)),
        }
        for name, (ours, defined) in found.items():
            assert ours == defined, (name, loss, train, patience, smoothing, alpha, k, count)
            stopped[name] += ours is not None
    assert all(times > 30 for times in stopped.values()), stopped


# --- where Keras is at fault -----------------------------------------------------------------------------------------


def test_a_first_nan_stays_best_in_keras_and_not_here():
    sequence = [math.nan, 3.0, 2.0, 1.0, 0.5]
    settings = {"monitor": "loss", "mode": "min", "patience": 2, "restore_best_weights": True}
    theirs = drive(keras.callbacks.EarlyStopping(**settings), sequence)
    ours = drive(EarlyStopping(**settings), sequence)
    assert theirs["epochs"] < 5  # Keras stops a training that improves in every epoch
    assert math.isnan(theirs["best"])
    assert (ours["epochs"], ours["best"], ours["best_epoch"], ours["weights"]) == (5, 0.5, 4, 4)


def test_minus_infinity_is_best_for_ever_in_keras_and_not_here():
    sequence = [3.0, -math.inf, 2.0, 1.0, 0.5]
    settings = {"monitor": "loss", "mode": "min", "patience": 2, "restore_best_weights": True}
    assert drive(keras.callbacks.EarlyStopping(**settings), sequence)["weights"] == 1
    assert drive(EarlyStopping(**settings), sequence)["weights"] == 4


def test_divergence_runs_on_until_patience_in_keras_and_not_here():
    sequence = [2.0, 1.0, 50.0, math.nan] + [math.nan] * 20
    assert drive(keras.callbacks.EarlyStopping("loss", patience=10, mode="min"), sequence)["epochs"] == 12
    ours = EarlyStopping(Plateau("loss", 10) | Divergence("loss", above=10.0), restore_best_weights=True)
    assert drive(ours, sequence) == {
        "epochs": 3,
        "stopped_epoch": 2,
        "best": 1.0,
        "best_epoch": 1,
        "wait": 1,
        "weights": 1.0,
    }


def test_a_reached_baseline_does_not_stop_keras_and_a_target_stops_here():
    sequence = [2.0, 1.0, 0.4, 0.3, 0.2]
    assert drive(keras.callbacks.EarlyStopping("loss", patience=2, mode="min", baseline=0.5), sequence)["epochs"] == 5
    assert drive(EarlyStopping(Target("loss", 0.5)), sequence)["epochs"] == 3


def test_improving_without_ever_nearing_the_baseline_does_not_stop_keras_and_asking_for_enough_does_here():
    sequence = [3.0 - 0.01 * epoch for epoch in range(20)]
    settings = {"monitor": "loss", "patience": 3, "mode": "min", "baseline": 0.5}
    assert drive(keras.callbacks.EarlyStopping(**settings), sequence)["epochs"] == 20
    assert drive(EarlyStopping(**settings), sequence)["epochs"] == 20  # `baseline` keeps Keras's meaning
    assert drive(EarlyStopping(Plateau("loss", 3, min_delta=0.05, relative=True)), sequence)["epochs"] == 4


def test_one_min_delta_cannot_serve_losses_of_two_sizes_in_keras_and_a_relative_one_does_here():
    """Worth going on for three epochs, then not, whatever the unit of the loss: it should stop after epoch 7."""
    shape = np.array([1.0, 0.8, 0.6, 0.5] + [0.499 - 0.001 * epoch for epoch in range(20)])
    large, small = (1000 * shape).tolist(), (shape / 1000).tolist()
    for min_delta in 10.0 ** np.arange(-6, 4):
        theirs = [keras.callbacks.EarlyStopping("loss", min_delta, patience=3, mode="min") for _ in range(2)]
        assert [drive(stop, sizes)["epochs"] for stop, sizes in zip(theirs, (large, small), strict=True)] != [7, 7]
    for sequence in (large, small):
        assert drive(EarlyStopping(Plateau("loss", 3, min_delta=0.05, relative=True)), sequence)["epochs"] == 7


def f1(y_true, y_pred):
    """A metric function, to which Keras gives no direction."""
    return keras.ops.mean(y_pred)


def test_the_mode_of_a_metric_function_raises_in_keras_and_is_read_off_its_name_here():
    def epochs(stop):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[f1])
        return len(model.fit(np.ones((2, 1)), np.ones((2, 1)), epochs=5, verbose=0, callbacks=[stop]).epoch)

    with pytest.raises(ValueError, match="isn't able to automatically determine"):
        epochs(keras.callbacks.EarlyStopping("f1", patience=2))
    assert epochs(EarlyStopping("f1", patience=2)) == 3


class CtrlC(keras.callbacks.Callback):
    """Presses it in the third epoch; until then each epoch sets the weights to its number and its loss."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, epoch, logs=None):
        self.model.set_weights([np.full_like(weight, epoch) for weight in self.model.get_weights()])
        logs["score"] = float(epoch)


@pytest.mark.parametrize(
    ("kind", "weight"), [(keras.callbacks.EarlyStopping, 1), (EarlyStopping, 0)], ids=["Keras's", "ours"]
)
def test_the_best_weights_do_not_come_back_after_ctrl_c_in_keras_and_do_here(kind, weight):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    stop = kind("score", mode="min", patience=5, restore_best_weights=True)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(np.ones((2, 1)), np.ones((2, 1)), epochs=5, verbose=0, callbacks=[CtrlC(), stop])
    finally:
        signal.signal(signal.SIGINT, before)
    assert {float(value) for array in model.get_weights() for value in array.ravel()} == {weight}


def test_a_resumed_training_forgets_in_keras_and_remembers_here():
    """The best is at epoch 1 of a training with patience 5, which is killed after epoch 4 and resumed."""
    sequence = [1.0, 0.5] + [0.7 + 0.001 * epoch for epoch in range(2, 20)]
    settings = {"monitor": "loss", "mode": "min", "patience": 5, "restore_best_weights": True}
    whole = drive(EarlyStopping(**settings), sequence)
    assert (whole["stopped_epoch"], whole["weights"]) == (6, 1)

    theirs = keras.callbacks.EarlyStopping(**settings)
    drive(theirs, sequence[:5])
    forgot = drive(theirs, sequence, first_epoch=5)
    assert (forgot["stopped_epoch"], forgot["weights"]) == (10, 5)

    ours = EarlyStopping(**settings)
    drive(ours, sequence[:5])
    assert drive(EarlyStopping(**settings), sequence, first_epoch=5, resumed=ours.state_dict()) == whole
