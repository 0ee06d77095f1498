import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import full
from oracle_models import float64

from keras_opt.callbacks import GradientAccumulation
from keras_opt.core.errors import InputError
from keras_opt.distribute import place, placed_step
from keras_opt.distribute.landed import recorded_nodes
from keras_opt.distribute.placed_variables import device_of
from keras_opt.models import exclude_norm_and_bias_from_decay

layers = keras.layers
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 9, (12, 3))
ROWS = RNG.normal(size=(12, 4))
TARGETS = RNG.normal(size=(12, 2))
APART = {"encoder": "CPU:0", "decoder": "CPU:1"}


def chain():
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu")], name="encoder")
    decoder = keras.Sequential([keras.Input((5,)), layers.Dense(3, "relu"), layers.Dense(2)], name="decoder")
    model = keras.Sequential([keras.Input((4,)), encoder, decoder])
    model.compile("adam", "mse")
    return model


def of_all_kinds():
    """Repeated ids, a mask, a loop, batch statistics and random numbers."""
    keras.utils.set_random_seed(1)
    decoder = [keras.Input((3, 4)), layers.SimpleRNN(4), layers.BatchNormalization(), layers.Dropout(0.5)]
    ids = keras.Input((3,), dtype="int32")
    coded = layers.Embedding(9, 4, mask_zero=True, name="encoder")(ids)
    model = keras.Model(ids, keras.Sequential([*decoder, layers.Dense(2)], name="decoder")(coded))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = layers.Dense(4, kernel_regularizer="l2", name="encoder")
        self.decoder = layers.Dense(2, name="decoder")

    def call(self, x):
        coded = self.encoder(x)
        self.add_loss(keras.ops.mean(coded**2))
        return self.decoder(coded)


def subclassed():
    keras.utils.set_random_seed(1)
    model = Subclassed()
    model(ROWS[:1])
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2, use_ema=True)
    model.compile(optimizer, "mse", steps_per_execution=2)
    return model


def trained(model, x, **settings):
    """All that the training of `model` leaves, as arrays."""
    model.fit(x, TARGETS, batch_size=4, shuffle=False, epochs=2, verbose=0, **settings)
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def devices_of(nodes, part):
    return {node.device[-5:] for node in nodes if part in node.name and "MatMul" in node.op}


@pytest.mark.parametrize(
    ("build", "x", "callbacks"),
    [(of_all_kinds, IDS, list), full(subclassed, ROWS, list), (chain, ROWS, lambda: [GradientAccumulation(2)])],
)
def test_a_placed_model_learns_what_the_unplaced_one_learns(build, x, callbacks):
    with float64():
        expected = trained(build(), x, callbacks=callbacks())
        model = build()
        place(APART)(model)
        for value, other in zip(trained(model, x, callbacks=callbacks()), expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-14)


def test_keras_leaves_slots_and_backward_pass_on_the_first_device():
    """What `tf.device` in a layer's build and call does by itself: the reason for `place`."""

    class OnSecond(layers.Dense):
        def build(self, shape):
            with tf.device("CPU:1"):
                super().build(shape)

        def call(self, x, training=None):
            with tf.device("CPU:1"):
                return super().call(x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), OnSecond(2, name="decoder")])
    model.compile("adam", "mse")
    with recorded_nodes() as nodes:
        model.fit(ROWS, TARGETS, verbose=0)
    backward = [node for node in nodes if "gradient_tape" in node.name]
    forward = [node for node in nodes if "gradient_tape" not in node.name]
    assert devices_of(forward, "/decoder") == {"CPU:1"}
    assert devices_of(backward, "/decoder") == {"CPU:0"}
    assert {device_of(slot) for slot in model.optimizer.variables if "decoder" in slot.name} == {"CPU:0"}


def test_forward_backward_and_slots_lie_where_they_were_put(monkeypatch):
    seen = []
    monkeypatch.setattr(placed_step, "check_landed", lambda nodes, scopes: seen.extend(nodes))
    model = chain()
    place(APART)(model)
    model.fit(ROWS, TARGETS, verbose=0)
    assert sum("MatMul" in node.op for node in seen) == 3 + 5
    assert devices_of(seen, "/encoder") == {"CPU:0"}
    assert devices_of(seen, "/decoder") == {"CPU:1"}
    slots = {slot.path: device_of(slot) for slot in model.optimizer.variables if "dense" in slot.path}
    assert len(slots) == 12
    encoder = [variable.path.replace("/", "_") for variable in model.get_layer("encoder").weights]
    assert all((device == "CPU:0") == any(name in path for name in encoder) for path, device in slots.items())


def test_a_model_compiled_after_it_was_placed_gets_its_slots_there_too():
    model = chain()
    place(APART)(model)
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse", jit_compile="auto")
    assert not model.jit_compile
    model.train_on_batch(ROWS, TARGETS)
    decoder = [slot for slot in model.optimizer.variables[2:] if slot.path.count("dense")][2:]
    assert [device_of(slot) for slot in decoder] == ["CPU:1"] * 4


def test_a_weight_that_is_not_to_decay_does_not_decay_where_it_was_put():
    model, optimizer = chain(), keras.optimizers.AdamW(weight_decay=1.0)
    model.set_weights([np.ones(weight.shape) for weight in model.weights])
    exclude_norm_and_bias_from_decay(optimizer, model)
    place(APART)(model)
    optimizer.apply([keras.ops.zeros_like(weight) for weight in model.weights], model.weights)
    assert [weight.ndim for weight in model.get_weights() if np.all(weight == 1)] == [1, 1, 1]


