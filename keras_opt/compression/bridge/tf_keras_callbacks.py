"""Callbacks of tf_keras that do the work of one of Keras 3."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_opt.callbacks import ReduceLROnPlateau, ScheduleLearningRate
from keras_opt.callbacks.monitors import resolve_mode
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.core.errors import InputError

_HOOKS = tuple(name for name in dir(keras.callbacks.Callback) if name.startswith("on_"))


def hosted(callback: keras.callbacks.Callback) -> Any:
    """A callback of tf_keras that passes its calls on to `callback`, which sees a `ModelView`."""
    if getattr(callback, "mode", None) == "auto":  # Keras asks its own metrics, which tf_keras has not
        callback.mode = resolve_mode(callback.monitor, "auto")

    def set_params(self: Any, params: Any) -> None:
        self.params = params
        callback.set_params(params)

    def set_model(self: Any, model: Any) -> None:
        self.model = model
        callback.set_model(ModelView(model))

    # tf_keras reads the losses of each batch for whoever has a method of the batch: those that are there, no others.
    hooks = {name: _forward(callback, name) for name in _HOOKS if _has_hook(callback, name)}
    methods = {"set_params": set_params, "set_model": set_model, "hosted": callback, **hooks}
    return type(type(callback).__name__, (tf_keras().callbacks.Callback,), methods)()


def _has_hook(callback: keras.callbacks.Callback, name: str) -> bool:
    is_overridden = getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
    return is_overridden or name in vars(callback)  # LambdaCallback keeps them as attributes


def _forward(callback: keras.callbacks.Callback, name: str) -> Callable[..., None]:
    def hook(self: Any, *args: Any, **kwargs: Any) -> None:
        getattr(callback, name)(*args, **kwargs)

    return hook


class ModelView:
    """A tf_keras model as the callbacks of Keras 3 know one: where the two differ; all else is the model's own."""

    def __init__(self, model: Any):
        self._viewed = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._viewed, name)

    @property
    def stop_training(self) -> bool:
        return self._viewed.stop_training

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._viewed.stop_training = value

    @property
    def steps_per_execution(self) -> int:
        return steps_per_execution(self._viewed)

    @property
    def weights(self) -> list["VariableView"]:
        return [VariableView(variable) for variable in self._viewed.weights]

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        self._viewed.save_weights(str(filepath), overwrite=overwrite)

    def load_weights(self, filepath: Any) -> None:
        self._viewed.load_weights(str(filepath))

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        self._viewed.save(str(filepath), overwrite=overwrite)


class VariableView:
    """A variable of tf_keras as Keras 3 knows one. Its constraint acts in the step, as tf_keras has it."""

    def __init__(self, variable: Any):
        self.value = variable
        self.path = variable.name
        self.constraint = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value.numpy(), dtype)


def steps_per_execution(model: Any) -> int:
    """The batches that the compiled `model` goes through between two calls of its callbacks."""
    return (model.get_compile_config() or {}).get("steps_per_execution") or 1


def scheduled_rate(callback: ScheduleLearningRate) -> Any:
    """Sets the rate before each epoch or each batch, as `callback` would in the step."""

    class ScheduledRate(tf_keras().callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            check_rate_is_constant("ScheduleLearningRate", self.model)
            if callback.unit != "epoch" and steps_per_execution(self.model) > 1:
                raise InputError(
                    f"for_tf_keras: ScheduleLearningRate(unit={callback.unit!r}) sets the rate between two calls of "
                    f"the compiled step, which makes {steps_per_execution(self.model)} steps. Compile with "
                    "steps_per_execution=1, or give the optimizer the schedule: for_tf_keras(schedule)."
                )
            self.batches = 0
            self.first_update = int(self.model.optimizer.iterations)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._set(epoch)

        def _set(self, count: int) -> None:
            rate = callback.schedule(count)
            self.model.optimizer.learning_rate = float(keras.ops.convert_to_numpy(rate))

    class ScheduledRateOfBatches(ScheduledRate):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            """Each batch sets its own."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            updates = int(self.model.optimizer.iterations) - self.first_update
            self._set(updates if callback.unit == "update" else self.batches)
            self.batches += 1

    return ScheduledRate() if callback.unit == "epoch" else ScheduledRateOfBatches()


def reduced_rate(callback: ReduceLROnPlateau | keras.callbacks.ReduceLROnPlateau) -> Any:
    """Keras's ReduceLROnPlateau with the settings of `callback`; refuses a schedule before training begins."""
    names = ("monitor", "factor", "patience", "verbose", "mode", "min_delta", "cooldown", "min_lr")

    class ReducedRate(keras.callbacks.ReduceLROnPlateau):
        def on_train_begin(self, logs: Any = None) -> None:
            check_rate_is_constant("ReduceLROnPlateau", self.model)
            super().on_train_begin(logs)

    return hosted(ReducedRate(**{name: getattr(callback, name) for name in names}))


def tensor_board(callback: keras.callbacks.TensorBoard) -> Any:
    """tf_keras's TensorBoard with the settings of Keras 3's; without profiling, which it keeps to itself."""
    names = ("log_dir", "histogram_freq", "write_graph", "write_images", "write_steps_per_second", "update_freq")
    settings = {name: getattr(callback, name) for name in (*names, "embeddings_freq", "embeddings_metadata")}
    return tf_keras().callbacks.TensorBoard(**settings)


def check_rate_is_constant(name: str, model: Any) -> None:
    """Raise if the optimizer of a tf_keras model follows a schedule, beside the callback `name`."""
    rate = model.optimizer.get_config().get("learning_rate")
    if isinstance(rate, dict):
        raise InputError(
            f"for_tf_keras: the optimizer follows the schedule {rate.get('class_name')}, so {name} cannot set its "
            "rate. Compile with a constant learning_rate, or leave the callback out."
        )
