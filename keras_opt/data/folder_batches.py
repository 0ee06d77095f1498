"""From positions in a folder to batches of images, labels and sample weights."""

import weakref

import numpy as np
import tensorflow as tf

from keras_opt.data.image_store import ImageStore

LABEL_MODES = ("categorical", "int", "sparse", "binary")


def folder_batches(
    positions: tf.data.Dataset,
    store: ImageStore,
    classes: np.ndarray,
    label_mode: str,
    class_weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Read batches of images, with their labels and, if there are class weights, a weight for each image.

    Args:
        positions: Batches of int64 positions in `store`; a damaged image leaves its batch.
        store: The images. The dataset does not keep it alive.
        classes: The class number of each image of `store`.
        label_mode: One of `LABEL_MODES`.
        class_weights: The weight of each class.
    """
    alive = weakref.ref(store)  # TensorFlow never lets go of a function given to numpy_function
    shape, class_count = store.shape, int(classes.max()) + 1
    with tf.device("CPU"):
        classes = tf.constant(classes, tf.int32)

    @tf.autograph.experimental.do_not_convert
    def read(positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, kept = tf.numpy_function(lambda where: alive().read(where), [positions], (tf.uint8, tf.int64))
        images = tf.ensure_shape(images, (None, *shape))
        numbers = tf.gather(classes, tf.ensure_shape(kept, (None,)))
        labels = _labels(numbers, class_count, label_mode)
        if class_weights is None:
            return images, labels
        return images, labels, tf.gather(tf.constant(class_weights, tf.float32), numbers)

    return positions.map(read, tf.data.AUTOTUNE, deterministic=True)


def _labels(numbers: tf.Tensor, class_count: int, label_mode: str) -> tf.Tensor:
    if label_mode == "categorical":
        return tf.one_hot(numbers, class_count)
    if label_mode == "binary":
        return tf.cast(numbers[:, tf.newaxis], tf.float32)
    return numbers
