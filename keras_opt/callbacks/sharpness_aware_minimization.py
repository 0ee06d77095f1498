"""Sharpness-aware minimization in a stock `fit`."""

from typing import Any

import keras

from keras_opt.callbacks.copying import copy_without_fit
from keras_opt.core.errors import InputError, check_at_least, check_positive
from keras_opt.training.sharpness import SharpnessAware
from keras_opt.training.step_hooks import StepHooks, has_own_train_step


class SharpnessAwareMinimization(keras.callbacks.Callback):
    """Trains towards flat minima: each update uses the gradient of the worst point near the weights.

    Minima whose whole surroundings have a low loss tend to generalise better, also with noisy labels. Use it when the
    model overfits and training may take longer; not when the training loss itself is still the problem. Try `rho` in
    0.01, 0.02, 0.05, 0.1, 0.2; an `interval` above 1 keeps part of the effect for part of the cost.

    With L the loss of the batch and w the trainable weights, the optimizer gets

        g(w + e),   e = rho * g(w) / |g(w)|_2,   g = the gradient of L

    and updates w itself. L is one function in both passes: dropout masks are the same. The first pass, at w, is the one
    that counts: the logged loss and metrics, BatchNorm's statistics and all other state are as without the callback.
    Clipping and `GradientMonitor` work on g(w + e), since that is what the optimizer uses. Where g(w) is zero or not
    finite, e is zero. Constraints act on w, never on w + e.

    With gradient accumulation e is of each micro-batch, which is the paper's m-sharpness (section 4.1), known to
    generalise better than one e for the whole batch. Under a distribution strategy e is of the global batch, so that
    several replicas equal one device.

    Args:
        rho: Float above 0, the radius |e|, in units of the weights. Default 0.05, as in the paper.
        interval: Int of at least 1; the updates whose number `optimizer.iterations`, from 0, it divides are made so,
            the others are plain. Default 1.

    Raises:
        ValueError: An argument is out of its range, or the model has a `train_step` of its own.
        RuntimeError: A second `SharpnessAwareMinimization` is in the fit; or a loop of your own calls
            `optimizer.apply`, which leaves it no step to run twice.

    Cost: a due update takes two forward and two backward passes. While it runs, one copy of the trainable weights;
        no variable is added.

    Source: P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, 2021, "Sharpness-Aware Minimization for Efficiently Improving
    Generalization", equations 2 and 3.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> sharpness = keras_opt.callbacks.SharpnessAwareMinimization(rho=0.05)
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[sharpness])
    """

    def __init__(self, rho: float = 0.05, interval: int = 1):
        super().__init__()
        check_positive("SharpnessAwareMinimization", "rho", rho)
        check_at_least("SharpnessAwareMinimization", "interval", interval, 1)
        self.rho = rho
        self.interval = interval
        self._hooks: StepHooks | None = None
        self._plugin: SharpnessAware | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharpnessAwareMinimization":
        return copy_without_fit(self, memo, "_hooks", "_plugin")

    def set_model(self, model: keras.Model) -> None:
        StepHooks.prepare(model)
        if has_own_train_step(model):
            raise InputError(
                f"SharpnessAwareMinimization: the model {model.name!r} has a `train_step` of its own. It would run "
                "twice for a batch, with whatever it does beside computing gradients. Override `compute_loss` or "
                "`compute_metrics` instead, or take both gradients inside your `train_step`."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._detach()
        self._hooks = StepHooks.of(self.model)
        self._plugin = SharpnessAware(self.model, self.rho, self.interval)
        self._hooks.add(self._plugin)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._hooks is not None:
            self._hooks.remove(self._plugin)
            self._hooks = None
