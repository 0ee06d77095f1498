"""Every callback, criterion and schedule in every mode of stock `fit`."""

import copy

import keras
import pytest
from public_names import InFit, fit, made, rows

import keras_opt

ROWS = rows(InFit)
SERIALISABLE = {name: row for name, row in ROWS.items() if hasattr(row.make, "get_config")}
MODES = {
    "plain": {},
    "jit": {"jit_compile": True},
    "steps_per_execution 8": {"steps_per_execution": 8},
}

sweep = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@sweep
@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_it_has_an_effect_in_two_fits_one_after_the_other(row, settings):
    used = made(row)
    first = fit(row, used, **settings)
    assert row.effect(first)
    assert row.effect(fit(row, used, model=first.model, **settings))


@sweep
def test_it_has_an_effect_in_half_precision(row):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert row.effect(fit(row, made(row)))
    finally:
        keras.config.set_dtype_policy("float32")


@sweep
def test_it_goes_on_with_a_model_that_was_saved_and_loaded(row, tmp_path):
    fit(row, made(row)).model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    assert row.effect(fit(row, made(row), model=loaded))


@sweep
def test_its_arguments_are_left_as_they_were(row):
    arguments = copy.deepcopy(row.arguments)
    before = copy.deepcopy(row.arguments)
    plain = {name: value for name, value in arguments.items() if type(value).__eq__ is not object.__eq__}
    fit(row, row.make(**arguments))
    assert plain == {name: before[name] for name in plain}


@pytest.mark.parametrize("row", SERIALISABLE.values(), ids=SERIALISABLE)
def test_its_config_round_trip(row):
    used = made(row)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(used))
    assert type(again) is type(used)
    assert again.get_config() == used.get_config()
    assert row.effect(fit(row, again))