def test_a_loaded_model_keeps_its_slots(tmp_path):
    model = chain()
    before = trained(model, ROWS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    place({"*": "CPU:1"})(loaded)
    after = [variable.numpy() for variable in (*loaded.variables, *loaded.optimizer.variables)]
    assert all(np.array_equal(value, other) for value, other in zip(after, before, strict=True))
    slots = [slot for slot in loaded.optimizer.variables if "dense" in slot.path]
    assert {device_of(variable) for variable in (*loaded.variables, *slots)} == {"CPU:1"}
    for value, other in zip(trained(loaded, ROWS), trained(model, ROWS), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)


def test_predictions_are_computed_where_the_layers_are():
    model = chain()
    place(APART)(model)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((2, 4))).graph
    matrices = {op.name: op.device for op in graph.get_operations() if op.type == "MatMul"}
    assert {device for name, device in matrices.items() if "encoder" in name} == {"/device:CPU:0"}
    assert {device for name, device in matrices.items() if "decoder" in name} == {"/device:CPU:1"}


def test_what_is_saved_is_plain_keras(tmp_path):
    model = chain()
    place(APART)(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))
    assert {device_of(variable) for variable in loaded.variables} == {"CPU:0"}
    assert "train_step" not in vars(loaded)
    assert "call" not in vars(loaded.get_layer("decoder"))
    assert b"CPU:1" not in (tmp_path / "model.keras").read_bytes()


def test_the_last_pattern_that_fits_counts_and_means_what_is_inside():
    model = chain()
    placement = place({"*": "CPU:1", "encoder": "/cpu:0"})
    assert placement(model) is model
    assert {device_of(variable) for variable in model.get_layer("encoder").variables} == {"CPU:0"}
    assert {device_of(variable) for variable in model.get_layer("decoder").variables} == {"CPU:1"}
    placed = placement.layers(model)
    assert (placed["encoder"], placed["decoder"]) == ("CPU:0", "CPU:1")

    inner = model.get_layer("decoder").layers[0]
    place({inner.name: "/device:CPU:0"})(model)
    assert [device_of(variable) for variable in model.get_layer("decoder").variables] == ["CPU:0"] * 2 + ["CPU:1"] * 2
    trained(model, ROWS)  # which checks where it is computed


def test_the_table_has_the_bytes_of_each_device():
    model = chain()
    memory = place(APART).memory(place(APART)(model), batch_size=8)
    encoder, decoder = 4 * (4 * 5 + 5), 4 * (5 * 3 + 3 + 3 * 2 + 2)
    scalars = 4 + 8  # the rate and the count of updates
    assert memory.weights == {"CPU:0": encoder, "CPU:1": decoder}
    assert memory.slots == {"CPU:0": 2 * encoder + scalars, "CPU:1": 2 * decoder}
    assert memory.activations == {"CPU:0": 4 * 8 * 5, "CPU:1": 4 * 8 * 3}  # what the two relu give
    lines = str(memory).splitlines()
    assert lines[0].split("  ")[-1].strip() == "activations of 8 rows (estimated)"
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1


def test_what_is_not_known_is_said():
    model = Subclassed()
    model(ROWS[:1])
    memory = place(APART).memory(place(APART)(model))
    assert (memory.slots, memory.activations) == (None, None)
    assert str(memory).splitlines()[1].split() == ["CPU:0", "80", "unknown", "unknown"]
    with pytest.raises(InputError, match="`batch_size` must be an integer of at least 1"):
        place(APART).memory(model, batch_size=0)


def test_an_operation_that_lands_elsewhere_stops_the_first_step():
    class Astray(layers.Layer):
        def call(self, x):
            with tf.device("CPU:0"):
                return tf.sin(x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), Astray(name="decoder")])
    model.compile("sgd", "mse")
    place({"decoder": "CPU:1"})(model)
    with pytest.raises(RuntimeError, match=r"1 operations .* elsewhere: .*decoder.*Sin.* on CPU:0 and not on CPU:1"):
        model.fit(ROWS, TARGETS, verbose=0)


@pytest.mark.parametrize(
    ("devices", "kind", "message"),
    [
        ({"decoder": "GPU:1"}, InputError, r"a device that there is, which are CPU:0, CPU:1\. Received: .*GPU:1"),
        ({"decoder": "CPU"}, InputError, "a device that there is"),
        ({"decodr": "CPU:1"}, InputError, "Did you mean 'decoder'"),
        ({}, TypeError, "a dict from patterns of layers to devices"),
        ("CPU:1", TypeError, "a dict from patterns of layers to devices"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(devices, kind, message):
    model = chain()
    with pytest.raises(kind, match=message):
        place(devices)(model)
    assert {device_of(variable) for variable in model.variables} == {"CPU:0"}
    assert "train_step" not in vars(model)


def test_models_that_cannot_be_placed_are_refused(two_replicas):
    with pytest.raises(TypeError, match="a Keras model"):
        place(APART)(layers.Dense(1))
    with pytest.raises(InputError, match="`model` must be built"):
        place({"*": "CPU:0"})(keras.Sequential([layers.Dense(1)]))
    model = chain()
    with two_replicas.scope():
        replicated = chain()
        with pytest.raises(InputError, match="strategy"):
            place(APART)(model)
    with pytest.raises(InputError, match="strategy"):
        place(APART)(replicated)
    model = chain()
    model.train_step = model.train_step
    with pytest.raises(InputError, match="something else acts"):
        place(APART)(model)
