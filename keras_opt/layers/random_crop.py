"""Crops a window of fixed size out of each image, at a place of its own."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import InputError, argument_error, check_at_least, check_choice, is_number
from keras_opt.layers.affine_matrices import inverses, moved, shifts
from keras_opt.layers.bounding_boxes import check_box_format, move_boxes
from keras_opt.layers.fields import as_dtype, open_fields
from keras_opt.layers.random_keys import fold_in, integers, next_key
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields
from keras_opt.layers.warp import FILL_MODES, fold


@tf.function(jit_compile=True, autograph=False)
def crop(
    images: tf.Tensor,
    starts: tuple[tf.Tensor, tf.Tensor],
    lengths: tuple[int, int],
    axes: tuple[int, int],
    fill_mode: str,
    fill_value: float,
) -> tf.Tensor:
    """A window of each image.

    Args:
        images: Of any rank, with the batch first.
        starts: Where the window of each image begins on each of the two axes, (B,) int32; it may be outside.
        lengths: The window's size on each axis.
        axes: The axes of rows and columns.
        fill_mode: What is read outside, as in `warp`.
        fill_value: In the images' own range.
    """
    outside = False
    for start, length, axis in zip(starts, lengths, axes, strict=True):
        places = start[:, tf.newaxis] + tf.range(length)
        size = tf.shape(images)[axis]
        images = tf.gather(images, fold(tf.cast(places, "float32"), size, fill_mode), axis=axis, batch_dims=1)
        ones = [1] * (axis - 1), [1] * (images.shape.rank - axis - 1)
        outside |= tf.reshape((places < 0) | (places >= size), [-1, *ones[0], length, *ones[1]])
    return tf.where(outside, tf.cast(fill_value, images.dtype), images) if fill_mode == "constant" else images


def crop_all_at(
    images: tf.Tensor, corner: tuple[Any, Any], lengths: tuple[int, int], axes: tuple[int, int]
) -> tf.Tensor:
    """The window of all images that begins at `corner`, two ints or scalars."""
    starts, sizes = [0] * images.shape.rank, [-1 if size is None else size for size in images.shape]
    for axis, start, length in zip(axes, corner, lengths, strict=True):
        starts[axis], sizes[axis] = start, length
    return tf.slice(images, starts, sizes)


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields()
class RandomCrop(keras.layers.Layer):
    """Crops each image to a window of `height` by `width` pixels, in training at a random place of its own.

    No pixel is changed, so it costs no sharpness, and it is the first augmentation to take. On small images
    `RandomCrop(32, 32, padding=4)` is the usual recipe for CIFAR; for larger ones load them a little larger (256) than
    the network wants them (224). In inference the window is that in the middle, without padding and at the same scale.
    It stands in the data (`keras_opt.data.augment`), or first in the model. To vary the scale or to turn images take
    `RandomAffine`.

        top ~ uniform over the whole numbers from -padding to H + padding - height, for each image; left likewise
        output[y, x] = image[top + y, left + x]

    Segmentation masks are cropped alike. Boxes and keypoints move with the image; boxes are clipped to the window, and
    the labels of those that are left outside become -1. Keypoints outside stay outside.

    It takes the arguments of `keras.layers.RandomCrop`, which draws one window for the whole batch, takes the middle
    where an image has room on one side only, gives the whole image in inference, and moves boxes along the wrong axes.
    Keras stretches an image that is smaller than the window; here that is an error.

    Args:
        height: Int of at least 1, pixels.
        width: Int of at least 1, pixels.
        seed: Int of at least 0, or `None` for another in each process (after `keras.utils.set_random_seed` the same).
        data_format: `"channels_last"` or `"channels_first"`; `keras.config.image_data_format()` by default.
        padding: Int of at least 0, pixels by which the window may leave the image, on each side. Default 0.
        fill_mode: What it shows there: `fill_value` (`"constant"`), the `"nearest"` pixel, the image mirrored at its
            edge (`"reflect"`) or repeated (`"wrap"`). Default `"constant"`.
        fill_value: Number, in the images' own range. Masks get 0. Default 0.
        bounding_box_format: That of the boxes, where there are some: `"xyxy"`, `"xywh"` or another of Keras's.

    Input shape: images `(batch, H, W, channels)` or `(H, W, channels)`, or with the channels first; in a pair with
        labels, or in Keras's dict.

    Output shape: the same with `height` and `width`; images in the layer's compute dtype (`dtype="uint8"` keeps bytes).

    A saved model that holds the layer opens with `keras_opt.load_model`, or with Keras's after
    `import keras_opt.layers`.

    Raises:
        ValueError: An argument is out of its range, or an image is smaller than the window; a key of the dict is like a
            misspelt field, or labels are boxes.

    Cost: one seed counter; one pass over the images, compiled by XLA once for each shape. Single images of many sizes
        are cropped without XLA where there is no `padding`.

    Source: A. Krizhevsky, I. Sutskever and G. E. Hinton, 2012, "ImageNet Classification with Deep Convolutional Neural
        Networks", section 4.1; with padding, K. He, X. Zhang, S. Ren and J. Sun, 2016, "Deep Residual Learning for
        Image Recognition", section 4.2.

    Example:
        >>> import numpy as np
        >>> from keras_opt.layers import RandomCrop
        >>> RandomCrop(32, 32, padding=4)(np.zeros((8, 32, 32, 3)), training=True).shape
        TensorShape([8, 32, 32, 3])
    """

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        padding: int = 0,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        bounding_box_format: str | None = None,
        **kwargs: Any,
    ):
        check_at_least("RandomCrop", "height", height, 1)
        check_at_least("RandomCrop", "width", width, 1)
        check_choice("RandomCrop", "data_format", data_format, ("channels_last", "channels_first", None))
        check_at_least("RandomCrop", "padding", padding, 0)
        check_choice("RandomCrop", "fill_mode", fill_mode, FILL_MODES)
        check_box_format("RandomCrop", bounding_box_format)
        if not is_number(fill_value):
            cure = "Give a value in the range of the images."
            raise argument_error("RandomCrop", "fill_value", fill_value, "a finite number", cure)
        super().__init__(autocast=False, **kwargs)  # boxes in float16 would miss their pixels
        self.height = int(height)
        self.width = int(width)
        self.seed = seed
        self.data_format = data_format or keras.config.image_data_format()
        self.padding = int(padding)
        self.fill_mode = fill_mode
        self.fill_value = float(fill_value)
        self.bounding_box_format = bounding_box_format
        self.seed_generator = seed_generator("RandomCrop", seed)

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        fields, give_back = open_fields("RandomCrop", inputs)
        corner = tuple(room // 2 for room in self._rooms(fields["images"]))

        def middle(values, axes, fill_value):
            return crop_all_at(values, corner, (self.height, self.width), axes)

        return give_back(self._cropped(fields, corner, middle))

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_fields("RandomCrop", inputs)
        self._check_fill_value(fields["images"].dtype)
        count = keras.ops.shape(fields["images"])[0]
        rooms = [room + 2 * self.padding for room in self._rooms(fields["images"])]
        corners = tuple(integers(fold_in(key, n), [count], 0, room + 1) - self.padding for n, room in enumerate(rooms))

        def window(values, axes, fill_value):
            if values.shape[0] == 1 and not self.padding:  # images of many sizes: XLA would compile for each
                return crop_all_at(values, tuple(start[0] for start in corners), (self.height, self.width), axes)
            return crop(values, corners, (self.height, self.width), axes, self.fill_mode, fill_value)

        return give_back(self._cropped(fields, corners, window))

    def _cropped(self, fields, corners, window) -> dict[str, Any]:
        """The fields in their windows: `corners` are tops and lefts, `window` crops what has rows and columns."""
        cropped = dict(fields)
        axes = self._axes(4)
        cropped["images"] = as_dtype(window(fields["images"], axes, self.fill_value), self.compute_dtype)
        if "segmentation_masks" in fields:
            masks = fields["segmentation_masks"]
            cropped["segmentation_masks"] = window(masks, self._axes(masks.shape.rank), 0)
        matrices = shifts(*(-tf.cast(start, "float32") for start in reversed(corners)))
        if "keypoints" in fields:
            cropped["keypoints"] = moved(tf.cast(fields["keypoints"], "float32"), inverses(matrices))
        if "bounding_boxes" in fields:
            check_box_format("RandomCrop", self.bounding_box_format, has_boxes=True)
            sizes = [keras.ops.shape(fields["images"])[axis] for axis in axes]
            cropped["bounding_boxes"] = move_boxes(
                fields["bounding_boxes"], self.bounding_box_format, matrices, sizes, (self.height, self.width)
            )
        return cropped

    def _check_fill_value(self, dtype: tf.DType) -> None:
        value = self.fill_value
        fits = dtype.is_floating or (dtype.min <= value <= dtype.max and value.is_integer())
        if self.padding and self.fill_mode == "constant" and not fits:
            must_be = f"a {dtype.name} value, as the images are"
            raise argument_error("RandomCrop", "fill_value", value, must_be, "Give one, or cast the images before.")

    def _axes(self, rank: int) -> tuple[int, int]:
        """Those of rows and columns."""
        return (2, 3) if self.data_format == "channels_first" and rank == 4 else (1, 2)

    def _rooms(self, images: tf.Tensor) -> list[Any]:
        """By how many pixels the images are higher and wider than the window: ints, or scalars where not known."""
        message = f"RandomCrop: images must be at least {self.height} pixels high and {self.width} wide"
        rooms = []
        for axis, length in zip(self._axes(4), (self.height, self.width), strict=True):
            size = keras.ops.shape(images)[axis]
            if tf.is_tensor(size):
                with tf.control_dependencies([tf.debugging.assert_greater_equal(size, length, message)]):
                    size = tf.identity(size)
            elif size < length:
                raise InputError(f"{message}. Received: images of shape {images.shape}. Resize them before.")
            rooms.append(size - length)
        return rooms

    def get_config(self) -> dict[str, Any]:
        config = {
            "height": self.height,
            "width": self.width,
            "seed": self.seed,
            "data_format": self.data_format,
            "padding": self.padding,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "bounding_box_format": self.bounding_box_format,
        }
        return {**super().get_config(), **config}
