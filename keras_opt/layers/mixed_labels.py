"""Labels as what can be mixed, probabilities; their mixing; and what cannot be mixed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error, check_at_least
from keras_opt.layers.fields import as_dtype, open_fields

_RANKS = {"labels": 2, "segmentation_masks": 4}  # of probabilities; class numbers lack the last axis or it is 1
_SLACK = 1e-3  # the rounding that a softmax in float16 may leave

_CANNOT_BE_MIXED = {
    "bounding_boxes": "A box has no share in which it could be present, and a box of which a part is hidden is another",
    "keypoints": "A point has no share in which it could be present",
}


def check_num_classes(layer: str, num_classes: object) -> None:
    """Raise unless `num_classes` is None or an int of at least 2."""
    if num_classes is not None:
        check_at_least(layer, "num_classes", num_classes, 2)


def check_labelled(layer: str, inputs: Any) -> None:
    """Raise where there are images alone, as in a model."""
    if isinstance(inputs, tuple | list) or (isinstance(inputs, Mapping) and _RANKS.keys() & inputs.keys()):
        return
    raise InputError(
        f"{layer}: images cannot be mixed without their labels. Received: {type(inputs).__name__} without labels. "
        f"{layer} belongs into the data, after batching, not into the model: keras_opt.data.augment(train, "
        f"{layer}(...), seed=1), or train.map({layer}(...)), which draws in no fixed order."
    )


def open_mixable(
    layer: str, inputs: Any, num_classes: int | None, names: Iterable[str]
) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Any]]:
    """What `open_fields` gives, with the fields of these `names` as probabilities.

    Raises:
        ValueError: There are images alone or one image only, or a field that cannot be mixed.
    """
    check_labelled(layer, inputs)
    fields, give_back = open_fields(layer, inputs)
    images = inputs["images"] if isinstance(inputs, Mapping) else inputs[0]
    if len(images.shape) == 3:
        raise InputError(
            f"{layer}: one image has no other to be mixed with. Received: images of shape {tuple(images.shape)}. "
            f"Batch the dataset first: keras_opt.data.augment(train.batch(32), {layer}(...), seed=1)."
        )
    for name, reason in _CANNOT_BE_MIXED.items():
        if name in fields:
            raise InputError(
                f"{layer}: `{name}` cannot be mixed. {reason}. Take RandomAffine or RandomCrop, which move them."
            )
    for name in names:
        if name in fields:
            fields[name] = probabilities(layer, name, fields[name], num_classes)
    return fields, give_back


def unmixed(layer: str, inputs: Any, num_classes: int | None, names: Iterable[str], dtype: str) -> Any:
    """What a layer gives in inference: the images as they are, in `dtype`, and the fields of these `names` unmixed.

    Class numbers become one-hot here too, so that validation data take the same loss.
    """
    fields, give_back = open_mixable(layer, inputs, num_classes, names)
    return give_back(fields | {"images": as_dtype(fields["images"], dtype)})


def probabilities(layer: str, name: str, values: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    """float32 probabilities in the last axis, (B, C) for labels and (B, H, W, C) for segmentation masks.

    With `num_classes`, values with an axis less, or a last axis of 1, are class numbers, be they int or float. All else
    must be probabilities already.

    Raises:
        ValueError: The values are neither; in a graph, where only TensorFlow can look at them, InvalidArgumentError.
    """
    rank = _RANKS[name]
    if not tf.is_tensor(values) or values.dtype == tf.string or values.shape.rank not in (rank - 1, rank):
        axes = ("batch", "height", "width")[: rank - 1]
        forms = f"({', '.join(axes)}, classes), or class numbers ({', '.join(axes)}) or ({', '.join(axes)}, 1)"
        raise InputError(f"{layer}: `{name}` must be one tensor, {forms}. Received: {_described(values)}.")
    last = values.shape[-1]
    axis_is_missing = values.shape.rank == rank - 1
    if values.dtype == tf.bool:
        values = tf.cast(values, "float32")
    if axis_is_missing or (last == 1 and (num_classes is not None or values.dtype.is_integer)):
        if num_classes is None:
            must_be = f"the number of classes for `{name}` of {_described(values)}"
            cure = f"{name.capitalize()} that are probabilities already, or binary, are floats with a last axis."
            raise argument_error(layer, "num_classes", num_classes, must_be, cure)
        return _one_hot(layer, name, values if axis_is_missing else values[..., 0], num_classes)
    if num_classes is not None and last not in (None, num_classes):
        must_be = f"the number of classes in `{name}`, {last}"
        raise argument_error(layer, "num_classes", num_classes, must_be, f"Give num_classes={last}.")
    shares = tf.cast(values, "float32")
    requirement = f"{layer}: `{name}` must be probabilities in [0, 1], or class numbers with `num_classes`"
    return _checked(shares, tf.abs(shares - 0.5) <= 0.5 + _SLACK, requirement, shares)


def blend(values: tf.Tensor, partners: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """float32 own * values + (1 - own) * values[partners], where `own` (B,) has a share for each row of `values`."""
    values = tf.cast(values, "float32")
    own = tf.reshape(own, [-1] + [1] * (values.shape.rank - 1))
    return own * values + (1 - own) * tf.gather(values, partners)


def mix_targets(
    layer: str, fields: Mapping[str, Any], names: Iterable[str], partners: tf.Tensor, own: tf.Tensor
) -> dict[str, Any]:
    """The fields with those of these `names` and the sample weights mixed in the shares of the images.

    A mixed example weighs w = own * w_i + (1 - own) * w_j, and its label has the share own * w_i / w of its own. Then
    its cross-entropy, times w, is own * w_i * CE_i + (1 - own) * w_j * CE_j: that of two weighted examples.
    """
    mixed = dict(fields)
    if "sample_weights" in fields:
        weights = fields["sample_weights"]
        if not tf.is_tensor(weights) or (weights.shape.rank != 1 and weights.shape[1:] != (1,)):
            raise InputError(
                f"{layer}: sample weights must be one number an image, (batch,). Received: {_described(weights)}."
            )
        mixed["sample_weights"] = blend(weights, partners, own)
        weights = tf.reshape(tf.cast(weights, "float32"), [-1])
        own = tf.math.divide_no_nan(own * weights, tf.reshape(mixed["sample_weights"], [-1]))
    for name in names:
        if name in fields:
            mixed[name] = blend(fields[name], partners, own)
    return mixed


def _one_hot(layer: str, name: str, numbers: tf.Tensor, num_classes: int) -> tf.Tensor:
    positions = tf.cast(numbers, "int32")
    fit = (positions >= 0) & (positions < num_classes) & (tf.cast(positions, numbers.dtype) == numbers)
    requirement = f"{layer}: `{name}` must be class numbers from 0 to num_classes - 1 = {num_classes - 1}"
    return _checked(tf.one_hot(positions, num_classes), fit, requirement, numbers)


def _checked(result: tf.Tensor, fit: tf.Tensor, requirement: str, received: tf.Tensor) -> tf.Tensor:
    """`result`, where all of `fit` is True."""
    fit, lowest, highest = tf.reduce_all(fit), tf.reduce_min(received), tf.reduce_max(received)
    if not tf.executing_eagerly():
        message = [f"{requirement}. Received: values from", lowest, "to", highest]
        with tf.control_dependencies([tf.Assert(fit, message)]):
            return tf.identity(result)
    if not fit:
        raise InputError(f"{requirement}. Received: values from {lowest.numpy()} to {highest.numpy()}.")
    return result


def _described(values: Any) -> str:
    return f"{values.dtype.name} of shape {values.shape}" if tf.is_tensor(values) else f"a {type(values).__name__}"
