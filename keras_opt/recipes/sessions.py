"""A training of several sessions, because it was broken off: its seconds add up, and it says where it goes on."""

from typing import Any

import keras

from keras_opt.callbacks.fit_params import epochs_of
from keras_opt.core.clocks import Stopwatch
from keras_opt.core.progress import Progress


class EpochClock(keras.callbacks.Callback):
    """Logs wall and CPU seconds at the end of each epoch as `seconds` and `cpu_seconds`, tracing included.

    A resumed training counts on from its backup: what was lost after that is not counted, what is traced anew is.

    Args:
        watch: Started where the building of the model begins.
    """

    def __init__(self, watch: Stopwatch):
        super().__init__()
        self.watch = watch
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs.update(self.state_dict())

    def state_dict(self) -> dict[str, float]:
        """The seconds until now."""
        return {name: before + getattr(self.watch, name) for name, before in self._before.items()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Count on from those of `state`."""
        self._before, self.watch = dict(state), Stopwatch()


class ResumeNote(keras.callbacks.Callback):
    """Says where a resumed training goes on, and knows whether it was resumed.

    Args:
        title: The name of the training.
        progress: Where to say it.
    """

    def __init__(self, title: str, progress: Progress):
        super().__init__()
        self.title = title
        self.progress = progress
        self.is_resumed = False
        self._is_said = False
        self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._say(f"goes on in epoch {epoch + 1} of {epochs_of(self)}, after {self._batches} of its batches")
        self._batches = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches = batch + 1

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._say("had come to its end")

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch are done."""
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take note that the training was resumed, and after how many batches of an epoch."""
        self.is_resumed, self._batches = True, state["batches"]

    def _say(self, what: str) -> None:
        if self.is_resumed and not self._is_said:
            self._is_said = True
            self.progress.say(f"{self.title}: {what}")
