"""Gradient norms of a stock `fit`, by step and layer."""

import math
import os
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.gradient_events import GradientEvents
from keras_opt.callbacks.gradient_warnings import CURES, GradientWatch
from keras_opt.callbacks.log_sources import adds_to_logs, warn_of_early_readers
from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import NoEffectWarning, argument_error, check_at_least, check_path, is_number
from keras_opt.core.optimizers import inner, made_no_update
from keras_opt.core.optional import require
from keras_opt.core.replicas import this_worker
from keras_opt.training.gradient_histogram import GradientHistogram
from keras_opt.training.norm_recorder import NormRecorder, Recorded
from keras_opt.training.step_hooks import StepHooks

RING_ROWS = 1024


class SuggestedClipnorm(NamedTuple):
    """What `GradientMonitor.suggest_clipnorm` finds.

    Args:
        global_clipnorm: The limit, for `GradientClipping` or an optimizer of Keras.
        clipped_share: The share of the recorded updates, in [0, 1], whose norm is above it.
        non_finite: How many recorded updates were left out, because their norm is not finite.
    """

    global_clipnorm: float
    clipped_share: float
    non_finite: int


@adds_to_logs("grad_norm", "grad_norm_max", "update_ratio")
class GradientMonitor(keras.callbacks.Callback):
    """Logs how large the gradients are, from inside the compiled step and without a second backward pass.

    `history.history` gains `grad_norm` (mean global norm of the epoch's recorded updates) and `grad_norm_max`, with
    `ratios` also `update_ratio`, the mean of |w_after - w_before| / |w_before| over all weights w. Look at them before
    you clip, and when training stalls. The norms are those before any clipping, unscaled under a `LossScaleOptimizer`,
    summed over replicas, and of real updates (one per accumulated batch). An epoch without a recorded update logs NaN.

    An update ratio near 1e-3 is usual; far below it the layer hardly learns, near 1 it forgets what it was. It holds
    all that moves a weight: momentum, clipping, decay, constraints.

    It warns, once for each layer, when gradients turn NaN or infinite, when they vanish (at most 1e-5 of the largest
    layer's, in 15 of 20 recorded updates) or explode (above 1000 times the median global norm of the first 20 recorded
    updates, in 5 in a row). The check is made when the norms are read: at the end of an epoch, and at the latest after
    about a thousand updates. Updates that a `LossScaleOptimizer` skips are not seen.

    Args:
        every: Int of at least 1; records each `every`-th update, and the others cost next to nothing. Default 1.
        per_layer: Whether the layers are told apart. Default `True`.
        ratios: Whether the ratio of update to weight is recorded too. Not beside the optimizer's own
            `gradient_accumulation_steps`; beside the callback `GradientAccumulation` it is. Default `False`.
        histograms: Whether the distribution of each layer's gradients goes to TensorBoard, once an epoch over all its
            recorded updates, in bins a quarter of an octave wide. Needs `log_dir`. Default `False`.
        log_dir: A folder for TensorBoard, `None` for none. It gets scalars for every recorded update, numbered from 0
            in each fit, under the keys of `series()`. Default `None`.
        warn: Whether to warn. Default `True`.

    Raises:
        ValueError: `every` is below 1; `histograms` without `log_dir`; as the fit begins: `ratios` with an optimizer
            that accumulates gradients by itself.

    Warns:
        UserWarning: Gradients vanish, explode or are not finite; names the layers and the update. Before training: a
            logger or a monitor of what it logs is listed before it.
        NoEffectWarning: The fit ended and no update was recorded.

    Cost: in the step, one sum of squares a variable and one scatter into a variable of 1024 rows; with `ratios` three
        sums and one copy of each weight, embeddings as a whole; with `histograms` a logarithm and a scatter of every
        element. Kept in host memory: a recorded update takes 4 bytes for each number of `series()`, in float64 8.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = keras_opt.callbacks.GradientMonitor()
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[monitor])
        >>> len(monitor.series()["grad_norm"])
        2
    """

    def __init__(
        self,
        every: int = 1,
        per_layer: bool = True,
        ratios: bool = False,
        histograms: bool = False,
        log_dir: str | os.PathLike | None = None,
        warn: bool = True,
    ):
        super().__init__()
        check_at_least("GradientMonitor", "every", every, 1)
        if log_dir is not None:
            check_path("GradientMonitor", "log_dir", log_dir)
        if histograms and log_dir is None:
            cure = "Give log_dir=, the folder that TensorBoard reads, or leave the histograms out."
            raise argument_error("GradientMonitor", "histograms", histograms, "False without log_dir", cure)
        self.every = every
        self.per_layer = per_layer
        self.ratios = ratios
        self.histograms = histograms
        self.log_dir = log_dir
        self.warn = warn
        if not ratios:
            self.added_to_logs = ("grad_norm", "grad_norm_max")
        self._hooks: StepHooks | None = None
        self._recorder: NormRecorder | None = None
        self._histogram: GradientHistogram | None = None
        self._events: GradientEvents | None = None
        self._forget()

    def _forget(self) -> None:
        self._blocks: list[Recorded] = []
        self._watch = GradientWatch()
        self._updates_unread = 0
        self._epoch_first_block = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradientMonitor":
        self._read()
        return copy_without_fit(self, memo, "_hooks", "_recorder", "_histogram", "_events")

    def set_model(self, model: keras.Model) -> None:
        if self._hooks is not None and self._hooks.model is not model:
            self._detach()  # from the model of a fit that was broken off
        StepHooks.prepare(model)
        super().set_model(model)
        steps = getattr(inner(model.optimizer), "gradient_accumulation_steps", None)
        if self.ratios and steps:
            must_be = f"False beside gradient_accumulation_steps={steps} of the compiled optimizer"
            cure = "Leave that out of the optimizer and use the callback GradientAccumulation."
            raise argument_error("GradientMonitor", "ratios", self.ratios, must_be, cure)
        warn_of_early_readers(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._detach()
        self._forget()
        capacity = max(RING_ROWS, self.model.steps_per_execution)
        self._recorder = NormRecorder(self.every, capacity, self.per_layer, self.ratios)
        self._hooks = StepHooks.of(self.model)
        self._hooks.add(self._recorder)
        if self.log_dir is not None and this_worker(self.model.distribute_strategy).is_chief:
            self._events = GradientEvents(self.log_dir)
        if self.histograms:
            self._histogram = GradientHistogram(self.every)
            self._hooks.add(self._histogram)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Batch numbers are no step counts under steps_per_execution; an upper bound of the rows is all that is needed.
        self._updates_unread += self.model.steps_per_execution
        if self._updates_unread > self._recorder.capacity - self.model.steps_per_execution:
            self._read()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._read()
        blocks, self._epoch_first_block = self._blocks[self._epoch_first_block :], len(self._blocks)
        if logs is not None:
            norms = _joined([block.global_norm for block in blocks])
            logs["grad_norm"] = _mean(norms)
            logs["grad_norm_max"] = float(norms.max()) if len(norms) else math.nan
            if self.ratios:
                logs["update_ratio"] = _mean(_joined([block.global_ratio for block in blocks]))
        if self._histogram is not None and blocks:
            buckets = self._histogram.read()
            if self._events is not None:
                self._events.add_histograms(int(blocks[-1].step[-1]), buckets)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        self._read()
        self._detach()
        if not self._blocks:
            warnings.warn(
                f"GradientMonitor: there is nothing to show, for {made_no_update(self.model.optimizer)}",
                NoEffectWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """All that was recorded, and what was warned of: what a resumed training goes on with."""
        self._read()
        return {
            "recorder": self._recorder.state_dict(),
            "blocks": [{**block._asdict(), "layers": list(block.layers)} for block in self._blocks],
            "epoch_first_block": self._epoch_first_block,
            "watch": self._watch.state_dict(),
            "histogram": None if self._histogram is None else self._histogram.state_dict(),
            "events": None if self._events is None else self._events.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        self._recorder.load_state_dict(state["recorder"])
        self._blocks = [Recorded(**{**block, "layers": tuple(block["layers"])}) for block in state["blocks"]]
        self._epoch_first_block = state["epoch_first_block"]
        self._watch.load_state_dict(state["watch"])
        if self._histogram is not None and state["histogram"] is not None:
            self._histogram.load_state_dict(state["histogram"])
        if self._events is not None and state["events"] is not None:
            self._events.load_state_dict(state["events"])

    def series(self) -> dict[str, np.ndarray]:
        """Every recorded update as arrays of one length, up to now if training still runs or was interrupted.

        Returns:
            `"step"` (the update's number from 0), `"grad_norm"` (the global L2 norm), and with `per_layer` one entry
            for each layer: the L2 norm over its variables, under the layer's path. With `ratios` also
            `"update_ratio"` and `"update_ratio/<layer's path>"`. Norms that are NaN or infinite stand there as such; a
            layer that had no gradient in some of the updates, because it was frozen, has NaN there.
        """
        self._read()
        steps = np.concatenate([np.zeros(0, int), *[block.step for block in self._blocks]])
        series = {"step": steps, "grad_norm": self._together(ratios=False), **self._layers(ratios=False)}
        if self.ratios:
            series["update_ratio"] = self._together(ratios=True)
            series |= {f"update_ratio/{layer}": values for layer, values in self._layers(ratios=True).items()}
        return series

    def suggest_clipnorm(self, percentile: float = 90) -> SuggestedClipnorm:
        """Gives the `global_clipnorm` that `percentile` percent of the recorded updates stay within.

        Args:
            percentile: Float in (0, 100]. Default 90.

        Raises:
            ValueError: `percentile` is out of its range.
            RuntimeError: No update with a finite norm was recorded.
        """
        if not is_number(percentile) or not 0 < percentile <= 100:
            cure = "Give 90 to clip a tenth of the updates."
            raise argument_error("suggest_clipnorm", "percentile", percentile, "a number in (0, 100]", cure)
        norms = self.series()["grad_norm"]
        finite = norms[np.isfinite(norms)].astype("float64")
        if not len(finite):
            raise RuntimeError(
                f"GradientMonitor: no finite norm was recorded ({len(norms)} others were), so there is nothing to "
                "suggest. Call suggest_clipnorm after a fit with this monitor."
            )
        limit = np.percentile(finite, percentile)
        return SuggestedClipnorm(float(limit), float(np.mean(finite > limit)), len(norms) - len(finite))

    def plot(self, ax: Any = None, ratios: bool = False) -> Any:
        """Draws the norms over the updates, one line a layer from dark (first) to bright, on a logarithmic axis.

        Args:
            ax: Matplotlib axes, `None` for new ones.
            ratios: Whether to draw the ratios of update to weight instead.

        Returns:
            The axes.

        Raises:
            ValueError: `ratios`, and the monitor does not record them.
        """
        if ratios and not self.ratios:
            cure = "Make the monitor with ratios=True."
            raise argument_error("GradientMonitor.plot", "ratios", ratios, "False if no ratios are recorded", cure)
        title, ylabel = ("Update ratio", "|change| / |weight|") if ratios else ("Gradient norm", "L2 norm")
        ax = plot_axes(ax, title=title, xlabel="update", ylabel=ylabel)
        steps = self.series()["step"]
        layers = self._layers(ratios)
        by_depth = require("matplotlib").colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
        ax.plot(steps, self._together(ratios), label="all layers", color="black", linewidth=1)
        for (name, values), color in zip(layers.items(), by_depth, strict=True):
            ax.plot(steps, values, label=name, color=color, linewidth=1)
        ax.set_yscale("log")
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        return ax

    def _together(self, ratios: bool) -> np.ndarray:
        return _joined([block.global_ratio if ratios else block.global_norm for block in self._blocks])

    def _layers(self, ratios: bool) -> dict[str, np.ndarray]:
        layers = dict.fromkeys(layer for block in self._blocks for layer in block.layers)
        return {layer: _joined([_column(block, layer, ratios) for block in self._blocks]) for layer in layers}

    def _read(self) -> None:
        self._updates_unread = 0
        for block in self._recorder.read() if self._recorder is not None else []:
            self._blocks.append(block)
            if self._events is not None:
                self._events.add_scalars(block)
            if self.warn:
                self._warn(block)

    def _warn(self, block: Recorded) -> None:
        findings = self._watch.look(block.step, block.layers, block.norms, block.global_norm)
        for condition in dict.fromkeys(finding.condition for finding in findings):
            places = [f"{where} (update {step})" for kind, where, step in findings if kind == condition]
            warnings.warn(
                f"GradientMonitor: gradients {condition} in {', '.join(places)}. {CURES[condition]}", stacklevel=2
            )

    def _detach(self) -> None:
        if self._hooks is not None:
            self._hooks.remove(self._recorder)
            if self._histogram is not None:
                self._hooks.remove(self._histogram)
            self._hooks = None
        if self._events is not None:
            self._events.close()
            self._events = None


def _joined(values: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(values) if values else np.zeros(0, np.float32)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _column(block: Recorded, layer: str, ratios: bool) -> np.ndarray:
    values = block.ratios if ratios else block.norms
    if layer not in block.layers:
        return np.full(len(values), np.nan, values.dtype)
    return values[:, block.layers.index(layer)]
