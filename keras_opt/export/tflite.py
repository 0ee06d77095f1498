"""From a Keras 3 model to a .tflite file that was checked before it is handed out."""

import contextlib
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, argument_error, check_choice
from keras_opt.core.files import atomic_path
from keras_opt.core.quiet import captured_output
from keras_opt.export.checks import check_file
from keras_opt.export.group_norms import in_int8_operations
from keras_opt.export.metadata import COLOR_SPACES, ImageField, ImageInput, ModelMetadata, add_metadata
from keras_opt.export.sizes import gzip_size
from keras_opt.models.fold_batch_norm import fold_batch_norm

KINDS = ("float32", "float16", "dynamic", "int8")
REPRESENTATIVE_ROWS = 200
FEW_ROWS = 100


@dataclass(frozen=True)
class TFLiteExport:
    """An exported file and what a program that runs it must know.

    An int8 input `x` is stored as `round(x / input_scale) + input_zero_point`; a stored output `q` stands for
    `output_scale * (q - output_zero_point)`. In float files the scales and zero points are 0.
    """

    path: Path
    quantize: str
    size_bytes: int
    gzip_bytes: int
    input_shape: tuple[int, ...]
    input_dtype: str
    input_scale: float
    input_zero_point: int
    output_dtype: str
    output_scale: float
    output_zero_point: int
    class_names: tuple[str, ...]

    def __str__(self) -> str:
        def stored(dtype, scale, zero_point):
            return dtype if scale == 0 else f"{dtype} (scale {scale:.4g}, zero point {zero_point})"

        takes = stored(self.input_dtype, self.input_scale, self.input_zero_point)
        gives = stored(self.output_dtype, self.output_scale, self.output_zero_point)
        shape = " x ".join(map(str, self.input_shape))
        return (
            f"{self.path}: {self.quantize}, {self.size_bytes:,} bytes, {self.gzip_bytes:,} with gzip\n"
            f"input {shape} {takes}, output {gives}, {len(self.class_names)} class names"
        )


