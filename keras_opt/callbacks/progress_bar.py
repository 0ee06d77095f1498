"""One bar for the whole `fit`, with the time left."""

from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.callbacks.fit_params import epochs_of
from keras_opt.core.errors import kind_error
from keras_opt.core.progress import Progress, Stage, check_progress


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar over all epochs of this `fit` with the time left; use it with `verbose=0`.

    Keras's own bar starts anew each epoch and never says when training ends. On a terminal this is one rich bar; where
    there is no terminal, one plain line every ten seconds and one at the end.

    Args:
        title: Text before the bar. Default "training".
        progress: A `keras_opt.core.progress.Progress` to draw on; by default one on standard error.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> bar = keras_opt.callbacks.ProgressBar("first try")
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[bar])
    """

    def __init__(self, title: str = "training", progress: Progress | None = None):
        super().__init__()
        if not isinstance(title, str):
            raise kind_error("ProgressBar", "title", title, "a str", "Give the text before the bar.")
        check_progress("ProgressBar", progress)
        self.title = title
        self.progress = progress or Progress()
        self._stage: Stage | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "ProgressBar":
        return copy_without_fit(self, memo, "_stage")

    def set_model(self, model: keras.Model) -> None:
        self._close()  # a fit that was interrupted never called on_train_end
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._stage is None:  # only the first epoch tells what `initial_epoch` was
            self._stage = self.progress.stage(self.title, total=epochs_of(self) - epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.on_epoch_begin(epoch)  # a loop of one's own may not have said that its first epoch begins
        shown = {name: value for name, value in (logs or {}).items() if name in ("loss", "val_loss", "val_accuracy")}
        self._stage.advance(note=" ".join(f"{name} {value:.4f}" for name, value in shown.items()))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._close()

    def _close(self) -> None:
        if self._stage is not None:
            self._stage.close()
            self._stage = None
