"""What an augmentation layer is given, as one dict of batched fields, and given back in the form it came in."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_opt.core.errors import InputError, kind_error

_TUPLE_FIELDS = ("images", "labels", "sample_weights")
_BATCHED_FIELDS = (*_TUPLE_FIELDS, "bounding_boxes", "segmentation_masks", "keypoints")

_BOXES_FORM = '"bounding_boxes": {"boxes": boxes, "labels": classes}'
_OTHER_NAMES = {
    "boxes": "bounding_boxes",
    "box": "bounding_boxes",
    "bboxes": "bounding_boxes",
    "bbox": "bounding_boxes",
    "masks": "segmentation_masks",
    "mask": "segmentation_masks",
    "seg_masks": "segmentation_masks",
    "landmarks": "keypoints",
}  # what others call the fields
_ALIKE = 0.85  # of the letters, for a field's name misspelt

_MOST_CHANNELS = 4  # of one image: RGB and how opaque it is

_FORMS = (
    "images, (images, labels), (images, labels, sample_weights), or a dict of `images` and what else belongs to "
    "them (`labels`, `bounding_boxes`, `segmentation_masks`, `keypoints`)"
)


def open_fields(layer: str, inputs: Any) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Any]]:
    """The inputs as a dict of batched tensors, and the function that gives such a dict back in the inputs' own form.

    One image (H, W, C) is a batch of 1: its `labels`, `sample_weights`, `bounding_boxes`, `segmentation_masks` and
    `keypoints` get a batch axis too. Other keys of a dict pass through untouched, and so does a None; a key that looks
    like a misspelt field is refused, since what it holds would not move with its image. Ragged `bounding_boxes` become
    dense, with boxes of 0 and labels of -1. The inputs are not mutated.

    Args:
        layer: The name of the layer, for errors.
        inputs: Images (B, H, W, C) or (H, W, C); a pair or triple with `labels` and `sample_weights`; or Keras's dict,
            with `bounding_boxes` {"boxes": (B, N, 4), "labels": (B, N)}, `segmentation_masks` (B, H, W) or
            (B, H, W, 1), and `keypoints` (B, N, 2), x and y in pixels.

    Returns:
        The new dict, and `give_back(fields)`.

    Raises:
        TypeError: `inputs` has none of these forms, or `bounding_boxes` is no dict.
        ValueError: A key is close to that of a field; labels are boxes or masks; the images have neither 3 nor 4 axes,
            several sizes, or are no numbers; they are a batch without channels; masks are not of their size.
    """
    named = _named(layer, inputs)
    _check_names(layer, named)
    fields = {name: _tensors(layer, name, value) for name, value in named.items()}
    images = fields["images"]
    if images.shape.rank not in (3, 4) or not (images.dtype.is_floating or images.dtype.is_integer):
        raise InputError(
            f"{layer}: images must be numbers of shape (batch, height, width, channels) or (height, width, channels). "
            f"Received: {images.dtype.name} of shape {images.shape}. Where the shape is not known, as behind "
            "tf.numpy_function, tell it by tf.ensure_shape."
        )
    is_one = images.shape.rank == 3
    if is_one:
        _check_channels(layer, images)
        fields = _for_batched(fields, lambda tensor: tensor[tf.newaxis])
    _check_sizes(layer, fields)

    def give_back(fields: Mapping[str, Any]) -> Any:
        if is_one:
            fields = _for_batched(fields, lambda tensor: tensor[0])
        if isinstance(inputs, Mapping):
            return dict(fields)
        if isinstance(inputs, tuple | list):
            return type(inputs)(fields.get(name) for name in _TUPLE_FIELDS[: len(inputs)])
        return fields["images"]

    return fields, give_back


def as_dtype(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """The images in `dtype`, correctly rounded and within its limits where that is one of integers."""
    if tf.as_dtype(dtype).is_integer:
        return tf.saturate_cast(tf.round(images), dtype)
    return tf.cast(images, dtype)


def _named(layer: str, inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping) and "images" in inputs:
        return dict(inputs)
    if (
        isinstance(inputs, tuple | list)
        and len(inputs) in (2, 3)
        and not isinstance(inputs[0], Mapping | tuple | list | None)
    ):
        return {name: value for name, value in zip(_TUPLE_FIELDS, inputs, strict=False) if value is not None}
    if tf.is_tensor(inputs) or hasattr(inputs, "__array__"):
        return {"images": inputs}
    received = f"a dict of {sorted(map(str, inputs))}" if isinstance(inputs, Mapping) else type(inputs).__name__
    if isinstance(inputs, tuple | list):
        received = f"{received} of {', '.join(type(value).__name__ for value in inputs)}"
    raise kind_error(layer, "inputs", received, _FORMS, "Give one of these.")


def _check_names(layer: str, named: Mapping[str, Any]) -> None:
    """Raise where a field has a name or a form by which it would not be found, and be left as it is."""
    for name in named:
        if name in _BATCHED_FIELDS:
            continue
        close = difflib.get_close_matches(str(name).lower(), _BATCHED_FIELDS[1:], n=1, cutoff=_ALIKE)
        meant = _OTHER_NAMES.get(str(name).lower()) or next(iter(close), None)
        if meant is not None:
            form = _BOXES_FORM if meant == "bounding_boxes" else f'"{meant}": ...'
            raise InputError(
                f"{layer}: the key {name!r} would pass through unchanged, while the images change. Did you mean "
                f"{meant!r}? Write {form}; if it is something else, give it another name."
            )
    boxes, labels = named.get("bounding_boxes", {}), named.get("labels")
    if not isinstance(boxes, Mapping):
        raise kind_error(
            layer, "bounding_boxes", type(boxes).__name__, "a dict of `boxes` and `labels`", f"Give {{{_BOXES_FORM}}}."
        )
    if isinstance(labels, Mapping) and labels.keys() & {"bounding_boxes", "segmentation_masks", "keypoints", "boxes"}:
        raise InputError(
            f"{layer}: boxes, masks and keypoints stand beside the images, not in the labels. Received: labels "
            f'{sorted(map(str, labels))}. Give one dict: {{"images": images, {_BOXES_FORM}}}.'
        )


def _check_channels(layer: str, image: tf.Tensor) -> None:
    """Raise where one image has many channels: it is a batch of grey ones, whose rows would be taken for images."""
    first, _, last = image.shape
    if last is not None and last > _MOST_CHANNELS and (first is None or first > _MOST_CHANNELS):
        raise InputError(
            f"{layer}: a batch of images must have four axes, (batch, height, width, channels), and one image at most "
            f"{_MOST_CHANNELS} channels. Received: shape {image.shape}. Give a batch of grey images its channels by "
            "images[..., np.newaxis], and one image of more channels its batch by image[np.newaxis]."
        )


def _check_sizes(layer: str, fields: Mapping[str, Any]) -> None:
    """Raise unless the masks have the height and width of their images, and the labels have not."""
    sizes = _sizes(fields["images"])
    masks, labels = fields.get("segmentation_masks"), fields.get("labels")
    if masks is not None and not any(size.is_compatible_with(own) for size in sizes for own in _sizes(masks)):
        raise InputError(
            f"{layer}: segmentation masks must have the height and width of their images, {fields['images'].shape}. "
            f"Received: masks of shape {masks.shape}. Resize them before, by the nearest pixel."
        )
    if tf.is_tensor(labels) and labels.shape.rank == 3 and labels.shape[-1] == 4 and not _are_masks(labels, sizes):
        raise InputError(
            f"{layer}: labels with four numbers for each of several things look like boxes. Received: labels of shape "
            f'{labels.shape}. Give boxes as such: {{"images": images, {_BOXES_FORM}}}. Labels that do not move with '
            'the images, such as a sequence, pass with a name of their own: (images, {"sequence": labels}).'
        )
    if tf.is_tensor(labels) and _are_masks(labels, sizes):
        raise InputError(
            f"{layer}: labels with the height and width of the images are masks. Received: labels of shape "
            f'{labels.shape}. Give them as such: {{"images": images, "segmentation_masks": masks}}.'
        )


def _are_masks(labels: tf.Tensor, sizes: list[tf.TensorShape]) -> bool:
    if labels.shape.rank == 3:  # sequences of unknown length, perhaps, where the sizes are not known
        sizes = [size for size in sizes if size.is_fully_defined()]
    return labels.shape.rank in (3, 4) and any(size == own for size in sizes for own in _sizes(labels))


def _sizes(values: tf.Tensor) -> list[tf.TensorShape]:
    """Height and width, should the channels be last and, should they be first."""
    return [values.shape[1:3], values.shape[2:4]] if values.shape.rank == 4 else [values.shape[1:3]]


def _tensors(layer: str, name: str, value: Any) -> Any:
    if name == "bounding_boxes":
        return {part: _dense(part, tensor) for part, tensor in value.items()}
    if name not in _BATCHED_FIELDS:
        return value
    if isinstance(value, tf.RaggedTensor):
        raise InputError(
            f"{layer}: `{name}` must have one size in a batch. Received: a RaggedTensor of shape {value.shape}. "
            "Bring them to one size before they are batched."
        )
    return tf.nest.map_structure(tf.convert_to_tensor, value)


def _dense(part: str, tensor: Any) -> tf.Tensor:
    if isinstance(tensor, tf.RaggedTensor):
        return tensor.to_tensor(-1 if part == "labels" else 0)
    return tf.convert_to_tensor(tensor)


def _for_batched(fields: Mapping[str, Any], change: Callable[[tf.Tensor], tf.Tensor]) -> dict[str, Any]:
    return {
        name: tf.nest.map_structure(change, value) if name in _BATCHED_FIELDS else value
        for name, value in fields.items()
    }
