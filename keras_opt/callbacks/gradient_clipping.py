"""Gradient clipping in a stock `fit`, right on one device and on several."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.log_sources import adds_to_logs, warn_of_early_readers
from keras_opt.core.errors import InputError, NoEffectWarning, argument_error, check_patterns, check_positive
from keras_opt.core.optimizers import made_no_update
from keras_opt.core.patterns import fits, layer_of
from keras_opt.models.output_layers import output_layers
from keras_opt.training.adaptive_clipping import clip_adaptively, unit_axes
from keras_opt.training.clipping import (
    Clipped,
    GradientClipper,
    NormHistory,
    check_compile_clips_nothing,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_percentile,
    clip_by_value,
)
from keras_opt.training.step_hooks import StepHooks


@adds_to_logs("clipped_fraction")
class GradientClipping(keras.callbacks.Callback):
    """Clips the gradients by one rule, and logs how often it had to.

    A single batch with a huge gradient can undo many good steps; clipping bounds what one batch can do. Keras's own
    `clipnorm` and its kin do the same on one device; under `MirroredStrategy` they clip each replica's gradient before
    the sum, and every norm of an embedding's gradient counts repeated ids apart. Here the gradient of the whole batch
    is clipped: two replicas train as one device does. It is no cure for gradients that are large in every step
    (`clipped_fraction` near 1): lower the learning rate instead.

    Give exactly one rule. With g the gradient of one variable, G all of them together, w a variable:

    | argument | rule |
    |---|---|
    | `clipvalue` | each element is cut to [-clipvalue, clipvalue] |
    | `clipnorm` | g * min(1, clipnorm / norm(g)), for each variable apart |
    | `global_clipnorm` | G * min(1, global_clipnorm / norm(G)) |
    | `adaptive` | AGC: g_i * min(1, adaptive * max(norm(w_i), 0.001) / norm(g_i)) for each unit i |
    | `percentile` | AutoClip: `global_clipnorm` = that percentile of the norms(G) seen, this one included |

    Coming from PyTorch: `clip_grad_norm_` is `global_clipnorm`, not `clipnorm` (PyTorch divides by norm(G) + 1e-6), and
    `clip_grad_value_` is `clipvalue`.

    The units of `adaptive` are the outputs of a layer: a column of a Dense kernel, a filter of a convolution, a channel
    of a depthwise one; a bias or a scale is one unit, and so is each id's vector of an embedding. `percentile`
    remembers the last 1,000 finite norms of this fit (the paper: all of them).

    Finite gradients are clipped however large they are, as long as their norm is a number of their type (in float32
    below 3.4e38). A norm that is NaN or infinite clips nothing of what it is the norm of: those gradients go on as they
    came, for `TerminateOnNaN` to see. `clipvalue` cuts infinite elements as any others, and leaves NaN.

    Args:
        clipvalue: Float above 0.
        clipnorm: Float above 0.
        global_clipnorm: Float above 0; `GradientMonitor().suggest_clipnorm()` gives one.
        adaptive: Float above 0, the largest ratio of gradient norm to weight norm. The paper takes 0.01 at batch size
            4096, more at smaller ones.
        percentile: Float above 0 and below 100. The paper takes 10.
        exclude: Beside `adaptive` only: patterns (as in `fnmatch`) of the layers to leave alone, by path or by name;
            `[]` clips all. Default `None`: the output layers, as in the paper. Those are, from each output of the model
            backwards, the first layers that have weights; of a subclassed model the last layer that has weights.

    Logs: `clipped_fraction`, in [0, 1]: the share of the epoch's updates in which anything was clipped; NaN in an epoch
        without an update.

    Raises:
        ValueError: No rule, or two; a limit out of its range; `exclude` without `adaptive`, or a string; the optimizer
            clips already; with `adaptive`, the output layers cannot be told, so that `exclude` must name them.
        RuntimeError: Two GradientClipping in one fit.

    Warns:
        NoEffectWarning: The fit ended without an update; with `adaptive`, every layer is excluded, or a pattern fits
            none.
        UserWarning: A logger, or a monitor of `clipped_fraction`, is listed before it.

    Cost: two numbers of state, and one pass over the gradients for their norms or magnitudes; `adaptive` also one over
        the weights; `percentile` also a variable of 1,000 norms and one sort of it each step.

    Source: A. Brock, S. De, S. L. Smith, K. Simonyan, 2021, "High-Performance Large-Scale Image Recognition Without
        Normalization", eq. 3. P. Seetharaman, G. Wichern, B. Pardo, J. Le Roux, 2020, "AutoClip: Adaptive Gradient
        Clipping for Source Separation Networks", algorithm 1.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> clipping = keras_opt.callbacks.GradientClipping(global_clipnorm=0.01)
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[clipping])
        >>> history.history["clipped_fraction"]
        [1.0]
    """

    def __init__(
        self,
        clipvalue: float | None = None,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
        adaptive: float | None = None,
        percentile: float | None = None,
        exclude: Sequence[str] | None = None,
    ):
        super().__init__()
        limits = {
            "clipvalue": clipvalue,
            "clipnorm": clipnorm,
            "global_clipnorm": global_clipnorm,
            "adaptive": adaptive,
            "percentile": percentile,
        }
        self.rule, self.limit = _only_one(limits)
        check_positive("GradientClipping", self.rule, self.limit)
        if percentile is not None and percentile >= 100:
            cure = "The 100th percentile is the largest norm, which clips nothing."
            raise argument_error("GradientClipping", "percentile", percentile, "above 0 and below 100", cure)
        if exclude is not None and adaptive is None:
            cure = "The other rules clip all gradients."
            raise argument_error("GradientClipping", "exclude", exclude, "left out without `adaptive`", cure)
        if exclude is not None:
            check_patterns("GradientClipping", "exclude", exclude)
        self.exclude = exclude
        self._hooks: StepHooks | None = None
        self._plugin: GradientClipper | None = None
        self._axes: dict[int, tuple[int, ...]] = {}
        self._left_alone: frozenset[int] = frozenset()
        self._seen = (0, 0)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradientClipping":
        return copy_without_fit(self, memo, "_hooks", "_plugin")

    def set_model(self, model: keras.Model) -> None:
        StepHooks.prepare(model)
        super().set_model(model)
        if getattr(model, "optimizer", None) is not None:
            check_compile_clips_nothing(model.optimizer)
        self._axes = {}
        if self.rule == "adaptive" and model.built:
            self._find_units()
        warn_of_early_readers(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._remove()
        hooks = StepHooks.of(self.model)
        self._hooks, self._plugin, self._seen = hooks, self._make_plugin(hooks), (0, 0)
        hooks.add(self._plugin)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        counts = self._plugin.counts()
        updates, clipped = (now - before for now, before in zip(counts, self._seen, strict=True))
        self._seen = counts
        if logs is not None:
            logs["clipped_fraction"] = clipped / updates if updates else math.nan

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        updates, _ = self._plugin.counts()
        self._remove()
        if not updates:
            warnings.warn(
                f"GradientClipping: {self.rule}={self.limit!r} had nothing to clip, for "
                f"{made_no_update(self.model.optimizer)}",
                NoEffectWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """The counts of updates, and with `percentile` the norms seen: what a resumed training goes on with."""
        return {"variables": self._plugin.state.state_dict(), "seen": list(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self._plugin.state.load_state_dict(state["variables"])
        self._seen = tuple(state["seen"])

    def _remove(self) -> None:
        if self._hooks is not None:
            self._hooks.remove(self._plugin)

    def _make_plugin(self, hooks: StepHooks) -> GradientClipper:
        if self.rule == "percentile":
            history = NormHistory()
            return GradientClipper(
                hooks,
                lambda gradients, _: clip_by_percentile(gradients, history, self.limit),
                prepare=history.build,
                state=history.state,
            )
        if self.rule == "adaptive":
            return GradientClipper(hooks, self._clip_adaptively, prepare=self._find_units)
        rule = {"clipvalue": clip_by_value, "clipnorm": clip_by_norm, "global_clipnorm": clip_by_global_norm}[self.rule]
        return GradientClipper(hooks, lambda gradients, _: rule(gradients, self.limit))

    def _clip_adaptively(self, gradients: list[Any], variables: list[keras.Variable]) -> Clipped:
        return clip_adaptively(gradients, variables, self.limit, self._axes, self._left_alone)

    def _find_units(self, variables: list[keras.Variable] | None = None) -> None:
        """Find the units, and which to leave alone, once the model is built: at the latest in its first step."""
        if not self._axes:
            self._axes, self._left_alone = unit_axes(self.model), self._ids_left_alone()

    def _ids_left_alone(self) -> frozenset[int]:
        weights = self.model.weights
        if self.exclude is None:
            left_alone = [weight for layer in self._output_layers() for weight in layer.weights]
        else:
            left_alone = [weight for weight in weights if fits(weight, self.exclude)]
            self._warn_of_idle_patterns(weights)
        ids = frozenset(id(weight) for weight in left_alone)
        if all(id(variable) in ids for variable in self.model.trainable_variables):
            layers = ", ".join(sorted({layer_of(weight) for weight in left_alone})) or "none"
            self._warn(f"every layer with trainable weights is left alone ({layers}), so nothing is clipped")
        return ids

    def _output_layers(self) -> list[keras.Layer]:
        try:
            return output_layers(self.model)
        except NotImplementedError as error:
            must_be = "given for this model, whose graph cannot be read for a layer without `get_config`"
            raise argument_error("GradientClipping", "exclude", None, must_be, "Name the output layers.") from error

    def _warn_of_idle_patterns(self, weights: list[keras.Variable]) -> None:
        layers = ", ".join(sorted({layer_of(weight) for weight in weights}))
        for pattern in self.exclude:
            if not any(fits(weight, [pattern]) for weight in weights):
                self._warn(f"the pattern {pattern!r} of `exclude` fits no layer; those with weights are: {layers}")

    def _warn(self, reason: str) -> None:
        warnings.warn(f"GradientClipping: {reason}.", NoEffectWarning, stacklevel=4)


def _only_one(limits: dict[str, float | None]) -> tuple[str, float]:
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        raise InputError(
            f"GradientClipping: no rule was given. Give one of {', '.join(limits)}, for example global_clipnorm=1.0."
        )
    (rule, limit), *others = given.items()
    for name, value in others:
        cure = "Each rule clips what the other has left; give one."
        raise argument_error("GradientClipping", name, value, f"left out beside {rule}={limit!r}", cure)
    return rule, limit
