import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.losses import loss as losses
from workers import assert_all_say, said

from keras_opt.distribute import keras_repairs

X, Y = np.arange(24.0).reshape(8, 3).astype("float32"), np.ones((8, 1), "float32")


def network(strategy, layers=(), **settings):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
        model.compile("sgd", "mse", **settings)
    return model


@pytest.fixture
def begun(two_replicas):
    """What was asked at each beginning, with Keras repaired for `two_replicas`."""
    seen = []

    def begin(beginning):
        seen.append(beginning)
        return beginning.dataset

    keras_repairs.apply(two_replicas, begin)
    yield seen
    keras_repairs.undo()


def test_a_beginning_comes_once_for_each_set_of_data_of_each_call(begun, two_replicas):
    model = network(two_replicas)
    model.fit(X, Y, batch_size=4, epochs=2, validation_data=(X[:6], Y[:6]), verbose=0)
    assert [(each.is_training, each.batches) for each in begun] == [(True, 2), (False, 2)]
    model.evaluate(X, Y, batch_size=2, verbose=0)
    model.train_on_batch(X, Y)
    assert [(each.is_training, each.batches) for each in begun[2:]] == [(False, 4), (True, 1)]
    first = begun[0]
    assert (first.model, first.strategy, first.replicas) == (model, two_replicas, 2)
    assert first.dataset.element_spec[0].shape == (4, 3)  # of the whole batch
    assert begun[3].dataset is None


def test_steps_per_epoch_are_the_batches_of_an_epoch(begun, two_replicas):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat()
    network(two_replicas).fit(data, steps_per_epoch=3, shuffle=False, verbose=0)
    assert begun[0].batches == 3


def test_the_dataset_that_begin_answers_with_is_trained_on(two_replicas):
    keras_repairs.apply(two_replicas, lambda beginning: beginning.dataset.map(lambda x, y: (0 * x, y + 4)))
    try:
        history = network(two_replicas).fit(X, Y, batch_size=8, validation_data=(X, 2 * Y), verbose=0).history
    finally:
        keras_repairs.undo()
    assert history["loss"] == [25.0]
    np.testing.assert_allclose(history["val_loss"], [(6 - 0.1) ** 2])  # after a step of rate 0.01 on a gradient of -10


def test_data_that_the_caller_has_distributed_are_left_as_they_are(begun, two_replicas):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    model = network(two_replicas)
    model.fit(two_replicas.experimental_distribute_dataset(data), shuffle=False, verbose=0)
    made = two_replicas.distribute_datasets_from_function(lambda context: data.unbatch().batch(2))
    model.fit(made, steps_per_epoch=2, shuffle=False, verbose=0)
    assert begun[1].dataset is None
    assert int(model.optimizer.iterations.numpy()) == 4


def test_a_model_without_a_shape_is_built_from_what_the_dataset_says(begun, two_replicas):
    with two_replicas.scope():
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=5, verbose=0)
    assert model.layers[0].kernel.shape == (3, 1)


def test_a_first_batch_that_splits_unevenly_crashes_keras_and_not_us(begun, two_replicas):
    for rows in (5, 1):
        network(two_replicas).fit(X[:rows], Y[:rows], batch_size=8, verbose=0)
    keras_repairs.undo()
    with pytest.raises(tf.errors.InvalidArgumentError, match="AddN"):
        network(two_replicas).fit(X[:5], Y[:5], batch_size=8, verbose=0)


def test_several_steps_in_an_execution_are_those_of_one_by_one(begun, two_replicas):
    weights = []
    for steps in (1, 3):
        model = network(two_replicas, steps_per_execution=steps)
        ends = []
        look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, ends=ends: ends.append(batch))
        model.fit(X, Y, batch_size=2, shuffle=False, verbose=0, validation_data=(X, Y), callbacks=[look])
        weights.append(model.get_weights()[0])
    assert int(model.optimizer.iterations.numpy()) == 4  # the last execution is a ragged one
    assert ends == [2, 5]
    np.testing.assert_array_equal(weights[0], weights[1])
    model.train_on_batch(X, Y)


def test_the_end_of_data_of_unknown_length_counts_as_no_update_as_it_does_in_keras(begun, two_replicas):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).filter(lambda x, y: True)
    counts = []
    for _ in range(2):
        model = network(two_replicas)
        with pytest.warns(UserWarning, match="ran out of data"):
            model.fit(data, epochs=2, shuffle=False, verbose=0)
        counts.append(int(model.optimizer.iterations.numpy()))
        keras_repairs.undo()
    assert counts[0] == 8
    assert counts[1] > 8


def test_a_loss_that_is_one_number_has_the_gradient_of_one_device(begun, two_replicas):
    def trained(strategy):
        with strategy.scope():
            model = network(strategy)
            model.compile("sgd", lambda y, x: tf.reduce_mean(tf.square(y - x)), run_eagerly=True)
        loss = model.fit(X[:4], Y[:4], shuffle=False, verbose=0).history["loss"]
        return [*loss, *model.get_weights()[0].ravel()]

    one = trained(tf.distribute.OneDeviceStrategy("CPU:0"))
    np.testing.assert_allclose(trained(two_replicas), one, rtol=1e-5)
    keras_repairs.undo()
    assert not np.allclose(trained(two_replicas), one, rtol=1e-2)  # else Keras has mended it


