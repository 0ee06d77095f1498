"""Every schedule against PyTorch's values (torch_schedules.json) and closed forms in NumPy.

float32 within 1e-6 of the peak rate at every step; float64 within 1e-10 (Keras's own schedules compute in float32).
"""

import contextlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracle_models import float64

from keras_opt.schedules import (
    CosineDecay,
    CyclicalLearningRate,
    InverseSqrtDecay,
    JoinedSchedule,
    OneCycle,
    StepDecay,
    WarmUp,
)

PEAK = 0.1
TORCH = json.loads((Path(__file__).parent / "torch_schedules.json").read_text(encoding="utf-8"))["rates"]
EVERY = {"cyclic_exp_range_long": 97}
OURS = {
    "one_cycle": lambda: OneCycle(PEAK, 100),
    "one_cycle_linear": lambda: OneCycle(PEAK, 100, anneal_strategy="linear"),
    "one_cycle_three_phase": lambda: OneCycle(PEAK, 100, three_phase=True),
    "one_cycle_three_phase_linear": lambda: OneCycle(PEAK, 77, 0.37, anneal_strategy="linear", three_phase=True),
    "one_cycle_divisors": lambda: OneCycle(PEAK, 50, 0.25, initial_divisor=10, final_divisor=100),
    "cyclic_triangular": lambda: CyclicalLearningRate(0.01, PEAK, 20),
    "cyclic_triangular2": lambda: CyclicalLearningRate(0.01, PEAK, 20, "triangular2"),
    "cyclic_exp_range": lambda: CyclicalLearningRate(0.01, PEAK, 20, "exp_range", gamma=0.99),
    "cyclic_exp_range_long": lambda: CyclicalLearningRate(0.01, PEAK, 2000, "exp_range", gamma=0.99994),
    "step": lambda: StepDecay(PEAK, 41, 0.5),
    "warm_up_cosine": lambda: WarmUp(CosineDecay(PEAK, 100, alpha=0.01), 20, initial_fraction=0.25),
    "joined": lambda: JoinedSchedule([PEAK / 2, StepDecay(PEAK, 7, 0.5), CosineDecay(PEAK, 60)], [15, 40]),
    "inverse_sqrt": lambda: WarmUp(InverseSqrtDecay(PEAK, 40), 40),
}


def rates(schedule, steps, jit=None):
    """The rate at each step: called eagerly with ints, or compiled (with XLA or not) with int64 tensors."""
    if jit is None:
        return np.array([float(schedule(int(step))) for step in steps])
    compiled = tf.function(schedule, jit_compile=jit, input_signature=[tf.TensorSpec((), tf.int64)])
    return np.array([float(compiled(tf.constant(step, tf.int64))) for step in steps])


def test_each_fixture_has_its_schedule():
    assert set(OURS) == set(TORCH)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize("case", OURS)
def test_float32_within_1e_6_of_torch_at_every_step(case, jit):
    steps = np.arange(len(TORCH[case])) * EVERY.get(case, 1)
    np.testing.assert_allclose(rates(OURS[case](), steps, jit), TORCH[case], rtol=0, atol=1e-6 * PEAK)


@pytest.mark.parametrize("case", sorted(OURS.keys() - {"warm_up_cosine", "joined"}))
def test_float64_within_1e_10_of_torch_at_every_step(case):
    steps = np.arange(len(TORCH[case])) * EVERY.get(case, 1)
    with float64():
        schedule = OURS[case]()
        assert schedule(0).dtype == tf.float64
        np.testing.assert_allclose(rates(schedule, steps, jit=False), TORCH[case], rtol=0, atol=1e-10 * PEAK)


def addons(step, initial, maximal, step_size, scale_fn, scale_mode="cycle"):
    """The closed form of `tfa.optimizers.CyclicalLearningRate`, in float64."""
    cycle = np.floor(1 + step / (2 * step_size))
    x = np.abs(step / step_size - 2 * cycle + 1)
    n = cycle if scale_mode == "cycle" else step
    return initial + (maximal - initial) * np.maximum(0.0, 1 - x) * scale_fn(n)


ADDONS = {
    "triangular": ({"scale_fn": "triangular"}, lambda x: 1.0, "cycle"),
    "triangular2": ({"scale_fn": "triangular2"}, lambda x: 0.5 ** (x - 1), "cycle"),
    "exp_range": ({"scale_fn": "exp_range", "gamma": 0.9999}, lambda x: 0.9999**x, "iterations"),
    "exp_range by cycle": (
        {"scale_fn": "exp_range", "gamma": 0.9, "scale_mode": "cycle"},
        lambda x: 0.9**x,
        "cycle",
    ),
}


@pytest.mark.parametrize("step_size", [1, 7, 2000])
@pytest.mark.parametrize(("settings", "scale_fn", "scale_mode"), ADDONS.values(), ids=ADDONS)
def test_cyclical_is_tensorflow_addons_up_to_a_million_steps(settings, scale_fn, scale_mode, step_size):
    steps = np.unique(np.concatenate([np.arange(60), step_size * np.arange(12), np.linspace(100, 1e6, 40).astype(int)]))
    schedule = CyclicalLearningRate(0.001, PEAK, step_size, **settings)
    want = addons(steps, 0.001, PEAK, step_size, scale_fn, scale_mode)
    np.testing.assert_allclose(rates(schedule, steps, jit=True), want, rtol=0, atol=1e-6 * PEAK)


@pytest.mark.parametrize("scale_mode", ["cycle", "iterations"])
def test_cyclical_calls_a_function_as_tensorflow_addons_does(scale_mode):
    with keras.saving.custom_object_scope({"halving": halving}):
        schedule = CyclicalLearningRate(0.001, PEAK, 5, halving, scale_mode)
    want = addons(np.arange(40), 0.001, PEAK, 5, halving, scale_mode)
    np.testing.assert_allclose(rates(schedule, range(40)), want, rtol=0, atol=1e-6 * PEAK)


def halving(x):
    """The scale_fn of the paper's triangular2, as users of Addons write it."""
    return 1 / (2.0 ** (x - 1))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_step_decay_drops_on_time_in_a_compiled_step_where_kerass_own_is_late(jit):
    def late(make):
        drops, found = np.arange(1, 8), []
        for decay_steps in (41, 47, 55, 61):
            found.extend(rates(make(1.0, decay_steps, 0.5), decay_steps * drops, jit) > 1.5 * 0.5**drops)
        return sum(found)

    assert late(StepDecay) == 0
    assert late(lambda *args: keras.optimizers.schedules.ExponentialDecay(*args, staircase=True)) > 0


@pytest.mark.parametrize("precision", [contextlib.nullcontext, float64], ids=["float32", "float64"])
def test_the_transformers_schedule_is_warm_up_and_inverse_square_root(precision):
    """Vaswani et al., equation 3, for d_model 512 and 4000 warm-up steps."""
    with precision():
        schedule = WarmUp(InverseSqrtDecay(512**-0.5 * 4000**-0.5, 4000), 4000)
        steps = np.linspace(1, 100_000, 60).astype(int)
        want = 512**-0.5 * np.minimum(steps**-0.5, steps * 4000**-1.5)
        np.testing.assert_allclose(rates(schedule, steps, jit=False), want, rtol=1e-6)
