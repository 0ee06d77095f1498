"""Magnitude pruning of a Keras 3 model inside stock `fit`."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.gradual_unfreezing import GradualUnfreezing
from keras_opt.callbacks.siblings import siblings
from keras_opt.callbacks.weight_averaging import WeightAveraging
from keras_opt.compression.pruning.constraint import PruningMask
from keras_opt.compression.pruning.masks import renewed_masks, structure_of
from keras_opt.compression.pruning.matrix import KernelMatrix
from keras_opt.compression.pruning.selection import divided_kernels, selected_kernels
from keras_opt.core.errors import (
    InputError,
    argument_error,
    check_at_least,
    check_choice,
    check_fraction,
    check_patterns,
)
from keras_opt.core.optimizers import uses_ema

_AVERAGING = (WeightAveraging, keras.callbacks.SwapEMAWeights)


class PruneLowMagnitude(keras.callbacks.Callback):
    """Sets the smallest weights of each kernel to zero while training goes on, and keeps them there.

    Prune a trained model and train it a little further at a low rate: the weights that are left make up for those that
    went. Zeros shorten the compressed file; they do not speed up the LiteRT interpreter. Structures serve hardware and
    kernels that skip them, at a price in accuracy.

    Each kernel's mask is a constraint, so it acts inside the compiled step, before and after whatever constraint the
    kernel had. Masks are renewed from the magnitudes every `every` updates, before each validation and at the end, so
    the asked sparsity is met to the unit: of n units, the round(sparsity * n) lowest are pruned. With w the matrix
    (in, out) of a kernel, a unit and its rank are

        "unstructured"   a weight           |w|
        (r, c)           r x c weights      the sum of their |w|
        "n:m"            a weight           |w|; the n largest of each m in turn in a column are never pruned

    The matrix is what a device multiplies with: its columns are outputs; its rows are inputs, of a convolution (a
    transposed one too) all taps x input channels, of a depthwise one the taps, of an LSTM or GRU one gate after the
    other along the columns. Groups of n:m lie along the input channels of one tap, as in TFLite's files and TF-MOT;
    blocks may span taps, but neither gates nor the groups of a convolution. n:m has one final sparsity, 1 - n / m,
    which the schedule must end with; until then the smallest of what the pattern will drop are gone.

    A weight that was pruned stays pruned, unless `regrow` is true, and the zeros of a kernel that came in sparse count
    as pruned: to train a sparse model on as it is, give ConstantSparsity(0.0). With `regrow`, what the optimizer does
    to the pruned weights, whose gradients are those of the pruned model, is kept aside; at each renewal all weights are
    ranked by what they would be by now, and those that return do so with that value. Sparsity never falls. Weights
    return until the `end_step` of the schedule if it has one, and not at the end of training.

    The mask stays after `fit`, so a later `fit` keeps the zeros, also after `set_weights` with dense weights. It cannot
    be taken off: to train densely again, build or load the model anew and set the weights there; a saved file is a
    plain model.

    Averaged weights are cut to the mask too, those of `WeightAveraging` and of an optimizer with `use_ema`. List
    `SwapEMAWeights` before this callback. Where an averaging callback stands before, masks are not renewed for
    validation, for the raw weights are not there.

    Best weights that are put back at the end of `fit` may be from a denser epoch; cut to the mask, they would be pruned
    without training after it. So give `EarlyStopping(restore_best_weights=True)` the `start_from_epoch` (from 0) in
    which the schedule reaches its final sparsity, with `regrow` its `end_step`. List Keras's own before this callback.

    Args:
        schedule: `ConstantSparsity`, `PolynomialSparsity`, or any function from the update's number, counted from the
            beginning of the fit, to a fraction.
        include: Patterns (as in `fnmatch`) of the layers to prune, by path or by name; `None` prunes every kernel that
            is not frozen when `fit` begins.
        exclude: Patterns of the layers to leave alone. Depthwise kernels hold few weights and lose much: in a
            MobileNetV2 at 80% sparsity leave them dense, with exclude=["*depthwise*"], as TF-MOT does.
        structure: `"unstructured"`, `"n:m"` (such as `"2:4"`) or `(block_rows, block_columns)`.
        scope: `"layer"` prunes each kernel to the asked sparsity. `"global"` ranks all kernels together, which keeps
            more where weights are large, and can leave nothing of a layer whose weights are small.
        every: Int of at least 1, the updates between two renewals of the masks. With `steps_per_execution` they are
            renewed at the end of the execution in which that is due. Default 100.
        regrow: Whether pruned weights may return.

    Raises:
        ValueError: An argument is out of its range, or `include` or `exclude` is a string instead of a list; the
            schedule asks for a sparsity outside [0, 1), or for another one than that of n:m; blocks or groups do not
            divide a kernel; or the list of callbacks has a wrong order.

    Warns:
        NoEffectWarning: No layer fits `include` and `exclude`, or a pattern of them fits no layer.
        UserWarning: Nothing is left of a kernel; the fit ended before the schedule did; or it ended with weights from
            before a pruning, which were pruned again without training after it.

    Cost: one non-trainable variable of the kernel's size and one multiplication a step for each kernel, with `regrow`
        one more variable and three more operations; at each renewal of the masks, while the sparsity rises, a partial
        sort of the magnitudes on the host.

    Source: M. Zhu and S. Gupta, 2017, "To prune, or not to prune". With `regrow`: Y. Guo, A. Yao and Y. Chen, 2016,
        "Dynamic Network Surgery for Efficient DNNs", its update of pruned weights. n:m: A. Mishra et al., 2021,
        "Accelerating Sparse Deep Neural Networks".

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.compression.PolynomialSparsity(0.0, 0.5, begin_step=0, end_step=200)
        >>> prune = keras_opt.compression.PruneLowMagnitude(schedule, structure="2:4")
    """

    def __init__(
        self,
        schedule: Callable[[int], float],
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        structure: str | tuple[int, int] = "unstructured",
        scope: str = "layer",
        every: int = 100,
        regrow: bool = False,
    ):
        super().__init__()
        if not callable(schedule):
            cure = "Give for example ConstantSparsity(0.5)."
            raise argument_error("PruneLowMagnitude", "schedule", schedule, "a function from step to sparsity", cure)
        check_choice("PruneLowMagnitude", "scope", scope, ("layer", "global"))
        check_at_least("PruneLowMagnitude", "every", every, 1)
        for name, patterns in (("include", include), ("exclude", exclude)):
            if patterns is not None:
                check_patterns("PruneLowMagnitude", name, patterns)
        self.schedule = schedule
        self.include = include
        self.exclude = exclude or ()
        self.structure = structure
        self.scope = scope
        self.every = every
        self.regrow = regrow
        self._structure = structure_of("PruneLowMagnitude", structure)
        _check_end(schedule, self._structure.final_sparsity, structure)
        self._is_training = False
        self._is_averaged_before = False
        self._masks: list[PruningMask] = []
        self._matrices: list[KernelMatrix] = []
        self._first_step = 0
        self._renewed_at = 0
        self._target = 0.0
        self._epoch = 0
        self._last_change = 0
        self._batches_left, self._last_batch = 0, -1

    def __deepcopy__(self, memo: dict[int, Any]) -> "PruneLowMagnitude":
        return copy_without_fit(self, memo, "_masks")

    # --- fit ---------------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        listed = siblings(self) or [self]
        place = listed.index(self)
        self._is_averaged_before = any(isinstance(each, _AVERAGING) for each in listed[:place])
        _check_order(listed[:place], listed[place + 1 :])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._asked(0)
        selected = selected_kernels(self.model, self.include, self.exclude)
        self._matrices = divided_kernels(self.model, selected, self._structure, self.structure)
        with self.model.distribute_strategy.scope():
            self._masks = [PruningMask.on(kernel, self.regrow) for kernel in selected]
        self._first_step = self._updates()
        self._target, self._epoch, self._last_change = 0.0, 0, 0
        self._batches_left, self._last_batch = 0, -1
        self._is_training = True
        self._renew(0, regrow=False)
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The optimizer's count takes long to read: that is done when the batches may be enough.
        self._batches_left -= batch - self._last_batch if batch > self._last_batch else batch + 1
        self._last_batch = batch
        if self._batches_left > 0:
            return
        step = self._updates() - self._first_step
        if step - self._renewed_at >= self.every:
            self._renew(step, self.regrow)
        self._batches_left = self.every - (step - self._renewed_at)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Validation judges the model as sparse as it is asked to be by now.
        if self._is_averaged_before:
            self._cut()
        elif self._is_training:
            self._renew(self._updates() - self._first_step, self.regrow)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._is_averaged_before:
            self._cut()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._is_training = False
        if any(mask.is_broken() for mask in self._masks) and not uses_ema(self.model.optimizer):
            warnings.warn(
                "PruneLowMagnitude: the fit ended with weights from before a pruning (best weights that were put back, "
                "or averages); they are pruned again, with no training after it. Give EarlyStopping "
                f"start_from_epoch={self._last_change}: in that epoch (from 0) the masks changed for the last time.",
                UserWarning,
                stacklevel=2,
            )
        step = self._updates() - self._first_step
        self._renew(step, regrow=False)
        self._warn_of_missing_updates(step)

    def _warn_of_missing_updates(self, step: int) -> None:
        end = _end_of(self.schedule)
        if self._masks and end is not None and self._target < end and not _is_same(self._target, end):
            warnings.warn(
                f"PruneLowMagnitude: the fit ended after {step} updates with a sparsity of {self._target:.3g}; the "
                f"schedule ends later, with {end:g}. It begins anew with each fit: let it end within one.",
                UserWarning,
                stacklevel=3,
            )

    # --- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The masks, and how far the schedule has come: what a resumed training goes on with."""
        return {
            "masks": [mask.kept for mask in self._masks],
            "hidden": [mask.hidden for mask in self._masks],
            "first_step": self._first_step,
            "renewed_at": self._renewed_at,
            "target": self._target,
            "last_change": self._last_change,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun: `on_train_begin` attaches the masks."""
        for mask, kept, hidden in zip(self._masks, state["masks"], state["hidden"], strict=True):
            mask.load(kept, hidden)
        self._first_step = state["first_step"]
        self._renewed_at = state["renewed_at"]
        self._target = state["target"]
        self._last_change = state["last_change"]
        self._batches_left = 0

    # --- masks -------------------------------------------------------------------------------------------------------

    def _updates(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _asked(self, step: int) -> float:
        target = float(self.schedule(step))
        check_fraction("PruneLowMagnitude", f"schedule({step})", target)
        final = self._structure.final_sparsity
        if final is not None and _is_same(target, final):
            return final
        if final is not None and target > final:
            must_be = f"at most {final:g}, the sparsity of structure={self.structure!r}"
            raise argument_error("PruneLowMagnitude", f"schedule({step})", target, must_be, "Let it end there.")
        return target

    def _renew(self, step: int, regrow: bool) -> None:
        regrow = regrow and self._renewed_at < getattr(self.schedule, "end_step", math.inf)
        self._renewed_at = step
        target = self._asked(step)
        if not self._masks or (target <= self._target and not regrow):
            self._cut()
            return
        self._target, self._last_change = max(target, self._target), self._epoch
        weights = [matrix.of(mask.values) for mask, matrix in zip(self._masks, self._matrices, strict=True)]
        kept = [matrix.of(mask.kept) for mask, matrix in zip(self._masks, self._matrices, strict=True)]
        renewed = renewed_masks(weights, kept, target, self._structure, self.scope, regrow)
        for mask, matrix, before, after in zip(self._masks, self._matrices, kept, renewed, strict=True):
            mask.put(matrix.back(after))
            if before.any() and not after.any():
                warnings.warn(
                    f"PruneLowMagnitude: at update {step} nothing is left of {mask.kernel.path}. Give its layer to "
                    "`exclude`, or let the schedule end with a lower sparsity.",
                    UserWarning,
                    stacklevel=3,
                )

    def _cut(self) -> None:
        for mask in self._masks:
            mask.put(mask.kept)


def _is_same(sparsity: float, other: float) -> bool:
    return math.isclose(sparsity, other, rel_tol=1e-6)  # what rounding to float32 leaves of 1 - 1 / 3


def _end_of(schedule: Callable[[int], float]) -> float | None:
    """The sparsity that a schedule is known to end with."""
    return getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))


def _check_end(schedule: Callable[[int], float], final: float | None, structure: object) -> None:
    """Refuse a schedule that is known to end with another sparsity than a pattern has."""
    end = _end_of(schedule)
    if None not in (end, final) and not _is_same(end, final):
        cure = f"Let the schedule end with {final:g}, the sparsity of {structure!r}; it ends with {end:g}."
        raise argument_error("PruneLowMagnitude", "structure", structure, "what the schedule ends with", cure)


def _check_order(before: list[keras.callbacks.Callback], after: list[keras.callbacks.Callback]) -> None:
    """Refuse what hides kernels from this callback, or puts weights into the model after it has cut them."""
    if any(isinstance(each, GradualUnfreezing) for each in before):
        raise InputError(
            "PruneLowMagnitude: GradualUnfreezing is listed before it, and would freeze kernels that then stay dense. "
            "List them as callbacks=[PruneLowMagnitude, GradualUnfreezing]."
        )
    for each in after:
        restores = isinstance(each, keras.callbacks.EarlyStopping) and each.restore_best_weights
        if restores or isinstance(each, keras.callbacks.SwapEMAWeights):
            name = f"keras.callbacks.{type(each).__name__}"
            raise InputError(
                f"PruneLowMagnitude: {name} is listed after it, and would put weights into the model that are denser "
                f"than asked. List them as callbacks=[{name}, PruneLowMagnitude]."
            )
