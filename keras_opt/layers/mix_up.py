"""Mixes each image of a batch with another one, and their labels in the same shares."""

from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import check_choice, check_positive
from keras_opt.layers.fields import as_dtype
from keras_opt.layers.mixed_labels import blend, check_labelled, check_num_classes, mix_targets, open_mixable, unmixed
from keras_opt.layers.mixing_draws import beta, partners
from keras_opt.layers.random_keys import fold_in, next_key
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator
from keras_opt.layers.takes_fields import takes_fields

_TARGETS = ("labels", "segmentation_masks")

_blend_images = tf.function(blend, jit_compile=True, autograph=False)  # one pass, where TensorFlow alone takes five


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
@takes_fields(check_labelled)
class MixUp(keras.layers.Layer):
    """Blends each image of a batch with another one of it, and their labels in the same shares.

    The network sees the points between two examples and learns labels between theirs, which makes it less sure of
    itself and less ready to learn wrong labels by heart. For classification, best with long training; small networks
    that underfit lose by it. It belongs into the data, after batching and after all other augmentation, or the last
    step before the model; not into the model, which has no labels. The loss must take probabilities:
    `CategoricalCrossentropy`, or `BinaryCrossentropy`.

        image = own * image_i + (1 - own) * image_j
        label = own * label_i + (1 - own) * label_j        own ~ Beta(alpha, alpha), anew for each image i
                                                           j = the image at place i of the batch in a random order

    Labels are probabilities of shape (batch, classes), one-hot or soft, or binary floats of shape (batch, 1); all
    values lie in [0, 1]. Class numbers, of shape (batch,) or (batch, 1), int or float, become one-hot with
    `num_classes`; without it they are refused. So are targets of a regression that are not scaled to [0, 1].
    Segmentation masks follow the same rules with two axes more. With sample weights w the mixed example weighs
    w = own * w_i + (1 - own) * w_j and its label is (own * w_i * label_i + (1 - own) * w_j * label_j) / w: its loss is
    the sum of two weighted examples', so class weights keep their meaning. Boxes and keypoints are refused.

    In inference images are left alone, while class numbers still become one-hot, so that validation data can go
    through the same layer and loss: `validation.map(lambda *pair: mix_up(pair, training=False))`.

    Args:
        alpha: Float above 0. Near 0 hardly anything is mixed, at 1 all shares are as likely, above 1 halves are.
            Default 0.2, what the authors took for ImageNet (0.1 to 0.4); for CIFAR-10 they took 1.
        num_classes: Int of at least 2, where labels are class numbers; `None` where they are probabilities. Default
            `None`.
        seed: Int of at least 0, or `None` for another in each process (after `keras.utils.set_random_seed` the same).
        data_format: Taken for Keras's sake: both formats are mixed alike.

    Input shape: images `(batch, height, width, channels)` in a pair `(images, labels)`, a triple with sample weights,
        or Keras's dict.

    Output shape: the same, class numbers with `num_classes` places; images in the layer's compute dtype
        (`dtype="uint8"` keeps bytes), labels and sample weights as float32.

    Raises:
        ValueError: An argument is out of its range, or what is given cannot be mixed: no labels, one image, class
            numbers without `num_classes`, labels outside [0, 1], boxes.

    Cost: one seed counter; one pass over the images, compiled by XLA once for each shape.

    Source: H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz, 2018, "mixup: Beyond Empirical Risk Minimization",
        equation 1 in section 2.

    Example:
        >>> import numpy as np
        >>> from keras_opt.layers import MixUp
        >>> images, labels = MixUp(num_classes=10)((np.zeros((4, 8, 8, 3)), np.array([1, 5, 1, 9])))
        >>> labels.shape
        TensorShape([4, 10])

        In training, of a dataset with class numbers; validation data takes the same loss:

        >>> import keras
        >>> import tensorflow as tf
        >>> from keras_opt.data import augment
        >>> train = tf.data.Dataset.from_tensor_slices((np.zeros((4, 8, 8, 3), "float32"), [1, 5, 1, 9])).batch(2)
        >>> mix_up = MixUp(num_classes=10)
        >>> mixed, validation = augment(train, mix_up, seed=1), train.map(lambda *pair: mix_up(pair, training=False))
        >>> model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
        >>> model.compile("adam", loss="categorical_crossentropy", metrics=["accuracy"])
        >>> history = model.fit(mixed, validation_data=validation, shuffle=False, verbose=0)
    """

    def __init__(
        self,
        alpha: float = 0.2,
        num_classes: int | None = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        check_positive("MixUp", "alpha", alpha)
        check_num_classes("MixUp", num_classes)
        check_choice("MixUp", "data_format", data_format, ("channels_last", "channels_first", None))
        super().__init__(autocast=False, **kwargs)  # labels in float16 would no longer add up to 1
        self.alpha = float(alpha)
        self.num_classes = None if num_classes is None else int(num_classes)
        self.data_format = data_format
        self.seed = seed
        self.seed_generator = seed_generator("MixUp", seed)

    def call(self, inputs: Any, training: bool = True) -> Any:
        if training:
            return self.transform(inputs, next_key(self.seed_generator))
        return unmixed("MixUp", inputs, self.num_classes, _TARGETS, self.compute_dtype)

    def transform(self, inputs: Any, key: tf.Tensor) -> Any:
        """What `call` gives in training, as a function of `inputs` and a key: an int32 tensor of shape (2,)."""
        fields, give_back = open_mixable("MixUp", inputs, self.num_classes, _TARGETS)
        count = keras.ops.shape(fields["images"])[0]
        own = beta(fold_in(key, 0), tf.fill([count], self.alpha))
        others = partners(fold_in(key, 1), count)
        fields["images"] = as_dtype(_blend_images(fields["images"], others, own), self.compute_dtype)
        return give_back(mix_targets("MixUp", fields, _TARGETS, others, own))

    def get_config(self) -> dict[str, Any]:
        config = {"alpha": self.alpha, "num_classes": self.num_classes, "seed": self.seed}
        return {**super().get_config(), **config, "data_format": self.data_format}
