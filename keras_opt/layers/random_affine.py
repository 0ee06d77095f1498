"""Random rotation, shift, zoom, shear and flips, composed into one matrix and seen through one warp."""

import sys
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import argument_error, check_at_least, check_choice, is_number
from keras_opt.layers.affine_draws import AffineRanges, Range, draw_matrices, is_whole
from keras_opt.layers.affine_matrices import about_centres, inverses, moved
from keras_opt.layers.bounding_boxes import check_box_format, move_boxes
from keras_opt.layers.fields import as_dtype, open_fields
from keras_opt.layers.image_data_generator import check_names, like_image_data_generator
from keras_opt.layers.random_keys import next_key
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields
from keras_opt.layers.warp import FILL_MODES, INTERPOLATIONS, resize, warp


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields()
class RandomAffine(keras.layers.Layer):
    """Rotates, shifts, shears, zooms and flips each image, in training, by a fresh draw of its own.

    The geometric augmentation of images, in one layer: all parts are composed into one matrix, and the image is
    interpolated once, where a stack of layers blurs it at each. Masks, boxes and keypoints move with their images. Take
    no part whose result is another class: no flip for digits or text, no large rotation for "6" and "9".

    In `keras_opt.data.augment(dataset, layers, seed)` the result is a function of the seed; in a model, of the layer's
    seed generator, which is saved with it. XLA compiles the warp by itself, under a default `compile()` and in a
    `tf.data` map too, and a model that holds the layer may be compiled with `jit_compile=True`.

    With p and p' as column vectors (x, y) from the centres of the result and of the image, at (size - 1) / 2:

        p' = R T S Z F p            the input point p' that output pixel p shows
        R   rotation by uniform(-rotation_degrees, rotation_degrees), counter-clockwise
        T   shift by uniform(-width_shift, width_shift) of the width to the right, height_shift of the height down
        S   shear: (x - y sin s, y cos s), s = uniform(-shear_degrees, shear_degrees)
        Z   zoom: the view covers 1 + uniform(-zoom, zoom) of the image, drawn for width and height separately
        F   flips: x or y changes its sign, by two independent coins

    A range may also be a pair (low, high), of which either sign is allowed: `zoom=(-0.3, 0)` only magnifies, as in
    Keras's `RandomZoom`, `width_shift=(0, 0.2)` only shifts to the right. Order, shear and zoom are those of
    `ImageDataGenerator`; see `from_image_data_generator`.

    Args:
        rotation_degrees: Degrees, at most 360. Default 0, as for all parts.
        width_shift: A fraction of the width, at most 1, if a float; if an int, whole pixels below it.
        height_shift: The same of the height.
        zoom: A fraction in [0, 1). Below 0 in a pair the image grows, above it shrinks: 0.2 or (-0.2, 0.2) shows 80 to
            120 % of each side, what `ImageDataGenerator` wrote as `zoom_range=(0.8, 1.2)`.
        shear_degrees: Degrees below 90.
        horizontal_flip: Whether half of the images show left and right exchanged.
        vertical_flip: Whether half of the images show top and bottom exchanged.
        fill_mode: What is seen outside of the image: the "nearest" pixel (default), the image mirrored at its edge
            ("reflect"), `fill_value` ("constant"), or the image repeated ("wrap").
        fill_value: In the range of the images, before `rescale`. Masks are filled with 0. Default 0.
        interpolation: "bilinear" (default) or "nearest". Masks always have "nearest".
        rescale: A factor for the values, also in inference: 1/255 makes bytes to floats in [0, 1].
        output_size: (height, width) of the result, also in inference; the whole view is scaled to it, without
            smoothing before: not for much smaller sizes. Default: that of the images.
        bounding_box_format: That of the boxes, where there are some: "xyxy", "xywh", or another of Keras's.
        seed: An int, or None for another one each time.

    Input shape:
        (B, H, W, C) or (H, W, C), channels last, integers or floats; a pair or triple with labels and sample weights;
        or Keras's dict: `images`, `labels`, `bounding_boxes`, `segmentation_masks` (B, H, W) or (B, H, W, C), and
        `keypoints` (B, N, 2), x and y in pixels, whole numbers in their middles. Batch and size may be unknown. Other
        keys of a dict pass through unchanged; one like a misspelt field (`masks`, `boxes`) is refused.

    Output shape:
        The same form, with the size of `output_size`. Integer images stay so, correctly rounded, without `rescale`;
        floats and all with `rescale` are float32. Boxes are the upright ones around the moved corners, clipped; those
        outside get the label -1. Keypoints may lie outside.

    Raises:
        ValueError: An argument out of range; `rescale` with an integer `dtype`; boxes without a format, or as labels; a
            key close to that of a field.
        TypeError: The inputs have none of these forms.

    Cost: a seed of two numbers, no weights. Each new shape takes XLA about a second: batch images of one size before.
    `benchmarks/results/random_affine.json` holds the times.

    Source: as Keras 2's `ImageDataGenerator`; the composition is that of P. Simard, D. Steinkraus and J. Platt, 2003,
    "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", section 2.

    A saved model that holds the layer opens with `keras_opt.load_model`, or with Keras's after
    `import keras_opt.layers`.

    Example:
        >>> import numpy as np
        >>> from keras_opt.layers import RandomAffine
        >>> layer = RandomAffine(rotation_degrees=20, width_shift=0.2, horizontal_flip=True, rescale=1 / 255)
        >>> layer(np.zeros((8, 32, 32, 3), "uint8")).shape
        TensorShape([8, 32, 32, 3])
    """

    def __init__(
        self,
        rotation_degrees: float | Sequence[float] = 0,
        width_shift: float | Sequence[float] = 0,
        height_shift: float | Sequence[float] = 0,
        zoom: float | Sequence[float] = 0,
        shear_degrees: float | Sequence[float] = 0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        fill_mode: str = "nearest",
        fill_value: float = 0.0,
        interpolation: str = "bilinear",
        rescale: float | None = None,
        output_size: Sequence[int] | None = None,
        bounding_box_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        _check_range("rotation_degrees", rotation_degrees, 360)
        _check_shift("width_shift", width_shift)
        _check_shift("height_shift", height_shift)
        _check_range("zoom", zoom, 1, limit_allowed=False)
        _check_range("shear_degrees", shear_degrees, 90, limit_allowed=False)
        check_choice("RandomAffine", "fill_mode", fill_mode, FILL_MODES)
        _check_number("fill_value", fill_value)
        check_choice("RandomAffine", "interpolation", interpolation, INTERPOLATIONS)
        _check_output_size(output_size)
        check_box_format("RandomAffine", bounding_box_format)
        super().__init__(autocast=False, **kwargs)  # boxes in float16 would miss their pixels
        if rescale is not None:
            _check_number("rescale", rescale)
            if self._gives_integers:
                must_be = f"None with dtype={self.compute_dtype!r}"
                raise argument_error("RandomAffine", "rescale", rescale, must_be, "Leave `dtype` out for float32.")
        self.rotation_degrees = _range(rotation_degrees)
        self.width_shift = _range(width_shift)
        self.height_shift = _range(height_shift)
        self.zoom = _range(zoom)
        self.shear_degrees = _range(shear_degrees)
        self.horizontal_flip = bool(horizontal_flip)
        self.vertical_flip = bool(vertical_flip)
        self.fill_mode = fill_mode
        self.fill_value = fill_value
        self.interpolation = interpolation
        self.rescale = rescale
        self.output_size = None if output_size is None else tuple(map(int, output_size))
        self.bounding_box_format = bounding_box_format
        self.seed = seed
        self.seed_generator = seed_generator("RandomAffine", seed)

    @classmethod
    def from_image_data_generator(cls, **arguments: Any) -> "RandomAffine | list[keras.layers.Layer]":
        """What augments as Keras 2's `ImageDataGenerator(**arguments)`: this layer, or a list that begins with it.

        A list comes back with `brightness_range` or `channel_shift_range`: this layer, then one for each, then
        `keras.layers.Rescaling`; `keras_opt.data.augment` and `preprocessing=` take either. As there, the result is
        float32, the random parts act in training only, and `rescale` always does.

        Taken over as they are: `rotation_range`, `width_shift_range` and `height_shift_range` (a float below 1 is a
        fraction, a whole number pixels), `shear_range`, `zoom_range`, the flips, `fill_mode`, `cval`, `rescale`,
        `interpolation_order` 0 and 1. `brightness_range` multiplies each image by a factor and clips it to 0..255,
        before `rescale`; `channel_shift_range` adds one number to all channels, in spite of its name.

        Refused, with what to take instead: `featurewise_...`, `samplewise_...`, `zca_whitening`,
        `preprocessing_function`, `validation_split`, lists of shifts, `data_format="channels_first"`, another `dtype`
        than float32, higher `interpolation_order`.

        Different: `height_shift_range` moves images up and down, where the copy in Keras 3 moves them to the sides;
        images that are not square turn about their centre; in "wrap" an image repeats with its own size as the period;
        in "constant" the edge blends with `cval`; a shift in channels clips at 0 and 255, where theirs clips at the
        least and greatest value of the image.

        Args:
            arguments: Those of `ImageDataGenerator`, and `seed`, which it took in `flow`.

        Raises:
            ValueError: An argument is refused or out of its range.
            TypeError: `ImageDataGenerator` has no such argument.

        Example:
            >>> from keras_opt.layers import RandomAffine
            >>> layer = RandomAffine.from_image_data_generator(rotation_range=20, width_shift_range=0.2)
            >>> layer.rotation_degrees, layer.width_shift
            (20, 0.2)
        """
        check_names(arguments)
        return like_image_data_generator(cls, **arguments)

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        fields, give_back = open_fields("RandomAffine", inputs)
        input_size, output_size = self._sizes(fields["images"])
        unmoved = tf.eye(3, batch_shape=tf.shape(fields["images"])[:1])

        def resized(values, interpolation, fill_value, rescale):
            return resize(values, self.output_size, interpolation, rescale)

        return give_back(self._seen(fields, resized, about_centres(unmoved, input_size, output_size)))

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_fields("RandomAffine", inputs)
        images = fields["images"]
        self._check_fill_value(images.dtype)
        matrices = draw_matrices(self._ranges, key, images, self.output_size)

        def warped(values, interpolation, fill_value, rescale):
            return warp(values, matrices, self.output_size, interpolation, self.fill_mode, fill_value, rescale)

        return give_back(self._seen(fields, warped, matrices))

    def _seen(self, fields, view, matrices) -> dict[str, Any]:
        """The fields as `view` shows images, and `matrices` points."""
        seen = dict(fields)
        images = fields["images"]
        input_size, output_size = self._sizes(images)
        values = tf.cast(images, "float32") if images.dtype.is_floating else images
        values = view(values, self.interpolation, self.fill_value, self.rescale)
        if self._gives_integers and values.dtype.is_floating:
            values = as_dtype(values, self.compute_dtype)
        seen["images"] = values
        if "segmentation_masks" in fields:
            masks = fields["segmentation_masks"]
            has_channels = masks.shape.rank == 4
            masks = view(masks if has_channels else masks[..., tf.newaxis], "nearest", 0, None)
            seen["segmentation_masks"] = masks if has_channels else masks[..., 0]
        if "keypoints" in fields:
            seen["keypoints"] = moved(tf.cast(fields["keypoints"], "float32"), inverses(matrices))
        if "bounding_boxes" in fields:
            check_box_format("RandomAffine", self.bounding_box_format, has_boxes=True)
            boxes = fields["bounding_boxes"]
            seen["bounding_boxes"] = move_boxes(boxes, self.bounding_box_format, matrices, input_size, output_size)
        return seen

    def _sizes(self, images) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Height and width of the images, and of the result."""
        input_size = tuple(tf.unstack(tf.shape(images)[1:3]))
        return input_size, self.output_size or input_size

    @property
    def _ranges(self) -> AffineRanges:
        return AffineRanges(*(getattr(self, name) for name in AffineRanges._fields))

    @property
    def _gives_integers(self) -> bool:
        return tf.as_dtype(self.compute_dtype).is_integer

    def _check_fill_value(self, dtype: tf.DType) -> None:
        if self.fill_mode == "constant" and dtype.is_integer and not dtype.min <= self.fill_value <= dtype.max:
            must_be = f"a {dtype.name} value, as the images are"
            raise argument_error("RandomAffine", "fill_value", self.fill_value, must_be, "It is filled in unscaled.")

    def get_config(self) -> dict[str, Any]:
        config = {
            "rotation_degrees": self.rotation_degrees,
            "width_shift": self.width_shift,
            "height_shift": self.height_shift,
            "zoom": self.zoom,
            "shear_degrees": self.shear_degrees,
            "horizontal_flip": self.horizontal_flip,
            "vertical_flip": self.vertical_flip,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "interpolation": self.interpolation,
            "rescale": self.rescale,
            "output_size": self.output_size,
            "bounding_box_format": self.bounding_box_format,
            "seed": self.seed,
        }
        return {**super().get_config(), **config}


def _range(part: float | Sequence[float]) -> Range:
    return tuple(part) if isinstance(part, Sequence) else part


def _check_range(name: str, part: Any, limit: float, *, limit_allowed: bool = True) -> None:
    is_pair = isinstance(part, Sequence) and len(part) == 2
    low, high = part if is_pair else (0, part)
    if is_number(low) and is_number(high) and low <= high:
        size = max(abs(low), abs(high))
        if size < limit or (limit_allowed and size == limit):
            return
    interval = f"[0, {limit}{']' if limit_allowed else ')'}"
    must_be = f"a number in {interval}, or a pair (low, high) of numbers of at most that size"
    raise argument_error("RandomAffine", name, part, must_be, _range_cure(name, part))


def _range_cure(name: str, part: Any) -> str:
    ends = part if isinstance(part, Sequence) else (part,)
    if not ends or not all(map(is_number, ends)):
        return "0 leaves this part out."
    ends = sorted(ends)
    if name == "zoom" and ends[0] > 0 and ends[-1] >= 1:
        factors = ", ".join(f"{end - 1:.6g}" for end in ends)
        return f"Factors are given by how far they are from 1: {f'({factors})' if len(ends) > 1 else factors}."
    if name.endswith("_shift") and max(map(abs, ends)) > 1:
        pixels = ", ".join(str(round(end)) for end in ends)
        return f"Floats are fractions of the size; for pixels give ints: {f'({pixels})' if len(ends) > 1 else pixels}."
    return "0 leaves this part out."


def _check_shift(name: str, part: Any) -> None:
    _check_range(name, part, sys.maxsize if is_whole(_range(part)) else 1)


def _check_number(name: str, value: Any) -> None:
    if not is_number(value):
        raise argument_error("RandomAffine", name, value, "a finite number", "Give a number.")


def _check_output_size(size: Any) -> None:
    if size is None:
        return
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise argument_error("RandomAffine", "output_size", size, "a pair (height, width)", "Give (224, 224) or None.")
    for length in size:
        check_at_least("RandomAffine", "output_size", length, 1)
