"""`GradientClipping`: arguments, conflicts, logs, and what is left alone."""

import contextlib
import math
import re

import keras
import numpy as np
import oracle_models as models
import pytest

from keras_opt.callbacks import GradientClipping, GradientMonitor
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.training import StepHooks, attach


def compiled(kind="sequential", optimizer="sgd", **settings):
    model = models.build(kind)
    model.compile(optimizer, "mse", **settings)
    return model


def fit(model, callbacks, kind="sequential", **settings):
    x, y = models.data(kind)
    return model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks, **settings)


def is_untouched(model):
    return "train_step" not in vars(model) and "apply" not in vars(model.optimizer)


@pytest.mark.parametrize("rule", ["clipvalue", "clipnorm", "global_clipnorm", "adaptive", "percentile"])
@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf, "1", True])
def test_a_limit_is_a_finite_number_above_zero(rule, limit):
    with pytest.raises(InputError, match=re.escape(f"GradientClipping: argument `{rule}` must be a finite number")):
        GradientClipping(**{rule: limit})


@pytest.mark.parametrize("percentile", [100, 250.0])
def test_a_percentile_is_below_100(percentile):
    with pytest.raises(InputError, match=r"`percentile` must be above 0 and below 100\. Received: percentile="):
        GradientClipping(percentile=percentile)


def test_exactly_one_rule():
    with pytest.raises(InputError, match=r"no rule was given\. Give one of clipvalue, clipnorm, global_clipnorm"):
        GradientClipping()
    with pytest.raises(InputError, match=r"`clipnorm` must be left out beside clipvalue=1\.0\. Received: clipnorm=2"):
        GradientClipping(clipvalue=1.0, clipnorm=2)


def test_exclude_is_a_list_beside_adaptive():
    with pytest.raises(InputError, match="`exclude` must be left out without `adaptive`"):
        GradientClipping(clipnorm=1.0, exclude=["head"])
    with pytest.raises(InputError, match=re.escape("Give ['head'].")):
        GradientClipping(adaptive=0.01, exclude="head")


@pytest.mark.parametrize("argument", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_compile_must_not_clip_too(argument):
    inner = keras.optimizers.SGD(name="inner", **{argument: 2.0})
    by_layer = keras.optimizers.OptimizerMap(keras.optimizers.SGD(), {"hidden/.*": inner})
    for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner), keras.optimizers.MultiOptimizer(by_layer)):
        model = compiled(optimizer=optimizer)
        with pytest.raises(InputError, match=f"optimizer 'inner'.* clips already, with {argument}=2.0. Leave"):
            fit(model, [GradientClipping(clipnorm=1.0)])
        assert is_untouched(model)


def test_an_inner_optimizer_that_shows_up_in_the_first_step_must_not_clip_too():
    clips, plain = keras.optimizers.SGD(name="inner", clipnorm=2.0), keras.optimizers.SGD()
    choose = keras.optimizers.MultiOptimizer(lambda variable: clips if "head" in variable.path else plain)
    model = compiled(optimizer=choose)
    with pytest.raises(InputError, match=r"optimizer 'inner'.* clips already"):
        fit(model, [GradientClipping(clipnorm=1.0)])
    assert is_untouched(model)


def test_two_of_them_in_one_fit_are_refused_and_leave_nothing_behind():
    model = compiled()
    with pytest.raises(RuntimeError, match="GradientClipping: two of them would act on this model"):
        fit(model, [GradientClipping(clipnorm=1.0), GradientClipping(clipvalue=2.0)])
    assert is_untouched(model)


def test_the_clipped_fraction_is_that_of_each_epoch():
    model, clipping = compiled(optimizer=keras.optimizers.SGD(0.0)), GradientClipping(global_clipnorm=1.2)
    history = fit(model, [clipping], epochs=2).history["clipped_fraction"]
    assert history[0] == history[1]
    assert 0 < history[0] < 1
    assert all(type(value) is float for value in history)
    assert is_untouched(model)