def to_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    quantize: str = "float32",
    representative_data: np.ndarray | tf.data.Dataset | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    description: str | None = None,
) -> TFLiteExport:
    """Write `model` as a .tflite file for batches of one, with metadata and labels inside, and check it.

    The model carries its preprocessing (a `Rescaling` first layer), so the file takes raw inputs, pixels 0..255. The
    file is checked before it takes its name: it holds its weights, runs in LiteRT, an int8 file is int8 throughout,
    and a quantized one is narrower than float. What fails is deleted; an older file at `path` stays. How close the
    file's answers are to the model's: `verify`.

    Args:
        model: A built functional or Sequential Keras 3 model with one input of fixed size and one output. A model
            trained in mixed precision is exported in float32.
        path: The file to write, in an existing folder.
        quantize: "float32"; "float16", half the size, computes in float32; "dynamic", int8 weights and float
            activations; "int8", all in int8, input and output too, the fastest and what microcontrollers need.
        representative_data: Raw inputs, (rows, *input shape), from which "int8" learns the range of each activation;
            the other kinds do not read it. 200 rows spread evenly over the array are used; fewer than 100 warn. Or a
            `tf.data.Dataset` of batches of x or (x, y, ...), which is read until there are 200 rows: give a shuffled
            one. Show it every class and the full range of pixels.
        class_names: One name per output, in order; kept in the file.
        name: The model's name in the metadata; `model.name` by default.
        description: What the model does, for the metadata; made from its shapes by default.

    Raises:
        InputError: An argument does not fit, or the model cannot be written in this kind; no file is left.

    Cost: about 0.1 s for a small convolutional network; "int8" runs the model 200 times more.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> to_tflite(model, tempfile.mkdtemp() + "/model.tflite", class_names=["cat", "dog"]).input_shape
        (1, 8, 8, 1)
    """
    check_choice("to_tflite", "quantize", quantize, KINDS)
    shape = _input_shape(model)
    class_names = _checked_names(class_names, model)
    path = _checked_path(path)
    rows = None
    if quantize == "int8":
        _refuse_loops(model)
        rows = _representative_rows(representative_data, shape)
    metadata = ModelMetadata(
        name=name or model.name,
        description=description or _describe(shape, model.outputs[0].shape),
        version="1",
        author="keras_opt",
        image=_image_input(shape),
        labels=class_names,
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(add_metadata(_convert(model, shape, quantize, rows), metadata))
        checked = check_file(temporary, quantize)
    return TFLiteExport(
        path=path,
        quantize=quantize,
        size_bytes=path.stat().st_size,
        gzip_bytes=gzip_size(path),
        input_shape=checked.input_shape,
        input_dtype=checked.input_dtype,
        input_scale=checked.input_quantization[0],
        input_zero_point=checked.input_quantization[1],
        output_dtype=checked.output_dtype,
        output_scale=checked.output_quantization[0],
        output_zero_point=checked.output_quantization[1],
        class_names=class_names,
    )


def _convert(model, shape, quantize, rows):
    """The .tflite file as bytes; what the converter has to say reaches the user only as the reason of a failure."""
    folded = _folded(model)
    if quantize == "int8":
        folded = in_int8_operations(folded)
    tf.get_logger()  # binds its handler to the stderr of its first use, which must not be the captured one
    with captured_output() as log:
        try:
            with _float32_policy(folded):
                return _converter(folded, shape, quantize, rows).convert()
        except Exception as error:  # the converter raises whatever it meets
            log.seek(0)
            reason = _reason(str(error) or log.read())
            raise InputError(
                f"to_tflite: model {model.name!r} cannot be written as {quantize}: {reason}. "
                "Replace the layer that holds this operation by one that LiteRT has."
            ) from error


def _folded(model):
    """`model` with its norms folded, through max-pooling too, which the converter does not do.

    A model that cannot be cloned (a Lambda layer, an unnamed function as activation) is converted as it is.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Keras 3.15 on NumPy 2.4
            return fold_batch_norm(model, unproven="keep")
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"to_tflite: model {model.name!r} cannot be cloned to fold its BatchNormalization ({reason}). The file is "
            "right; a norm behind a max-pooling costs it two operations.",
            stacklevel=4,
        )
        return model


def _converter(model, shape, quantize, rows):
    def call(image):
        return model(image, training=False)

    function = tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    # Without the second argument: given the Keras 3 model, the converter writes a file of variables with no weights.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if quantize != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: ([row[np.newaxis]] for row in rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


@contextlib.contextmanager
def _float32_policy(model):
    """Let every layer of `model` compute in float32 while the block runs: LiteRT has no float16 kernels on CPUs."""
    layers = [layer for layer in all_layers(model) if layer.compute_dtype != "float32"]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def _reason(text):
    """The line of a converter's message that says what is wrong."""
    errors = re.findall(r"error: (.+)", text)
    lines = errors or [line for line in text.splitlines() if line.strip()]
    return lines[0].strip().rstrip(".") if lines else "the converter gave no reason"


def _input_shape(model):
    """The shape of one input row, or the error that says which model fits."""

    def refuse(must_be, cure):
        return argument_error("to_tflite", "model", model, must_be, cure)

    if not isinstance(model, keras.Model):
        raise refuse("a Keras 3 model", "Load or build one with keras.")
    if not getattr(model, "inputs", None):
        cure = "Make it functional or Sequential and start it with keras.Input(shape)."
        raise refuse("a built functional or Sequential model", cure)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise refuse("a model with one input and one output", "Export its parts as models of their own.")
    if any(isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy) for layer in model.layers):
        raise refuse("a float model", "Export the model as it was before model.quantize(), with quantize='int8' here.")
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise refuse(f"a model whose input has a fixed size, not {shape}", "Give keras.Input every size but the batch.")
    return shape


