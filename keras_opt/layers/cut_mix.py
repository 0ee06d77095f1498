"""Pastes a box of another image into each image of a batch, and mixes their labels by area."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import argument_error, check_choice, is_number
from keras_opt.layers.fields import as_dtype
from keras_opt.layers.mixed_labels import check_labelled, check_num_classes, mix_targets, open_mixable, unmixed
from keras_opt.layers.mixing_draws import beta, partners
from keras_opt.layers.random_keys import fold_in, next_key, uniform
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields

_TARGETS = ("labels",)
_LEAST_ALPHA = 1e-6


def box_spans(key: tf.Tensor, own: tf.Tensor, size: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Start and length in pixels of each box along a side of `size`, of which it covers sqrt(1 - own)."""
    size = tf.cast(size, "float32")
    lengths = tf.round(size * tf.sqrt(1 - own))
    starts = tf.floor(uniform(key, tf.shape(own)) * (size - lengths + 1))
    return tf.cast(starts, "int32"), tf.cast(lengths, "int32")


@tf.function(jit_compile=True, autograph=False)  # one pass over the images
def paste(
    values: tf.Tensor,
    partners: tf.Tensor,
    rows: tuple[tf.Tensor, tf.Tensor],
    columns: tuple[tf.Tensor, tf.Tensor],
    axes: tuple[int, int],
) -> tf.Tensor:
    """`values`, with those of `values[partners]` in the boxes of these `rows` and `columns`, which lie along `axes`."""
    inside = True
    for (starts, lengths), axis in zip((rows, columns), axes, strict=True):
        place = tf.reshape(tf.range(tf.shape(values)[axis]), [-1 if a == axis else 1 for a in range(values.shape.rank)])
        starts, lengths = (tf.reshape(each, [-1] + [1] * (values.shape.rank - 1)) for each in (starts, lengths))
        inside &= (place >= starts) & (place < starts + lengths)
    return tf.where(inside, tf.gather(values, partners), values)


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields(check_labelled)
class CutMix(keras.layers.Layer):
    """Pastes a box of another image of the batch into each image, and mixes their labels by area.

    All pixels stay natural, where `MixUp` blends, so it also serves networks that must find where things are. For
    classification of images whose object fills much of them, with long training: where the object is small, the box
    often misses it while its label still comes along. It belongs into the data, after batching and after all other
    augmentation; not into the model, which has no labels. The loss must take probabilities: `CategoricalCrossentropy`,
    or `BinaryCrossentropy`.

        share ~ Beta(alpha, alpha), alpha uniform in `factor`; both anew for each image i
        box: sqrt(1 - share) of the height and of the width, in whole pixels, anywhere inside the image
        own = 1 - area of the box / area of the image
        image = image_j in the box, image_i elsewhere     j = the image at place i of the batch in a random order
        label = own * label_i + (1 - own) * label_j

    Labels and sample weights are as in `MixUp`. Segmentation masks get the same box, in whatever form and dtype they
    are. Boxes and keypoints are refused. In inference images are left alone, while class numbers still become one-hot,
    so that validation data can go through the same layer and loss.

    Args:
        factor: Two floats in [0, 1], the range of alpha; one float means (0, `factor`). Default 1.0, as in Keras; the
            authors' setting, every size of the box as likely, is `(1.0, 1.0)`.
        seed: Int of at least 0, or `None` for another in each process (after `keras.utils.set_random_seed` the same).
        data_format: `"channels_last"` or `"channels_first"`; `keras.config.image_data_format()` by default.
        num_classes: Int of at least 2, where labels are class numbers; `None` where they are probabilities. Default
            `None`.

    Input shape: images `(batch, height, width, channels)`, or with the channels first, in a pair `(images, labels)`, a
        triple with sample weights, or Keras's dict.

    Output shape: the same, class numbers with `num_classes` places; images in the layer's compute dtype
        (`dtype="uint8"` keeps bytes), labels and sample weights as float32.

    Raises:
        ValueError: An argument is out of its range, or what is given cannot be mixed: no labels, one image, class
            numbers without `num_classes`, labels outside [0, 1], boxes.

    Cost: one seed counter; one pass over the images, compiled by XLA once for each shape.

    Source: S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe and Y. Yoo, 2019, "CutMix: Regularization Strategy to Train
        Strong Classifiers with Localizable Features", equations 1 and 2.

    Example:
        >>> import numpy as np
        >>> from keras_opt.layers import CutMix
        >>> images, labels = CutMix((1.0, 1.0), num_classes=10)((np.zeros((4, 8, 8, 3)), np.array([1, 5, 1, 9])))
        >>> labels.shape
        TensorShape([4, 10])
    """

    def __init__(
        self,
        factor: float | Sequence[float] = 1.0,
        seed: int | None = None,
        data_format: str | None = None,
        num_classes: int | None = None,
        **kwargs: Any,
    ):
        lowest, highest = _range_of_alpha(factor)
        check_choice("CutMix", "data_format", data_format, ("channels_last", "channels_first", None))
        check_num_classes("CutMix", num_classes)
        super().__init__(autocast=False, **kwargs)  # labels in float16 would no longer add up to 1
        self.factor = (lowest, highest)
        self.seed = seed
        self.data_format = data_format or keras.config.image_data_format()
        self.num_classes = None if num_classes is None else int(num_classes)
        self.seed_generator = seed_generator("CutMix", seed)

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        return unmixed("CutMix", inputs, self.num_classes, _TARGETS, self.compute_dtype)

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_mixable("CutMix", inputs, self.num_classes, _TARGETS)
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        shape = keras.ops.shape(fields["images"])
        alpha = tf.maximum(uniform(fold_in(key, 0), shape[:1], *self.factor), _LEAST_ALPHA)
        share = beta(fold_in(key, 1), alpha)
        rows, columns = (box_spans(fold_in(key, 2 + n), share, shape[axis]) for n, axis in enumerate(axes))
        others = partners(fold_in(key, 4), shape[0])
        fields["images"] = as_dtype(paste(fields["images"], others, rows, columns, axes), self.compute_dtype)
        if "segmentation_masks" in fields:
            masks = fields["segmentation_masks"]
            mask_axes = axes if masks.shape.rank == 4 else (1, 2)
            fields["segmentation_masks"] = paste(masks, others, rows, columns, mask_axes)
        area = tf.cast(shape[axes[0]] * shape[axes[1]], "float32")
        own = 1 - tf.cast(rows[1] * columns[1], "float32") / area
        return give_back(mix_targets("CutMix", fields, _TARGETS, others, own))

    def get_config(self) -> dict[str, Any]:
        config = {"factor": self.factor, "seed": self.seed, "data_format": self.data_format}
        return {**super().get_config(), **config, "num_classes": self.num_classes}


def _range_of_alpha(factor: Any) -> tuple[float, float]:
    bounds = tuple(factor) if isinstance(factor, tuple | list) else (0.0, factor)
    if len(bounds) != 2 or not all(is_number(bound) and 0 <= bound <= 1 for bound in bounds) or max(bounds) == 0:
        must_be = "a number in (0, 1], or a range of two in [0, 1]"
        raise argument_error("CutMix", "factor", factor, must_be, "The authors' setting is (1.0, 1.0).")
    return tuple(sorted(float(bound) for bound in bounds))
