"""`SparseGradientFix`: attached for the fit, gone after it, and honest where it has no effect."""

import warnings

import keras
import oracle_models as models
import pytest

from keras_opt.callbacks import SparseGradientFix
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training import StepHooks


def fit(kind, callbacks, **settings):
    x, y = models.data(kind)
    model = models.build(kind)
    model.compile(keras.optimizers.Adam(0.05), "mse", **settings)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return model


def test_it_changes_what_adam_does_with_repeated_ids():
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        ours = fit("embedding", [SparseGradientFix()])
    off = models.deviation(fit("embedding", []).get_weights(), ours.get_weights())
    assert off > 0.01


def test_two_of_them_do_as_one():
    one, two = fit("embedding", [SparseGradientFix()]), fit("embedding", [SparseGradientFix(), SparseGradientFix()])
    assert models.deviation(one.get_weights(), two.get_weights()) == 0


def test_nothing_stays_on_the_model_and_it_can_be_used_again():
    fix = SparseGradientFix()
    for _ in range(2):
        model = fit("embedding", [fix])
        assert "train_step" not in vars(model)
        assert StepHooks.of(model).plugins == ()


def test_begun_twice_it_is_attached_once():
    model, fix = fit("embedding", []), SparseGradientFix()
    fix.set_model(model)
    fix.on_train_begin()
    fix.on_train_begin()
    assert len(StepHooks.of(model).plugins) == 1
    StepHooks.of(model).detach()


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_a_model_without_sparse_gradients_is_told(settings):
    with pytest.warns(NoEffectWarning, match=r"no gradient of model 'net' was sparse.*Leave the callback out"):
        fit("sequential", [SparseGradientFix()], **settings)
