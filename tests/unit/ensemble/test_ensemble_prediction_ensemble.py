"""PredictionEnsemble: its formulas, its members, its files, its errors."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_opt
from keras_opt import export, models
from keras_opt.core.all_layers import all_layers
from keras_opt.ensemble import PredictionEnsemble

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")


def member(units=3, activation="softmax", inputs=4, name="same"):
    layers = [keras.Input((inputs,)), keras.layers.Dense(5, "relu", name="body"), keras.layers.Dense(units, activation)]
    return keras.Sequential(layers, name=name)


class WithNotes(keras.layers.Dense):
    notes = ""

    def save_assets(self, inner_path):
        Path(inner_path, "notes").write_text(self.notes)

    def load_assets(self, inner_path):
        self.notes = Path(inner_path, "notes").read_text()


def outputs(members, x=X):
    return np.stack([np.asarray(each(x), np.float64) for each in members])


def test_members_of_the_same_names_are_copied_and_left_alone():
    members = [member(), member()]
    before = [each.get_weights() for each in members]
    ensemble = PredictionEnsemble(members)
    for layer in ensemble.members:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    assert [each.name for each in ensemble.members] == ["member_0", "member_1"]
    assert [each.name for each in members] == ["same", "same"]
    for each, weights in zip(members, before, strict=True):
        for now, then in zip(each.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("method", ["mean", "geometric", "vote", "weighted"])
def test_it_is_saved_loaded_and_made_plain(method, tmp_path):
    ensemble = PredictionEnsemble([member(), member()], method, name="pair")
    if method == "weighted":
        ensemble.fit_weights(X, np.arange(20) % 3)
    expected = np.asarray(ensemble(X))
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras_opt.load_model(tmp_path / "ensemble.keras")
    assert type(loaded) is PredictionEnsemble
    assert (loaded.method, loaded.name, len(loaded.members)) == (method, "pair", 2)
    np.testing.assert_array_equal(loaded.member_weights, ensemble.member_weights)
    np.testing.assert_array_equal(loaded(X), expected)
    plain = loaded.to_plain()
    assert type(plain) is type(keras.Model(plain.input, plain.output))
    assert "keras_opt" not in plain.to_json()
    np.testing.assert_array_equal(plain(X), expected)


def test_an_ensemble_can_be_a_member_of_an_ensemble():
    first, second = PredictionEnsemble([member(), member()]), member()
    nested = PredictionEnsemble([first, second])
    np.testing.assert_allclose(nested(X), outputs([first, second]).mean(0), atol=1e-6)
    again = PredictionEnsemble.from_config(nested.get_config())
    again.set_weights(nested.get_weights())
    np.testing.assert_array_equal(again(X), nested(X))


def test_it_is_trained_further_and_keeps_batch_norm_and_dropout():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    members = [keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])]
    ensemble = PredictionEnsemble(members)
    ensemble.compile("sgd", "mse")
    ensemble.fit(X, X[:, 0], verbose=0)
    assert np.abs(ensemble.members[0].layers[2].moving_mean).max() > 0
    assert np.abs(members[0].layers[1].moving_mean).max() == 0


def test_models_of_several_inputs():
    def two_inputs():
        inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), name="b")}
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()([inputs["a"], inputs["b"]])))

    members, x = [two_inputs(), two_inputs()], {"a": X, "b": X[:, :2]}
    np.testing.assert_allclose(PredictionEnsemble(members)(x), outputs(members, x).mean(0), atol=1e-6)


@pytest.mark.parametrize("mode", ["multi_hot", "tf_idf"])
def test_members_know_the_words_that_their_layers_have_learnt(mode, tmp_path):
    def reader(text):
        words = keras.layers.TextVectorization(output_mode=mode)
        words.adapt(text)
        return keras.Sequential([keras.Input((), dtype="string"), words, keras.layers.Dense(2, "softmax")])

    members = [reader(["a b c", "a d"]), reader(["c d e", "d"])]
    text = tf.constant(["d a", "b b c"])
    ensemble = PredictionEnsemble(members)
    expected = outputs(members, text).mean(0)
    np.testing.assert_allclose(ensemble(text), expected, rtol=1e-5)
    ensemble.save(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "ensemble.keras")(text), expected, rtol=1e-5)


def test_a_layer_of_ones_own_with_files_beside_its_weights():
    members = [keras.Sequential([keras.Input((4,)), WithNotes(3)]) for _ in range(2)]
    for member in members:
        member.layers[-1].notes = "learnt"
    ensemble = PredictionEnsemble(members)
    assert [layer.notes for layer in all_layers(ensemble) if isinstance(layer, WithNotes)] == ["learnt", "learnt"]


def test_a_tie_splits_the_vote_and_a_single_output_is_above_one_half_or_not():
    flat = member(2)
    flat.layers[-1].kernel.assign(np.zeros((5, 2)))
    np.testing.assert_array_equal(PredictionEnsemble([flat], "vote")(X[:1]), [[0.5, 0.5]])
    binary = [member(1, "sigmoid") for _ in range(3)]
    np.testing.assert_allclose(PredictionEnsemble(binary, "vote")(X), (outputs(binary) > 0.5).mean(0), atol=1e-6)


def test_geometric_neither_overflows_nor_loses_small_probabilities():
    members = [member(), member()]
    for each, scale in zip(members, (300.0, -299.0), strict=True):
        each.layers[-1].bias.assign([scale, 0.0, 0.0])
    found = np.asarray(PredictionEnsemble(members, "geometric")(X))
    logits = outputs([keras.Sequential([keras.Input((4,)), *each.layers[:-1]]) for each in members])
    logits = np.stack(
        [h @ each.layers[-1].kernel.numpy() + each.layers[-1].bias for h, each in zip(logits, members, strict=True)]
    ).mean(0)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [keras.layers.Dense(3, "softmax")],
        lambda: [keras.layers.EinsumDense("bts,sc->btc", (None, 3), activation="softmax")],
        lambda: [keras.layers.Conv1D(3, 1, activation="softmax")],
        lambda: [keras.layers.Conv1DTranspose(3, 1, activation="softmax")],
        lambda: [keras.layers.DepthwiseConv1D(1, activation="softmax")],
        lambda: [keras.layers.SeparableConv1D(3, 1, activation="softmax")],
        lambda: [keras.layers.LSTM(3), keras.layers.Activation("softmax")],
        lambda: [WithNotes(3, "softmax")],
    ],
    ids=["dense", "einsum", "conv", "transpose", "depthwise", "separable", "activation", "own"],
)
def test_geometric_of_every_layer_that_ends_with_its_activation(layers):
    members = [keras.Sequential([keras.Input((5, 4)), *layers()]) for _ in range(2)]
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    product = np.prod(outputs(members, x), axis=0) ** 0.5
    expected = product / product.sum(-1, keepdims=True)
    np.testing.assert_allclose(PredictionEnsemble(members, "geometric")(x), expected, atol=1e-5)


def test_regression_takes_the_squared_error_and_probabilities_the_likelihood():
    members = [member(1, None), member(1, None)]
    ensemble = PredictionEnsemble(members, "weighted")
    np.testing.assert_allclose(ensemble.fit_weights(X, outputs(members)[1]), [0, 1], atol=1e-5)
    np.testing.assert_allclose(ensemble(X), members[1](X), atol=1e-4)
    with pytest.raises(ValueError, match="'squared' for these outputs"):
        ensemble.fit_weights(X, outputs(members)[1] * 9, loss="log")
    classifiers = [member(), member()]
    weights = PredictionEnsemble(classifiers, "weighted").fit_weights(X, outputs(classifiers)[0].argmax(1))
    assert weights[0] > 0.5
    assert abs(weights.sum() - 1) < 1e-6


def test_int8_of_every_kind_that_has_one(tmp_path, request):
    """The mean by default, all with `--full`."""
    keras.utils.set_random_seed(1)
    pixels = np.random.default_rng(1).integers(0, 256, (120, 8, 8, 1)).astype("float32")
    scale = keras.layers.Rescaling(1 / 255)
    members = [models.convnet((4,), (8, 8, 1), 3, preprocessing=scale) for _ in range(3)]
    for method in ("mean", "geometric", "weighted") if request.config.getoption("full") else ("mean",):
        PredictionEnsemble(members, method).save(tmp_path / "ensemble.keras")
        loaded = keras_opt.load_model(tmp_path / "ensemble.keras")
        file = export.to_tflite(loaded, tmp_path / "ensemble.tflite", "int8", pixels)
        checked = export.verify(loaded, file.path, pixels)
        assert file.input.dtype == file.output.dtype == "int8"
        assert checked.argmax_agreement >= 0.9
        assert checked.max_error_lsb <= 6


def test_a_vote_has_no_int8_form_and_is_exported_in_float(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (120, 8, 8, 1)).astype("float32")
    members = [models.convnet((4,), (8, 8, 1), 3) for _ in range(2)]
    with pytest.raises(ValueError, match="int8 file computes in float32: CAST"):
        export.to_tflite(PredictionEnsemble(members, "vote"), tmp_path / "vote.tflite", "int8", pixels)
    file = export.to_tflite(PredictionEnsemble(members, "vote"), tmp_path / "vote.tflite")
    assert export.verify(PredictionEnsemble(members, "vote"), file.path, pixels[:9]).max_error < 1e-6


def test_inputs_of_several_kinds_of_numbers_are_not_cut_to_whole_ones():
    layers = [keras.layers.Embedding(9, 3), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    members = [keras.Sequential([keras.Input((4,), dtype="int32"), *layers]), member()]
    ensemble = PredictionEnsemble(members)
    assert ensemble.inputs[0].dtype == "float32"
    np.testing.assert_allclose(
        ensemble.predict(X, verbose=0), np.mean([each.predict(X, verbose=0) for each in members], axis=0), atol=1e-6
    )


def test_maps_of_any_size_are_weighted():
    def segmenter():
        inputs = keras.Input((None, None, 1))
        return keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(inputs))

    members = [segmenter(), segmenter()]
    pixels = np.random.default_rng(0).normal(size=(2, 5, 6, 1)).astype("float32")
    ensemble = PredictionEnsemble(members, "weighted")
    np.testing.assert_allclose(ensemble(pixels), outputs(members, pixels).mean(0), atol=1e-6)


def test_labels_of_which_several_hold_are_voted_on_one_by_one():
    members = [member(3, "sigmoid") for _ in range(3)]
    np.testing.assert_allclose(PredictionEnsemble(members, "vote")(X), (outputs(members) > 0.5).mean(0), atol=1e-6)


def test_class_names_are_saved(tmp_path):
    members = [member(), member()]
    members[0].class_names = ("a", "b", "c")
    PredictionEnsemble(members).save(tmp_path / "named.keras")
    assert keras_opt.load_model(tmp_path / "named.keras").class_names == ("a", "b", "c")


def test_weights_are_fitted_on_a_dataset():
    members = [member(), member()]
    y = outputs(members)[0].argmax(1)
    wanted = PredictionEnsemble(members, "weighted").fit_weights(X, y)
    shuffled = tf.data.Dataset.from_tensor_slices((X, y)).shuffle(20).batch(6)
    np.testing.assert_allclose(PredictionEnsemble(members, "weighted").fit_weights(shuffled), wanted, atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "geometric", "vote", "weighted"])
@pytest.mark.parametrize(("policy", "dtype"), [("mixed_float16", "float32"), ("float64", "float64")])
def test_members_are_combined_in_their_precision_whatever_the_global_policy(method, policy, dtype):
    other = "float32" if policy == "float64" else policy
    last = keras.layers.Dense
    members = []
    for _ in range(2):
        inputs = keras.Input((4,), dtype=dtype)
        members.append(keras.Model(inputs, last(3, "softmax", dtype=dtype)(inputs)))
    try:
        keras.config.set_dtype_policy(other)
        ensemble = PredictionEnsemble(members, method)
    finally:
        keras.config.set_dtype_policy("float32")
    assert ensemble.output.dtype == dtype
    if method in ("mean", "weighted"):
        x = X.astype(dtype)
        np.testing.assert_allclose(ensemble(x), outputs(members, x).mean(0), rtol=1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["mean", "normalised", "member_since"])
def test_inputs_of_any_name(name):
    def named():
        inputs = keras.Input((4,), name=name)
        return keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs))

    assert len(PredictionEnsemble([named(), named()], "geometric").members) == 2


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (list, "at least one model"),
        (lambda: [member(), member(inputs=5)], r"models\[0\] has inputs \[\(4,\)\], models\[1\] has \[\(5,\)\]"),
        (lambda: [member(), member(4)], r"models\[0\] has output \(3,\), models\[1\] has \(4,\)"),
        (lambda: [keras.Sequential([keras.layers.Dense(2)])], r"models\[0\]` must be a built functional or Sequential"),
    ],
)
def test_models_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        PredictionEnsemble(make())


def test_models_of_other_class_names():
    members = [member(), member(), member()]
    members[0].class_names, members[2].class_names = ("a", "b", "c"), ("a", "c", "b")
    assert PredictionEnsemble(members[:2]).class_names == ("a", "b", "c")
    for order in (members, [members[1], members[0], members[2]]):
        with pytest.raises(ValueError, match=r"has class_names \('a', 'b', 'c'\), models\[2\] has \('a', 'c', 'b'\)"):
            PredictionEnsemble(order)
    assert PredictionEnsemble([members[1], members[0]]).class_names == ("a", "b", "c")


def test_geometric_needs_one_activation_that_gives_probabilities():
    for activations in (("softmax", None), ("softmax", "sigmoid"), (None, None)):
        with pytest.raises(ValueError, match='all have activation="softmax"'):
            PredictionEnsemble([member(activation=each) for each in activations], "geometric")


def test_weights_are_fitted_only_where_there_are_some():
    with pytest.raises(RuntimeError, match='needs method="weighted"'):
        PredictionEnsemble([member()]).fit_weights(X, np.zeros(20))
    with pytest.raises(ValueError, match=r"`y` must be of shape \(20, 3\)"):
        PredictionEnsemble([member()], "weighted").fit_weights(X, np.full(20, 7))


def test_inputs_of_other_names():
    def named(*names):
        inputs = {name: keras.Input((2,), name=name) for name in names}
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(list(inputs.values()))))

    with pytest.raises(ValueError, match=r"has inputs {'a': \(2,\), 'b': \(2,\)}, models\[1\] has {'a': \(2,\), 'c'"):
        PredictionEnsemble([named("a", "b"), named("a", "c")])


def test_inputs_of_another_order():
    inputs = {name: keras.Input((2,), name=name) for name in "ab"}
    output = keras.layers.Dense(2)(keras.layers.Concatenate()(list(inputs.values())))
    first, other = (keras.Model([inputs[name] for name in order], output) for order in ("ab", "ba"))
    with pytest.raises(ValueError, match=r"models\[0\] takes \['a', 'b'\], models\[1\] takes \['b', 'a'\]"):
        PredictionEnsemble([first, other])


@pytest.mark.parametrize("wrapped", [lambda output: [output], lambda output: {"y": output}], ids=["list", "dict"])
def test_an_output_in_a_list_or_a_dict(wrapped):
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"models\[1\]` must be a model whose output is a tensor.*Take it out"):
        PredictionEnsemble([member(), keras.Model(inputs, wrapped(keras.layers.Dense(3)(inputs)))])


def test_geometric_of_a_last_layer_that_is_also_an_inner_one():
    layer, inputs = keras.layers.Dense(4, "softmax"), keras.Input((4,))
    with pytest.raises(ValueError, match="The activations are: none"):
        PredictionEnsemble([keras.Model(inputs, layer(layer(inputs)))], "geometric")


class Halved(keras.layers.Dense):
    def call(self, inputs):
        return super().call(inputs) / 2


@pytest.mark.parametrize(
    "last",
    [
        lambda: keras.layers.SimpleRNN(4, activation="softmax"),
        lambda: keras.layers.LSTM(1, activation="sigmoid"),
        lambda: Halved(4, "softmax"),
    ],
    ids=["simple_rnn", "lstm", "own"],
)
def test_geometric_of_a_last_layer_that_goes_on_after_its_activation(last):
    members = [keras.Sequential([keras.Input((5, 4)), last()]) for _ in range(2)]
    with pytest.raises(ValueError, match=r'all have activation="softmax".*The activations are: none'):
        PredictionEnsemble(members, "geometric")


@pytest.mark.parametrize("y", [np.full(20, np.nan), np.array(["a"] * 20), np.zeros(0), None, np.full((20, 3), np.inf)])
def test_targets_that_are_no_numbers(y):
    with pytest.raises(ValueError, match="fit_weights: argument `y` must be"):
        PredictionEnsemble([member()], "weighted").fit_weights(X, y)


def test_weights_are_not_fitted_on_a_dataset_with_sample_weights():
    weighted = tf.data.Dataset.from_tensor_slices((X, np.zeros(20), np.ones(20))).batch(6)
    ensemble = PredictionEnsemble([member()], "weighted")
    with pytest.raises(ValueError, match=r"fit_weights: argument `x` must be .*without sample weights.*dataset\.map"):
        ensemble.fit_weights(weighted)
    ensemble.fit_weights(weighted.map(lambda x, y, w: (x, y)))


def test_a_member_that_diverged():
    members = [member(), member()]
    members[1].layers[-1].bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match=r"models\[1\]` must be a model whose outputs are finite"):
        PredictionEnsemble(members, "weighted").fit_weights(X, np.zeros(20))
