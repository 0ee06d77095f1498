"""Code inside the step, on one device and on two replicas."""

import contextlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.core import replicas


@pytest.fixture(params=["one device", "two replicas"])
def strategy(request, two_replicas):
    return two_replicas if request.param == "two replicas" else tf.distribute.get_strategy()


def scope(strategy):
    return (
        strategy.scope()
        if tf.distribute.has_strategy() or strategy.num_replicas_in_sync > 1
        else contextlib.nullcontext()
    )


def run(strategy, step, *args):
    """Run `step` in a graph; what each replica returned."""
    result = tf.function(lambda: strategy.run(step, args=args), autograph=False)()
    return [np.asarray(value) for value in strategy.experimental_local_results(result)]


def test_each_replica_has_its_number(strategy):
    numbers = []

    def step():
        numbers.append((replicas.replica_number(), replicas.replica_count()))
        return tf.constant(0)

    run(strategy, step)
    count = strategy.num_replicas_in_sync
    assert sorted(numbers) == [(number, count) for number in range(count)]


def test_the_sum_over_replicas_of_tensors_and_slices(strategy):
    def step():
        own = tf.constant([1.0, 2.0]) * (replicas.replica_number() + 1)
        slices = tf.IndexedSlices(own, tf.constant([0, 0]), tf.constant([3]))
        assert replicas.sum_over_replicas([]) == []
        dense, sparse = replicas.sum_over_replicas([own, slices])
        return tf.concat([dense, tf.convert_to_tensor(sparse)], axis=0)

    factor = sum(range(1, strategy.num_replicas_in_sync + 1))
    for seen in run(strategy, step):
        np.testing.assert_array_equal(seen, np.array([1, 2, 3, 0, 0]) * factor)


def test_a_replica_variable_is_each_replicas_own_and_reads_as_the_first_ones(strategy):
    with scope(strategy):
        variable = replicas.replica_variable(0.0, tf.float64, "mine")

    def step():
        variable.assign_add(tf.cast(1 + replicas.replica_number(), tf.float64))
        return variable.read_value()

    run(strategy, step)
    assert run(strategy, step) == [2.0, 4.0][: strategy.num_replicas_in_sync]
    assert variable.numpy() == 2.0
    variable.assign(7.0)
    assert variable.numpy() == 7.0


def test_across_replicas_calls_once(strategy):
    calls = []

    def step():
        replicas.across_replicas(calls.append, "called")
        return tf.constant(0)

    run(strategy, step)
    assert calls == ["called"]


@pytest.mark.parametrize("number", [1.0, -1.0])
def test_a_choice_may_communicate_and_takes_one_branch_on_all_replicas(strategy, number):
    with scope(strategy):
        variable = replicas.replica_variable(0.0)

    def positive(x):
        (total,) = replicas.sum_over_replicas([x])
        variable.assign_add(1.0)
        return {"total": total}

    def negative(x):
        return {"total": x * 0}

    def step():
        x = tf.constant(number)
        return replicas.cond(x > 0, positive, negative, (x,))["total"]

    count = strategy.num_replicas_in_sync
    assert run(strategy, step) == [count if number > 0 else 0.0] * count
    assert variable.numpy() == (number > 0)


def test_a_choice_within_a_choice(strategy):
    def inner(x):
        return replicas.cond(x > 5, lambda x: replicas.sum_over_replicas([x])[0], lambda x: -x, (x,))

    def step():
        x = tf.constant(3.0)
        return replicas.cond(x > 0, inner, lambda x: x, (x,))

    assert run(strategy, step) == [-3.0] * strategy.num_replicas_in_sync


def test_all_replicas_assign_the_same_to_a_keras_variable(strategy):
    with scope(strategy):
        variables = [keras.Variable([1.0, 2.0]), keras.Variable(3.0)]

    def step():
        replicas.assign_all(variables, [tf.constant([5.0, 6.0]), tf.constant(7.0)])
        return tf.convert_to_tensor(variables[0].value)

    for seen in run(strategy, step):
        np.testing.assert_array_equal(seen, [5.0, 6.0])
    np.testing.assert_array_equal(variables[0].numpy(), [5.0, 6.0])
    assert float(variables[1].numpy()) == 7.0


# --- workers ---------------------------------------------------------------------------------------------------------


def strategy_of(jobs, task_type, task_id, replicas=1):
    """A strategy as far as it knows its workers."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver
    workers = resolver(tf.train.ClusterSpec(jobs), task_type=task_type, task_id=task_id)
    return SimpleNamespace(cluster_resolver=workers, num_replicas_in_sync=replicas)


def test_a_process_without_others_is_the_chief(strategy):
    assert replicas.this_worker(strategy) == (0, 1)
    assert replicas.this_worker(strategy).is_chief
    assert replicas.local_replica_count(strategy) == strategy.num_replicas_in_sync


@pytest.mark.parametrize(
    ("jobs", "kind", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1", "c:1"]}, "worker", 2, (2, 3)),
        ({"worker": ["a:1", "b:1"]}, "worker", 0, (0, 2)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief", 0, (0, 3)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 1, (2, 3)),
        ({"chief": ["a:1"], "worker": ["b:1"], "evaluator": ["c:1"]}, "worker", 0, (1, 2)),
        ({"worker": ["a:1"]}, "worker", 0, (0, 1)),
    ],
)
def test_workers_count_from_the_chief(jobs, kind, task, expected):
    worker = replicas.this_worker(strategy_of(jobs, kind, task, replicas=2 * expected[1]))
    assert worker == expected
    assert worker.is_chief == (expected[0] == 0)
    assert replicas.local_replica_count(strategy_of(jobs, kind, task, replicas=2 * expected[1])) == 2
