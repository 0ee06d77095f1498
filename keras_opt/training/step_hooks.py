"""The hub through which plugins act inside the compiled step of a stock `fit`.

It hangs two wrappers on instances, `train_step` on the model and `apply` on its optimizer, both public methods. Private
methods of the optimizer are touched in two settings, where nothing public serves: `_all_reduce_sum_gradients` with
several replicas, and `_clip_gradients` if the optimizer accumulates by itself. `tests/contract/test_keras_canary.py`
fails, with the Keras version, when they move.
"""

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.errors import NoEffectWarning
from keras_opt.core.replicas import across_replicas, cond, replica_count, replica_number, sum_over_replicas
from keras_opt.training.callers import is_called_by_evaluation, is_training
from keras_opt.training.gradients import agree_on_overflow, scaled, sum_duplicates
from keras_opt.training.hookable import check_hookable, check_methods, parts
from keras_opt.training.interrupt import Interrupt
from keras_opt.training.step_plugin import MicroBatchMerger, StepPlugin


class StepHooks:
    """The hub of one model and its optimizer: plugins added here run inside the compiled step, in the order they came.

    Get it with `StepHooks.of(model)`. The wrappers are instance attributes, so model and optimizer keep their classes,
    their configs and their files. The first plugin installs them, the last one to leave removes them; a Ctrl-C that
    ends the training removes them too. While a plugin is there, gradients are summed over replicas before anything
    clips them, and repeated embedding ids are summed before the optimizer sees them.

    Args:
        model: A compiled model. Of a `LossScaleOptimizer` the inner optimizer is hooked; a `MultiOptimizer` counts as
            one optimizer.

    Raises:
        TypeError: `model` is no compiled Keras model.
        RuntimeError: `apply` of the optimizer is not Keras's own, or Keras has moved a method that is hooked.

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
        is_wrapper = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self.optimizer = optimizer.inner_optimizer if is_wrapper else optimizer
        self._outer_optimizer = optimizer
        self._plugins: list[StepPlugin] = []
        self._kept: tuple[StepPlugin, ...] = ()
        self._built: dict[StepPlugin, list[int]] = {}
        self._hooked: list[tuple[Any, str, Any, Any]] = []
        self._interrupt = Interrupt(self._on_interrupt)
        # The traced functions: the one from before, the one with the plugins, the one that makes an update by itself.
        self._plain_function: Any = None
        self._own_function: Any = None
        self._flush_function: Any = None
        # By replica, for they are traced in turns, and one replica not always in one thread: the batch of the step that
        # is being traced, and the list that receives what it gives to the optimizer.
        self._batches: dict[int, Any] = {}
        self._receivers: dict[int, list[Any]] = {}
        # Of the step that was traced last.
        self._variables: list[keras.Variable] = []
        self._places: list[int] = []

    @classmethod
    def of(cls, model: keras.Model) -> "StepHooks":
        """The hub of `model`: the one that is there, else a new one."""
        hub = cls._present(model)
        if hub is not None and hub._outer_optimizer is not model.optimizer:  # the model was compiled anew
            hub.detach()
            hub = None
        return hub or cls(model)

    @classmethod
    def prepare(cls, model: keras.Model) -> None:
        """What a callback calls in `set_model`: no callback has attached yet, so an error leaves nothing behind.

        Removes the plugins that a broken-off fit has left on `model` (`attach` keeps its own), and refuses an
        optimizer that cannot be hooked. An `evaluate` with callbacks in the middle of a fit leaves all as it is.
        """
        if is_called_by_evaluation(model):
            return
        hub = cls._present(model)
        if hub is not None:
            hub.clear()
        if getattr(model, "optimizer", None) is not None:
            cls.of(model)._check_optimizer()

    @classmethod
    def _present(cls, model: Any) -> "StepHooks | None":
        hub = getattr(getattr(model, "__dict__", {}).get("train_step"), "__self__", None)
        return hub if isinstance(hub, cls) else None

    @property
    def plugins(self) -> tuple[StepPlugin, ...]:
        """The plugins that are there, in the order they were added."""
        return tuple(self._plugins)

    def add(self, plugin: StepPlugin) -> None:
        """Let `plugin` act in every step from now on."""
        if isinstance(plugin, MicroBatchMerger) and self._merger is not None:
            self.clear()
            raise RuntimeError("StepHooks: micro-batches are merged already. Use one GradientAccumulation in a fit.")
        if not self._plugins:
            self._install()
        self._plugins.append(plugin)
        self._trace_anew()

    def remove(self, plugin: StepPlugin) -> None:
        """Take `plugin` out; the last one to leave gives model and optimizer their own methods back."""
        if plugin not in self._plugins:
            return
        try:
            self._plugins.remove(plugin)
            self._built.pop(plugin, None)
            if self._plugins:
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
        if not self._plugins:
            self._uninstall()  # what an interrupt in the middle of `add` or `remove` has left

    def _on_interrupt(self) -> None:
        if not is_training(self.model):  # an exception has ended that fit before
            return
        with tf.init_scope():  # it may have come in the middle of a trace
            for plugin in self.plugins:
                plugin.on_interrupt()
            self.clear()

    def drop_micro_batches(self) -> None:
        """Forget the micro-batches that are waiting for an update: half of a batch is not the batch."""
        if self._merger is not None:
            self.remove(self._merger)

    def flush(self) -> None:
        """Make the update that micro-batches are waiting for, if any are."""
        if self._merger not in self._built or not self._merger.is_pending():
            return
        if self._flush_function is None:
            step = (
                self._update_from_merger
                if self.model.run_eagerly
                else tf.function(self._update_from_merger, autograph=False)
            )
            self._flush_function = lambda: self.model.distribute_strategy.run(step)
        self._flush_function()

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[tuple[list[Any], list[keras.Variable]]]]:
        """While it lasts, what a step gives to the optimizer goes into the yielded list, and nothing is updated.

        The entries are gradients and variables, of this replica and still scaled.
        """
        replica, received = replica_number(), []
        before = self._receivers.get(replica)
        self._receivers[replica] = received
        try:
            yield received
        finally:
            self._receivers[replica] = before

    # --- hooks on and off --------------------------------------------------------------------------------------------

    def _install(self) -> None:
        self._check_optimizer()
        self._interrupt = Interrupt(self._on_interrupt)
        self._interrupt.arm()
        self._train_step = self.model.train_step
        self._plain_function = self._own_function = self.model.train_function
        self._hook(self.model, "train_step", self._run_step)
        self._hook(self._outer_optimizer, "apply", self._receive)
        if self._outer_optimizer is not self.optimizer:
            self._hook(self.optimizer, "apply", self._apply)
        if self.optimizer.gradient_accumulation_steps:
            self._hook(self.optimizer, "_clip_gradients", self._clip_gradients)

    def _uninstall(self) -> None:
        # In an order that an interrupt may break off anywhere and start again.
        if self._hooked:
            # The step from before is as good as ever, unless somebody else has asked for a new one meanwhile.
            if self.model.train_function is self._own_function:
                self.model.train_function = self._plain_function
            else:
                self.model.train_function = None
            self._own_function = self.model.train_function
        while self._hooked:
            owner, method, wrapper, before = self._hooked[-1]
            if vars(owner).get(method) is wrapper and before is not None:
                vars(owner)[method] = before
            elif vars(owner).get(method) is wrapper:  # else somebody has put his own in its place
                del vars(owner)[method]
            self._hooked.pop()
        self._plain_function = self._own_function = self._flush_function = None
        self._interrupt.disarm()

    def _trace_anew(self) -> None:
        if self.model.train_function is not self._own_function:
            self._plain_function = None
        self.model.make_train_function(force=True)
        self._own_function = self.model.train_function
        self._flush_function = None

    def _hook(self, owner: Any, method: str, wrapper: Callable[..., Any]) -> None:
        # Past `__setattr__`: Keras's tracker must not take the hub for a part of the owner's state.
        self._hooked.append((owner, method, wrapper, vars(owner).get(method)))
        vars(owner)[method] = wrapper

    def _check_optimizer(self) -> None:
        own = {id(owner): wrapper for owner, method, wrapper, _ in self._hooked if method == "apply"}
        check_methods(self._outer_optimizer, own.get(id(self._outer_optimizer)))
        replicas = self.model.distribute_strategy.num_replicas_in_sync
        check_hookable(self.optimizer, replicas, own.get(id(self.optimizer)))

    # --- inside the step ---------------------------------------------------------------------------------------------

    @property
    def _merger(self) -> MicroBatchMerger | None:
        return next((plugin for plugin in self._plugins if isinstance(plugin, MicroBatchMerger)), None)

    @property
    def _updated(self) -> list[keras.Variable]:
        return [self._variables[place] for place in self._places]

    def _run_step(self, data: Any) -> dict[str, Any]:
        if self.model.optimizer is not self._outer_optimizer:
            warnings.warn(
                "StepHooks: the model was compiled anew while plugins were attached; they no longer act on it.",
                NoEffectWarning,
                stacklevel=2,
            )
            return self._train_step(data)
        self._batches[replica_number()] = data
        step = self._train_step
        for plugin in reversed(self._plugins):
            step = _around(plugin, step)
        try:
            return step(data)
        except BaseException:
            with tf.init_scope():  # the step could not be traced: what is left of it would not let the model train
                self.clear()
            raise
        finally:
            self._batches.pop(replica_number())

    def _receive(self, grads: Any, trainable_variables: Any = None) -> None:
        received = self._receivers.get(replica_number())
        if received is not None:
            received.append((list(grads), list(trainable_variables or self.model.trainable_variables)))
        elif self._outer_optimizer is self.optimizer:
            self._apply(grads, trainable_variables)
        else:
            type(self._outer_optimizer).apply(
                self._outer_optimizer, agree_on_overflow(list(grads)), trainable_variables
            )

    def _apply(self, grads: Any, trainable_variables: Any = None) -> None:
        gradients = list(grads)
        self._variables = list(trainable_variables or self.model.trainable_variables)
        pairs = enumerate(zip(gradients, self._variables, strict=True))
        self._places = [place for place, pair in pairs if _is_for_plugins(*pair)]
        if not self._places:
            self._hand_over(gradients, [])  # Keras says what is wrong
            return
        self._build()
        present = [gradients[place] for place in self._places]
        if self._merger is not None:
            cond(self._merger.merge(present, self._updated, self._batch()), self._update_from_merger, _nothing)
        elif self.optimizer.gradient_accumulation_steps:
            updates = tf.convert_to_tensor(self.optimizer.iterations)
            self._hand_over(gradients, self._without_duplicates(present))
            cond(self.optimizer.iterations > updates, self._after_update, _nothing)
        else:
            self._update(present, gradients)

    def _batch(self) -> Any:
        if replica_number() not in self._batches:
            raise RuntimeError(
                "StepHooks: micro-batches can be merged only in the model's own step, where their samples are counted. "
                "Call `fit` or `train_on_batch` instead of `optimizer.apply`."
            )
        return self._batches[replica_number()]

    def _update_from_merger(self) -> None:
        self._update(self._merger.take(), [None] * len(self._variables))

    def _update(self, present: list[Any], gradients: list[Any]) -> None:
        scale = self.optimizer.loss_scale_factor or 1
        present = self._without_duplicates(sum_over_replicas(present))
        present = self._through_plugins([scaled(gradient, 1 / scale) for gradient in present])
        self._hand_over(gradients, [scaled(gradient, scale) for gradient in present])
        self._after_update()

    def _hand_over(self, gradients: list[Any], present: list[Any]) -> None:
        """Give `gradients`, with `present` in their places, to the optimizer's own method."""
        gradients = list(gradients)
        for place, gradient in zip(self._places, present, strict=True):
            gradients[place] = gradient
        type(self.optimizer).apply(self.optimizer, gradients, self._variables)

    def _through_plugins(self, gradients: list[Any]) -> list[Any]:
        for plugin in self._plugins:
            plugin.on_gradients(gradients, self._updated)
        for plugin in self._plugins:
            gradients = plugin.clip_gradients(gradients, self._updated)
        return gradients

    def _after_update(self) -> None:
        for plugin in self._plugins:
            plugin.after_update(self._updated)

    def _without_duplicates(self, gradients: list[Any]) -> list[Any]:
        pairs = zip(gradients, self._updated, strict=True)
        return [sum_duplicates(gradient, variable.shape) for gradient, variable in pairs]

    def _clip_gradients(self, gradients: list[Any]) -> list[Any]:
        return type(self.optimizer)._clip_gradients(self.optimizer, self._through_plugins(list(gradients)))

    def _build(self) -> None:
        if not self.optimizer.built:
            with keras.name_scope(self.optimizer.name, caller=self.optimizer):
                self.optimizer.build(self._variables)
        self._check_optimizer()  # a MultiOptimizer may have made its parts only now
        if replica_count() > 1:
            for optimizer in parts(self.optimizer) or [self.optimizer]:
                if "_all_reduce_sum_gradients" not in vars(optimizer):  # the hub has summed them
                    self._hook(optimizer, "_all_reduce_sum_gradients", list)
        key = [id(variable) for variable in self._updated]
        unbuilt = [plugin for plugin in self._plugins if self._built.get(plugin) != key]
        if unbuilt:
            across_replicas(self._build_plugins, unbuilt, key)

    def _build_plugins(self, plugins: list[StepPlugin], key: list[int]) -> None:
        with tf.init_scope():
            for plugin in plugins:
                self._built[plugin] = key
                plugin.build(self._updated)


def has_own_train_step(model: keras.Model) -> bool:
    """Whether `train_step` of `model` is not Keras's: overridden by its class, or replaced on the instance."""
    replaced = vars(model).get("train_step")
    is_of_the_hub = isinstance(getattr(replaced, "__self__", None), StepHooks)
    return type(model).train_step is not keras.Model.train_step or not (replaced is None or is_of_the_hub)


def _around(plugin: StepPlugin, step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: plugin.run_step(step, data)


def _is_for_plugins(gradient: Any, variable: Any) -> bool:
    # Keras overwrites the float8 scales with their "gradients".
    return gradient is not None and not getattr(variable, "overwrite_with_gradient", False)


def _nothing() -> None:
    """The other branch of an update that is not due."""
