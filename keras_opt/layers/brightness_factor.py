"""Brightness as Keras 2's `ImageDataGenerator` changed it: by a factor, where Keras 3's `RandomBrightness` adds."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.layers.fields import open_fields
from keras_opt.layers.random_keys import next_key, uniform
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields()
class RandomBrightnessFactor(keras.layers.Layer):
    """Multiplies each image in training by a factor of its own, uniform in [low, high), and clips it to 0..255.

    It stands in what `RandomAffine.from_image_data_generator(brightness_range=...)` gives. There the values were cut
    off to whole levels too, so those here are up to 1 greater.

    Args:
        factor: (low, high), of at least 0. 1 leaves the image as it is, 0 makes it black.
        seed: Int of at least 0, or `None` for another in each process.

    Input shape: images (B, H, W, C) or (H, W, C) with values from 0 to 255, alone or in the forms of `RandomAffine`.

    Output shape: the same, as float32.
    """

    def __init__(self, factor: Sequence[float], seed: int | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.factor = tuple(factor)
        self.seed = seed
        self.seed_generator = seed_generator("RandomBrightnessFactor", seed)

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        fields, give_back = open_fields("RandomBrightnessFactor", inputs)
        return give_back(fields | {"images": tf.cast(fields["images"], "float32")})

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_fields("RandomBrightnessFactor", inputs)
        images = tf.cast(fields["images"], "float32")
        factors = uniform(key, [tf.shape(images)[0], 1, 1, 1], *self.factor)
        return give_back(fields | {"images": tf.clip_by_value(images * factors, 0.0, 255.0)})

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor, "seed": self.seed}
