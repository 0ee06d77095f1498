"""Bounding boxes that move with their image, in the formats of `keras.utils.bounding_boxes`."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import argument_error, did_you_mean
from keras_opt.layers.affine_matrices import inverses, moved

BOX_FORMATS = (
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "center_yxhw",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
    "rel_center_xywh",
)


def check_box_format(owner: str, box_format: str | None, has_boxes: bool = False) -> None:
    """Raise unless `box_format` is one of Keras's, or None where no boxes have come yet."""
    if box_format in BOX_FORMATS or (box_format is None and not has_boxes):
        return
    formats = ", ".join(map(repr, BOX_FORMATS))
    must_be = f"one of {formats}" + (" for inputs with bounding boxes" if has_boxes else " or None")
    cure = "Say how the boxes are written." if box_format is None else did_you_mean(box_format, BOX_FORMATS)
    raise argument_error(owner, "bounding_box_format", box_format, must_be, cure)


def move_boxes(
    bounding_boxes: Mapping[str, tf.Tensor],
    box_format: str,
    matrices: tf.Tensor,
    input_size: tuple[Any, Any],
    output_size: tuple[Any, Any],
) -> dict[str, tf.Tensor]:
    """The upright boxes around the moved corners, clipped to the result; a box that lies outside gets the label -1.

    Args:
        bounding_boxes: Keras's dict: "boxes", (B, N, 4), and "labels", (B, N), -1 for places without a box.
        box_format: One of `BOX_FORMATS`. Edges lie between pixels: [0, 0, 1, 1] is the first pixel.
        matrices: (B, 3, 3), those of `warp`.
        input_size: Height and width of the images.
        output_size: Height and width of the result.
    """
    convert, clip = keras.utils.bounding_boxes.convert_format, keras.utils.bounding_boxes.clip_to_image_size
    left, top, right, bottom = tf.unstack(convert(bounding_boxes["boxes"], box_format, "xyxy", *input_size), axis=-1)
    corners = tf.stack([tf.stack([x, y], -1) for x in (left, right) for y in (top, bottom)], axis=2) - 0.5
    shape = tf.shape(corners)
    corners = moved(tf.reshape(corners, (shape[0], -1, 2)), inverses(matrices)) + 0.5
    corners = tf.reshape(corners, shape)
    boxes = tf.concat([tf.reduce_min(corners, axis=2), tf.reduce_max(corners, axis=2)], axis=-1)
    clipped = clip({**bounding_boxes, "boxes": boxes}, *output_size, "xyxy")
    return {**clipped, "boxes": convert(clipped["boxes"], "xyxy", box_format, *output_size)}
