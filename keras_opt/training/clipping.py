"""Rules that clip gradients, and the plugin that clips with one of them and counts."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import InputError
from keras_opt.core.optimizers import inner, parts
from keras_opt.training.gradients import global_norm, norms, scaled, values_of
from keras_opt.training.plugin_state import PluginState
from keras_opt.training.step_hooks import StepHooks
from keras_opt.training.step_plugin import StepPlugin

HISTORY = 1000

Clipped = tuple[list[Any], tf.Tensor]
"""The gradients to use, and whether any of them was clipped."""


def clip_by_value(gradients: list[Any], limit: float) -> Clipped:
    """Cut each element to [-limit, limit]."""
    above = [tf.reduce_any(tf.abs(values_of(gradient)) > limit) for gradient in gradients]
    return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients], tf.reduce_any(above)


def clip_by_norm(gradients: list[Any], limit: float) -> Clipped:
    """Scale each gradient whose own L2 norm is above `limit` to that norm."""
    factors = shrinkage(norms(gradients), limit)
    clipped = [scaled(gradient, factor) for gradient, factor in zip(gradients, tf.unstack(factors), strict=True)]
    return clipped, tf.reduce_any(factors < 1)


def clip_by_global_norm(gradients: list[Any], limit: float) -> Clipped:
    """Scale all gradients together if their L2 norm is above `limit`."""
    return _by_one_factor(gradients, shrinkage(global_norm(gradients), limit))


def clip_by_percentile(gradients: list[Any], history: "NormHistory", percentile: float) -> Clipped:
    """Scale all gradients together if their L2 norm is above the percentile of the norms in `history`, it included."""
    norm = global_norm(gradients)
    history.add(norm)
    return _by_one_factor(gradients, shrinkage(norm, tf.cast(history.percentile(percentile), norm.dtype)))


def shrinkage(norm: tf.Tensor, limit: Any) -> tf.Tensor:
    """The factor, elementwise, that brings `norm` down to `limit`; 1 where it is not above, or not finite."""
    limit = tf.convert_to_tensor(limit, norm.dtype)
    return tf.where((norm > limit) & tf.math.is_finite(norm), limit / norm, tf.ones_like(norm))


def _by_one_factor(gradients: list[Any], factor: tf.Tensor) -> Clipped:
    return [scaled(gradient, factor) for gradient in gradients], factor < 1


class NormHistory:
    """The last `HISTORY` finite norms, in a ring of static shape."""

    def __init__(self):
        self.state = PluginState()
        self._norms: tf.Variable | None = None

    def build(self, variables: list[keras.Variable]) -> None:
        """Make the ring, as wide as the widest of `variables`; what it holds already stays."""
        if self._norms is None:
            dtype = "float64" if any(variable.dtype == "float64" for variable in variables) else "float32"
            self._norms = self.state.variable("seen_norms", tf.fill([HISTORY], tf.constant(float("inf"), dtype)))
            self._count = self.state.variable("seen_norms_count", 0, tf.int64)

    def add(self, norm: tf.Tensor) -> None:
        """Remember `norm` if it is finite; the oldest one gives way."""
        norm = tf.cast(norm, self._norms.dtype)
        place = tf.range(HISTORY, dtype=tf.int64) == self._count % HISTORY
        self._norms.assign(tf.where(place & tf.math.is_finite(norm), norm, self._norms.read_value()))
        self._count.assign_add(tf.cast(tf.math.is_finite(norm), tf.int64))

    def percentile(self, percentile: float) -> tf.Tensor:
        """The percentile of the remembered norms, interpolated as `np.percentile` does; inf if there is none."""
        ordered = tf.sort(self._norms.read_value())  # the empty places, inf, come last
        last = tf.maximum(tf.minimum(self._count.read_value(), HISTORY) - 1, 0)
        rank = percentile / 100 * tf.cast(last, tf.float64)
        lower = tf.cast(tf.floor(rank), tf.int64)
        part = tf.cast(rank - tf.floor(rank), ordered.dtype)
        low, high = ordered[lower], ordered[tf.minimum(lower + 1, last)]
        return tf.where(part > 0, low + part * (high - low), low)


class GradientClipper(StepPlugin):
    """Clips by one rule, after the sum over replicas, and counts the updates in which it had to.

    Args:
        hooks: The hub that this plugin is for.
        rule: A function of gradients and variables.
        prepare: A function of the variables that makes what the rule needs; called once for each set of them.
        state: Where the rule keeps its variables, if it has any.
    """

    owner = "GradientClipping"
    is_single = True

    def __init__(
        self,
        hooks: StepHooks,
        rule: Callable[[list[Any], list[keras.Variable]], Clipped],
        prepare: Callable[[list[keras.Variable]], None] | None = None,
        state: PluginState | None = None,
    ):
        self._hooks = hooks
        self._rule = rule
        self._prepare = prepare
        self.state = state or PluginState()
        self._counts: tf.Variable | None = None

    def build(self, variables: list[keras.Variable]) -> None:
        # Once more: a MultiOptimizer that asks a function for its optimizers knows them only now.
        check_compile_clips_nothing(self._hooks.optimizer)
        if self._prepare is not None:
            self._prepare(variables)
        if self._counts is None:
            self._counts = self.state.variable("updates_and_clipped_updates", [0, 0], tf.int64)

    def clip_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
        gradients, clipped = self._rule(gradients, variables)
        self._counts.assign_add(tf.stack([tf.ones((), tf.int64), tf.cast(clipped, tf.int64)]))
        return gradients

    def counts(self) -> tuple[int, int]:
        """The number of updates so far, and how many of them were clipped."""
        updates, clipped = self.state.value("updates_and_clipped_updates", (0, 0))
        return int(updates), int(clipped)


def check_compile_clips_nothing(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise if `optimizer`, or an inner one, clips by itself."""
    optimizer = inner(optimizer)
    for one in (optimizer, *parts(optimizer)):
        for name in ("clipvalue", "clipnorm", "global_clipnorm"):
            if getattr(one, name):
                raise InputError(
                    f"GradientClipping: the optimizer {one.name!r} that the model was compiled with clips already, "
                    f"with {name}={getattr(one, name)!r}. Leave {name} out of the optimizer, or leave the callback "
                    "out: both would clip twice."
                )
