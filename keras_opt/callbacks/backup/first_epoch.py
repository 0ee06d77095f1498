"""The epoch with which a resumed training begins."""

from typing import Any

import keras


class FirstEpoch(keras.callbacks.Callback):
    """Tells `fit` its first epoch once all other callbacks have begun: one that raises leaves the model as it was.

    It does so once: a `CallbackList` of the user's own keeps it for the next `fit`.
    """

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch: int | None = epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch, self.epoch = self.epoch, None
