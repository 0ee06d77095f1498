"""The learning rate of every update, and what adaptive optimizers make of it."""

import math
from typing import Any

import keras
import numpy as np

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.effective_rates import check_has_second_moment, effective_rates
from keras_opt.callbacks.log_sources import adds_to_logs, warn_of_early_readers
from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import kind_error
from keras_opt.core.learning_rates import rate_names, rate_of, single_optimizers
from keras_opt.core.optional import require
from keras_opt.training.rate_recorder import RateRecorder
from keras_opt.training.step_hooks import StepHooks

RING_ROWS = 1024


@adds_to_logs("learning_rate", "effective_learning_rate")
class LearningRateMonitor(keras.callbacks.Callback):
    """Logs the learning rate, whatever schedule or callback decides it, and keeps that of every update.

    Keras logs the rate only where a callback sets it; a schedule in the optimizer leaves no trace in the history.
    `history.history` gains `learning_rate`, the rate that the optimizer has at the end of each epoch (with a schedule
    in it, that of the next update); `series()` has the rate that each update really had, recorded in the compiled step,
    also inside `steps_per_execution`. For a `MultiOptimizer` there is `learning_rate_<name>` of each part instead.

    Adam, AdamW and RMSprop divide the rate by the root of a second moment v, so no weight learns at the rate you give.
    With `effective` the rates that they do learn at are read at the end of each epoch:

        Adam, AdamW: effective = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) / (sqrt(v) + epsilon)
        RMSprop:     effective = learning_rate / sqrt(v + epsilon)

    which is what the first moment m (of RMSprop: the gradient) of a weight was multiplied by in the epoch's last
    update, the t-th of that optimizer. With `amsgrad` v is the largest so far; `centered` takes the square of the mean
    gradient off it. The logs gain `effective_learning_rate`, the median over all weights; `series()` has the median of
    each layer. Layers far apart, or medians that still rise by tens, call for another rate, warm-up or epsilon. Weights
    that never had a gradient (v = 0) do not move and are left out; NaN stands where none is left. So are the parts of
    a `MultiOptimizer` that have no second moment, and what `GradualUnfreezing` takes off the rate of a layer.

    Args:
        effective: Whether the effective rates are read too. Default `False`.

    Raises:
        TypeError: `effective` is no bool.
        ValueError: As the fit begins: `effective`, and the optimizer is none of the three. See also
            `keras_opt.training.StepHooks`.

    Warns:
        UserWarning: A logger, or a monitor of `learning_rate`, is listed before it.

    Cost: in the step one scatter into a variable of 1024 rows; one trace of the step; 4 bytes an update in host memory.
        With `effective` a copy of v in host memory and a median of it at the end of each epoch.

    Source: D. P. Kingma and J. Ba, 2015, "Adam: A Method for Stochastic Optimization", section 2, the efficient order
        of computation; T. Tieleman and G. Hinton, 2012, "Lecture 6.5 - RMSProp".

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(keras_opt.schedules.StepDecay(0.1, 1, 0.5)), "mse")
        >>> monitor = keras_opt.callbacks.LearningRateMonitor()
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[monitor])
        >>> [round(float(rate), 3) for rate in monitor.series()["learning_rate"]]
        [0.1, 0.05]
        >>> round(history.history["learning_rate"][0], 3)
        0.025
    """

    def __init__(self, effective: bool = False):
        super().__init__()
        if not isinstance(effective, bool):
            raise kind_error("LearningRateMonitor", "effective", effective, "True or False", "Give one of the two.")
        self.effective = effective
        if not effective:
            self.added_to_logs = ("learning_rate",)
        self._hooks: StepHooks | None = None
        self._recorder: RateRecorder | None = None
        self._forget()

    def _forget(self) -> None:
        self._names: list[str] = ["learning_rate"]
        self._blocks: list[np.ndarray] = []
        self._updates_unread = 0
        # Of each epoch: the number of its last update, the median of all, and that of each layer.
        self._epochs: list[dict[str, Any]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "LearningRateMonitor":
        self._read()
        return copy_without_fit(self, memo, "_hooks", "_recorder")

    def set_model(self, model: keras.Model) -> None:
        if self._hooks is not None and self._hooks.model is not model:
            self._leave()  # the model of a fit that was broken off
        StepHooks.prepare(model)
        super().set_model(model)
        if self.effective:
            check_has_second_moment(model.optimizer)
        warn_of_early_readers(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._leave()
        self._forget()
        self._recorder = RateRecorder(self.model, max(RING_ROWS, self.model.steps_per_execution))
        self._hooks = StepHooks.of(self.model)
        self._hooks.add(self._recorder)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Batch numbers are no step counts under steps_per_execution; an upper bound of the rows is all that is needed.
        self._updates_unread += self.model.steps_per_execution
        if self._updates_unread > self._recorder.capacity - self.model.steps_per_execution:
            self._read()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._read()
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        for name, single in zip(rate_names(optimizer), single_optimizers(optimizer), strict=True):
            logs[name] = rate_of(single)
        if self.effective:
            logs["effective_learning_rate"] = self._look_at_effective_rates()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._read()
        self._leave()

    def series(self) -> dict[str, np.ndarray]:
        """All that was recorded in this fit, up to now if training still runs or was interrupted.

        Returns:
            For each update: `"step"`, its number from 0, and `"learning_rate"`; for a `MultiOptimizer`
            `"learning_rate_<name>"` of each part. In a loop of your own that does not call `on_train_batch_end`, NaN
            stands for all but the last 1024. With `effective`, for each epoch: `"effective_step"`, the number of
            its last update, `"effective_learning_rate"`, and `"effective_learning_rate/<layer's path>"` for each layer.
        """
        self._read()
        rates = np.concatenate(self._blocks) if self._blocks else np.zeros((0, len(self._names)), "float32")
        series = {"step": np.arange(len(rates)), **dict(zip(self._names, rates.T, strict=True))}
        if self.effective:
            series["effective_step"] = np.array([each["step"] for each in self._epochs], int)
            series["effective_learning_rate"] = np.array([each["median"] for each in self._epochs])
            for layer in dict.fromkeys(layer for each in self._epochs for layer in each["layers"]):
                medians = [each["layers"].get(layer, math.nan) for each in self._epochs]
                series[f"effective_learning_rate/{layer}"] = np.array(medians)
        return series

    def plot(self, ax: Any = None, label: str = "") -> Any:
        """Draws the rate over the updates; with `effective` also the layers' medians, on a logarithmic axis.

        Args:
            ax: Matplotlib axes, `None` for new ones.
            label: Stands before the names in the legend, to tell several trainings apart on the same axes.

        Returns:
            The axes.
        """
        series = self.series()
        ax = plot_axes(ax, title="Learning rate", xlabel="update", ylabel="learning rate")
        for name in self._names:
            ax.plot(series["step"], series[name], label=f"{label} {name}".lstrip(), linewidth=1)
        if self.effective:
            prefix = "effective_learning_rate/"
            layers = [key for key in series if key.startswith(prefix)]
            by_depth = require("matplotlib").colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
            for key, color in zip(layers, by_depth, strict=True):
                name = f"{label} effective: {key.removeprefix(prefix)}".lstrip()
                ax.plot(series["effective_step"], series[key], label=name, color=color, linewidth=1, marker=".")
            ax.set_yscale("log")
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        return ax

    def state_dict(self) -> dict[str, Any]:
        """All that was recorded so far: a resumed training goes on with it."""
        self._read()
        rates = np.concatenate(self._blocks) if self._blocks else None
        epochs = [{**each, "layers": dict(each["layers"])} for each in self._epochs]
        return {"names": list(self._names), "rates": rates, "epochs": epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self._read()
        self._names = list(state["names"])
        self._blocks = [] if state["rates"] is None else [np.array(state["rates"])]
        self._epochs = [{**each, "layers": dict(each["layers"])} for each in state["epochs"]]

    def _read(self) -> None:
        self._updates_unread = 0
        rows = self._recorder.read() if self._recorder is not None else ()
        if len(rows):
            self._names = rate_names(self.model.optimizer)
            self._blocks.append(rows)

    def _look_at_effective_rates(self) -> float:
        """Note the medians of this epoch; return that over all weights."""
        updates = sum(map(len, self._blocks))
        by_layer = {} if not updates else effective_rates(self.model, self._blocks[-1][-1].astype("float64"))
        median = _median(np.concatenate([*by_layer.values(), np.zeros(0)]))
        layers = {layer: _median(rates) for layer, rates in by_layer.items()}
        self._epochs.append({"step": updates - 1, "median": median, "layers": layers})
        return median

    def _leave(self) -> None:
        if self._recorder is not None and self._hooks is not None:
            self._hooks.remove(self._recorder)
        self._hooks = self._recorder = None


def _median(rates: np.ndarray) -> float:
    return float(np.median(rates)) if len(rates) else math.nan
