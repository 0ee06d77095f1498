"""`to_c_array`: what g++ makes of its files, beside the .tflite file that they came from."""

import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel, run_tflm, to_c_array, to_tflite
from keras_opt.export.tflm_operators import BUILTIN

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")

PRINTER = """
#include "{name}.h"
#include <cinttypes>
#include <cstdio>
#include <type_traits>
int main() {{
  if (reinterpret_cast<std::uintptr_t>({name}_data) % 16 != 0) return 1;
  static_assert(std::is_same<{name}_input_type, std::int8_t>::value, "");
  static_assert({name}_output_shape[1] == 3, "");
  std::fprintf(stderr, "%zu %d %.9g %d %.9g %d", {name}_arena_bytes, {name}_input_shape[2], {name}_input_scale,
               {name}_input_zero_point, {name}_output_scale, {name}_output_zero_point);
  return std::fwrite({name}_data, 1, {name}_bytes, stdout) == {name}_bytes ? 0 : 1;
}}
"""

# Stands in for TFLite Micro's headers, which no Python package brings: every method, and as many as were asked for.
RESOLVER = """
#pragma once
enum TfLiteStatus {{ kTfLiteOk, kTfLiteError }};
namespace tflite {{
template <unsigned int tOpCount> struct MicroMutableOpResolver {{
  unsigned int count = 0;
  TfLiteStatus Add() {{ return count++ < tOpCount ? kTfLiteOk : kTfLiteError; }}
  {methods}
}};
}}
"""


def compiled(folder, *sources, flags=("-std=c++11",)):
    if shutil.which("g++") is None:
        pytest.fail("There is no g++ on the path: the C array cannot be compiled. Install build-essential.")
    subprocess.run(["g++", *flags, *STRICT, *sources, "-I.", "-o", "program"], cwd=folder, check=True)
    return subprocess.run([folder / "program"], capture_output=True, check=False)


def test_the_array_is_the_file(exports, images, tmp_path):
    path = exports["int8"].path
    written = to_c_array(path, tmp_path, "cats")
    (tmp_path / "printer.cc").write_text(PRINTER.format(name="cats"))
    printed = compiled(tmp_path, "printer.cc", "cats.cc")
    assert printed.returncode == 0
    assert printed.stdout == path.read_bytes()
    arena, width, *quantization = printed.stderr.decode().split()
    assert int(arena) == written.arena_bytes == run_tflm(path, images[:1]).arena_bytes
    assert int(width) == 12
    file = LiteRTModel(path)
    for tensor, scale, zero_point in ((file.inputs[0], *quantization[:2]), (file.outputs[0], *quantization[2:])):
        assert (np.float32(scale), int(zero_point)) == (np.float32(tensor.scale), tensor.zero_point)
    assert (written.header.name, written.source.name, written.operators.name) == (
        "cats.h",
        "cats.cc",
        "cats_operators.h",
    )
    assert written.size_bytes == path.stat().st_size
    assert f"{written.size_bytes:,} bytes of flash, an arena of {written.arena_bytes:,} bytes" in str(written)


def test_the_resolver_has_room_for_its_operators_and_no_more(exports, tmp_path):
    written = to_c_array(exports["int8"].path, tmp_path, "cats", arena_bytes=4096)
    text = written.operators.read_text()
    assert re.findall(r"resolver\.Add(\w+)\(\)", text) == ["Conv2D", "Reshape", "FullyConnected", "Softmax"]
    header = tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    methods = "\n".join(f"TfLiteStatus Add{name}() {{ return Add(); }}" for name in BUILTIN if name != "Add")
    header.write_text(RESOLVER.format(methods=methods))
    main = '#include "cats_operators.h"\nint main() { cats_resolver all; return cats_add_operators(all); }\n'
    (tmp_path / "main.cc").write_text(main)
    assert compiled(tmp_path, "main.cc", flags=("-std=c++17",)).returncode == 0


def test_several_inputs_are_numbered_and_float_has_no_scale(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    model = keras.Model([left, right], keras.layers.Dense(2, name="answer")(keras.layers.Concatenate()([left, right])))
    path = to_tflite(model, tmp_path / "two inputs.tflite").path
    written = to_c_array(path)
    assert written.header == tmp_path / "two_inputs.h"
    header = written.header.read_text()
    assert "constexpr int two_inputs_input0_shape[] = {1, 4};" in header
    assert "constexpr int two_inputs_input1_shape[] = {1, 3};" in header
    assert "using two_inputs_output_type = float;" in header
    assert "scale" not in header
    assert re.findall("// '(.*)'", header) == ["left", "right", "answer"]
    (tmp_path / "main.cc").write_text('#include "two_inputs.h"\nint main() { return two_inputs_bytes == 0; }\n')
    assert compiled(tmp_path, "main.cc", "two_inputs.cc", flags=("-std=c++20",)).returncode == 0


def test_the_arena_can_be_given(exports, tmp_path):
    assert to_c_array(exports["int8"].path, tmp_path, arena_bytes=12345).arena_bytes == 12345
    assert "int8_arena_bytes = 12345;" in (tmp_path / "int8.h").read_text()


def test_what_does_not_fit(exports, tmp_path):
    path = exports["int8"].path
    with pytest.raises(InputError, match="there is no file"):
        to_c_array(tmp_path / "none.tflite")
    with pytest.raises(InputError, match="argument `folder` must be an existing folder"):
        to_c_array(path, tmp_path / "none")
    for name in ("", "8bit", "a-b", "a b", "ä", 3):
        with pytest.raises(InputError, match="argument `name` must be a letter, then letters, digits and underscores"):
            to_c_array(path, tmp_path, name)
    for arena in (0, 1.5, "4096"):
        with pytest.raises(InputError, match="argument `arena_bytes` must be an integer of at least 1"):
            to_c_array(path, tmp_path, arena_bytes=arena)
    with pytest.raises(TypeError, match="argument `path` must be a str or a"):
        to_c_array(None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_tflite_micro_cannot_run_leaves_nothing(exports, tmp_path):
    with pytest.raises(InputError, match="TFLite Micro cannot run"):
        to_c_array(exports["float16"].path, tmp_path)
    assert list(tmp_path.iterdir()) == []
