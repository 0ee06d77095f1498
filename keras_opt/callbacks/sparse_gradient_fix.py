"""The cure for optimizers on embeddings whose ids repeat within a batch."""

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.core.errors import NoEffectWarning
from keras_opt.training.step_hooks import StepHooks
from keras_opt.training.step_plugin import StepPlugin


class SparseGradientFix(keras.callbacks.Callback):
    """Sums the gradient rows of an embedding that share an id, before the optimizer squares or clips them.

    An embedding hands the optimizer one gradient row for each look-up, so an id that is looked up twice in a batch has
    two rows. The gradient of its vector is their sum. Keras squares and clips the rows one by one instead: every
    optimizer that divides by squares (Adam, AdamW, Nadam, Adamax, RMSprop, Adagrad, Adadelta, Adafactor, Ftrl, Lamb)
    trains something else than on the dense gradient, and so does any optimizer with one of Keras's clip arguments. SGD
    and Lion without clipping are right as they are. With this callback the training equals the dense one.

    In `tests/oracle/test_oracle_sparse_gradients.py`, 11 steps on a table of 7 ids, the change of the weights deviates
    from the dense mathematics by 0.37 of its norm with Adam, 0.62 with RMSprop and 0.34 with SGD and `clipnorm`; with
    this callback by less than 1e-10. Expect to tune the learning rate anew: the right steps differ in size.

    Every other callback of keras_opt that acts inside the step (`GradientMonitor`, `GradientClipping`, ...) sums them
    too; this one is for a fit with none of those. Two of them in a fit do no harm.

    Warns:
        NoEffectWarning: The fit ended, and no gradient was sparse.

    Cost: in the step, for each embedding, one integer per row of the table and one pass over the looked-up rows.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> layers = [keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 2), keras.layers.Flatten()]
        >>> model = keras.Sequential([*layers, keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> fix = keras_opt.callbacks.SparseGradientFix()
        >>> history = model.fit(np.ones((8, 4), "int32"), np.ones((8, 1)), verbose=0, callbacks=[fix])
    """

    def __init__(self):
        super().__init__()
        self._hooks: StepHooks | None = None
        self._plugin: _SparseGradients | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SparseGradientFix":
        return copy_without_fit(self, memo, "_hooks", "_plugin")

    def set_model(self, model: keras.Model) -> None:
        StepHooks.prepare(model)
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._remove()
        self._hooks, self._plugin = StepHooks.of(self.model), _SparseGradients()
        self._hooks.add(self._plugin)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._remove()
        if not self._plugin.found:
            warnings.warn(
                f"SparseGradientFix: no gradient of model {self.model.name!r} was sparse, so there was nothing to "
                "sum: it has no trainable embedding, or its gradients are accumulated, which sums them already. "
                "Leave the callback out.",
                NoEffectWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """Whether there was a sparse gradient."""
        return {"found": self._plugin.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Know what was known when `state_dict` was called. Training must have begun."""
        self._plugin.found = state["found"]

    def _remove(self) -> None:
        if self._hooks is not None:
            self._hooks.remove(self._plugin)


class _SparseGradients(StepPlugin):
    """Its presence is enough for the hub to sum repeated ids; it notes whether there was a gradient that has any."""

    def __init__(self):
        self.found = False

    def on_gradients(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        self.found = self.found or any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