def test_a_limit_that_never_binds_is_no_fault():
    clipped, plain = compiled(), compiled()
    history = fit(clipped, [GradientClipping(global_clipnorm=1e9)])
    fit(plain, [])
    assert history.history["clipped_fraction"] == [0.0]
    for ours, theirs in zip(clipped.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_it_can_be_used_again_and_begun_twice():
    model, clipping = compiled(), GradientClipping(percentile=50)
    first = fit(model, [clipping]).history["clipped_fraction"]
    clipping.on_train_begin()
    second = fit(model, [clipping]).history["clipped_fraction"]
    assert 0 < first[0] < 1
    assert 0 < second[0] < 1
    assert is_untouched(model)


def test_a_fit_without_an_update_is_told():
    model = compiled()
    clipping = GradientClipping(clipnorm=1.0)
    with pytest.warns(NoEffectWarning, match=r"`model.optimizer` \(SGD.* made no update"), attach(model, clipping):
        clipping.on_epoch_end(0, logs := {})
    assert math.isnan(logs["clipped_fraction"])


def test_the_output_layers_are_not_clipped_adaptively_unless_asked():
    def moved(**arguments):
        model, start = compiled(), models.build("sequential")
        fit(model, [GradientClipping(adaptive=1e-9, **arguments)])
        pairs = zip(model.weights, start.weights, strict=True)
        return {a.path.split("/")[-2] for a, b in pairs if np.max(np.abs(a.numpy() - b.numpy())) > 1e-6}

    assert moved() == {"head"}
    assert moved(exclude=[]) == set()
    assert moved(exclude=["hid*"]) == {"hidden"}


def test_a_pattern_that_fits_no_layer_is_told():
    with pytest.warns(NoEffectWarning, match=r"the pattern 'haed' of `exclude` fits no layer; .*head"):
        fit(compiled(), [GradientClipping(adaptive=0.01, exclude=["haed"])])


def test_a_model_of_output_layers_alone_is_told():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse")
    with pytest.warns(NoEffectWarning, match=r"every layer with trainable weights is left alone \(.*head\)"):
        fit(model, [GradientClipping(adaptive=0.01)])


def test_output_layers_that_cannot_be_told_must_be_named():
    class Opaque(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden")(Opaque(lambda x: x * 2)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(hidden))
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match=r"`exclude` must be given for this model.* Name the output layers"):
        fit(model, [GradientClipping(adaptive=0.01)])
    assert is_untouched(model)
    assert fit(model, [GradientClipping(adaptive=0.01, exclude=["head"])]).history["clipped_fraction"] == [1.0]


def test_an_update_that_the_optimizer_accumulates_counts_once():
    model = compiled(optimizer=keras.optimizers.SGD(0.01, gradient_accumulation_steps=4))
    clipping = GradientClipping(clipvalue=1e-6)
    with attach(model, clipping):
        for _ in range(8):
            model.train_on_batch(*(array[:4] for array in models.data("sequential")))
        assert clipping._plugin.counts() == (2, 2)
        assert len(StepHooks.of(model).plugins) == 1


@pytest.mark.parametrize("mode", ["plain", "steps_per_execution", "jit", "two_replicas"])
def test_a_gradient_whose_square_is_infinite_is_clipped_and_its_norm_is_logged(mode, two_replicas):
    """In float32, at |g| = 2e25: it passed unclipped, and the monitor called it not finite."""
    settings = {"jit": {"jit_compile": True}, "steps_per_execution": {"steps_per_execution": 2}}.get(mode, {})
    with two_replicas.scope() if mode == "two_replicas" else contextlib.nullcontext():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(1.0), "mse", **settings)
    callbacks = [GradientClipping(global_clipnorm=0.25), GradientMonitor()]
    history = model.fit(np.ones((4, 1)), np.full((4, 1), 1e25), batch_size=2, verbose=0, callbacks=callbacks).history
    np.testing.assert_allclose(model.layers[0].kernel.numpy(), [[0.5]], rtol=1e-6)
    assert history["clipped_fraction"] == [1.0]
    assert history["grad_norm"] == pytest.approx([2e25], rel=1e-6)
