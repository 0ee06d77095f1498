"""A Keras 3 model through TensorFlow's converter, in its own process."""

import contextlib
import errno
import json
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import InputError
from keras_opt.core.quantized_ranges import has_quantized_ranges, written_for_a_device
from keras_opt.core.quiet import captured_output
from keras_opt.export.bounded_logits import with_bounded_logits
from keras_opt.export.call_on import call_on
from keras_opt.export.converter_child import GRAPH, LOG, MODEL, REASON, ROWS, SETTINGS
from keras_opt.export.converter_process import CONVERTER, ConverterCrash
from keras_opt.export.int8_norms import in_int8_operations
from keras_opt.export.model_file import unpack
from keras_opt.export.own_biases import own_biases
from keras_opt.export.recurrent_loops import unrolled
from keras_opt.models.fold_batch_norm import fold_batch_norm

INTEGER_KINDS = {  # what computes in integers throughout, and its own type of inputs and outputs
    "int8": "int8",
    "int16x8": "int16",
}
_OPERATORS = {
    "int8": ["TFLITE_BUILTINS_INT8"],
    "int16x8": ["EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"],
}


def convert(model: keras.Model, quantize: str, rows: Sequence[np.ndarray] | None, io_dtype: str | None) -> Any:
    """The .tflite file of `model` for batches of one, unpacked and unchecked.

    Args:
        model: A built functional or Sequential model.
        quantize: The kind of file.
        rows: For the kinds that compute in integers: rows for each input, or `None` where the model brings its ranges.
        io_dtype: The type of inputs and outputs of such a file; its own by default.

    Raises:
        InputError: The converter refused the model or crashed, with the reason.
        OSError: There is no room for its files in the folder of temporary files.
    """
    CONVERTER.start()
    integer = quantize in INTEGER_KINDS
    form = _convertible(model, integer)
    if integer and rows is not None:
        rows = [column.astype(input_dtype(tensor)) for column, tensor in zip(rows, model.inputs, strict=True)]
        form = with_bounded_logits(form, rows) if quantize == "int8" else form
    settings = {
        "optimize": quantize not in ("float32", "int4"),
        "int4": quantize == "int4",
        "types": ["float16"] if quantize == "float16" else [],
        # With ranges of its own, a model is written in integers without being asked to, which takes rows.
        "operators": [] if rows is None else _OPERATORS.get(quantize, []),
        "io_dtype": (io_dtype or INTEGER_KINDS[quantize]) if integer else None,
    }
    with tempfile.TemporaryDirectory(prefix="keras_opt-") as folder:
        folder = Path(folder)
        with float32_policy(form), written_for_a_device(), captured_output():
            _save_graph(form, folder / GRAPH, model.name)
        (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        if integer and rows is not None:
            np.savez(folder / ROWS, *rows)
        tree = unpack(_converted(folder, model, quantize))
    own_biases(tree)
    return tree


def _converted(folder, model, quantize):
    def refused(what, cure):
        return InputError(f"to_tflite: model {model.name!r} cannot be written as {quantize}: {what}. {cure}")

    try:
        if CONVERTER.convert(folder):
            return (folder / MODEL).read_bytes()
    except ConverterCrash as crash:
        who = "LiteRT crashed on the file" if (folder / MODEL).exists() else "TensorFlow's converter crashed"
        said = _reason((folder / LOG).read_text("utf-8", "replace")) if (folder / LOG).exists() else NO_REASON
        cure = "Use another kind, or replace the layer that it cannot take."
        raise refused(f"{who} ({crash}; {said})", cure) from crash
    reason = (folder / REASON).read_text("utf-8") or (folder / LOG).read_text("utf-8", "replace")
    raise refused(_reason(reason), "Replace the layer that holds this operation by one that LiteRT has.")


def _save_graph(model, folder, name):
    """One call of `model` on a batch of one as a SavedModel, with its weights."""

    def call(*inputs):
        return keras.tree.flatten(call_on(model, inputs))

    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), input_dtype(tensor), name) for tensor, name in _placeholders(model.inputs)
    ]
    graph = tf.Module()
    graph.call = tf.function(call, autograph=False).get_concrete_function(*specs)
    graph.weights = list(graph.call.variables)
    try:
        tf.saved_model.save(graph, folder, signatures={})
    except KeyError as error:  # a resource that is no variable
        raise InputError(
            f"to_tflite: model {name!r} reads a lookup table, which LiteRT lacks. Look the values up before the model, "
            "and give it the numbers found."
        ) from error
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.parent)) from error


def input_dtype(tensor: keras.KerasTensor) -> str:
    """The type in which a float file takes an input: whole numbers where Keras asks for them (token ids)."""
    return "int32" if tensor.dtype in ("int32", "int64") else "float32"


def _placeholders(inputs):
    if len(inputs) == 1:
        return [(inputs[0], "image")]
    return [(tensor, f"input_{index}") for index, tensor in enumerate(inputs)]


def _convertible(model, integer):
    """`model` in the operations that convert best; one of `quantize_aware` has them already."""
    if has_quantized_ranges(model):
        return model
    folded = _folded(model)
    return unrolled("to_tflite", in_int8_operations(folded)) if integer else folded


def _folded(model):
    """`model` with its norms folded, through max-pooling too, which the converter does not do.

    A model that cannot be cloned (a Lambda layer, an unnamed function as activation) is converted as it is.
    """
    try:
        with captured_output():  # a clone of Keras talks of what NumPy deprecates, and of lambdas
            return fold_batch_norm(model, unproven="keep")
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"to_tflite: model {model.name!r} cannot be cloned to fold its BatchNormalization ({reason}). The file is "
            "right; a norm behind a max-pooling costs it two operations.",
            stacklevel=users_stacklevel(),
        )
        return model


@contextlib.contextmanager
def float32_policy(model: keras.Model) -> Iterator[None]:
    """Let every layer of a model in mixed precision compute in float32, as its weights are, while the block runs.

    LiteRT has no float16 kernels on CPUs. One thread at a time: another would find the policies changed.
    """
    with _ONE_THREAD:
        mixed = [each for each in all_layers(model) if each.compute_dtype != each.variable_dtype == "float32"]
        policies = [layer.dtype_policy for layer in mixed]
        try:
            for layer in mixed:
                layer.dtype_policy = "float32"
            yield
        finally:
            for layer, policy in zip(mixed, policies, strict=True):
                layer.dtype_policy = policy


_ONE_THREAD = threading.RLock()


NO_REASON = "it gave no reason"


def _reason(text):
    """The line of a converter's message that says what is wrong."""
    errors = re.findall(r"error: (.+)", text)
    lines = errors or [line for line in text.splitlines() if line.strip() and not line.startswith(_NO_ERRORS)]
    if not lines:
        return NO_REASON
    place, what = _LOCATED.fullmatch(lines[0].strip()).groups()
    return what.rstrip(".") + (f" (at {place!r})" if place else "")


_LOCATED = re.compile(r'(?:loc\(.*"([^"]*)".*?\): )?(.*)')  # loc(fused["Erf:", "net/head/Erf"]): what is wrong
_NO_ERRORS = ("WARNING", "INFO", "I0000", "W0000")  # how TensorFlow begins a line that is none
