"""`pack`: what it saves, and that nothing is lost by it."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_opt.export import LiteRTModel
from keras_opt.export.model_file import pack, unpack


def quantizations(file):
    graph = schema.Model.GetRootAs(file).Subgraphs(0)
    found = (graph.Tensors(index).Quantization() for index in range(graph.TensorsLength()))
    return [each for each in found if each is not None and each.ScaleLength()]


def test_zero_points_that_are_alike_are_written_once(exports):
    """A kernel and its bias have one for each channel, all 0."""
    by_channel = [each for each in quantizations(exports["int8"].path.read_bytes()) if each.ZeroPointLength() == 8]
    zeros = [each.ZeroPointAsNumpy() for each in by_channel]
    assert len(zeros) == 2
    assert not np.any(zeros)
    assert len({each.ctypes.data for each in zeros}) == 1


def test_a_file_packed_again_gives_the_same_answers(exports, images, tmp_path):
    for kind, export in exports.items():
        again = tmp_path / f"{kind}.tflite"
        again.write_bytes(pack(unpack(export.path.read_bytes())))
        answers = [LiteRTModel(path).predict(images[:10]) for path in (export.path, again)]
        np.testing.assert_array_equal(*answers, err_msg=kind)
