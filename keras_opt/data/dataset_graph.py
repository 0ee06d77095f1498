"""What a tf.data set was made of."""

import re

import tensorflow as tf

AUGMENTATION = "keras_opt_augment"  # how the name of the function begins that `keras_opt.data.augment` maps


def inputs_of(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The datasets that `dataset` reads.

    TensorFlow has no public name for them; `tests/contract/test_keras_canary.py` fails, with the TensorFlow version,
    when it moves.
    """
    return dataset._inputs()


def is_augmentation(dataset: tf.data.Dataset) -> bool:
    """Whether `dataset` is what `keras_opt.data.augment` made."""
    return function_of(dataset).startswith(AUGMENTATION)


def kind_of(dataset: tf.data.Dataset) -> str:
    """What `dataset` does, in words: `"parallel map"`, `"batch"`, `"tensor slice"`."""
    name = type(dataset).__name__.strip("_").removesuffix("Dataset").removesuffix("V2")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def function_of(dataset: tf.data.Dataset) -> str:
    """The name of the function that a `map`, `filter` or such was given; empty for other datasets.

    As private in TensorFlow as the inputs, and guarded by the same test.
    """
    functions = [wrapper._func.__name__ for wrapper in dataset._functions()]
    return functions[0].replace("<lambda>", "lambda") if functions else ""
