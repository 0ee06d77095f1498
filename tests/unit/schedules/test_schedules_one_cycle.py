"""OneCycle against torch's two-phase algorithm, stated anew in NumPy."""

import keras
import numpy as np
import pytest

from keras_opt.schedules import OneCycle

CASES = [(100, 0.3), (1000, 0.3), (10, 0.25), (7, 0.5), (4, 0.3), (50, 0.0), (20, 0.02), (333, 0.9), (2, 0.3)]


def torch_one_cycle(max_rate, total, fraction, initial_divisor=25.0, final_divisor=1e4):
    """`torch.optim.lr_scheduler.OneCycleLR` with cosine annealing and two phases, in float64."""
    initial = max_rate / initial_divisor
    phases = [(fraction * total - 1, initial, max_rate), (total - 1, max_rate, initial / final_divisor)]
    rates = []
    for step in range(total):
        start = 0.0
        for number, (end, low, high) in enumerate(phases):
            if step <= end or number == len(phases) - 1:
                share = (step - start) / (end - start)
                rates.append(high + (low - high) / 2.0 * (np.cos(np.pi * share) + 1))
                break
            start = end
    return np.array(rates)


@pytest.mark.parametrize(("total", "fraction"), CASES, ids=lambda value: str(value))
def test_every_step_equals_torch(total, fraction):
    schedule = OneCycle(0.1, total, warmup_fraction=fraction)
    rates = np.array([float(schedule(step)) for step in range(total)])
    np.testing.assert_allclose(rates, torch_one_cycle(0.1, total, fraction), rtol=0, atol=0.1 * 1e-6)


def test_the_divisors_set_both_ends():
    schedule = OneCycle(1.0, 100, initial_divisor=10, final_divisor=100)
    np.testing.assert_allclose(float(schedule(0)), 0.1, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(29)), 1.0, rtol=1e-6)
    np.testing.assert_allclose([float(schedule(99)), float(schedule(10_000))], 1e-3, rtol=1e-4)


def test_it_drives_an_optimizer_in_a_compiled_fit_and_comes_back_from_a_file(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(OneCycle(0.1, 8)), "mse", steps_per_execution=4, jit_compile=True)
    model.fit(np.ones((16, 2)), np.ones((16, 1)), batch_size=2, verbose=0)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.1 / 25e4, rtol=1e-2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer._learning_rate.get_config() == OneCycle(0.1, 8).get_config()


def test_numpy_numbers_serialise():
    schedule = OneCycle(np.float64(0.1), np.int64(8))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_learning_rate": 0}, "`max_learning_rate` must be a finite number above 0"),
        ({"total_steps": 1}, "`total_steps` must be an integer of at least 2"),
        ({"total_steps": 10.0}, "`total_steps` must be an integer of at least 2"),
        ({"warmup_fraction": 30}, "`warmup_fraction` must be a fraction in"),
        ({"warmup_fraction": 0.95}, "`warmup_fraction` must be small enough to leave a step of the 10 for the fall"),
        ({"initial_divisor": -1}, "`initial_divisor` must be a finite number above 0"),
        ({"final_divisor": float("nan")}, "`final_divisor` must be a finite number above 0"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=f"OneCycle: argument {message}"):
        OneCycle(**{"max_learning_rate": 0.1, "total_steps": 10, **change})
