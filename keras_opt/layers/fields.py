"""What an augmentation layer is given, as one dict of batched fields, and given back in the form it came in."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_opt.core.errors import InputError, kind_error

_TUPLE_FIELDS = ("images", "labels", "sample_weights")
_BATCHED_FIELDS = (*_TUPLE_FIELDS, "bounding_boxes", "segmentation_masks", "keypoints")

_FORMS = (
    "images, (images, labels), (images, labels, sample_weights), or a dict of `images` and what else belongs to "
    "them (`labels`, `bounding_boxes`, `segmentation_masks`, `keypoints`)"
)


def open_fields(layer: str, inputs: Any) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Any]]:
    """The inputs as a dict of batched tensors, and the function that gives such a dict back in the inputs' own form.

    One image (H, W, C) is a batch of 1: its `labels`, `sample_weights`, `bounding_boxes`, `segmentation_masks` and
    `keypoints` get a batch axis too. Other keys of a dict pass through untouched. Ragged `bounding_boxes` become dense,
    with boxes of 0 and labels of -1. The inputs are not mutated.

    Args:
        layer: The name of the layer, for errors.
        inputs: Images (B, H, W, C) or (H, W, C); a pair or triple with `labels` and `sample_weights`; or Keras's dict,
            with `bounding_boxes` {"boxes": (B, N, 4), "labels": (B, N)}, `segmentation_masks` (B, H, W) or
            (B, H, W, 1), and `keypoints` (B, N, 2), x and y in pixels.

    Returns:
        The new dict, and `give_back(fields)`.

    Raises:
        TypeError: `inputs` has none of these forms.
        ValueError: The images have neither 3 nor 4 axes, or are no numbers.
    """
    fields = {name: _tensors(name, value) for name, value in _named(layer, inputs).items()}
    images = fields["images"]
    if images.shape.rank not in (3, 4) or not (images.dtype.is_floating or images.dtype.is_integer):
        raise InputError(
            f"{layer}: images must be numbers of shape (batch, height, width, channels) or (height, width, channels). "
            f"Received: {images.dtype.name} of shape {images.shape}."
        )
    is_one = images.shape.rank == 3
    if is_one:
        fields = _for_batched(fields, lambda tensor: tensor[tf.newaxis])

    def give_back(fields: Mapping[str, Any]) -> Any:
        if is_one:
            fields = _for_batched(fields, lambda tensor: tensor[0])
        if isinstance(inputs, Mapping):
            return dict(fields)
        if isinstance(inputs, tuple | list):
            return type(inputs)(fields[name] for name in _TUPLE_FIELDS[: len(inputs)])
        return fields["images"]

    return fields, give_back


def _named(layer: str, inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping) and "images" in inputs:
        return dict(inputs)
    if isinstance(inputs, tuple | list) and len(inputs) in (2, 3) and not isinstance(inputs[0], Mapping | tuple | list):
        return dict(zip(_TUPLE_FIELDS, inputs, strict=False))
    if tf.is_tensor(inputs) or hasattr(inputs, "__array__"):
        return {"images": inputs}
    received = f"a dict of {sorted(map(str, inputs))}" if isinstance(inputs, Mapping) else type(inputs).__name__
    if isinstance(inputs, tuple | list):
        received = f"{received} of {', '.join(type(value).__name__ for value in inputs)}"
    raise kind_error(layer, "inputs", received, _FORMS, "Give one of these.")


def _tensors(name: str, value: Any) -> Any:
    if name == "bounding_boxes":
        return {part: _dense(part, tensor) for part, tensor in value.items()}
    if name in _BATCHED_FIELDS:
        return tf.nest.map_structure(tf.convert_to_tensor, value)
    return value


def _dense(part: str, tensor: Any) -> tf.Tensor:
    if isinstance(tensor, tf.RaggedTensor):
        return tensor.to_tensor(-1 if part == "labels" else 0)
    return tf.convert_to_tensor(tensor)


def _for_batched(fields: Mapping[str, Any], change: Callable[[tf.Tensor], tf.Tensor]) -> dict[str, Any]:
    return {
        name: tf.nest.map_structure(change, value) if name in _BATCHED_FIELDS else value
        for name, value in fields.items()
    }
