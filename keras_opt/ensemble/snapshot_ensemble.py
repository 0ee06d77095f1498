"""Several models from one training, at the ends of its cycles."""

import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.fit_params import epochs_of
from keras_opt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from keras_opt.callbacks.schedule_learning_rate import ScheduleLearningRate
from keras_opt.callbacks.siblings import siblings
from keras_opt.core.errors import InputError, argument_error, check_at_least, check_path, check_positive
from keras_opt.core.learning_rates import rate_of, rate_source, single_optimizers
from keras_opt.ensemble.copies import copy_of
from keras_opt.ensemble.prediction_ensemble import PredictionEnsemble
from keras_opt.ensemble.weight_sources import put_in
from keras_opt.loading import load_model
from keras_opt.models.graph import has_graph
from keras_opt.models.labelled_file import save_labelled
from keras_opt.schedules.precision import as_rate, as_whole
from keras_opt.schedules.scaled_schedule import ScaledSchedule
from keras_opt.training.scheduled_rate import ScheduledRate
from keras_opt.training.step_hooks import StepHooks

_RIVALS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    ReduceLROnPlateau,
    ScheduleLearningRate,
)


class SnapshotEnsemble(keras.callbacks.Callback):
    """Trains one model in cycles of the rate and keeps its weights at the end of each: an ensemble for one training.

    At the end of a cycle the rate is near 0 and the model in a minimum; the next one starts at the full rate again and
    throws it out, into another. Cycles must be long enough to reach one: some tens of epochs for large sets. Five of
    two epochs each predict Fashion-MNIST worse than one model of all ten (`benchmarks/results/ensembles.json`). The
    members are more alike than those of `train_ensemble`, which cost a training each; see `diversity`.

    With t batches before this one and T batches in all `epochs`:

        learning_rate = max_learning_rate / 2 * (cos(pi * (t mod T / cycles) / (T / cycles)) + 1)

    set inside the compiled step. After the fit the optimizer has the rate it had before. A second `fit` starts anew.
    A training that `BackupAndRestore` resumes goes on with its rate and the snapshots it had. List this callback after
    `WeightAveraging`, if its averages are to be kept.

    Args:
        cycles: Int of at least 1, the number of snapshots. The `epochs` of the fit must be a multiple.
        max_learning_rate: Number above 0. Default `None`: the rate that the optimizer has.
        folder: Where to write the snapshots, as `snapshot_1.keras`, ...; those of an earlier training are written over.
            Default `None`: they are kept in memory.

    Attributes:
        models: The models of the snapshots, made anew, not compiled.
        files: Their paths; empty without `folder`.

    Raises:
        ValueError: An argument is out of its range; or, before training: `epochs` is no multiple of `cycles`, the
            number of batches is not known, the optimizer follows a schedule, or another callback sets the rate.

    Cost: a copy of the weights a cycle; a few scalar operations a step.

    Source: G. Huang et al., 2017, "Snapshot Ensembles: Train 1, Get M for Free", equation 2; I. Loshchilov, F. Hutter,
        2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras_opt.models.mlp([8], (5,), 3)
        >>> model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        >>> snapshots = keras_opt.ensemble.SnapshotEnsemble(cycles=2)
        >>> history = model.fit(np.eye(5), np.zeros(5), epochs=4, verbose=0, callbacks=[snapshots])
        >>> len(snapshots.models), snapshots.ensemble().output_shape
        (2, (None, 3))
    """

    def __init__(self, cycles: int, max_learning_rate: float | None = None, folder: str | os.PathLike | None = None):
        super().__init__()
        check_at_least("SnapshotEnsemble", "cycles", cycles, 1)
        if max_learning_rate is not None:
            check_positive("SnapshotEnsemble", "max_learning_rate", max_learning_rate)
        if folder is not None:
            check_path("SnapshotEnsemble", "folder", folder)
        self.cycles = cycles
        self.max_learning_rate = max_learning_rate
        self.folder = None if folder is None else Path(folder)
        self.files: list[Path] = []
        self._weights: list[list[np.ndarray]] = []
        self._rates: list[float] = []
        self._hooks: StepHooks | None = None
        self._plugin: ScheduledRate | None = None
        self._schedule: ScaledSchedule | None = None

    @property
    def models(self) -> list[keras.Model]:
        """The models of the snapshots, made anew, not compiled."""
        if self.folder is not None:
            return [load_model(path, compile=False) for path in self.files]
        copies = [copy_of(self.model, "SnapshotEnsemble") for _ in self._weights]
        for copied, weights in zip(copies, self._weights, strict=True):
            put_in(copied, weights)
        return copies

    def ensemble(self, method: str = "mean") -> PredictionEnsemble:
        """The `PredictionEnsemble` of the snapshots.

        Raises:
            RuntimeError: There is no snapshot yet.
        """
        models = self.models
        if not models:
            raise RuntimeError("SnapshotEnsemble: there is no snapshot yet. Fit with it first, to the end of a cycle.")
        return PredictionEnsemble(models, method)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SnapshotEnsemble":
        return copy_without_fit(self, memo, "_hooks", "_plugin", "_schedule")

    # --- fit ---------------------------------------------------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        for other in siblings(self) or []:
            if isinstance(other, _RIVALS) or (isinstance(other, SnapshotEnsemble) and other is not self):
                raise InputError(
                    f"SnapshotEnsemble: in the same fit is a {type(other).__name__}, which sets the rate too. Leave "
                    "one of them out."
                )
        StepHooks.prepare(model)
        super().set_model(model)
        self._check_is_constant()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._leave()
        if self.model.built and not has_graph(self.model):
            copy_of(self.model, "SnapshotEnsemble")  # an error now, not after the first cycle
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.files, self._weights = [], []
        self._rates = [rate_of(single) for single in single_optimizers(self.model.optimizer)]
        self._schedule = ScaledSchedule(_CosineCycle(self._epochs_in_cycle() * self._steps()), self._peak())
        self._hooks = StepHooks.of(self.model)
        self._plugin = ScheduledRate(self.model, self._schedule, "batch", self._check_is_constant)
        self._hooks.add(self._plugin)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._plugin.count == 0:  # the first of this fit, which may have an `initial_epoch`
            self._plugin.set_count(epoch * self._steps())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        if (epoch + 1) % self._epochs_in_cycle() == 0:
            self._keep((epoch + 1) // self._epochs_in_cycle())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._hooks.flush()
        for single, rate in zip(single_optimizers(self.model.optimizer), self._rates, strict=True):
            single.learning_rate = rate
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs: the place in the cycles, the rates, and the snapshots or how many files."""
        return {
            "count": self._plugin.count,
            "peak": float(keras.ops.convert_to_numpy(self._schedule.multiplier)),
            "rates": list(self._rates),
            "files": [path.name for path in self.files],
            "weights": [[np.copy(array) for array in weights] for weights in self._weights],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Training must have begun, since `on_train_begin` starts anew."""
        files = [] if self.folder is None else [self.folder / name for name in state["files"]]
        for path in files:
            if not path.is_file():
                raise InputError(f"SnapshotEnsemble: the snapshot {str(path)!r} is gone. Put it back, or start anew.")
        self._plugin.set_count(state["count"])
        self._schedule.multiplier.assign(state["peak"])
        self._rates, self.files = list(state["rates"]), files
        self._weights = [[np.array(array) for array in weights] for weights in state["weights"]]

    def _keep(self, number: int) -> None:
        if self.folder is None:
            self._weights.append([np.array(keras.ops.convert_to_numpy(weight)) for weight in self.model.weights])
            return
        path = self.folder / f"snapshot_{number}.keras"
        snapshot = copy_of(self.model, "SnapshotEnsemble")
        save_labelled(snapshot, path, snapshot.class_names)
        self.files.append(path)

    def _epochs_in_cycle(self) -> int:
        epochs = epochs_of(self)
        if epochs % self.cycles:
            must_be = f"a divisor of the epochs, which are {epochs}"
            cure = f"Train {-(-epochs // self.cycles) * self.cycles} epochs, or choose another number of cycles."
            raise argument_error("SnapshotEnsemble", "cycles", self.cycles, must_be, cure)
        return epochs // self.cycles

    def _steps(self) -> int:
        steps = self.params.get("steps")
        if steps is None:
            raise InputError(
                "SnapshotEnsemble: the batches in an epoch are not known, hence not where a cycle ends. Give `fit` "
                "steps_per_epoch, or the dataset its length by tf.data.experimental.assert_cardinality."
            )
        return steps

    def _peak(self) -> float:
        if self.max_learning_rate is not None:
            return self.max_learning_rate
        if len(set(self._rates)) != 1:
            must_be = "a number where the parts of the optimizer have several rates, or none yet"
            raise argument_error("SnapshotEnsemble", "max_learning_rate", None, must_be, "Give the highest rate.")
        return self._rates[0]

    def _check_is_constant(self) -> None:
        for single in single_optimizers(self.model.optimizer):
            if rate_source(single) is not None:
                raise InputError(
                    f"SnapshotEnsemble: the optimizer {single.name!r} follows {type(rate_source(single)).__name__} "
                    "already. Compile it with a constant learning_rate."
                )

    def _leave(self) -> None:
        if self._plugin is not None:
            self._hooks.remove(self._plugin)
        self._hooks = self._plugin = self._schedule = None


class _CosineCycle(keras.optimizers.schedules.LearningRateSchedule):
    """Falls from 1 to nearly 0 along half a cosine, and starts anew each `steps` steps.

    Keras's `CosineDecayRestarts` divides floats: with 41 steps a cycle, and many other numbers, it starts anew one step
    late, and the rate of the step between is 0.
    """

    def __init__(self, steps: int):
        super().__init__()
        self._steps = steps

    def __call__(self, step: Any) -> Any:
        progress = as_rate(ops.mod(as_whole(step), self._steps)) / self._steps
        return (ops.cos(math.pi * progress) + 1.0) / 2.0
