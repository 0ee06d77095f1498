"""average_weights: its sources, what it refuses, what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.callbacks import ModelCheckpoint
from keras_opt.ensemble import average_weights
from keras_opt.models.labelled_file import save_labelled

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def network(units=3, name=None, seed=0, last=2):
    """All weights are drawn, those of BatchNorm too."""
    layers = [keras.layers.Dense(units, name=name), keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(last)])
    draw = np.random.default_rng(seed)
    model.set_weights([draw.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    return model


def expected(models, weights=None):
    groups = zip(*(model.get_weights() for model in models), strict=True)
    return [np.average(np.stack(group).astype("float64"), axis=0, weights=weights) for group in groups]


def assert_weights(model, arrays, atol=1e-6):
    for found, wanted in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


@pytest.fixture
def saved(tmp_path):
    models = [network(seed=seed) for seed in range(3)]
    for number, model in enumerate(models):
        model.compile("adam", "mse")
        model.save(tmp_path / f"{number}.keras")
        model.save_weights(tmp_path / f"{number}.weights.h5")
    return models, tmp_path


def test_models_files_and_both_give_the_same(saved):
    models, folder = saved
    wanted = expected(models, [1, 2, 5])
    files, weights = ([str(folder / f"{n}{suffix}") for n in range(3)] for suffix in (".keras", ".weights.h5"))
    sources = ((models, {}), (files, {}), ([models[0], files[1], weights[2]], {}), ([weights[0], *files[1:]], {}))
    for source, more in (*sources, (weights, {"model": network(seed=9)})):
        average = average_weights(source, [1, 2, 5], **more)
        assert isinstance(average, keras.Sequential)
        assert not average.compiled
        assert_weights(average, wanted)


def test_the_sources_are_left_alone(saved):
    models, folder = saved
    before = [model.get_weights() for model in models]
    average = average_weights([models[0], folder / "1.keras"])
    average.set_weights([np.zeros_like(weight) for weight in average.get_weights()])
    for model, weights in zip(models, before, strict=True):
        assert_weights(model, weights, 0)
    other = network(seed=9)
    average_weights([folder / "1.weights.h5"], model=other)
    assert_weights(other, network(seed=9).get_weights(), 0)


def test_the_folder_of_a_model_checkpoint(tmp_path):
    model = network()
    model.compile("sgd", "mse")
    save = ModelCheckpoint(tmp_path / "{epoch}.keras", monitor="loss", keep=None)
    kept = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
    weights = []
    model.fit(X, X[:, :2], epochs=3, verbose=0, callbacks=[save, kept])
    assert_weights(average_weights(tmp_path), [np.mean(group, axis=0) for group in zip(*weights, strict=True)])
    with pytest.raises(ValueError, match=r"has no index\.json"):
        average_weights(tmp_path.parent)


def test_statistics_are_taken_anew():
    average = average_weights([network(seed=0), network(seed=1)], reestimate_batch_norm=X)
    hidden = X @ average.layers[0].kernel.numpy() + average.layers[0].bias.numpy()
    np.testing.assert_allclose(average.layers[1].moving_mean, hidden.mean(0), atol=1e-5)


def test_numbers_that_keras_gave_do_not_matter_and_other_names_do():
    first, second = network(seed=0), network(seed=1)
    assert first.layers[0].name != second.layers[0].name
    average_weights([first, second])
    with pytest.raises(ValueError, match=r"has `sequential/dense/kernel` \(4, 3\).*has `sequential/mine/kernel`"):
        average_weights([first, network(name="mine")])


@keras.saving.register_keras_serializable("test_ensemble_average_weights")
class Block(keras.layers.Layer):
    """A layer with a layer of its own."""

    def __init__(self, name_of_own=None, **settings):
        super().__init__(**settings)
        self.projection = keras.layers.Dense(4, name=name_of_own)

    def build(self, shape):
        self.projection.build(shape)

    def call(self, x):
        return self.projection(x)


@pytest.mark.parametrize(
    "layer",
    [
        Block,
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(3)),
        lambda: keras.layers.Bidirectional(keras.layers.GRU(3)),
    ],
    ids=["block", "time_distributed", "bidirectional"],
)
def test_numbers_inside_of_layers_do_not_matter(layer, tmp_path):
    models = [keras.Sequential([keras.Input((5, 4)), layer()]) for _ in range(2)]
    files = [tmp_path / "0.keras", tmp_path / "1.keras"]
    for model, file in zip(models, files, strict=True):
        model.save(file)
    for sources in (models, files, [models[0], files[1]]):
        assert_weights(average_weights(sources), expected(models))


def test_other_names_inside_of_layers_do(tmp_path):
    models = [keras.Sequential([keras.Input((4,)), Block(name_of_own=name)]) for name in ("mine", "yours")]
    models[1].save(tmp_path / "yours.keras")
    for other in (models[1], tmp_path / "yours.keras"):
        with pytest.raises(ValueError, match=r"mine.*yours"):
            average_weights([models[0], other])


@pytest.mark.parametrize("other", [{"last": 3}, {"units": 5}, {"name": "mine"}])
def test_files_of_other_networks_are_named(saved, other):
    folder = saved[1]
    network(**other).save(folder / "other.keras")
    for sources in ([folder / "0.keras", folder / "other.keras"], [saved[0][0], folder / "other.keras"]):
        with pytest.raises(ValueError, match=r"same weights throughout.*has `layers/.*other\.keras' has `layers/"):
            average_weights(sources)


def test_a_damaged_file_and_one_that_lacks_a_network(saved):
    models, folder = saved
    (folder / "1.keras").write_bytes((folder / "1.keras").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"the weights in '.*1\.keras' cannot be read"):
        average_weights([models[0], folder / "1.keras"])
    with pytest.raises(ValueError, match="argument `model` must be the network of the files"):
        average_weights([folder / "0.weights.h5"])


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1], [1, 2, 3], [1, np.nan], ["1", 2], 3, "ab"])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match="`weights` must be 2 finite numbers of at least 0, not all 0"):
        average_weights([network(), network()], weights)


def adapted(rows):
    layer = keras.layers.Normalization()
    layer.adapt(X[:rows])
    return keras.Sequential([keras.Input((4,)), layer])


def test_integers_must_be_equal():
    average = average_weights([adapted(16), adapted(16)])
    np.testing.assert_allclose(average(X), adapted(16)(X), atol=1e-6)
    with pytest.raises(ValueError, match=r"integers cannot be averaged, and .* is not what it is in the others"):
        average_weights([counting(1), counting(2)])


class Counting(keras.layers.Layer):
    """Holds an integer that is a weight."""

    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        return inputs


def counting(count):
    model = keras.Sequential([keras.Input((4,)), Counting()])
    model.set_weights([np.array(count)])
    return model


def test_half_precision_is_summed_in_single_and_double_stays_double():
    def constant(value, dtype):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, dtype=dtype)])
        model.set_weights([np.full((1, 1), value)])
        return model

    values = [1.0, *[1 / 1024] * 64]  # in bfloat16 the small ones would be lost one by one
    average = average_weights([constant(value, "bfloat16") for value in values], [1.0] * 65)
    assert float(average.weights[0][0, 0]) == float(tf.cast(sum(values) / 65, tf.bfloat16))
    double = average_weights([constant(1.0, "float64"), constant(1.0 + 2**-40, "float64")])
    assert float(double.weights[0][0, 0]) == 1.0 + 2**-41


def test_nested_models_and_subclassed_ones(tmp_path):
    def nested(seed):
        inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        outputs = keras.layers.Dense(2)(inner(inputs := keras.Input((4,))))
        model = keras.Model(inputs, outputs)
        model.set_weights([np.full(weight.shape, seed) for weight in model.get_weights()])
        return model

    nested(3.0).save(tmp_path / "3.keras")
    assert {weight.max() for weight in average_weights([nested(1.0), tmp_path / "3.keras"]).get_weights()} == {2.0}

    built = Subclassed(), Subclassed()
    for number, model in enumerate(built):
        model(X)
        model.set_weights([np.full((4, 2), float(number)), np.zeros(2)])
    assert average_weights(built).get_weights()[0].max() == 0.5
    with pytest.raises(ValueError, match="must be built models"):
        average_weights([Subclassed(), Subclassed()])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {}


def test_models_and_files_of_other_class_names(tmp_path):
    first, second = network(seed=0), network(seed=1)
    first.class_names, second.class_names = ("a", "b"), ("b", "a")
    with pytest.raises(ValueError, match=r"same classes.*has class_names \('a', 'b'\), model .* has \('b', 'a'\)"):
        average_weights([first, network(), second])
    save_labelled(second, tmp_path / "second.keras", second.class_names)
    with pytest.raises(ValueError, match=r"same classes.*second\.keras' has \('b', 'a'\)"):
        average_weights([first, tmp_path / "second.keras"])


def test_the_input_of_a_sequential_model_keeps_its_name_and_kind():
    model = keras.Sequential([keras.Input((4,), name="feat", sparse=True), keras.layers.Dense(2)])
    average = average_weights([model])
    np.testing.assert_allclose(average.predict({"feat": X}, verbose=0), model(X), atol=1e-6)
    assert average.inputs[0].sparse


def test_weights_of_any_size():
    assert_weights(average_weights([network(seed=0), network(seed=1)], [1e308, 1e308]), expected_of_two())


def expected_of_two():
    return expected([network(seed=0), network(seed=1)])
