"""The callback that ends a trial which is not worth going on with."""

from typing import Any

import keras


class PruningCallback(keras.callbacks.Callback):
    """Tells an `OptunaOracle` the objective of each epoch, and stops the training where its pruner says so.

    `OptunaOracle.pruning_callback` makes it; it goes among the callbacks of `search`.

    Args:
        oracle: The oracle whose trials are trained.
    """

    def __init__(self, oracle: Any):
        super().__init__()
        self.oracle = oracle
        self._trial_id: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "PruningCallback":
        """keras-tuner copies the callbacks for each trial; the oracle is the same."""
        return type(self)(self.oracle)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._trial_id = self.oracle.trial_in_hand()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._trial_id is not None and self.oracle.report(self._trial_id, epoch + 1, logs or {}):
            self.model.stop_training = True
