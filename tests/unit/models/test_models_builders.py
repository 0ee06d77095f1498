"""What every builder promises: plain Keras files, and int8 files without a float island."""

import json

import keras
import numpy as np
from builders import BUILDERS, inputs_of, with_random_statistics

from keras_opt.export import to_tflite, verify
from keras_opt.export.model_file import names, schema, unpack

SETTINGS = {
    "batch": {},
    "sync": {"norm": "sync"},
    "group": {"norm": "group"},
    "none": {"norm": "none"},
    "batch after": {"norm_position": "after_activation"},
}
ALL = [(name, settings) for name in BUILDERS for settings in SETTINGS]
FEW = [(name, "batch") for name in BUILDERS] + [(name, "group") for name in ("mlp", "convnet")]


def cases(request, few):
    """All builders with all settings with `pytest --full`."""
    chosen = ALL if request.config.getoption("full") else few
    return [BUILDERS[name](**SETTINGS[settings]) for name, settings in chosen]


def test_the_files_open_in_plain_keras(tmp_path, request):
    for model in cases(request, FEW):
        assert type(model).__module__.startswith("keras.")
        assert "keras_opt" not in json.dumps(model.get_config(), default=str)
        model.save(tmp_path / "model.keras")
        x = inputs_of(model, 3)
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


def tensor_types(path):
    tree, types = unpack(path.read_bytes()), names(schema().TensorType)
    return {types[tensor.type] for graph in tree.subgraphs for tensor in graph.tensors}


def test_full_int8_without_a_float_island(tmp_path, request):
    few = [("mlp", "batch after"), ("mlp", "group"), ("convnet", "sync"), ("convnet", "none")]
    few += [("convnet of windows", "group"), ("convnet of windows", "batch after"), ("resnet", "group")]
    few += [("resnet", "batch after"), ("resnet of windows", "batch"), ("mobilenet", "batch")]
    for model in cases(request, few):
        exported = to_tflite(with_random_statistics(model), tmp_path / "model.tflite", "int8", inputs_of(model, 100))
        assert tensor_types(exported.path) <= {"INT8", "INT32"}
        assert (exported.input.dtype, exported.output.dtype) == ("int8", "int8")


def test_a_network_that_was_not_trained_yet_exports_too(tmp_path, request):
    """Kernels into which a gamma of 0 is folded are all 0, and have no range."""
    for model in cases(request, [("resnet", "batch")]):
        exported = to_tflite(model, tmp_path / "model.tflite", "int8", inputs_of(model, 100))
        assert verify(model, exported.path, inputs_of(model, 5)).max_error < 0.1
