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


def test_buffers_behind_the_flatbuffer_are_read_too(exports, images, tmp_path):
    """As files of hundreds of megabytes have them: ai-edge-quantizer writes such of 100."""
    file = exports["float32"].path.read_bytes()
    tree, far = unpack(file), 2**16
    largest = max((buffer for buffer in tree.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    data, largest.data = bytes(largest.data), None
    largest.offset, largest.size = far, len(data)
    outside = pack(tree).ljust(far, b"\0") + data
    again = tmp_path / "again.tflite"
    again.write_bytes(pack(unpack(outside)))
    np.testing.assert_array_equal(*(LiteRTModel(path).predict(images[:5]) for path in (again, exports["float32"].path)))
