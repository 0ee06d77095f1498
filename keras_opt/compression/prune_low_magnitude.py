"""Magnitude pruning of a Keras 3 model inside stock `fit`."""

import warnings
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

import keras
import numpy as np

from keras_opt.compression.sparsity import kernels
from keras_opt.core.errors import NoEffectWarning, argument_error, check_at_least


class PruneLowMagnitude(keras.callbacks.Callback):
    """Sets the smallest weights of each kernel to zero while training goes on, and keeps them there.

    Prune a trained model and train it a little further at a low rate: the weights that are left make up for those that
    went. Zeros shorten the compressed file; they do not speed up the LiteRT interpreter. The mask stays after `fit`, so
    a later `fit` keeps the zeros; a saved file is a plain model.

    Each kernel's mask is a constraint, so it acts inside the compiled step. Masks are renewed from the magnitudes every
    `every` updates and once more at the end, so the asked sparsity is met to the weight: of n weights
    round(sparsity * n) are zero. A weight that was pruned stays pruned.

    Args:
        schedule: `ConstantSparsity`, `PolynomialSparsity`, or any function from the update's number to a fraction.
        include: Patterns (as in `fnmatch`) of the layer paths to prune; `None` prunes every kernel.
        exclude: Patterns of the layer paths to leave alone.
        every: Int of at least 1, the updates between two renewals of the masks. Default 100.

    Raises:
        ValueError: `schedule` is no function, or `every` is below 1.

    Warns:
        NoEffectWarning: No layer fits `include` and `exclude`.

    Cost: one non-trainable variable of the kernel's size for each kernel; a prototype measured 1.00-1.02 of the plain
        step time.

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
        self.schedule = schedule
        self.include = include
        self.exclude = exclude or ()
        self.every = every
        self._masks: list[_Mask] = []
        self._first_step = 0
        self._renewed_at = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._first_step = int(self.model.optimizer.iterations)
        self._masks = [_Mask.on(kernel) for kernel in kernels(self.model) if self._wants(kernel)]
        if not self._masks:
            layers = ", ".join(sorted({_layer(kernel) for kernel in kernels(self.model)})) or "none"
            warnings.warn(
                f"PruneLowMagnitude: no kernel fits include={self.include} and exclude={self.exclude}; "
                f"the layers with a kernel are: {layers}.",
                NoEffectWarning,
                stacklevel=2,
            )
        self._renew(0)
        self.model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = int(self.model.optimizer.iterations) - self._first_step
        if step - self._renewed_at >= self.every:
            self._renew(step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._renew(int(self.model.optimizer.iterations) - self._first_step)

    def _wants(self, kernel: keras.Variable) -> bool:
        layer = _layer(kernel)
        included = self.include is None or any(fnmatch(layer, pattern) for pattern in self.include)
        return included and not any(fnmatch(layer, pattern) for pattern in self.exclude)

    def _renew(self, step: int) -> None:
        self._renewed_at = step
        for mask in self._masks:
            mask.renew(self.schedule(step))


class _Mask(keras.constraints.Constraint):
    """Keeps pruned weights at zero, after whatever constraint the kernel had before."""

    def __init__(self, kernel: keras.Variable):
        self.kernel = kernel
        self.before = kernel.constraint
        present = keras.ops.cast(keras.ops.not_equal(kernel, 0), kernel.dtype)
        self.keep = keras.Variable(present, trainable=False, name="pruning_mask")

    @classmethod
    def on(cls, kernel: keras.Variable) -> "_Mask":
        """The mask of `kernel`: the one that an earlier fit left, else a new one."""
        if not isinstance(kernel.constraint, cls):
            kernel.constraint = cls(kernel)
        return kernel.constraint

    def __call__(self, weights: Any) -> Any:
        constrained = weights if self.before is None else self.before(weights)
        return constrained * self.keep

    def renew(self, target: float) -> None:
        """Prune the smallest weights until `target` of them are zero."""
        weights = keras.ops.convert_to_numpy(self.kernel)
        keep = keep_largest(weights, target)
        self.keep.assign(keep)
        self.kernel.assign(weights * keep)


def keep_largest(weights: np.ndarray, target: float) -> np.ndarray:
    """A mask of ones and zeros that drops the round(target * n) smallest magnitudes; ties go by position."""
    pruned = np.argsort(np.abs(weights), axis=None, kind="stable")[: round(target * weights.size)]
    mask = np.ones(weights.size, weights.dtype)
    mask[pruned] = 0
    return mask.reshape(weights.shape)


def _layer(kernel: keras.Variable) -> str:
    return kernel.path.rsplit("/", 1)[0]
