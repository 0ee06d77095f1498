import keras
import numpy as np
import oracle_models
import pytest
import tensorflow as tf

from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.models import reestimate_batch_norm
from keras_opt.models.reestimate_batch_norm import Moments

RNG = np.random.default_rng(3)
X = RNG.normal(2, 3, size=(50, 3))  # the last batch of 16 has two rows


def statistics(*norms):
    return [keras.ops.convert_to_numpy(each) for norm in norms for each in (norm.moving_mean, norm.moving_variance)]


def norms(model):
    return [each for each in model._flatten_layers() if isinstance(each, keras.layers.BatchNormalization)]


def population(x):
    axes = tuple(range(x.ndim - 1))
    return [x.mean(axes), x.var(axes)]


def one_norm(**settings):
    return keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(**settings)])


def two_norms():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(name="first"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
            keras.layers.BatchNormalization(name="second"),
        ]
    )


def expected_of_two_norms(model, x, batch_size=16):
    """The activations in NumPy, each batch normalised by itself, as in training."""
    (kernel1, bias1, gamma, beta), epsilon = model.get_weights()[:4], model.get_layer("first").epsilon
    kernel2, bias2 = model.layers[3].get_weights()
    first = np.tanh(x @ kernel1 + bias1)
    batches = np.split(first, range(batch_size, len(x), batch_size))
    normalised = [(b - b.mean(0)) / np.sqrt(b.var(0) + epsilon) * gamma + beta for b in batches]
    return population(first) + population(np.concatenate(normalised) @ kernel2 + bias2)


def same(found, expected, tolerance):
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(found, expected, strict=True))


def test_two_norms_get_the_statistics_of_all_samples_to_1e_12_with_dropout_off():
    with oracle_models.float64():
        model = two_norms()
        reestimate_batch_norm(model, X, batch_size=16)
        assert same(statistics(*norms(model)), expected_of_two_norms(model, X), 1e-12)


@pytest.mark.parametrize(
    "dataset",
    [
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(16),
        lambda x: tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(16),
        lambda x: tf.data.Dataset.from_tensor_slices((x, x[:, 0], x[:, 1])).batch(16),
        lambda x: [(x[:16], None), (x[16:],)],
        lambda x: (x, x[:, 0]),
        lambda x: tf.constant(x),
    ],
    ids=["x", "x_y", "x_y_weight", "list_of_batches", "arrays", "tensor"],
)
def test_every_form_of_a_dataset(dataset):
    with oracle_models.float64():
        model = one_norm()
        reestimate_batch_norm(model, dataset(X))
    assert same(statistics(*norms(model)), population(X), 1e-12)


def test_steps_batches_are_used_of_an_endless_dataset():
    model = one_norm()
    endless = tf.data.Dataset.from_tensor_slices(X.astype("float32")).batch(10).repeat()
    reestimate_batch_norm(model, endless, steps=3)
    assert same(statistics(*norms(model)), population(X[:30]), 1e-5)
    with pytest.raises(InputError, match="steps"):
        reestimate_batch_norm(model, endless)


def test_float32_keeps_the_variance_of_a_far_mean():
    model = one_norm()
    x = (RNG.normal(size=(64, 3)) + 1e3).astype("float32")
    reestimate_batch_norm(model, x, batch_size=8)
    assert same(statistics(*norms(model))[1:], population(x.astype("float64"))[1:], 1e-5)


def test_convolutions_and_another_axis():
    model = keras.Sequential([keras.Input((3, 4, 5)), keras.layers.BatchNormalization(axis=1)])
    x = RNG.normal(size=(20, 3, 4, 5)).astype("float32")
    reestimate_batch_norm(model, x, batch_size=8)
    assert same(statistics(*norms(model)), population(np.moveaxis(x, 1, -1)), 1e-5)


def test_mixed_precision_takes_its_statistics_in_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = one_norm()
    finally:
        keras.config.set_dtype_policy(policy)
    reestimate_batch_norm(model, X.astype("float32"))
    assert same(statistics(*norms(model)), population(X.astype("float16").astype("float64")), 1e-5)


def test_masked_steps_do_not_count():
    x = RNG.normal(size=(6, 5, 2))
    x[:, 3:] = 0
    with oracle_models.float64():
        model = keras.Sequential([keras.Input((5, 2)), keras.layers.Masking(), keras.layers.BatchNormalization()])
        reestimate_batch_norm(model, x)
    assert same(statistics(*norms(model)), population(x[:, :3]), 1e-12)


