"""tf_keras and TF-MOT, imported so that `tf.keras` and the environment stay as they were."""

import contextlib
import functools
import os
from collections.abc import Iterator
from types import ModuleType

import tensorflow as tf

from keras_opt.core.optional import require


@functools.cache
def tf_keras() -> ModuleType:
    """The package tf_keras, which is Keras 2."""
    with _environment_kept():
        return require("tf_keras")


@functools.cache
def tfmot() -> ModuleType:
    """The package tensorflow_model_optimization.

    At its import it asks TensorFlow for tf_keras: it sets TF_USE_LEGACY_KERAS, by which `tf.keras`, and its copies in
    `tf.compat`, would mean tf_keras for the rest of the process unless something had used them before.
    """
    legacy = tf_keras()
    parents = (tf, tf.compat.v1, tf.compat.v2)
    before = [vars(parent)["keras"] for parent in parents]
    with _environment_kept():
        try:
            for parent in parents:
                parent.keras = legacy
            return require("tensorflow_model_optimization")
        finally:
            for parent, module in zip(parents, before, strict=True):
                parent.keras = module


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
