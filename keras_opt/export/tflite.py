"""From a Keras 3 model to a .tflite file that was checked before it is handed out."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import argument_error, check_choice, check_path
from keras_opt.core.files import atomic_path
from keras_opt.core.optional import require
from keras_opt.core.quantized_ranges import has_quantized_ranges
from keras_opt.export.agreement import REGRESSION
from keras_opt.export.checks import check_answers, check_file, tensor_types
from keras_opt.export.converter import INTEGER_KINDS, convert, input_dtype
from keras_opt.export.file_metadata import file_metadata
from keras_opt.export.metadata import ModelMetadata, add_metadata
from keras_opt.export.names import file_input_names, input_names, output_names
from keras_opt.export.pixels import random_rows
from keras_opt.export.representative import representative
from keras_opt.export.sizes import gzip_size
from keras_opt.export.tflite_export import TFLiteExport
from keras_opt.export.verification import compare
from keras_opt.models.tf_keras_inside import in_keras_3

KINDS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
IO_DTYPES = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32")}
VERIFIED_ROWS = 16


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    quantize: str = "float32",
    representative_data: Mapping | Iterable | Callable[[], Iterable] | np.ndarray | str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    description: str | None = None,
    io_dtype: str | None = None,
    metadata: ModelMetadata | None = None,
) -> TFLiteExport:
    """Write `model` as a .tflite file for batches of one, with metadata and labels inside, and check it.

    The model carries its preprocessing (a `Rescaling` first layer), so the file takes raw inputs, pixels 0..255. The
    file is checked before it takes its name: it holds its weights, runs in LiteRT, computes in integers throughout
    where its kind says so, its kernels are as narrow as they must be, and its answers are the model's. What fails is
    deleted, and the error says why; an older file at `path` stays. How close the answers are stands in `verification`;
    on rows of your own `verify` measures it.

    The file's inputs and outputs, and its signature "serving_default", have the names of the model's (the keys where it
    takes or gives a dict), in its order; an only input that you did not name is "input".

    Args:
        model: A built functional or Sequential Keras 3 model whose inputs have a fixed size and whose weights are
            float32, or the tf_keras model of `tfmot_quantize`. A model trained in mixed precision is exported in
            float32.
        path: The file to write, in an existing folder.
        quantize: "float32"; "float16", half the size, computes in float32; "dynamic", int8 weights and float
            activations; "int8", all in int8, the fastest and what microcontrollers need; "int16x8", int16 activations
            and int8 weights, slower and closer to float; "int4", four-bit weights and float activations, the smallest
            (needs `pip install "keras_opt[quantizer]"`). The kinds that compute in integers unroll recurrent layers and
            write Group-, Layer-, RMS- and UnitNormalization in operations that LiteRT has in integers.
        representative_data: Raw inputs from which "int8" and "int16x8" learn the range of each activation; the other
            kinds are only checked on it. A model of `quantize_aware` or `tfmot_quantize` brings its ranges and needs
            none. One of: an array (rows, *input shape); a list or, by name, a dict of arrays for several inputs; a
            tuple (x, y) of such data and class numbers; a `tf.data.Dataset`, a generator or another iterable of batches
            or rows, each x or (x, y, ...), or a function that returns one; the path of a folder of images, or of a .npy
            or .npz file (arrays named as the inputs, or `x`, and `y`). Of arrays and folders 200 rows spread evenly are
            used, of batches the first 200: give shuffled ones. Show it every class and the full range of raw values.
            The range of the logits before a softmax is where they change a probability by more than 1e-7, so that few
            examples with logits of hundreds leave steps fine enough to the others; without the softmax, they do not.
        class_names: One name per output, in order; kept in the file. With several outputs they belong to the first that
            has as many values.
        name: The model's name in the metadata; `model.name` by default.
        description: What the model does, for the metadata; made from its shapes by default.
        io_dtype: The type of the inputs and outputs of a file that computes in integers: for "int8" "int8" (default),
            "uint8" or "float32"; for "int16x8" "int16" (default) or "float32".
        metadata: All that the file says about itself, in place of `class_names`, `name` and `description`.

    Raises:
        InputError: An argument does not fit, or the model cannot be written in this kind; no file is left.
        OSError: The folder cannot be written, or the disk is full; an older file is as it was.
        ImportError: ai-edge-quantizer is not installed.

    Warns:
        UserWarning: There are fewer than 100 representative rows or none of some class; a model cannot be cloned to
            fold its norms.

    Cost: the first call of a process starts another one for TensorFlow's converter (2 to 3 s, once), so that a crash
        of it is an error and not the end. Then about 0.2 s for a small convolutional network; the kinds that compute in
        integers run the model 200 times more. Of 100 MB of weights the process of the converter takes 2 to 4 GB of
        memory, and ends. Threads may call this at once; they wait for one another.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> to_tflite(model, tempfile.mkdtemp() + "/model.tflite", class_names=["cat", "dog"]).input.shape
        (1, 8, 8, 1)
    """
    check_choice("to_tflite", "quantize", quantize, KINDS)
    model = in_keras_3(model)
    _check_model(model)
    if quantize == "int16x8" and has_quantized_ranges(model):
        cure = "Export it as 'int8', or the model that it was made from as 'int16x8'."
        raise argument_error("to_tflite", "quantize", quantize, "'int8' for a model of quantize_aware", cure)
    _check_inputs(model, quantize)
    metadata, labelled = file_metadata(model, metadata, class_names, name, description)
    io_dtype = _checked_io_dtype(io_dtype, quantize)
    path = _checked_path(path)
    if quantize == "int4":
        require("ai_edge_quantizer", extra="quantizer")
    rows = None
    if representative_data is not None or (quantize in INTEGER_KINDS and not has_quantized_ranges(model)):
        rows = representative("to_tflite", model, representative_data, metadata.labels).rows
    calibration = None if has_quantized_ranges(model) else rows
    tree = convert(model, quantize, calibration, io_dtype)
    file = add_metadata(tree, metadata, file_input_names(model), output_names(model), labelled)
    with atomic_path(path) as temporary:
        temporary.write_bytes(file)
        checked = check_file(temporary, quantize, {layer.name for layer in all_layers(model) if layer is not model})
        shown = random_rows(model, VERIFIED_ROWS) if rows is None else _some(rows)
        unjudged = [REGRESSION] * len(model.outputs)
        verification = compare(model, checked, shown, [None] * len(unjudged), unjudged)
        check_answers(verification, quantize, model.name)
    return TFLiteExport(
        path=path,
        quantize=quantize,
        size_bytes=path.stat().st_size,
        gzip_bytes=gzip_size(path),
        inputs=checked.inputs,
        outputs=checked.outputs,
        class_names=metadata.labels,
        tensor_types=tensor_types(path),
        verification=verification,
    )


def _check_model(model):
    """Raise unless the model can be exported, with the error that says which can."""

    def refuse(must_be, cure):
        return argument_error("to_tflite", "model", model, must_be, cure)

    if not isinstance(model, keras.Model):
        raise refuse("a Keras 3 model", "Load or build one with keras.")
    if not getattr(model, "inputs", None):
        cure = "Make it functional or Sequential and start it with keras.Input(shape)."
        raise refuse("a built functional or Sequential model", cure)
    if any(isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy) for layer in all_layers(model)):
        raise refuse("a float model", "Export the model as it was before model.quantize(), with quantize='int8' here.")
    for layer in all_layers(model):
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            cure = "Make it with stateful=False (the weights are the same) and give it whole sequences."
            raise refuse(f"without memory between calls, but {layer.name!r} is stateful", cure)
    other = next((each.dtype for each in model.weights if each.dtype in ("float64", "float16", "bfloat16")), None)
    if other:
        cure = "Build the model with the dtype policy 'float32' and call its set_weights(model.get_weights())."
        raise refuse(f"a model whose weights are float32, not {other}", cure)
    broken = next((each.path for each in model.weights if not np.all(np.isfinite(each))), None)
    if broken:
        cure = "Its training diverged: train it again at a lower learning rate, or with GradientClipping."
        raise refuse(f"a model of finite weights, but {broken!r} has NaN or infinity", cure)


def _check_inputs(model, quantize):
    """Raise unless a file of this kind can take the model's inputs."""
    for tensor, name in zip(model.inputs, input_names(model), strict=True):
        shape = tuple(tensor.shape[1:])
        if None in shape:
            must_be, cure = f"fixed in size, not {shape}", "Give keras.Input every size but the batch."
        elif tensor.dtype == "string":
            must_be, cure = "numbers, not text", "Look words up before the model, and give it their numbers."
        elif quantize == "int16x8" and input_dtype(tensor) == "int32":
            must_be, cure = "real numbers for int16x8, not whole ones", "Use quantize='int8'."
        else:
            continue
        raise argument_error("to_tflite", "model", model, f"a model whose inputs are {must_be} ({name!r})", cure)


def _checked_io_dtype(io_dtype, quantize):
    if io_dtype is not None:
        check_choice("to_tflite", "io_dtype", io_dtype, IO_DTYPES.get(quantize, ("float32",)))
    return io_dtype


def _checked_path(path):
    check_path("to_tflite", "path", path)
    path = Path(path)
    if path.is_dir():
        raise argument_error("to_tflite", "path", str(path), "a file, not a folder", "Add a name: 'model.tflite'.")
    if not path.parent.is_dir():
        raise argument_error("to_tflite", "path", str(path), "in an existing folder", f"Make {path.parent} first.")
    return path


def _some(rows):
    """A few of the rows of each input, spread evenly."""
    count = len(rows[0])
    chosen = np.linspace(0, count - 1, min(count, VERIFIED_ROWS)).round().astype(int)
    return [column[chosen] for column in rows]
