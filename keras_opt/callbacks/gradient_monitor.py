"""Gradient norms of a stock `fit`, by step and layer."""

import math
import warnings
from typing import Any

import keras
import numpy as np

from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import NoEffectWarning, check_at_least
from keras_opt.training.norm_recorder import NormRecorder
from keras_opt.training.step_hooks import StepHooks

RING_ROWS = 1024


class GradientMonitor(keras.callbacks.Callback):
    """Logs how large the gradients are, from inside the compiled step and without a second backward pass.

    `history.history` gains `grad_norm` (mean global norm of the epoch's recorded updates) and `grad_norm_max`. Look at
    them before you clip, and when training stalls: a norm that falls to nothing in the first layers vanishes, one that
    grows from epoch to epoch explodes. The norms are those before clipping, unscaled under a `LossScaleOptimizer`, and
    of real updates (one per accumulated batch). An epoch without a recorded update logs NaN.

    Args:
        every: Int of at least 1; records each `every`-th update. Default 1.
        per_layer: Whether `series()` and `plot()` tell the layers apart. Default `True`.

    Raises:
        ValueError: `every` is below 1.

    Warns:
        NoEffectWarning: The fit ended and no update was recorded.

    Cost: in the step, one norm a variable and one scatter into a variable of 1024 rows. Kept in host memory: with
        `per_layer`, recorded updates x trainable variables x 4 bytes; with or without, 12 bytes a recorded update.

    An interrupted `fit` never ends its callbacks, so the optimizer stays hooked until the next fit with any
    `GradientMonitor`. `keras_opt.training.attach` is the `finally` that `fit` lacks, for a loop of your own.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = keras_opt.callbacks.GradientMonitor()
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[monitor])
        >>> len(monitor.series()["grad_norm"])
        2
    """

    def __init__(self, every: int = 1, per_layer: bool = True):
        super().__init__()
        check_at_least("GradientMonitor", "every", every, 1)
        self.every = every
        self.per_layer = per_layer
        self._recorder: NormRecorder | None = None
        self._hooks: StepHooks | None = None
        self._forget()

    def _forget(self) -> None:
        self._steps: list[np.ndarray] = []
        self._norms: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []  # stays empty without per_layer
        self._updates_unread = 0
        self._epoch_first_read = 0

    def set_model(self, model: keras.Model) -> None:
        # A fit that was interrupted never called on_train_end. All callbacks meet the model before one of them hooks
        # it, so a recorder that is there now is left over, from this monitor or from another.
        self._detach()
        _unhook_recorders(model)
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._recorder = NormRecorder(self.every, max(RING_ROWS, self.model.steps_per_execution))
        self._forget()
        self._hooks = StepHooks.of(self.model.optimizer)
        self._hooks.add(self._recorder)
        self.model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Batch numbers are no step counts under steps_per_execution; an upper bound of the rows is all that is needed.
        self._updates_unread += self.model.steps_per_execution
        if self._updates_unread > self._recorder.capacity - self.model.steps_per_execution:
            self._read()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._read()
        norms = _joined(self._norms[self._epoch_first_read :])
        self._epoch_first_read = len(self._norms)
        if logs is not None:
            logs["grad_norm"] = float(norms.mean()) if len(norms) else math.nan
            logs["grad_norm_max"] = float(norms.max()) if len(norms) else math.nan

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._read()
        self._detach()
        if not self._norms:
            optimizer = type(self.model.optimizer).__name__
            warnings.warn(
                f"GradientMonitor: no update of the optimizer ({optimizer}) passed through its gradient clipping, so "
                "there is nothing to show. Was there a training step, and does `train_step` call the optimizer?",
                NoEffectWarning,
                stacklevel=2,
            )

    def series(self) -> dict[str, np.ndarray]:
        """Every recorded update as arrays of one length, up to now if training still runs or was interrupted.

        Returns:
            `"step"` (the update's number from 0), `"grad_norm"` (the global L2 norm), and with `per_layer` one entry
            for each layer: the L2 norm over its variables, under the layer's path.
        """
        self._read()
        series = {"step": np.concatenate([np.zeros(0, int), *self._steps]), "grad_norm": _joined(self._norms)}
        if self._rows:
            rows = np.concatenate(self._rows)
            layers = [name.rsplit("/", 1)[0] for name in self._recorder.names]
            for layer in dict.fromkeys(layers):
                columns = [index for index, name in enumerate(layers) if name == layer]
                series[layer] = np.linalg.norm(rows[:, columns], axis=1)
        return series

    def plot(self, ax: Any = None) -> Any:
        """Draws the norms over the updates, one line a layer, on a logarithmic axis; returns the Matplotlib axes."""
        series = self.series()
        ax = plot_axes(ax, title="Gradient norm", xlabel="update", ylabel="L2 norm")
        steps = series.pop("step")
        for name, norms in series.items():
            ax.plot(steps, norms, label="all layers" if name == "grad_norm" else name, linewidth=1)
        ax.set_yscale("log")
        ax.legend(fontsize="small")
        return ax

    def _read(self) -> None:
        self._updates_unread = 0
        if self._recorder is None:
            return
        steps, rows = self._recorder.read()
        if len(rows):
            self._steps.append(steps)
            self._norms.append(np.linalg.norm(rows, axis=1))
            if self.per_layer:
                self._rows.append(rows)

    def _detach(self) -> None:
        if self._hooks is not None:
            self._hooks.remove(self._recorder)
            self._hooks = None
            # The traced step holds the recorder: the next fit must trace a plain one.
            self.model.train_function = None


def _joined(norms: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *norms])


def _unhook_recorders(model: keras.Model) -> None:
    if getattr(model, "optimizer", None) is None:
        return
    hooks = StepHooks.of(model.optimizer)
    for plugin in hooks.plugins:
        if isinstance(plugin, NormRecorder):
            hooks.remove(plugin)
            model.train_function = None
