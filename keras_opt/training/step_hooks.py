"""The hub through which plugins act inside the compiled step of a stock `fit`.

It hangs wrappers on instances, of three public methods: `train_step` and `make_train_function` of the model, `apply` of
its optimizer. Private methods of the optimizer are touched in two settings, where nothing public serves:
`_all_reduce_sum_gradients` with several replicas, and `_clip_gradients` if the optimizer accumulates by itself.
`tests/contract/test_keras_canary.py` fails, with the Keras version, when they move.
"""

import contextlib
import inspect
import warnings
from collections.abc import Collection
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import NoEffectWarning
from keras_opt.training.callers import is_called_by_evaluation, is_in_mid_fit, is_training, running_fits
from keras_opt.training.hookable import check_hookable
from keras_opt.training.hooked_step import HookedStep
from keras_opt.training.instance_wrappers import InstanceWrappers
from keras_opt.training.interrupt import Interrupt
from keras_opt.training.step_plugin import StepPlugin


class StepHooks:
    """The hub of one model and its optimizer: plugins added here run inside the compiled step, in the order they came.

    Get it with `StepHooks.of(model)`. The wrappers are instance attributes, so model and optimizer keep their classes,
    their configs and their files. The first plugin installs them, the last one to leave removes them; a Ctrl-C that
    ends the training removes them too. While a plugin is there, gradients are summed over replicas before anything
    clips them, and repeated embedding ids are summed before the optimizer sees them.

    A plugin that was added during a `fit` belongs to it. If an exception ends that, the next `fit` or `train_on_batch`
    of the model, with or without callbacks, removes the plugin before it makes its first step; a loop of your own that
    calls `optimizer.apply` does not, so put that into `keras_opt.training.attach`. A plugin that was added outside
    stays until it is removed, or until a `fit` with callbacks of keras_opt.

    Args:
        model: A compiled model. Of a `LossScaleOptimizer` the inner optimizer is hooked; a `MultiOptimizer` counts as
            one optimizer.

    Raises:
        TypeError: `model` is no compiled Keras model.
        RuntimeError: As a plugin comes: `apply` of the optimizer is not Keras's own; Keras has moved a method that is
            hooked; or, over several replicas, the optimizer accumulates or has an `ema_overwrite_frequency`, or
            `steps_per_execution` is above 1 (but for `keras_opt.distribute.strategy`), none of which Keras can do. In
            the first step: `train_step` gives the optimizer two sets of variables in turn.

    Cost: one trace of the step, however many the plugins; no second backward pass.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> class Halving(keras_opt.training.StepPlugin):
        ...     def clip_gradients(self, gradients, variables):
        ...         return [gradient / 2 for gradient in gradients]
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        >>> model.compile("sgd", "mse")
        >>> keras_opt.training.StepHooks.of(model).add(Halving())
        >>> history = model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    """

    def __init__(self, model: keras.Model):
        optimizer = getattr(model, "optimizer", None)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                f"StepHooks: argument `model` must be a compiled Keras model. Received: model={model!r}, whose "
                f"optimizer is {optimizer!r}. Compile the model before you attach."
            )
        self.model = model
        self._wrappers = InstanceWrappers()
        self._step = HookedStep(model, self._wrappers)
        self.optimizer = self._step.optimizer
        self._kept: tuple[StepPlugin, ...] = ()
        self._of_fit: set[StepPlugin] = set()
        self._interrupt = Interrupt(self._on_interrupt)
        # The traced functions: the one from before, the one with the plugins, the one that makes an update by itself.
        self._plain_function: Any = None
        self._own_function: Any = None
        self._flush_function: Any = None

    @classmethod
    def of(cls, model: keras.Model) -> "StepHooks":
        """The hub of `model`: the one that is there, else a new one."""
        hub = cls._present(model)
        if hub is not None and hub._step.outer_optimizer is not model.optimizer:  # the model was compiled anew
            is_in_use = bool(hub.plugins) and is_in_mid_fit(model)
            hub.detach()
            if is_in_use:
                _warn_of_new_compile()
                model.make_train_function()  # the `fit` that is running calls it next
            hub = None
        return hub or cls(model)

    @classmethod
    def prepare(cls, model: keras.Model) -> None:
        """What a callback calls in `set_model`: no callback has attached yet, so an error leaves nothing behind.

        Removes the plugins that a broken-off fit has left on `model` (`attach` keeps its own), and refuses a model
        that cannot be hooked. What is called in the middle of a fit leaves its plugins on.
        """
        if is_called_by_evaluation(model):
            return
        hub = cls._present(model)
        if hub is not None and not is_in_mid_fit(model):
            hub.clear()
        if getattr(model, "optimizer", None) is not None:
            cls.of(model)._check()

    @classmethod
    def _present(cls, model: Any) -> "StepHooks | None":
        hub = getattr(getattr(model, "__dict__", {}).get("train_step"), "__self__", None)
        return hub if isinstance(hub, cls) else None

    @property
    def plugins(self) -> tuple[StepPlugin, ...]:
        """The plugins that are there, in the order they were added."""
        return tuple(self._step.plugins)

    def add(self, plugin: StepPlugin) -> None:
        """Let `plugin` act in every step from now on."""
        if plugin.is_single and any(other.owner == plugin.owner for other in self.plugins):
            self.clear()
            raise RuntimeError(f"{plugin.owner}: two of them would act on this model. Leave one out.")
        if not self.plugins:
            self._install()
        if any(running_fits(self.model)):
            self._of_fit.add(plugin)
        self._step.plugins.append(plugin)
        self._trace_anew()

    def remove(self, plugin: StepPlugin) -> None:
        """Take `plugin` out; the last one to leave gives model and optimizer their own methods back."""
        if plugin not in self.plugins:
            return
        try:
            self._step.forget(plugin)
            self._of_fit.discard(plugin)
            if self.plugins:
                self._trace_anew()
            else:
                self._uninstall()
        finally:
            plugin.close()

    def detach(self) -> None:
        """Remove every plugin."""
        self.reduce_to(())

    def clear(self) -> None:
        """Remove the plugins that `keep` does not shield."""
        self.reduce_to(self._kept)

    def keep(self) -> None:
        """Shield the plugins that are there now from `clear`; whoever calls it removes them in the end."""
        self._kept = self.plugins

    def reduce_to(self, plugins: Collection[StepPlugin]) -> None:
        """Remove all but `plugins`, which stay shielded if they were."""
        self._kept = tuple(plugin for plugin in self._kept if plugin in plugins)
        with contextlib.ExitStack() as stack:  # one that fails to close does not save the others
            for plugin in self.plugins:
                if plugin not in plugins:
                    stack.callback(self.remove, plugin)
        if not self.plugins:
            self._uninstall()  # what an interrupt in the middle of `add` or `remove` has left

    def _on_interrupt(self) -> None:
        if not is_training(self.model):  # an exception has ended that fit before
            return
        with tf.init_scope():  # it may have come in the middle of a trace
            for plugin in self.plugins:
                plugin.on_interrupt()
            self.clear()

    def leave_past_fits(self) -> None:
        """Remove the plugins of a `fit` that an exception has ended; none while a `fit` is running."""
        self._leave_fits_before(None)

    def drop_micro_batches(self) -> None:
        """Forget the micro-batches that are waiting for an update: half of a batch is not the batch."""
        if self._step.merger is not None:
            self.remove(self._step.merger)

    def flush(self) -> None:
        """Make the update that micro-batches are waiting for, if any are."""
        if not self._step.is_pending():
            return
        if self._flush_function is None:
            update = self._step.update_from_merger
            step = update if self.model.run_eagerly else tf.function(update, autograph=False)
            self._flush_function = lambda: self.model.distribute_strategy.run(step)
        self._flush_function()

    def captured(self) -> contextlib.AbstractContextManager[list[tuple[list[Any], list[keras.Variable]]]]:
        """While it lasts, what a step gives to the optimizer goes into the yielded list, and nothing is updated.

        The entries are gradients and variables, of this replica and still scaled.
        """
        return self._step.captured()

    # --- wrappers on and off -----------------------------------------------------------------------------------------

    def _install(self) -> None:
        self._check()
        self._interrupt = Interrupt(self._on_interrupt)
        self._interrupt.arm()
        model, step = self.model, self._step
        self._train_step, self._make_function = model.train_step, model.make_train_function
        self._plain_function = self._own_function = model.train_function
        self._wrappers.put_on(model, "train_step", self._run_step)
        self._wrappers.put_on(model, "make_train_function", self._make_train_function)
        self._wrappers.put_on(step.outer_optimizer, "apply", step.receive)
        if step.outer_optimizer is not step.optimizer:
            self._wrappers.put_on(step.optimizer, "apply", step.apply)
        if step.optimizer.gradient_accumulation_steps:
            self._wrappers.put_on(step.optimizer, "_clip_gradients", step.clip_gradients)

    def _uninstall(self) -> None:
        # In an order that an interrupt may break off anywhere and start again.
        if self._wrappers:
            # The step from before is as good as ever, unless somebody else has asked for a new one meanwhile.
            if self.model.train_function is self._own_function:
                self.model.train_function = self._plain_function
            else:
                self.model.train_function = None
            self._own_function = self.model.train_function
        self._wrappers.take_off()
        self._plain_function = self._own_function = self._flush_function = None
        self._interrupt.disarm()

    def _trace_anew(self) -> None:
        if self.model.train_function is not self._own_function:
            self._plain_function = None
        self._make_function(force=True)
        self._own_function = self.model.train_function
        self._flush_function = None

    def _check(self) -> None:
        check_hookable(self.model, self._step.outer_optimizer, self._wrappers)

    # --- in the wrappers' place --------------------------------------------------------------------------------------

    def _run_step(self, data: Any) -> dict[str, Any]:
        if self.model.optimizer is not self._step.outer_optimizer:
            _warn_of_new_compile()
            return self._train_step(data)
        try:
            return self._step.run(self._train_step, data)
        except BaseException:
            with tf.init_scope():  # the step could not be traced: what is left of it would not let the model train
                self.clear()
            raise

    def _make_train_function(self, force: bool = False) -> Any:
        # `fit` calls it before its callbacks begin, `train_on_batch` before each batch.
        self._leave_fits_before(inspect.currentframe().f_back)
        return self._make_function(force)

    def _leave_fits_before(self, beginning: FrameType | None) -> None:
        if self._of_fit and all(fit is beginning for fit in running_fits(self.model)):
            past = self._of_fit.difference(self._kept)
            self.reduce_to([plugin for plugin in self.plugins if plugin not in past])


def _warn_of_new_compile() -> None:
    warnings.warn(
        "StepHooks: the model was compiled anew while callbacks of keras_opt were acting in its step; they no longer "
        "act. Compile before `fit`.",
        NoEffectWarning,
        stacklevel=3,
    )


def has_own_train_step(model: keras.Model) -> bool:
    """Whether `train_step` of `model` is not Keras's: overridden by its class, or replaced on the instance.

    A method of the hub, or of an object that has `wraps_train_step`, calls the one before it and does not count.
    """
    replaced = vars(model).get("train_step")
    owner = getattr(replaced, "__self__", None)
    is_wrapper = isinstance(owner, StepHooks) or getattr(owner, "wraps_train_step", False)
    return type(model).train_step is not keras.Model.train_step or not (replaced is None or is_wrapper)
