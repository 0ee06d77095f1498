"""Every callback, criterion and schedule in every mode of stock `fit`.

By default the two special ways to run a step are swept at once; with `--full` also each by itself, with a second fit.
"""

import copy
import functools

import keras
import pytest
from public_names import InFit, fit, made, rows

import keras_opt

ROWS = rows(InFit)
SERIALISABLE = {name: row for name, row in ROWS.items() if hasattr(row.make, "get_config")}
JIT, STEPS = {"jit_compile": True}, {"steps_per_execution": 8}
MODES = {"jit, steps_per_execution 8": JIT | STEPS}
MORE_MODES = {"jit": JIT, "steps_per_execution 8": STEPS}

sweep = pytest.mark.parametrize("name", ROWS)


def pytest_generate_tests(metafunc):
    if "settings" in metafunc.fixturenames:
        modes = MODES | (MORE_MODES if metafunc.config.getoption("full") else {})
        metafunc.parametrize("settings", modes.values(), ids=modes)


@functools.cache
def first_fit(name):
    """The arguments of a row and a plain fit with what it describes: made once for the tests that go on from it."""
    row = ROWS[name]
    arguments = copy.deepcopy(row.arguments)
    return arguments, fit(row, row.make(**arguments))


def from_config(used):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(used))


@sweep
def test_it_has_an_effect_and_leaves_its_arguments_as_they_were(name):
    arguments, fitted = first_fit(name)
    assert ROWS[name].effect(fitted)
    plain = {key: value for key, value in arguments.items() if type(value).__eq__ is not object.__eq__}
    assert plain == {key: ROWS[name].arguments[key] for key in plain}


@pytest.mark.parametrize("row", SERIALISABLE.values(), ids=SERIALISABLE)
def test_its_config_round_trip(row):
    used = made(row)
    again = from_config(used)
    assert type(again) is type(used)
    assert again.get_config() == used.get_config()


@sweep
def test_it_goes_on_when_it_and_the_model_were_saved_and_loaded(name, tmp_path):
    row = ROWS[name]
    first_fit(name)[1].model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    again = from_config(made(row)) if name in SERIALISABLE else made(row)
    assert row.effect(fit(row, again, model=loaded))


@sweep
def test_it_has_an_effect_in_a_second_fit(name):
    fitted = first_fit(name)[1]
    assert ROWS[name].effect(fit(ROWS[name], fitted.used, model=fitted.model))


@sweep
def test_it_has_an_effect_in_a_mode(name, settings, request):
    row = ROWS[name]
    fitted = fit(row, made(row), **settings)
    assert row.effect(fitted)
    if request.config.getoption("full"):
        assert row.effect(fit(row, fitted.used, model=fitted.model, **settings))


@sweep
def test_it_has_an_effect_in_half_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert ROWS[name].effect(fit(ROWS[name], made(ROWS[name])))
    finally:
        keras.config.set_dtype_policy("float32")
