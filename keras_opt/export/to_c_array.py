"""A .tflite file as C++ source, for a device without a file system."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_path
from keras_opt.core.files import write_atomic
from keras_opt.export.file_tensors import inputs_and_outputs
from keras_opt.export.model_file import unpack
from keras_opt.export.run_tflm import run_tflm
from keras_opt.export.tflm_operators import resolver_method, supported_operators

BYTES_A_LINE = 16


@dataclass(frozen=True)
class CArray:
    """The files that `to_c_array` wrote.

    Args:
        header: NAME.h: the array's declaration, the arena's size, types, shapes, scales and zero points.
        source: NAME.cc: the bytes.
        operators: NAME_operators.h: the resolver of the operators that the file uses; the one part that needs the
            headers of TFLite Micro.
        size_bytes: Bytes of the array, those of the file.
        arena_bytes: Bytes of the tensor arena.
    """

    header: Path
    source: Path
    operators: Path
    size_bytes: int
    arena_bytes: int

    def __str__(self) -> str:
        files = f"{self.header}, {self.source.name}, {self.operators.name}"
        return f"{files}: {self.size_bytes:,} bytes of flash, an arena of {self.arena_bytes:,} bytes"


def to_c_array(
    path: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    name: str | None = None,
    arena_bytes: int | None = None,
) -> CArray:
    """Write a .tflite file as plain C++ (C++11 and later), with what a program must know to run it.

    NAME.h and NAME.cc need the standard library only:

        extern const unsigned char NAME_data[];     // on a 16-byte boundary
        constexpr std::size_t NAME_bytes, NAME_arena_bytes;
        using NAME_input_type = std::int8_t;        // and of each output; input0, input1, ... where there are several
        constexpr int NAME_input_shape[], NAME_input_zero_point;
        constexpr float NAME_input_scale;           // real = scale * (stored - zero_point)

    NAME_operators.h has `NAME_resolver`, a `MicroMutableOpResolver` of the right size, and `NAME_add_operators()`,
    which fills it: TFLite Micro then links no other kernels.

    Args:
        path: A .tflite file that TFLite Micro runs: "int8", "int16x8" or "float32".
        folder: An existing folder; that of `path` by default.
        name: Letters, digits and underscores; by default the file's name, all else made underscores.
        arena_bytes: The arena's size as the device gives it (`arena_used_bytes()`). Measured by default, with
            `run_tflm`, which tells what that figure means.

    Raises:
        InputError: There is no such file, TFLite Micro lacks one of its operators or cannot run it, or another
            argument does not fit.
        ImportError: tflite-micro is not installed and `arena_bytes` is not given.

    Cost: one call of `run_tflm`, without `arena_bytes`.

    Example:
        >>> import keras, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> file = to_tflite(model, tempfile.mkdtemp() + "/tiny-model.tflite")
        >>> to_c_array(file.path, arena_bytes=2048).header.name
        'tiny_model.h'
    """
    check_path("to_c_array", "path", path)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"to_c_array: there is no file {path}. Give the path of a .tflite file.")
    folder = path.parent if folder is None else Path(folder)
    if not folder.is_dir():
        raise argument_error("to_c_array", "folder", str(folder), "an existing folder", f"Make {folder} first.")
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII) if name is None else name
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        must_be = "a letter, then letters, digits and underscores"
        raise argument_error("to_c_array", "name", name, must_be, 'Give for example "keyword_model".')
    if arena_bytes is not None:
        check_at_least("to_c_array", "arena_bytes", arena_bytes, 1)
    file = path.read_bytes()
    tree = unpack(file)
    operators = supported_operators("to_c_array", path, tree)
    inputs, outputs = inputs_and_outputs(tree)
    if arena_bytes is None:
        arena_bytes = run_tflm(path).arena_bytes
    header, source, resolver = (folder / f"{name}{ending}" for ending in (".h", ".cc", "_operators.h"))
    title = f"// {path.name} as C++, written by keras_opt: "
    write_atomic(header, title + _header(name, len(file), arena_bytes, inputs, outputs))
    write_atomic(source, title + _source(name, file))
    write_atomic(resolver, title + _resolver(name, operators))
    return CArray(header, source, resolver, len(file), arena_bytes)


def _header(name, size, arena_bytes, inputs, outputs):
    numbers = [
        f"constexpr std::size_t {name}_bytes = {size};",
        f"constexpr std::size_t {name}_arena_bytes = {arena_bytes};",
    ]
    tensors = [
        "\n".join(_constants(f"{name}_{side}{number if len(all_of_them) > 1 else ''}", tensor))
        for side, all_of_them in (("input", inputs), ("output", outputs))
        for number, tensor in enumerate(all_of_them)
    ]
    declared = "\n\n".join([f"extern const unsigned char {name}_data[];\n" + "\n".join(numbers), *tensors])
    return f"what a program must know of it.\n#pragma once\n\n#include <cstddef>\n#include <cstdint>\n\n{declared}\n"


def _constants(name, tensor):
    """What a program must know of an input or output. A scale is written so that C++ reads the same float."""
    c_type = {"float32": "float", "bool": "bool"}.get(tensor.dtype, f"std::{tensor.dtype}_t")
    yield f"// {tensor.name!r}"
    yield f"using {name}_type = {c_type};"
    yield f"constexpr int {name}_shape[] = {{{', '.join(map(str, tensor.shape))}}};"
    if tensor.scale:
        yield f"constexpr float {name}_scale = {tensor.scale:.9e}f;  // real = scale * (stored - zero_point)"
        yield f"constexpr int {name}_zero_point = {tensor.zero_point};"


def _source(name, file):
    lines = (file[start : start + BYTES_A_LINE] for start in range(0, len(file), BYTES_A_LINE))
    numbers = "\n".join(f"    0x{line.hex(',').replace(',', ', 0x')}," for line in lines)
    return f'its bytes.\n#include "{name}.h"\n\nalignas(16) const unsigned char {name}_data[] = {{\n{numbers}\n}};\n'


def _resolver(name, operators):
    added = "\n".join(
        f"  if (resolver.{resolver_method(operator)}() != kTfLiteOk) return kTfLiteError;" for operator in operators
    )
    return f"""the operators that it uses.
#pragma once

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using {name}_resolver = tflite::MicroMutableOpResolver<{len(operators)}>;

inline TfLiteStatus {name}_add_operators({name}_resolver& resolver) {{
{added}
  return kTfLiteOk;
}}
"""
