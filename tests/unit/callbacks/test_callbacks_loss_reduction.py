"""Which losses add up from micro-batches: measured for every loss of Keras, and refused where they do not."""

import functools
import inspect

import keras
import numpy as np
import pytest

from keras_opt.callbacks import GradientAccumulation
from keras_opt.callbacks.loss_reduction import common_reduction

losses = keras.losses
SAMPLES, CLASSES = 8, 5


def compiled(loss, outputs=1):
    inputs = keras.Input((CLASSES,))
    made = [keras.layers.Dense(CLASSES, activation="softmax", name=f"output_{i}")(inputs) for i in range(outputs)]
    model = keras.Model(inputs, made if outputs > 1 else made[0])
    model.compile("sgd", loss)
    return model


def is_refused(loss):
    model = compiled(loss)
    try:
        common_reduction(model)
    except ValueError as error:
        return "do not make up that of their batch" in str(error)
    return False


# --- every loss that Keras has ---------------------------------------------------------------------------------------

ARGUMENTS = {"CategoricalGeneralizedCrossEntropy": {"q": 0.5}}
SPECIAL = {
    "Dice by sample": lambda: losses.Dice(axis=(1,)),
    "Tversky by sample": lambda: losses.Tversky(axis=[1]),
    "Dice over samples": lambda: losses.Dice(axis=(0, 1)),
    "Dice by class": lambda: losses.Dice(axis=0),
    "ignore_class": lambda: losses.SparseCategoricalCrossentropy(ignore_class=0),
    "ignore_class, mean": lambda: losses.SparseCategoricalCrossentropy(ignore_class=-1, reduction="mean"),
    "focal": lambda: losses.CategoricalFocalCrossentropy(alpha=0.3, label_smoothing=0.1),
}


def losses_of_keras():
    for name, kind in inspect.getmembers(losses, inspect.isclass):
        if issubclass(kind, losses.Loss) and kind is not losses.Loss and name.lower() == kind.__name__.lower():
            yield name, functools.partial(kind, **ARGUMENTS.get(name, {}))
    yield from SPECIAL.items()


def adds_up(loss):
    """Whether the loss of a batch is the mean of those of its two halves, whatever the labels."""
    random = np.random.default_rng(0)
    sparse = "Sparse" in type(loss).__name__ or type(loss).__name__ in ("Circle", "CategoricalGeneralizedCrossEntropy")
    deviations = []
    for _ in range(4):
        scores = random.uniform(0.1, 1, (SAMPLES, CLASSES))
        scores /= scores.sum(axis=1, keepdims=True)
        classes = random.integers(0, CLASSES, SAMPLES)
        if "ignore_class" in vars(loss) and loss.ignore_class == -1:
            classes[:3] = -1
        labels = classes if sparse else np.eye(CLASSES)[classes]
        if isinstance(loss, losses.Dice | losses.Tversky):  # masks, some of them all but empty; of classes they add up
            labels = random.uniform(size=scores.shape) < random.uniform(size=(SAMPLES, 1))
            scores = random.uniform(size=scores.shape) * random.uniform(size=(SAMPLES, 1))
        halves = [float(loss(labels[part], scores[part])) for part in (slice(0, 4), slice(4, 8))]
        deviations.append(abs(float(loss(labels, scores)) / np.mean(halves) - 1))
    return max(deviations) < 1e-5


def adds_up_ctc(loss):
    scores = np.random.default_rng(0).normal(size=(SAMPLES, 6, CLASSES)).astype("float32")
    labels = np.random.default_rng(1).integers(1, CLASSES, (SAMPLES, 2))
    halves = [float(loss(labels[part], scores[part])) for part in (slice(0, 4), slice(4, 8))]
    return abs(float(loss(labels, scores)) / np.mean(halves) - 1) < 1e-5


@pytest.mark.parametrize(("name", "make"), losses_of_keras())
def test_refused_are_exactly_those_losses_of_keras_that_do_not_add_up(name, make):
    loss = make()
    measure = adds_up_ctc if name == "CTC" else adds_up
    assert bool(measure(loss)) != is_refused(loss)


def test_every_loss_of_keras_is_measured():
    assert len(dict(losses_of_keras())) >= 22 + len(SPECIAL)


# --- in every form that compile takes --------------------------------------------------------------------------------


class DiceOfOnesOwn(losses.Dice):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "loss",
    [
        "dice",
        "Dice",
        "circle",
        "tversky",
        losses.dice,
        losses.Dice,
        losses.Dice(reduction="sum"),
        functools.partial(losses.tversky, alpha=0.3),
        functools.partial(losses.sparse_categorical_crossentropy, ignore_class=255),
        losses.SparseCategoricalCrossentropy(ignore_class=255, reduction="mean_with_sample_weight"),
    ],
)
def test_refused(loss):
    assert is_refused(loss)


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "crossentropy",
        "CE",
        functools.partial(losses.dice, axis=(1,)),
        losses.Dice(axis=-1),
        DiceOfOnesOwn(),
        losses.SparseCategoricalCrossentropy(ignore_class=255, reduction="sum"),
        lambda y_true, y_pred: keras.ops.mean(y_pred),
    ],
)
def test_taken(loss):
    assert not is_refused(loss)


@pytest.mark.parametrize(
    "loss",
    [
        ["mse", "dice"],
        [None, losses.Circle()],
        ("mse", "tversky"),
        {"output_0": "mse", "output_1": losses.SparseCategoricalCrossentropy(ignore_class=0)},
    ],
)
def test_refused_among_the_losses_of_several_outputs(loss):
    with pytest.raises(ValueError, match="do not make up that of their batch"):
        common_reduction(compiled(loss, outputs=2))


def test_the_error_names_the_loss_and_the_cure():
    with pytest.raises(
        ValueError, match=r"the loss 'dice' takes its sums.*Compile keras\.losses\.Dice\(axis=\(1, 2, 3\)"
    ):
        common_reduction(compiled("dice"))
    ignoring = losses.SparseCategoricalCrossentropy(ignore_class=255, name="pixels")
    with pytest.raises(ValueError, match=r"the loss 'pixels' .*ignore_class=255.*reduction=\"sum\""):
        common_reduction(compiled(ignoring))


def test_a_refused_loss_leaves_nothing_behind():
    model = compiled(losses.Circle())
    with pytest.raises(ValueError, match="compares the samples of a batch with one another"):
        model.fit(np.ones((8, CLASSES)), np.ones(8), verbose=0, callbacks=[GradientAccumulation(2)])
    assert "train_step" not in vars(model)
    assert int(model.optimizer.iterations) == 0
