"""Whether there will be a validation, and how long it will be, before there was one."""

import math
from typing import Any

import keras

from keras_opt.core.call_stack import frames


def validation_batches(model: keras.Model) -> int:
    """The number of batches in a validation of the `fit` that is calling, as far as its arguments tell; else 0.

    Keras tells callbacks the number of training batches only. So `fit` of `model` is looked for among the callers on
    the stack. `tests/contract/test_keras_canary.py` fails, with the Keras version, when its arguments are not there.
    """
    arguments = _arguments_of_fit(model)
    data, steps = arguments.get("validation_data"), arguments.get("validation_steps")
    if data is None or steps is not None:
        return steps or 0
    if hasattr(data, "cardinality"):  # of tf.data; negative if not known
        return max(0, int(data.cardinality()))
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches or 0
    arrays = [array for array in keras.tree.flatten(data) if hasattr(array, "shape")]
    batch_size = arguments.get("validation_batch_size") or arguments.get("batch_size") or 32
    return math.ceil(arrays[0].shape[0] / batch_size) if arrays else 0


def has_validation(model: keras.Model) -> bool:
    """Whether the `fit` that is calling validates; `True` if none is found, so that nobody knows."""
    arguments = _arguments_of_fit(model)
    return not arguments or arguments["validation_data"] is not None


def _arguments_of_fit(model: keras.Model) -> dict[str, Any]:
    for frame in frames():
        values = frame.f_locals
        if frame.f_code.co_name == "fit" and values.get("self") is model and "validation_data" in values:
            return values
    return {}
