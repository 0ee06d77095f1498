"""Whether a model brings the ranges that int8 needs, and whether it is just written as a file for a device."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError


def has_quantized_ranges(model: keras.Model) -> bool:
    """Whether `model` was trained for 8 bits: some layer of it says `keeps_quantized_ranges`.

    Raises:
        InputError: Some layer says so, but its range is not observed: the model was not trained since.
    """
    layers = [layer for layer in all_layers(model) if getattr(layer, "keeps_quantized_ranges", False)]
    unobserved = [layer.name for layer in layers if not getattr(layer, "is_observed", True)]
    if unobserved:
        raise InputError(
            f"Model {model.name!r} of quantize_aware has seen no batch in training: the range of {unobserved[0]!r} is "
            "not known. Call fit on it first; one batch is enough for the ranges, more make up for the rounding."
        )
    return bool(layers)


@contextlib.contextmanager
def written_for_a_device() -> Iterator[None]:
    """While the block runs, layers show the operation that a device has, in place of how it computes that."""
    token = _WRITTEN.set(True)
    try:
        yield
    finally:
        _WRITTEN.reset(token)


def is_written_for_a_device() -> bool:
    """Whether this thread is in the block above."""
    return _WRITTEN.get()


_WRITTEN = contextvars.ContextVar("written_for_a_device", default=False)
