"""Magnitude pruning of a Keras 3 model inside stock `fit`."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.compression.sparsity import kernels
from keras_opt.core.errors import (
    InputError,
    NoEffectWarning,
    argument_error,
    check_at_least,
    check_fraction,
    check_patterns,
)
from keras_opt.core.patterns import fits, layer_of


class PruneLowMagnitude(keras.callbacks.Callback):
    """Sets the smallest weights of each kernel to zero while training goes on, and keeps them there.

    Prune a trained model and train it a little further at a low rate: the weights that are left make up for those that
    went. Zeros shorten the compressed file; they do not speed up the LiteRT interpreter.

    The mask stays after `fit`, so a later `fit` keeps the zeros, also after `set_weights` with dense weights. It cannot
    be taken off: to train densely again, build or load the model anew and set the weights there; a saved file is a
    plain model.

    Each kernel's mask is a constraint, so it acts inside the compiled step. Masks are renewed from the magnitudes every
    `every` updates, before each validation and at the end, so the asked sparsity is met to the weight: of n weights
    round(sparsity * n) are pruned. A weight that was pruned stays pruned, and the zeros of a kernel that came in sparse
    count as pruned.

    Best weights that are put back at the end of `fit` may be from a denser epoch; cut to the mask, they would be pruned
    without training after it. So give `EarlyStopping(restore_best_weights=True)` the `start_from_epoch` (from 0) in
    which the schedule reaches its final sparsity. Keras's own must also stand before this callback in the list: what it
    puts back after this one stays as dense as it was, without a word. keras_opt's may stand before or after.

    Args:
        schedule: `ConstantSparsity`, `PolynomialSparsity`, or any function from the update's number to a fraction.
        include: Patterns (as in `fnmatch`) of the layers to prune, by path or by name; `None` prunes every kernel.
        exclude: Patterns of the layers to leave alone.
        every: Int of at least 1, the updates between two renewals of the masks. Default 100.

    Raises:
        ValueError: `schedule` is no function, or asks for a sparsity outside [0, 1); `include` or `exclude` is a string
            instead of a list; or `every` is below 1.

    Warns:
        NoEffectWarning: No layer fits `include` and `exclude`, or a pattern of them fits no layer.
        UserWarning: The fit ended with weights from before a pruning; they were pruned again without training after it.

    Cost: one non-trainable variable of the kernel's size and one multiplication a step for each kernel; at each renewal
        of the masks one sort of each kernel's magnitudes on the host.

    Source: M. Zhu and S. Gupta, 2017, "To prune, or not to prune".

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.compression.PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=200)
        >>> prune = keras_opt.compression.PruneLowMagnitude(schedule)
    """

    def __init__(
        self,
        schedule: Callable[[int], float],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        every: int = 100,
    ):
        super().__init__()
        if not callable(schedule):
            cure = "Give for example ConstantSparsity(0.5)."
            raise argument_error("PruneLowMagnitude", "schedule", schedule, "a function from step to sparsity", cure)
        check_at_least("PruneLowMagnitude", "every", every, 1)
        for name, patterns in (("include", include), ("exclude", exclude)):
            if patterns is not None:
                check_patterns("PruneLowMagnitude", name, patterns)
        self.schedule = schedule
        self.include = include
        self.exclude = exclude or ()
        self.every = every
        self._masks: list[_Mask] = []
        self._first_step = 0
        self._renewed_at = 0
        self._target = 0.0
        self._epoch = 0
        self._last_rise = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "PruneLowMagnitude":
        return copy_without_fit(self, memo, "_masks")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.model.built:
            raise InputError(
                f"PruneLowMagnitude: model {self.model.name!r} has no weights yet to prune. Start it with "
                "keras.Input(shape), or build it before `fit`."
            )
        self._first_step = self._updates()
        self._target, self._epoch, self._last_rise = 0.0, 0, 0
        trainable = [kernel for kernel in kernels(self.model) if kernel.trainable]
        self._masks = [_Mask.on(kernel) for kernel in trainable if self._wants(kernel)]
        self._warn_without_effect(trainable)
        self._renew(0)
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self._updates() - self._first_step
        if step - self._renewed_at >= self.every:
            self._renew(step)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Validation judges the model as sparse as it is asked to be by now.
        self._renew(self._updates() - self._first_step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if any(mask.is_broken() for mask in self._masks):
            warnings.warn(
                "PruneLowMagnitude: the fit ended with weights from before a pruning (best weights that were put back, "
                "or averages); they are pruned again, with no training after it. Give EarlyStopping "
                f"start_from_epoch={self._last_rise}: in that epoch (from 0) the sparsity rose for the last time.",
                UserWarning,
                stacklevel=2,
            )
        self._renew(self._updates() - self._first_step)

    def state_dict(self) -> dict[str, Any]:
        """The masks, and how far the schedule has come: what a resumed training goes on with."""
        return {
            "masks": [keras.ops.convert_to_numpy(mask.keep) for mask in self._masks],
            "first_step": self._first_step,
            "renewed_at": self._renewed_at,
            "target": self._target,
            "last_rise": self._last_rise,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun: `on_train_begin` attaches the masks."""
        for mask, keep in zip(self._masks, state["masks"], strict=True):
            mask.keep.assign(keep)
        self._first_step = state["first_step"]
        self._renewed_at = state["renewed_at"]
        self._target = state["target"]
        self._last_rise = state["last_rise"]

    def _updates(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _wants(self, kernel: keras.Variable) -> bool:
        return (self.include is None or fits(kernel, self.include)) and not fits(kernel, self.exclude)

    def _renew(self, step: int) -> None:
        self._renewed_at = step
        target = float(self.schedule(step))
        check_fraction("PruneLowMagnitude", f"schedule({step})", target)
        if target > self._target:
            self._target, self._last_rise = target, self._epoch
        for mask in self._masks:
            mask.renew(target)

    def _warn_without_effect(self, trainable: list[keras.Variable]) -> None:
        layers = ", ".join(sorted({layer_of(kernel) for kernel in trainable})) or "none"
        if self._masks:
            patterns = [("include", pattern) for pattern in self.include or ()]
            patterns += [("exclude", pattern) for pattern in self.exclude]
            idle = [pair for pair in patterns if not any(fits(kernel, pair[1:]) for kernel in trainable)]
            reasons = [
                f"the pattern {pattern!r} of `{name}` fits no layer that can be pruned" for name, pattern in idle
            ]
        else:
            reasons = [f"no kernel fits include={self.include} and exclude={self.exclude}"]
        for reason in reasons:
            warnings.warn(
                f"PruneLowMagnitude: {reason}; the layers with a trainable kernel are: {layers}.",
                NoEffectWarning,
                stacklevel=3,
            )


class _Mask(keras.constraints.Constraint):
    """Keeps pruned weights at zero, after whatever constraint the kernel had before."""

    def __init__(self, kernel: keras.Variable):
        self.kernel = kernel
        self.before = kernel.constraint
        present = keras.ops.convert_to_numpy(kernel) != 0
        # A kernel of zeros alone was initialised so (a residual branch, say) and is not a pruned one.
        keep = present if present.any() else np.ones_like(present)
        self.keep = keras.Variable(keep, dtype=kernel.dtype, trainable=False, name="pruning_mask")

    @classmethod
    def on(cls, kernel: keras.Variable) -> "_Mask":
        """The mask of `kernel`: the one that an earlier fit left, else a new one."""
        if not isinstance(kernel.constraint, cls):
            kernel.constraint = cls(kernel)
        return kernel.constraint

    def __call__(self, weights: Any) -> Any:
        constrained = weights if self.before is None else self.before(weights)
        return constrained * self.keep

    def is_broken(self) -> bool:
        """Whether weights that were pruned have come back."""
        weights, keep = keras.ops.convert_to_numpy(self.kernel), keras.ops.convert_to_numpy(self.keep)
        return bool(np.any(weights[keep == 0]))

    def renew(self, target: float) -> None:
        """Prune the smallest weights until `target` of them are; those that were pruned stay so."""
        weights = keras.ops.convert_to_numpy(self.kernel)
        keep = keep_largest(weights, keras.ops.convert_to_numpy(self.keep), target)
        self.keep.assign(keep)
        self.kernel.assign(weights * keep)


def keep_largest(weights: np.ndarray, kept: np.ndarray, target: float) -> np.ndarray:
    """The mask `kept`, with the smallest magnitudes dropped until round(target * n) are; ties go by position."""
    count = round(target * weights.size)
    if count <= np.sum(kept == 0):
        return kept
    magnitudes = np.where(kept == 0, -1, np.abs(weights))  # what was dropped before goes first
    mask = np.ones(weights.size, kept.dtype)
    mask[np.argsort(magnitudes, axis=None, kind="stable")[:count]] = 0
    return mask.reshape(weights.shape)
