"""Callbacks of Keras 3 and keras_opt in the `fit` of a tf_keras model."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_opt import callbacks as ours
from keras_opt.compression.bridge.tf_keras_callbacks import hosted, reduced_rate, scheduled_rate, tensor_board
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.compression.bridge.tf_keras_schedule import as_tf_keras_schedule
from keras_opt.core.errors import InputError, kind_error
from keras_opt.core.own_classes import is_own

_HOSTED = (ours.EarlyStopping, ours.ModelCheckpoint, ours.ProgressBar)
_NEEDS_KERAS_3 = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.SwapEMAWeights,
)


def for_tf_keras(callbacks: Any) -> Any:
    """Returns callbacks, or a learning-rate schedule, of Keras 3 and keras_opt as those of tf_keras.

    A tf_keras `fit` dies of every callback of Keras 3. Those of this list work in it, in their order, on the same logs:

        model.fit(x, y, callbacks=for_tf_keras([EarlyStopping(Plateau("val_loss", patience=3)), CSVLogger("log.csv")]))
        model.compile(tf_keras.optimizers.Adam(for_tf_keras(OneCycle(1e-3, 1000))), "mse")

    The `fit` of a model of `tfmot_prune`, `tfmot_cluster` or `tfmot_quantize` calls it by itself.

    Of keras_opt: `EarlyStopping` with every criterion (Ctrl-C puts no best weights back), `ModelCheckpoint`,
    `ProgressBar`, `ScheduleLearningRate`, and `ReduceLROnPlateau` at a constant rate, as Keras's. Of Keras 3: all but
    `BackupAndRestore`, `ProgbarLogger` and `SwapEMAWeights`; `TensorBoard` without profiling. Classes of your own that
    read `model.stop_training`, `model.optimizer.learning_rate`, weights and logs work too. What lives in the training
    step of Keras 3 (clipping, accumulation, averaging, pruning, monitors of gradients) is refused by name.
    Callbacks of tf_keras are passed on as they are.

    Attributes are those of the objects that were given: `stop.stopped_because` after `fit`, `history.stop_reason`.

    Args:
        callbacks: A list of callbacks, or one `keras.optimizers.schedules.LearningRateSchedule`.

    Returns:
        A list of callbacks of tf_keras, or a schedule for an optimizer of tf_keras.

    Raises:
        ValueError: A callback cannot work outside of Keras 3; it is named.
        TypeError: Something is neither a callback nor a schedule.

    Cost: as in Keras 3; a schedule runs in the step.

    Example:
        >>> import keras_opt
        >>> stop = keras_opt.callbacks.EarlyStopping("loss", patience=3)
        >>> len(keras_opt.compression.for_tf_keras([stop]))
        1
    """
    if isinstance(callbacks, keras.optimizers.schedules.LearningRateSchedule):
        return as_tf_keras_schedule(callbacks)
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        cure = "Give a list, even for one callback."
        raise kind_error("for_tf_keras", "callbacks", callbacks, "a list of callbacks or a schedule", cure)
    return [_adapted(callback) for callback in callbacks]


def _adapted(callback: Any) -> Any:
    if isinstance(callback, tf_keras().callbacks.Callback):
        return callback
    if not isinstance(callback, keras.callbacks.Callback):
        cure = "Leave it out."
        raise kind_error("for_tf_keras", "callbacks", callback, "a list of callbacks of Keras 3 or tf_keras", cure)
    if isinstance(callback, ours.ScheduleLearningRate):
        return scheduled_rate(callback)
    if isinstance(callback, ours.ReduceLROnPlateau | keras.callbacks.ReduceLROnPlateau):
        return reduced_rate(callback)
    if isinstance(callback, keras.callbacks.TensorBoard):
        return tensor_board(callback)
    if isinstance(callback, _NEEDS_KERAS_3) or (is_own(callback) and not isinstance(callback, _HOSTED)):
        raise InputError(
            f"for_tf_keras: {type(callback).__name__} works in the training step of Keras 3, which a tf_keras fit has "
            "not. Leave it out, or train the Keras 3 model itself (PruneLowMagnitude, quantize_aware)."
        )
    return hosted(callback)
