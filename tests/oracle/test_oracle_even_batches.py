"""Any number of rows on two replicas: the weights, losses and metrics of one device, in float64."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import uneven_batches
from full_rows import full
from uneven_batches import BATCH, Trained, deviation
from workers import TESTS, run_workers

from keras_opt.callbacks import GradientAccumulation
from keras_opt.distribute import keras_repairs

EXACT = 1e-12
FAULTY = 1e-3


@pytest.fixture(autouse=True)
def _float64():
    with uneven_batches.float64():
        yield


def deviations(kind, strategy, all_rows, as_arrays=False, make_callbacks=tuple, **settings):
    one, several = Trained(kind, tf.distribute.get_strategy(), **settings), Trained(kind, strategy, **settings)
    made = [[each.fit(rows, as_arrays, make_callbacks()) for each in (one, several)] for rows in all_rows]
    return {rows: deviation(*pair) for rows, pair in zip(all_rows, made, strict=True)}


def sizes(request, few):
    """From one row to four batches with `--full`."""
    return range(1, 4 * BATCH + 1) if request.config.getoption("full") else few


FEW = {
    "plain": [1, 3],
    "batch_norm": [5],
    "two_inputs_and_outputs": [7],
    "mean_with_sample_weight": [7],
    "added_loss": [1, 7],
    "own_loss": [1],
}
MORE = ("without_weights", "sum")


@pytest.mark.parametrize("kind", [*FEW, *map(full, MORE)])
def test_datasets_of_any_size(kind, our_replicas, request):
    assert max(deviations(kind, our_replicas, sizes(request, FEW.get(kind, []))).values()) < EXACT


@pytest.mark.parametrize(("kind", "steps"), [full("plain", 1), ("classes", 2)], ids=["plain", "classes"])
def test_arrays_of_any_size_in_several_steps_an_execution(kind, steps, our_replicas, request):
    found = deviations(kind, our_replicas, sizes(request, [9]), as_arrays=True, steps_per_execution=steps)
    assert max(found.values()) < EXACT


def test_accumulation_weighs_no_share_twice(our_replicas, request):
    make = lambda: [GradientAccumulation(2)]  # noqa: E731
    assert max(deviations("plain", our_replicas, sizes(request, [7]), make_callbacks=make).values()) < EXACT


def test_keras_alone_gives_shares_of_two_sizes_the_same_say(two_replicas):
    """The fault: what the other tests would see without `even_batches`."""
    keras_repairs.apply(two_replicas, lambda beginning: beginning.dataset)
    with contextlib.ExitStack() as stack:
        stack.callback(keras_repairs.undo)
        found = deviations("plain", two_replicas, [5])[5]
    assert found > FAULTY, f"Keras {keras.__version__} weighs shares by itself: delete training/weighed_shares.py"


@pytest.mark.full
@pytest.mark.parametrize("kind", [*FEW, *MORE])
def test_two_workers_on_datasets_of_any_size(kind, tmp_path):
    sizes = range(1, 2 * BATCH + 1)
    script = TESTS / "uneven_batches.py"
    run_workers(script, tmp_path, kind, ",".join(map(str, sizes)), count=2, folder=tmp_path, seconds=900)
    one = Trained(kind, tf.distribute.get_strategy())
    for rows in sizes:
        first, second = (uneven_batches.load(tmp_path / f"{kind}.{rows}.{index}.npz") for index in range(2))
        assert deviation(first, one.fit(rows)) < EXACT
        assert all(np.array_equal(*pair) for pair in zip(first[1], second[1], strict=True))
