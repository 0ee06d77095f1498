"""Models with several inputs and outputs: their names and their order in the file, and how it is called."""

import re

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, read_labels, to_tflite, verify

RNG = np.random.default_rng(0)
X = {"b_sound": RNG.normal(size=(120, 6, 2)).astype("float32"), "a_image": RNG.integers(0, 256, (120, 4, 4, 1))}


def model(named=False):
    """Two inputs and two outputs whose order is not that of the alphabet."""
    keras.utils.set_random_seed(0)
    sound, image = keras.Input((6, 2), name="b_sound"), keras.Input((4, 4, 1), name="a_image")
    pixels = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(sound), pixels])
    far = keras.layers.Dense(3, activation="softmax", name="z_class")(both)
    near = keras.layers.Dense(3, name="m_box")(pixels)
    if named:
        return keras.Model({"b_sound": sound, "a_image": image}, {"kind": far, "box": near})
    return keras.Model([sound, image], [far, near])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    made = model()
    names = ("low", "mid", "high")
    return made, {
        kind: to_tflite(made, folder / f"{kind}.tflite", kind, X, class_names=names) for kind in ("float32", "int8")
    }


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_names_and_order_are_those_of_the_model(kind, exported):
    _, files = exported
    file = LiteRTModel(files[kind].path)
    assert [tensor.name for tensor in file.inputs] == ["b_sound", "a_image"]
    assert [tensor.name for tensor in file.outputs] == ["z_class", "m_box"]
    assert (files[kind].inputs, files[kind].outputs) == (file.inputs, file.outputs)
    assert [tensor.shape for tensor in file.inputs] == [(1, 6, 2), (1, 4, 4, 1)]
    signature = file._interpreter.get_signature_list()["serving_default"]
    assert sorted(signature["inputs"]) == ["a_image", "b_sound"]
    assert read_labels(files[kind].path) == ("low", "mid", "high")


def test_lists_and_dicts_as_keras_takes_them(exported):
    made, files = exported
    file, (sound, image) = LiteRTModel(files["float32"].path), X.values()
    expected = made.predict([sound, image], verbose=0)
    listed, named = file.predict([sound, image]), file.predict({"a_image": image, "b_sound": sound})
    assert isinstance(listed, list)
    assert list(named) == ["z_class", "m_box"]
    for ours, theirs, name in zip(listed, expected, named, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_array_equal(ours, named[name])


def test_a_model_of_dicts_keeps_its_keys(tmp_path):
    made = model(named=True)
    file = to_tflite(made, tmp_path / "m.tflite")
    assert [tensor.name for tensor in file.inputs] == ["a_image", "b_sound"]  # as Keras flattens a dict
    assert [tensor.name for tensor in file.outputs] == ["box", "kind"]
    tasks = {"kind": "classification", "box": "regression"}
    targets = {"kind": np.zeros(120), "box": np.zeros((120, 3))}
    found = verify(made, file.path, X, targets, tasks)
    assert [each.metric for each in found.outputs] == ["mean absolute error", "accuracy"]
    assert found.max_error < 1e-6


@pytest.mark.parametrize(
    ("inputs", "outputs", "names"),
    [
        (
            lambda x, y: {"a": x, "in": {"b": y}},
            lambda p, q: {"p": p, "rest": [q]},
            (["left", "right"], ["far", "near"]),
        ),
        (lambda x, y: {"key": x}, lambda p, q: {"answer": p}, (["key"], ["answer"])),
        (lambda x, y: x, lambda p, q: p, (["left"], ["far"])),
    ],
)
def test_the_names_of_nested_and_single_ends(inputs, outputs, names, tmp_path):
    x, y = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    far, near = keras.layers.Dense(2, name="far")(x), keras.layers.Dense(3, name="near")(y)
    made = keras.Model(inputs(x, y), outputs(far, near))
    file = to_tflite(made, tmp_path / "m.tflite")
    assert ([tensor.name for tensor in file.inputs], [tensor.name for tensor in file.outputs]) == names
    assert file.verification.max_error < 1e-6


def test_an_automatic_name_is_none(tmp_path):
    """Its number counts all tensors of the process: the same model would be another file the next time."""
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    file = to_tflite(made, tmp_path / "m.tflite")
    assert (file.input.name, file.output.name) == ("input", "output")


def test_an_input_that_nothing_reads(tmp_path):
    read, unread = keras.Input((4,), name="read"), keras.Input((3,), name="unread")
    made = keras.Model([read, unread], keras.layers.Dense(2)(read))
    rows = [RNG.normal(size=(120, 4)), RNG.normal(size=(120, 3))]
    with pytest.raises(InputError, match="no layer reads input 'unread', so that a file of kind 'int8' has no type"):
        to_tflite(made, tmp_path / "m.tflite", "int8", rows)
    assert list(tmp_path.iterdir()) == []


def test_each_output_has_its_step(exported):
    made, files = exported
    found = verify(made, files["int8"].path, X, task=["classification", "regression"])
    assert found.lsb == tuple(tensor.scale for tensor in files["int8"].outputs)
    assert found.outputs[1].same_answer is None
    assert found.argmax_agreement == found.outputs[0].same_answer > 0.9


def test_the_text_and_the_single_properties(exported):
    _, files = exported
    text = str(files["int8"])
    for part in (
        "input b_sound: 1 x 6 x 2 int8 (scale",
        "output m_box: 1 x 3 int8",
        "q = fminf(fmaxf(rintf(x / scale",
    ):
        assert part in text
    with pytest.raises(InputError, match=r"has 2 inputs \('b_sound', 'a_image'\)\. Read the property `inputs`"):
        _ = files["int8"].input


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X["b_sound"], "`x` must be a list or dict of 2 arrays, for 'b_sound', 'a_image'. Received: x='ndarray'."),
        ([X["b_sound"]], "Received: x='list'. Give an array for each input."),
        ({"b_sound": X["b_sound"]}, "`x` must be a dict of arrays by the names 'b_sound', 'a_image'."),
        ([X["a_image"], X["b_sound"]], "of shape (rows, 6, 2), rows >= 1, for 'b_sound', as many rows as the others"),
        ([X["b_sound"], X["a_image"][:9]], "for 'a_image', as many rows as the others. Received: x=(9, 4, 4, 1)"),
    ],
)
def test_inputs_that_do_not_fit(x, message, exported):
    with pytest.raises(InputError, match=re.escape(message)):
        LiteRTModel(exported[1]["float32"].path).predict(x)