def test_a_nested_model_and_a_shared_norm_that_pools_its_inputs():
    with oracle_models.float64():
        shared = keras.layers.BatchNormalization(name="shared")
        inner = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="inner")])
        left, right = keras.Input((3,)), keras.Input((3,))
        model = keras.Model([left, right], keras.layers.Add()([shared(left), inner(shared(right))]))
        y = RNG.normal(5, 1, size=(50, 3))
        reestimate_batch_norm(model, ((X, y),))
    assert same(statistics(shared), population(np.concatenate([X, y])), 1e-12)
    assert np.allclose(statistics(inner.layers[0])[0], 0, atol=1e-12)


def test_a_subclass_whose_call_takes_no_mask():
    class Plain(keras.layers.BatchNormalization):
        def call(self, x, training=None):
            return super().call(x, training=training)

    model = keras.Sequential([keras.Input((3,)), Plain()])
    reestimate_batch_norm(model, X.astype("float32"))
    assert same(statistics(*norms(model)), population(X), 1e-5)


def test_a_norm_within_a_custom_layer():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x)

    model = keras.Sequential([keras.Input((3,)), Block()])
    reestimate_batch_norm(model, X.astype("float32"))
    assert same(statistics(*norms(model)), population(X), 1e-5)


def test_frozen_norms_and_those_in_inference_mode_stay():
    class Still(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x, training=False)

    still = Still()
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)
    free = keras.layers.BatchNormalization(name="free")
    model = keras.Sequential([keras.Input((3,)), still, frozen, free])
    reestimate_batch_norm(model, X.astype("float32"))
    assert same(statistics(still.norm, frozen), [np.zeros(3), np.ones(3)] * 2, 0)
    assert same(statistics(free)[:1], [X.mean(0)], 1e-2)  # the others scale by 1 / sqrt(1 + epsilon)


def test_nothing_else_changes():
    model = two_norms()
    model.compile(keras.optimizers.Adam(), "mse", metrics=["mae"])
    model.fit(X, X[:, :2], verbose=0)
    state = [*model.trainable_variables, *model.optimizer.variables, *model.metrics_variables]
    state += model.layers[2].non_trainable_variables  # Dropout's seed
    before = [keras.ops.convert_to_numpy(each) for each in state]
    function = model.train_function
    reestimate_batch_norm(model, X)
    assert all(np.array_equal(a, b) for a, b in zip(before, state, strict=True))
    assert model.train_function is function
    assert not any("call" in vars(norm) for norm in norms(model))


def test_an_exception_in_the_middle_leaves_the_old_statistics():
    model = one_norm()

    def breaking():
        yield X[:8].astype("float32")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        reestimate_batch_norm(model, breaking())
    assert same(statistics(*norms(model)), [np.zeros(3), np.ones(3)], 0)
    assert "call" not in vars(norms(model)[0])


def test_replicas_get_the_same_statistics(two_replicas):
    with two_replicas.scope():
        model = one_norm()
    reestimate_batch_norm(model, X.astype("float32"))
    variables = (norms(model)[0].moving_mean, norms(model)[0].moving_variance)
    for variable, expected in zip(variables, population(X), strict=True):
        for part in two_replicas.experimental_local_results(variable.value):
            assert np.allclose(part.numpy(), expected, rtol=1e-5)


def test_norms_that_inference_does_not_call_are_refused():
    @keras.saving.register_keras_serializable("tests")
    class InTraining(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="inner")

        def call(self, x, training=False):
            return self.norm(x, training=True) if training else x

    model = keras.Sequential([keras.Input((3,)), InTraining()])
    with pytest.raises(InputError, match=r"calls its norms at inference too.*inner.*before quantize_aware"):
        reestimate_batch_norm(model, X.astype("float32"))


def test_a_subclassed_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x, training=False):
            return self.norm(x, training=training)

    model = Net()
    model(X[:2].astype("float32"))
    reestimate_batch_norm(model, X.astype("float32"))
    assert same(statistics(model.norm), population(X), 1e-5)


def test_a_model_without_norms_is_said_to_have_none():
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="still", trainable=False)])
    with pytest.warns(NoEffectWarning, match="still"):
        reestimate_batch_norm(model, X)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dataset": np.zeros((0, 3))}, "dataset"),
        ({"dataset": 3}, "dataset"),
        ({"dataset": X, "steps": 0}, "steps"),
        ({"dataset": X, "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(arguments, name):
    model = one_norm()
    with pytest.raises(InputError, match=f"argument `{name}`"):
        reestimate_batch_norm(model, **arguments)
    assert same(statistics(*norms(model)), [np.zeros(3), np.ones(3)], 0)


def test_moments_of_parts_are_those_of_the_whole():
    moments = Moments()
    for part in np.split(X, [1, 7, 30]):
        moments.add(len(part), part.mean(0), len(part) * part.var(0))
    moments.add(0.0, np.zeros(3), np.zeros(3))
    assert same([moments.mean, moments.variance], population(X), 1e-14)