@pytest.mark.parametrize("row", [0, 3], ids=["first replica", "last replica"])
def test_an_overflow_on_any_replica_skips_the_update(row, begun, two_replicas):
    x = X.copy()
    x[row] = 1e30

    def weights():
        model = network(two_replicas, run_eagerly=True)
        with two_replicas.scope():
            model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse", run_eagerly=True)
        before = model.get_weights()[0]
        model.fit(x[:4], Y[:4], shuffle=False, verbose=0)
        return before, model.get_weights()[0]

    np.testing.assert_array_equal(*weights())
    keras_repairs.undo()
    if row:
        assert not np.isfinite(weights()[1]).all()  # else Keras has mended it


def test_predict_on_batch_gives_each_row_once(begun, two_replicas):
    model = network(two_replicas)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(model.predict_on_batch(X), expected, rtol=1e-6)
    keras_repairs.undo()
    assert model.predict_on_batch(X).shape == (16, 1)  # else Keras has mended it


FILES = """
import keras, numpy as np, tensorflow as tf
from keras_opt.distribute import keras_repairs, strategy

made = strategy()
keras.utils.set_random_seed(1)
with made.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
for number in range(2):
    with open(f"{number}.txt", "w") as file:
        file.writelines(f"{row}\\n" for row in range(5 * number, 5 * number + 5))
lines = tf.data.TextLineDataset(["0.txt", "1.txt"])
data = lines.map(lambda line: tf.reshape(tf.strings.to_number(line), [1])).batch(4)

def predicted(data):
    return model.predict(data, verbose=0).ravel().tolist()

print("SAME", predicted(data) == list(range(10)))
print("ONCE", model.predict_on_batch(np.arange(10.0)[:, np.newaxis]).ravel().tolist() == list(range(10)))
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.FILE
try:
    predicted(data.with_options(options))
except ValueError as error:
    print("REFUSED", error)
keras_repairs.in_order = lambda dataset: dataset
print("WRONG", predicted(data) != list(range(10)))
"""


@pytest.mark.full
def test_workers_predict_rows_of_files_in_their_order(tmp_path):
    outputs = said(FILES, folder=tmp_path, seconds=150)
    refusal = "REFUSED predict: the dataset has AutoShardPolicy.FILE"
    assert_all_say(outputs, "SAME True", "ONCE True", refusal, "WRONG True")


OVERFLOW = """
import keras, numpy as np
from keras_opt.distribute import strategy

made = strategy()
keras.utils.set_random_seed(1)
with made.scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
x = np.array([[1.0], [1.0], [1.0], [1e30]])  # the last row is the second worker's
model.fit(x, np.zeros((4, 1)), batch_size=4, shuffle=False, verbose=0)
print("SKIPPED", float(model.get_weights()[0][0, 0]) == 1.0)
"""


@pytest.mark.full
def test_workers_agree_on_an_overflow(tmp_path):
    assert_all_say(said(OVERFLOW, folder=tmp_path, seconds=100), "SKIPPED True")


def test_each_replica_drops_out_by_itself(begun, two_replicas):
    with two_replicas.scope():
        dropout = keras.layers.Dropout(0.5, seed=1)

    def drawn():
        masks = two_replicas.run(lambda: dropout(tf.ones((8, 8)), training=True))
        return [mask.numpy() for mask in two_replicas.experimental_local_results(masks)]

    first, second = drawn()
    assert np.mean(first == second) < 0.75
    assert np.any(first != drawn()[0])
    keras_repairs.undo()
    with two_replicas.scope():
        dropout = keras.layers.Dropout(0.5, seed=1)
    alike = drawn()
    assert np.array_equal(*alike)
    assert np.array_equal(alike[0], first)  # the first replica draws what Keras draws


@pytest.mark.filterwarnings("ignore:preflight. model .* was made outside")
def test_models_of_other_strategies_go_keras_own_way(begun, two_replicas):
    other = tf.distribute.OneDeviceStrategy("CPU:0")
    for strategy in (other, tf.distribute.get_strategy()):
        network(strategy).fit(X, Y, verbose=0)
    assert not begun


def test_undo_leaves_nothing_behind(two_replicas):
    before = dict(vars(two_replicas))
    patched = (trainer.TensorFlowTrainer, "_maybe_symbolic_build"), (trainer.TensorFlowTrainer, "_make_function")
    patched += (trainer.TensorFlowTrainer, "predict_on_batch"), (trainer, "reduce_per_replica")
    patched += ((losses, "reduce_values"),)
    patched += (keras.optimizers.LossScaleOptimizer, "apply"), (keras.random.SeedGenerator, "next")
    own = [getattr(owner, name) for owner, name in patched]
    for _ in range(2):
        keras_repairs.apply(two_replicas, lambda beginning: beginning.dataset)
        assert all(getattr(owner, name) is not its for (owner, name), its in zip(patched, own, strict=True))
    keras_repairs.undo()
    assert [getattr(owner, name) for owner, name in patched] == own
    assert vars(two_replicas) == before
