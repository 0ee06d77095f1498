"""What happens inside the compiled step: the way of the gradients through the plugins to the optimizer."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.optimizers import inner, parts, trained_by
from keras_opt.core.replicas import across_replicas, cond, replica_count, replica_number, sum_over_replicas
from keras_opt.training.gradients import agree_on_overflow, scaled, sum_duplicates
from keras_opt.training.hookable import check_hookable
from keras_opt.training.instance_wrappers import InstanceWrappers
from keras_opt.training.step_plugin import MicroBatchMerger, StepPlugin


class HookedStep:
    """The step of one model with plugins in it.

    `run` stands in for the model's `train_step`. `receive` stands in for `apply` of its optimizer, `apply` for that of
    the optimizer within a `LossScaleOptimizer`, and `clip_gradients` for the method of that name if the optimizer
    accumulates by itself. All of them are called while the step is traced, once for each replica.

    Args:
        model: A compiled model.
        wrappers: Those of the hub; the optimizer's sum over replicas joins them once it is known where it is made.
    """

    def __init__(self, model: keras.Model, wrappers: InstanceWrappers):
        self.model = model
        self.outer_optimizer = model.optimizer
        self.optimizer = inner(model.optimizer)
        self.plugins: list[StepPlugin] = []
        self._wrappers = wrappers
        self._built: dict[StepPlugin, list[int]] = {}
        # By replica, for they are traced in turns, and one replica not always in one thread: the step that is being
        # traced, and the list that receives what it gives to the optimizer.
        self._steps: dict[int, _Step] = {}
        self._receivers: dict[int, list[Any]] = {}
        # Of the step that was traced last.
        self._variables: list[keras.Variable] = []
        self._places: list[int] = []

    @property
    def merger(self) -> MicroBatchMerger | None:
        """The plugin that gathers micro-batches, if there is one."""
        return next((plugin for plugin in self.plugins if isinstance(plugin, MicroBatchMerger)), None)

    def is_pending(self) -> bool:
        """Outside the step: whether micro-batches are waiting for their update."""
        return self.merger in self._built and self.merger.is_pending()

    def forget(self, plugin: StepPlugin) -> None:
        """Take `plugin` out."""
        self.plugins.remove(plugin)
        self._built.pop(plugin, None)

    def run(self, train_step: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
        """Run the model's own `train_step` with the plugins around it and in it."""
        for plugin in reversed(self.plugins):
            train_step = _around(plugin, train_step)
        self._steps[replica_number()] = _Step(data, _graph())
        try:
            for plugin in self.plugins:
                plugin.begin_batch()
            return train_step(data)
        finally:
            self._steps.pop(replica_number())

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[tuple[list[Any], list[keras.Variable]]]]:
        """While it lasts, what the step gives to the optimizer goes into the yielded list, and nothing is updated."""
        replica, received = replica_number(), []
        before = self._receivers.get(replica)
        self._receivers[replica] = received
        try:
            yield received
        finally:
            self._receivers[replica] = before

    def receive(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take what the step gives to the optimizer that the model was compiled with."""
        received = self._receivers.get(replica_number())
        if received is not None:
            received.append((list(grads), list(trainable_variables or trained_by(self.optimizer, self.model))))
        elif self.outer_optimizer is self.optimizer:
            self.apply(grads, trainable_variables)
        else:
            type(self.outer_optimizer).apply(self.outer_optimizer, agree_on_overflow(list(grads)), trainable_variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take what the optimizer within the `LossScaleOptimizer` gets."""
        gradients = list(grads)
        self._variables = list(trainable_variables or trained_by(self.optimizer, self.model))
        pairs = enumerate(zip(gradients, self._variables, strict=True))
        self._places = [place for place, pair in pairs if _is_for_plugins(*pair)]
        if not self._places:
            self._hand_over(gradients, [])  # Keras says what is wrong
            return
        self._check_step()
        self._build()
        present = [gradients[place] for place in self._places]
        if self.merger is not None:
            data = self._steps[replica_number()].data
            cond(self.merger.merge(present, self._updated, data), self.update_from_merger, _nothing)
        elif self.optimizer.gradient_accumulation_steps:
            updates = tf.convert_to_tensor(self.optimizer.iterations)
            self._hand_over(gradients, self._without_duplicates(present))
            cond(self.optimizer.iterations > updates, self._after_update, _nothing)
        else:
            self._update(present, gradients)

    def clip_gradients(self, gradients: list[Any]) -> list[Any]:
        """Let the plugins have what the optimizer has accumulated, and then the optimizer's own clipping."""
        return type(self.optimizer)._clip_gradients(self.optimizer, self._through_plugins(list(gradients)))

    def update_from_merger(self) -> None:
        """Make an update from the micro-batches that were gathered."""
        self._update(self.merger.take(), [None] * len(self._variables))

    # --- an update ---------------------------------------------------------------------------------------------------

    @property
    def _updated(self) -> list[keras.Variable]:
        return [self._variables[place] for place in self._places]

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
        for plugin in self.plugins:
            plugin.on_gradients(gradients, self._updated)
        for plugin in self.plugins:
            gradients = plugin.clip_gradients(gradients, self._updated)
        return gradients

    def _after_update(self) -> None:
        for plugin in self.plugins:
            plugin.after_update(self._updated)

    def _without_duplicates(self, gradients: list[Any]) -> list[Any]:
        pairs = zip(gradients, self._updated, strict=True)
        return [sum_duplicates(gradient, variable.shape) for gradient, variable in pairs]

    # --- before the first update -------------------------------------------------------------------------------------

    def _check_step(self) -> None:
        """Refuse what the plugins cannot act in."""
        step = self._steps.get(replica_number())
        if step is None:
            for plugin in self.plugins:
                if plugin.needs_train_step:
                    raise RuntimeError(
                        f"{plugin.owner}: it acts only in the model's own step, and the optimizer was called outside "
                        "of that. Call `fit` or `train_on_batch` instead of `optimizer.apply`."
                    )
            return
        if _is_traced_within(step.graph):
            raise RuntimeError(
                f"StepHooks: `train_step` of the model {self.model.name!r} calls its optimizer in a tf.function, which "
                "would keep the callbacks of this fit in every later one. Take `@tf.function` away: `fit` compiles the "
                "step."
            )
        if step.updated is not None and _ids(step.updated) != _ids(self._updated):
            raise RuntimeError(
                f"StepHooks: `train_step` of the model {self.model.name!r} calls one optimizer twice in a step, first "
                f"for {_paths(step.updated)}, then for {_paths(self._updated)}, so what an update is cannot be told. "
                "Call it once with all of them, or give each set of variables an optimizer of its own; keras_opt acts "
                "on the one that is compiled."
            )
        step.updated = self._updated

    def _build(self) -> None:
        if not self.optimizer.built:
            with keras.name_scope(self.optimizer.name, caller=self.optimizer):
                self.optimizer.build(self._variables)
        # A MultiOptimizer may have made its parts only now.
        check_hookable(self.model, self.outer_optimizer, self._wrappers)
        if replica_count() > 1:
            for optimizer in parts(self.optimizer) or [self.optimizer]:
                if self._wrappers.wrapper_of(optimizer, "_all_reduce_sum_gradients") is None:
                    self._wrappers.put_on(optimizer, "_all_reduce_sum_gradients", list)  # they are summed already
        key = _ids(self._updated)
        unbuilt = [plugin for plugin in self.plugins if self._built.get(plugin) != key]
        if unbuilt:
            across_replicas(self._build_plugins, unbuilt, key)

    def _build_plugins(self, plugins: list[StepPlugin], key: list[int]) -> None:
        with tf.init_scope():
            for plugin in plugins:
                plugin.build(self._updated)
                self._built[plugin] = key


@dataclass
class _Step:
    """One run of the model's step.

    Attributes:
        data: Its batch.
        graph: Where it is traced; `None` in a step that runs eagerly.
        updated: The variables that the optimizer has got gradients for in it.
    """

    data: Any
    graph: tf.Graph | None
    updated: list[keras.Variable] | None = None


def _graph() -> tf.Graph | None:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _is_traced_within(graph: tf.Graph | None) -> bool:
    """Whether a tf.function is being traced, called in what is traced in `graph`. Branches and loops are none."""
    inner_graph = _graph()
    while inner_graph is not graph and hasattr(inner_graph, "outer_graph"):
        if type(inner_graph) is tf.__internal__.FuncGraph:
            return True
        inner_graph = inner_graph.outer_graph
    return False


def _ids(variables: list[keras.Variable]) -> list[int]:
    return [id(variable) for variable in variables]


def _paths(variables: list[keras.Variable]) -> str:
    first = variables[0].path
    return repr(first) if len(variables) == 1 else f"{first!r} and {len(variables) - 1} more"


def _around(plugin: StepPlugin, step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: plugin.run_step(step, data)


def _is_for_plugins(gradient: Any, variable: Any) -> bool:
    # Keras overwrites the float8 scales with their "gradients".
    return gradient is not None and not getattr(variable, "overwrite_with_gradient", False)


def _nothing() -> None:
    """The other branch of an update that is not due."""
