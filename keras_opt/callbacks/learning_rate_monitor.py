"""The learning rate as a column of the history."""

from typing import Any

import keras


class LearningRateMonitor(keras.callbacks.Callback):
    """Logs the optimizer's learning rate at the end of each epoch as `learning_rate`, whatever schedule it follows.

    Keras logs the rate only where a callback sets it; a schedule in the optimizer leaves no trace in the history.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> monitor = keras_opt.callbacks.LearningRateMonitor()
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[monitor])
        >>> round(history.history["learning_rate"][0], 3)
        0.1
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
