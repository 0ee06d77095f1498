"""Each check on files that break it."""

import pytest

from keras_opt.core.errors import InputError
from keras_opt.export.checks import check_file


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8"])
def test_good_files_pass(kind, exports):
    assert check_file(exports[kind].path, kind).input.shape == (1, 12, 12, 3)


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic"])
def test_float_files_are_no_int8_files(kind, exports):
    with pytest.raises(InputError, match=r"the int8 file computes in float32: .* and \d+ more\. LiteRT has no integer"):
        check_file(exports[kind].path, "int8")


def test_float32_file_is_no_float16_file(exports):
    with pytest.raises(InputError, match=r"quantize='float16' narrowed none of the .* bytes of weights"):
        check_file(exports["float32"].path, "float16")


def test_file_that_does_not_run(exports, tmp_path):
    whole = exports["float32"].path.read_bytes()
    path = tmp_path / "scribbled.tflite"
    path.write_bytes(whole.replace(b"TFL3", b"XXXX"))
    with pytest.raises(InputError, match=r"This is no \.tflite file"):
        check_file(path, "float32")