def _refuse_loops(model):
    """TensorFlow's int8 calibration crashes the whole process on a recurrent layer's loop."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            must_be = f"free of recurrent loops for int8, but {layer.name!r} is one"
            cure = "Use quantize='dynamic' or 'float16'."
            raise argument_error("to_tflite", "model", model, must_be, cure)


def _checked_path(path):
    path = Path(path)
    if not path.parent.is_dir():
        raise argument_error("to_tflite", "path", str(path), "in an existing folder", f"Make {path.parent} first.")
    return path


def _checked_names(class_names, model):
    if class_names is None:
        return ()
    names = tuple(class_names)
    outputs = model.outputs[0].shape[-1]
    if len(names) != outputs:
        must_be = f"{outputs} names, one per output of the model"
        raise argument_error("to_tflite", "class_names", class_names, must_be, f"{len(names)} were given.")
    if not all(isinstance(name, str) and name.splitlines() == [name] for name in names):
        must_be = "texts of one line each"
        raise argument_error("to_tflite", "class_names", class_names, must_be, "Take out empty names and line breaks.")
    return names


def _representative_rows(data, shape):
    """At most 200 rows, spread evenly, as float32."""
    wanted = f"an array of raw inputs of shape (rows, {', '.join(map(str, shape))}), rows >= 1"
    cure = "Give about 200 training images as they are before preprocessing, or a tf.data.Dataset of batches of them."

    def refuse(received, must_be=wanted):
        return argument_error("to_tflite", "representative_data", received, must_be, cure)

    if data is None:
        raise refuse(None)
    if isinstance(data, tf.data.Dataset):
        specification = _x_of(data.element_spec)
        if not isinstance(specification, tf.TensorSpec) or not specification.shape[1:].is_compatible_with(shape):
            raise refuse(data.element_spec)
        data = _first_rows(data, shape)
    elif not (hasattr(data, "__array__") or isinstance(data, list | tuple)):
        raise refuse(type(data).__name__)
    try:
        data = np.asarray(data)
    except ValueError as error:  # rows of several shapes
        raise refuse(type(data).__name__) from error
    if data.shape[1:] != shape or len(data) == 0:
        raise refuse(data.shape)
    # Chosen before anything else is done to them: the array may be larger than memory.
    rows = data[np.linspace(0, len(data) - 1, min(len(data), REPRESENTATIVE_ROWS)).round().astype(int)]
    if rows.dtype.kind not in "uif" or not np.isfinite(rows).all():
        raise refuse(rows.dtype.name, "finite numbers")
    if len(rows) < FEW_ROWS:
        warnings.warn(
            f"to_tflite: representative_data has {len(rows)} rows; under {FEW_ROWS} the int8 ranges may be too narrow. "
            f"Give {REPRESENTATIVE_ROWS} if you can.",
            stacklevel=3,
        )
    return rows.astype(np.float32)


def _first_rows(dataset, shape):
    """The first 200 rows of `dataset` or somewhat more: whole batches; those of a shape that does not fit end it."""
    batches, count = [np.zeros((0, *shape), np.float32)], 0
    for batch in dataset:
        x = _x_of(batch).numpy()
        if x.shape[1:] != shape:
            return x
        batches.append(x)
        count += len(x)
        if count >= REPRESENTATIVE_ROWS:
            break
    return np.concatenate(batches)


def _x_of(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _image_input(shape):
    """The metadata of an image input; `None` where the input is no image."""
    if len(shape) != 3 or shape[-1] not in COLOR_SPACES:
        return None
    color_space = COLOR_SPACES[shape[-1]]
    colors = "grey" if color_space == ImageField.GRAYSCALE else "RGB"
    return ImageInput("image", f"{shape[0]} x {shape[1]} {colors} pixels, raw 0..255.", color_space)


def _describe(shape, output_shape):
    return f"{' x '.join(map(str, shape))} input to {output_shape[-1]} outputs."
