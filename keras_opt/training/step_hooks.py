"""One hub per optimizer through which plugins see the gradients inside the compiled step.

Keras offers no public road to the gradients of `model.fit`, so this is the one place of the package that touches the
optimizer's private methods. `tests/contract/test_keras_canary.py` fails, with the Keras version, when they move.
"""

from typing import Any, Protocol

import keras

_HOOKED_METHODS = ("_backend_apply_gradients", "_clip_gradients")


class GradientPlugin(Protocol):
    """What a plugin offers: one method, called while the step is traced."""

    def on_gradients(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        """Receive the gradients (unscaled, averaged over accumulated micro-batches, before clipping) with their
        variables, once per real update; return the gradients to use."""


class StepHooks:
    """The hub of one optimizer: plugins added here run inside its compiled update, in the order they were added.

    The hub wraps the optimizer's bound methods as instance attributes, so the optimizer keeps its class, its config and
    its file. The first plugin installs the wrappers, the last one to leave removes them. A step that is traced already
    does not change: call `model.make_train_function(force=True)` after `add` and `remove`.

    Args:
        optimizer: A Keras optimizer; of a `LossScaleOptimizer` the inner one is hooked.

    Raises:
        TypeError: `optimizer` is no Keras optimizer.
        RuntimeError: The installed Keras has moved a hooked method, or another tool has replaced it.

    Cost: nothing beyond what its plugins add; no second backward pass.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                f"StepHooks: argument `optimizer` must be a Keras optimizer. Received: optimizer={optimizer!r}. "
                "Compile the model before you attach."
            )
        missing = [method for method in _HOOKED_METHODS if not hasattr(optimizer, method)]
        if missing:
            raise RuntimeError(
                f"StepHooks: Keras {keras.__version__} has moved {', '.join(missing)} of its optimizers, which "
                "keras_opt hooks. Install an earlier Keras, or a newer keras_opt."
            )
        self._optimizer = optimizer
        self._plugins: list[GradientPlugin] = []
        self._variables: list[Any] = []

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer) -> "StepHooks":
        """The hub of `optimizer`: the one that is there, else a new one."""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        hook = getattr(optimizer, "__dict__", {}).get("_clip_gradients")
        if hook is None:
            return cls(optimizer)
        hub = getattr(hook, "__self__", None)
        if not isinstance(hub, cls):
            raise RuntimeError(
                f"StepHooks: `_clip_gradients` of the optimizer {optimizer.name!r} is already replaced by "
                f"{hook!r}, which is not of keras_opt. Detach that first."
            )
        return hub

    @property
    def plugins(self) -> tuple[GradientPlugin, ...]:
        """The plugins that are there, in the order they were added."""
        return tuple(self._plugins)

    def add(self, plugin: GradientPlugin) -> None:
        """Let `plugin` see the gradients of every step that is traced from now on."""
        if not self._plugins:
            # Past `__setattr__`: Keras's tracker must not record the hub as part of the optimizer's state.
            vars(self._optimizer).update(
                _backend_apply_gradients=self._backend_apply_gradients, _clip_gradients=self._clip_gradients
            )
        self._plugins.append(plugin)

    def remove(self, plugin: GradientPlugin) -> None:
        """Take `plugin` out; the last one to leave gives the optimizer its own methods back."""
        if plugin not in self._plugins:
            return
        self._plugins.remove(plugin)
        if not self._plugins:
            for method in _HOOKED_METHODS:
                vars(self._optimizer).pop(method, None)

    def _backend_apply_gradients(self, gradients, trainable_variables):
        self._variables = list(trainable_variables)
        type(self._optimizer)._backend_apply_gradients(self._optimizer, gradients, trainable_variables)

    def _clip_gradients(self, gradients):
        for plugin in self._plugins:
            gradients = plugin.on_gradients(list(gradients), self._variables)
        return type(self._optimizer)._clip_gradients(self._optimizer, gradients)
