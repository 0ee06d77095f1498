"""The mask of a kernel: a constraint, which Keras applies after each update in the compiled step."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.core.replicas import replica_variable


class PruningMask(keras.constraints.Constraint):
    """Keeps the pruned weights of `kernel` at zero, together with whatever constraint it had before.

    The mask is no part of the model: a saved file is a plain one. Get it with `PruningMask.on(kernel)`.

    Args:
        kernel: A variable with values. Its zeros are the first mask, unless it is all zeros: then it was initialised so
            (in a residual branch, say), and not pruned.
    """

    def __init__(self, kernel: keras.Variable):
        self.kernel = kernel
        self.before = kernel.constraint
        present = keras.ops.convert_to_numpy(kernel) != 0
        keep = present if present.any() else np.ones_like(present)
        self.keep = keras.Variable(keep, dtype=kernel.dtype, trainable=False, name="pruning_mask")
        self._hidden: tf.Variable | None = None

    @classmethod
    def on(cls, kernel: keras.Variable, regrow: bool = False) -> "PruningMask":
        """The mask of `kernel`: the one that is there, else a new one. Call it in the scope of the strategy.

        Args:
            regrow: Whether what pruned weights would be by now is kept aside, so that they can return.
        """
        if not isinstance(kernel.constraint, cls):
            kernel.constraint = cls(kernel)
        mask = kernel.constraint
        if not regrow:
            mask._hidden = None
        elif mask._hidden is None:
            mask._hidden = replica_variable(tf.zeros(kernel.shape, kernel.dtype), name="pruned_weights")
        return mask

    def __call__(self, weights: Any) -> Any:
        # Only an optimizer hands over the kernel itself; what others have cut, averages say, is no update of it.
        if self._hidden is not None and weights is self.kernel:
            self._hidden.assign_add(weights * (1 - self.keep))
        kept = weights * self.keep
        return kept if self.before is None else self.before(kept) * self.keep

    @property
    def kept(self) -> np.ndarray:
        """1 where a weight stays, 0 where it is pruned."""
        return keras.ops.convert_to_numpy(self.keep)

    @property
    def hidden(self) -> np.ndarray | None:
        """What the pruned weights would be by now, zero elsewhere; `None` without `regrow`."""
        return None if self._hidden is None else tf.convert_to_tensor(self._hidden).numpy()

    @property
    def values(self) -> np.ndarray:
        """The weights; with `regrow`, those that are pruned as they would be by now."""
        weights = keras.ops.convert_to_numpy(self.kernel)
        return weights if self._hidden is None else np.where(self.kept == 0, self.hidden, weights)

    def is_broken(self) -> bool:
        """Whether weights that were pruned have come back."""
        return bool(np.any(keras.ops.convert_to_numpy(self.kernel)[self.kept == 0]))

    def put(self, kept: np.ndarray) -> None:
        """Make `kept` the mask, and cut the kernel to it."""
        values = self.values
        self.keep.assign(kept)
        self.kernel.assign(values * kept + 0)  # and no -0.0, which would lengthen a compressed file
        if self._hidden is not None:
            self._hidden.assign(values * (1 - kept))

    def load(self, kept: np.ndarray, hidden: np.ndarray | None) -> None:
        """Go on with a mask that was saved; the kernel has its weights of then."""
        self.keep.assign(kept)
        if self._hidden is not None and hidden is not None:
            self._hidden.assign(hidden)


def pruning_mask(kernel: keras.Variable) -> keras.Variable | None:
    """The variable that holds the mask of `kernel`, 1 where a weight stays and 0 where it is pruned; `None` without."""
    return kernel.constraint.keep if isinstance(kernel.constraint, PruningMask) else None
