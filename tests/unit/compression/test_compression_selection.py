"""Which kernels PruneLowMagnitude, `compress` and the main job leave dense, and that none stays so unsaid."""

import copy
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_opt.callbacks import GradualUnfreezing
from keras_opt.compression import ConstantSparsity, PolynomialSparsity, PruneLowMagnitude, sparsity
from keras_opt.compression.pruning.selection import depthwise_layers
from keras_opt.recipes import Recipe, training
from keras_opt.recipes.images import Images, Prepared
from keras_opt.recipes.training import Trainer

X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")


def separable(*others):
    """A depthwise convolution of 18 weights, in a nested model, and what else is given."""
    nested = keras.Sequential([keras.Input((6, 6, 2)), layers.DepthwiseConv2D(3, name="depth")], name="nested")
    return keras.Sequential([keras.Input((6, 6, 2)), nested, *others])


def two_layers():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(8, name="body"), layers.Dense(1, name="head")], name="net"
    )
    model.compile("sgd", "mse")
    return model


def fit(model, *callbacks, **settings):
    """Six updates an epoch."""
    model.fit(X, np.ones((24, 1)), batch_size=4, verbose=0, callbacks=list(callbacks), **settings)


def test_depthwise_convolutions_are_left_out_where_something_else_can_be_pruned():
    assert depthwise_layers(separable(layers.Conv2D(4, 1))) == ["nested/depth"]
    assert depthwise_layers(separable(layers.Flatten())) == []
    frozen = separable(layers.Conv2D(4, 1, trainable=False))
    assert depthwise_layers(frozen) == []
    assert depthwise_layers(two_layers()) == []


def test_the_main_job_prunes_no_depthwise_kernel_and_says_how_many_zeros_there_are(monkeypatch, tmp_path):
    def fitted(trainer, model, *arguments):
        (prune, _) = arguments[-1]
        model.fit(np.zeros((4, 6, 6, 2)), np.eye(2)[[0, 1, 0, 1]], epochs=9, batch_size=2, verbose=0, callbacks=[prune])
        return {}

    rest = (layers.Conv2D(9, 1), layers.GlobalMaxPooling2D(), layers.Dense(2, activation="softmax"))
    monkeypatch.setattr(training, "build", lambda *_, **__: separable(*map(copy.deepcopy, rest)))
    monkeypatch.setattr(training, "shipped", lambda model, *_: model)
    monkeypatch.setattr(Trainer, "_fit", fitted)
    images = Images(np.zeros((4, 6, 6, 2), np.uint8), np.array([0, 1, 0, 1]))
    recipe = Recipe(out=tmp_path, sparsity=0.5, pruning_epochs=9, batch_size=2, max_learning_rate=1e-3)
    trainer = Trainer(recipe, Prepared(images, images, lambda: None, ("a", "b"), (), "noise"), None)
    model, facts = trainer.pruned(training.build())
    assert sparsity(model)["nested/depth"] == 0
    assert sparsity(model)["total"] == (9 + 9) / (18 + 18 + 18)
    assert facts["decision"].endswith("after pruning to 33%")


def test_layers_that_come_late_are_pruned_or_the_order_is_refused():
    unfreezing = GradualUnfreezing({0: "head", 1: "body"}), PruneLowMagnitude(ConstantSparsity(0.5), every=2)
    with pytest.raises(ValueError, match=r"List them as callbacks=\[PruneLowMagnitude, GradualUnfreezing\]"):
        fit(two_layers(), *unfreezing)
    model = two_layers()
    fit(model, *reversed(unfreezing), epochs=2)
    assert set(sparsity(model).values()) == {0.5}


@pytest.mark.parametrize(
    ("schedule", "reached"),
    [(PolynomialSparsity(0.0, 0.5, 0, 12, power=1), "0.25"), (ConstantSparsity(0.5, begin_step=7), "0")],
    ids=["polynomial", "constant"],
)
def test_a_fit_that_is_shorter_than_the_schedule_says_so(schedule, reached):
    prune = PruneLowMagnitude(schedule, every=1)
    with pytest.warns(
        UserWarning, match=rf"ended after 6 updates with a sparsity of {reached}; .* ends later, with 0.5"
    ):
        fit(two_layers(), prune)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(two_layers(), prune, epochs=2)
