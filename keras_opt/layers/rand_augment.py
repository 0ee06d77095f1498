"""RandAugment: each image is changed by operations of its own."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_choice, is_number
from keras_opt.layers.affine_matrices import inverses, moved
from keras_opt.layers.bounding_boxes import check_box_format, move_boxes
from keras_opt.layers.drawn_operations import draw, on_colours, on_the_view, recolour, views
from keras_opt.layers.fields import as_dtype, open_fields
from keras_opt.layers.random_keys import next_key
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields
from keras_opt.layers.warp import INTERPOLATIONS, warp

_FILL_MODE = "reflect"  # as in Keras's layer


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields()
class RandAugment(keras.layers.Layer):
    """Changes each image by `num_ops` operations that are drawn for it alone, from fourteen.

    For image classification with thousands of images or more: two settings instead of a policy. It changes colours and
    positions: where these tell the class, take `RandomAffine` and single colour layers of Keras. It stands in the data
    (`keras_opt.data.augment`), or first in the model.

    Each image draws `num_ops` times, with replacement, one of these, all equally likely, and its strength and sign:

        identity                                  changes nothing
        auto_contrast, equalize                   as in `PIL.ImageOps`; they have no strength
        solarize                                  inverts the values from 256 * (1 - strength) on
        posterize                                 keeps the first 8 - round(4 * strength) bits
        color, contrast, brightness, sharpness    as in `PIL.ImageEnhance`, by a factor of 1 +- 0.9 * strength
        rotate                                    by +- 30 * strength degrees, about the centre
        shear_x, shear_y                          by +- 0.3 * strength of the distance to the centre
        translate_x, translate_y                  by +- 150 / 331 * strength of the width or height

    The colour operations of an image act in the order drawn, on 256 levels, each within one level of Pillow's. The
    geometric ones are multiplied in the order drawn to one matrix, and the image is interpolated once, after the
    colours; what comes in from outside is the image mirrored at its edge, as in Keras. The paper's sequence
    interpolates each time. Where a geometric operation is drawn before one of colour, the result differs from it by
    that interpolation, and in that auto_contrast, contrast, equalize and sharpness look at the image before it was
    moved. A float image that drew no colour operation keeps values between the levels.

    It takes the arguments of `keras.layers.RandAugment`, which draws its operations once for the whole batch, takes the
    histogram of its equalization over all images of it, inverts images at `factor=0` too, keeps more bits the higher
    the factor, moves images to one side only, and turns them by up to half a turn at its default.

    Args:
        value_range: The two numbers between which values lie: (0, 255) or (0, 1), or for example (-1, 1). Default
            (0, 255). Integer images have (0, 255).
        num_ops: Int of at least 1, how many operations each image draws. Default 2.
        factor: The strength, in [0, 1]: a number f for one drawn from [0, f], or a pair for one drawn between these.
            The paper's constant magnitude M of 10 is (M / 10, M / 10). Default 0.5.
        interpolation: "bilinear" or "nearest". Masks are always moved by "nearest". Default "bilinear".
        seed: Int of at least 0, or `None` for another in each process (after `keras.utils.set_random_seed` the same).
        data_format: "channels_last" or "channels_first"; `keras.config.image_data_format()` by default.
        bounding_box_format: That of the boxes, where there are some: "xyxy", "xywh", or another of Keras's.

    Input shape: images (batch, height, width, channels) or (height, width, channels), grey or RGB; in a pair with
        labels, or in Keras's dict, whose masks, boxes and keypoints are moved with the images.

    Output shape: the same; images in the layer's compute dtype and in `value_range`.

    Raises:
        ValueError: An argument is out of its range, or the images are neither grey nor RGB.

    Cost: one seed counter; compiled by XLA, once for each shape. That takes seconds, so bring single images to one size
        before. The images of a batch go one after the other, each through what it has drawn: a GPU waits for that, so
        put the layer in the data there.
        `benchmarks/results/rand_augment.json` holds the times.

    Source: E. D. Cubuk, B. Zoph, J. Shlens and Q. V. Le, 2020, "RandAugment: Practical automated data augmentation with
        a reduced search space", section 3; the greatest changes from E. D. Cubuk et al., 2019, "AutoAugment", table 6.

    Example:
        >>> import numpy as np
        >>> from keras_opt.layers import RandAugment
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), "uint8")
        >>> RandAugment(num_ops=2, factor=(0.9, 0.9), seed=0)(images, training=True).shape
        TensorShape([8, 32, 32, 3])
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        num_ops: int = 2,
        factor: float | Sequence[float] = 0.5,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        bounding_box_format: str | None = None,
        **kwargs: Any,
    ):
        _check_value_range(value_range)
        check_at_least("RandAugment", "num_ops", num_ops, 1)
        check_choice("RandAugment", "interpolation", interpolation, INTERPOLATIONS)
        check_choice("RandAugment", "data_format", data_format, ("channels_last", "channels_first", None))
        check_box_format("RandAugment", bounding_box_format)
        super().__init__(autocast=False, **kwargs)  # boxes in float16 would miss their pixels
        self.value_range = tuple(value_range)
        self.num_ops = num_ops
        self.factor = _lowest_and_highest(factor)
        self.interpolation = interpolation
        self.seed = seed
        self.seed_generator = seed_generator("RandAugment", seed)
        self.data_format = data_format or keras.config.image_data_format()
        self.bounding_box_format = bounding_box_format

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        fields, give_back = open_fields("RandAugment", inputs)
        return give_back(fields | {"images": as_dtype(fields["images"], self.compute_dtype)})

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_fields("RandAugment", inputs)
        images = self._channels_last(fields["images"])
        self._check_images(images)
        count, height, width, _ = tf.unstack(tf.shape(images))
        drawn = draw(key, count, self.num_ops, self.factor)
        matrices = views(drawn, (height, width))
        images = images if images.dtype == tf.uint8 else tf.cast(images, "float32")
        augmented = _compiled(images.shape[-1], self.value_range, self.interpolation)(images, drawn, matrices)
        augmented = tf.ensure_shape(augmented, images.shape)
        fields["images"] = self._channels_last(as_dtype(augmented, self.compute_dtype), back=True)
        if "segmentation_masks" in fields:
            fields["segmentation_masks"] = self._moved_masks(fields["segmentation_masks"], matrices)
        if "bounding_boxes" in fields:
            check_box_format("RandAugment", self.bounding_box_format, has_boxes=True)
            size = height, width
            fields["bounding_boxes"] = move_boxes(
                fields["bounding_boxes"], self.bounding_box_format, matrices, size, size
            )
        if "keypoints" in fields:
            fields["keypoints"] = moved(tf.cast(fields["keypoints"], "float32"), inverses(matrices))
        return give_back(fields)

    def _moved_masks(self, masks: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
        if masks.shape.rank == 3:
            return warp(masks[..., tf.newaxis], matrices, None, "nearest", _FILL_MODE)[..., 0]
        return self._channels_last(warp(self._channels_last(masks), matrices, None, "nearest", _FILL_MODE), back=True)

    def _channels_last(self, images: tf.Tensor, back: bool = False) -> tf.Tensor:
        if self.data_format == "channels_last":
            return images
        return tf.transpose(images, (0, 3, 1, 2) if back else (0, 2, 3, 1))

    def _check_images(self, images: tf.Tensor) -> None:
        if images.shape[-1] not in (1, 3):
            raise InputError(
                f"RandAugment: images must have 1 channel (grey) or 3 (RGB), of a number known beforehand. Received: "
                f"shape {images.shape}, channels last. Convert them, or decode them with `channels=3`."
            )
        if images.dtype.is_integer and self.value_range != (0, 255):
            cure = "Leave `value_range` out for integers, or scale the images first."
            raise argument_error(
                "RandAugment", "value_range", self.value_range, f"(0, 255) for {images.dtype.name} images", cure
            )

    def get_config(self) -> dict[str, Any]:
        config = {
            "value_range": self.value_range,
            "num_ops": self.num_ops,
            "factor": self.factor,
            "interpolation": self.interpolation,
            "seed": self.seed,
            "data_format": self.data_format,
            "bounding_box_format": self.bounding_box_format,
        }
        return {**super().get_config(), **config}


@functools.cache
def _compiled(channels: int, value_range: tuple[float, float], interpolation: str) -> Callable[..., tf.Tensor]:
    """The function from images, bytes or floats, to those after their operations, floats in `value_range`."""
    low, high = value_range
    level = (high - low) / 255

    def recoloured(image, drawn):
        if image.dtype == tf.uint8:
            return recolour(image, drawn)
        levels = tf.clip_by_value(tf.round((image - low) * (1 / level)), 0, 255)
        return tf.cast(recolour(tf.cast(levels, "uint8"), drawn), "float32") * level + low

    def seen(image, matrix):
        return warp(image[tf.newaxis], matrix[tf.newaxis], None, interpolation, _FILL_MODE, rescale=1.0)[0]

    def augmented(image_and_drawn):
        image, drawn, matrix = image_and_drawn
        image = tf.cond(tf.reduce_any(on_colours(drawn)), lambda: recoloured(image, drawn), lambda: image)
        is_moved = tf.reduce_any(on_the_view(drawn))
        return tf.cond(is_moved, lambda: seen(image, matrix), lambda: tf.cast(image, "float32"))

    @tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    def run(images, drawn, matrices):
        images = tf.ensure_shape(images, (None, None, None, channels))
        count = tf.shape(images)[0]
        elements = tf.nest.map_structure(_at_least_one, (images, drawn, matrices))
        return tf.map_fn(augmented, elements, fn_output_signature="float32")[:count]  # each costs what it drew

    return run


def _at_least_one(values: tf.Tensor) -> tf.Tensor:
    """`values`, or zeros for one where a replica got none: XLA compiles no loop over nothing."""
    missing = tf.maximum(1 - tf.shape(values)[0], 0)
    return tf.pad(values, [[0, missing], *([0, 0] for _ in values.shape[1:])])


def _check_value_range(value_range: Any) -> None:
    is_pair = isinstance(value_range, Sequence) and len(value_range) == 2 and all(map(is_number, value_range))
    if is_pair and value_range[0] < value_range[1]:
        return
    raise argument_error(
        "RandAugment",
        "value_range",
        value_range,
        "a pair of finite numbers, the lower one first",
        "Give (0, 255) or (0, 1).",
    )


def _lowest_and_highest(factor: Any) -> tuple[float, float]:
    pair = (0, factor) if is_number(factor) else factor
    if isinstance(pair, Sequence) and len(pair) == 2 and all(is_number(n) and 0 <= n <= 1 for n in pair):
        return tuple(sorted(map(float, pair)))
    raise argument_error(
        "RandAugment", "factor", factor, "a number in [0, 1], or a pair of them", "Give for example 0.5, or (0.9, 0.9)."
    )
