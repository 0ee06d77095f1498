"""Augmentation of a tf.data set as a function of (seed, epoch, element)."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, argument_error, check_at_least, kind_error
from keras_opt.data.dataset_graph import AUGMENTATION
from keras_opt.layers.random_keys import fold_in


def augment(
    dataset: tf.data.Dataset,
    layers: keras.Layer | Sequence[keras.Layer],
    seed: int,
    *,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Applies augmentation layers to every element of a dataset, with draws that follow from the seed alone.

    Use it in place of `dataset.map(layer)`, whose parallel calls take their random numbers in no fixed order. Here
    the draws of an element are a function of (`seed`, epoch, number of the element): the same for any
    `num_parallel_calls` and after a resume by `BackupAndRestore`, and no epoch repeats another. As all seeds of tf.data
    it stands beside TensorFlow's global seed, where one is set: another one of those gives other draws. To augment
    inside the model instead, put the layers there; never do both.

    A layer of keras_opt draws from the key through its `transform`. A random layer of Keras (the colour layers, say)
    gets the key in place of the state of its seed generators: its own `seed` has no say and its state does not move.
    Of a pair or a triple, it gets the images only. Keras's `MixUp` and `CutMix` are refused; take those of keras_opt.

    Args:
        dataset: Images, `(images, labels)`, `(images, labels, sample_weights)` or Keras's dict, better in batches.
        layers: One layer or several, applied in this order as in training.
        seed: Int of at least 0.
        num_parallel_calls: Int of at least 1; the results do not depend on it. By default tf.data decides.

    Returns:
        A dataset of the same form and cardinality. It has a `fresh_copy()` if `dataset` has one; other attributes are
        lost, as by `map`. End the pipeline with `prefetch`.

    Raises:
        InputError: `seed` is out of its range, there is no layer, or a layer that would spoil the labels.
        TypeError: `dataset` is no `tf.data.Dataset`, or a layer is no `keras.Layer`.

    Cost: 16 bytes of keys an element.

    Example:
        >>> import numpy as np
        >>> images = tf.data.Dataset.from_tensor_slices(np.ones((4, 8, 8, 3), "float32")).batch(2)
        >>> augmented = augment(images, keras.layers.RandomBrightness(0.2, value_range=(0, 1)), seed=1)
        >>> first, second = (np.concatenate(list(augmented)) for epoch in range(2))
        >>> first.shape, bool((first == second).all())
        ((4, 8, 8, 3), False)
    """
    if not isinstance(dataset, tf.data.Dataset):
        cure = "Make one, for example by keras_opt.data.arrays."
        raise kind_error("augment", "dataset", type(dataset), "a tf.data.Dataset", cure)
    layers = checked_layers("augment", "layers", layers)
    check_at_least("augment", "seed", seed, 0)

    @tf.autograph.experimental.do_not_convert  # as Keras calls layers; it would take half of the tracing
    def step(element, bits):
        key = tf.bitcast(tf.cast(bits, tf.uint32), tf.int32)
        for number, layer in enumerate(layers):
            element = _transform(layer, element, fold_in(key, number))
        return element

    step.__name__ = "_".join([AUGMENTATION, *(type(layer).__name__ for layer in layers)])  # profile_dataset shows it

    def augmented(dataset: tf.data.Dataset) -> tf.data.Dataset:
        # Numbers of 32 random bits: another series in each iteration, and tf.data saves its place in it.
        keys = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2, drop_remainder=True)
        return tf.data.Dataset.zip(dataset, keys).map(step, num_parallel_calls, deterministic=True)

    result = augmented(dataset)
    if hasattr(dataset, "fresh_copy"):
        result.fresh_copy = lambda: augmented(dataset.fresh_copy())
    return result


def checked_layers(owner: str, name: str, layers: Any) -> tuple[keras.Layer, ...]:
    """`layers` as a tuple.

    Raises:
        InputError: There is none, or one that would spoil the labels.
        TypeError: One is no layer.
    """
    layers = tuple(layers) if isinstance(layers, list | tuple) else (layers,)
    if not layers:
        raise argument_error(owner, name, layers, "a layer or a list of layers", "Give at least one layer.")
    for layer in layers:
        if not isinstance(layer, keras.Layer):
            cure = "Give for example keras_opt.layers.RandomAffine(rotation_degrees=10)."
            raise kind_error(owner, name, layer, "a Keras layer or a list of Keras layers", cure)
        if isinstance(layer, keras.layers.MixUp | keras.layers.CutMix):
            kind = type(layer).__name__
            raise InputError(
                f"{owner}: Keras's `{kind}` turns labels of shape (batch,) into (batch, batch) without a word. "
                f"Take keras_opt.layers.{kind}, which has the same arguments."
            )
    return layers


def infer(layers: Sequence[keras.Layer], element: Any) -> Any:
    """What the layers do to an element at inference: nothing, but for a declared `rescale` or `output_size`."""
    for layer in layers:
        if hasattr(layer, "transform"):
            element = layer(element, training=False)
        else:
            element = _on_images(layer, element, training=False)
    return element


def _transform(layer: keras.Layer, element: Any, key: tf.Tensor) -> Any:
    if hasattr(layer, "transform"):
        return layer.transform(element, key)
    states = [generator.state for generator in _seed_generators(layer)]
    mapping = [
        (state, tf.cast(tf.bitcast(fold_in(key, number), tf.uint32), state.dtype))
        for number, state in enumerate(states)
    ]
    with keras.StatelessScope(state_mapping=mapping):
        return _on_images(layer, element, training=True)


def _on_images(layer: keras.Layer, element: Any, training: bool) -> Any:
    options = {"training": training} if _seed_generators(layer) else {}
    if isinstance(element, tuple):
        return (layer(element[0], **options), *element[1:])
    return layer(tf.nest.map_structure(tf.identity, element), **options)  # a copy: Keras's layers write into a dict


def _seed_generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    return [
        value
        for part in all_layers(layer)
        for value in vars(part).values()
        if isinstance(value, keras.random.SeedGenerator)
    ]
