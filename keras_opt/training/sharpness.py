"""Sharpness-aware minimization as a plugin of the compiled step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_opt.core.replicas import assign_all, cond, replica_number, sum_over_replicas
from keras_opt.training.gradients import global_norm, scaled, sum_duplicates, values_of
from keras_opt.training.layer_states import layer_states
from keras_opt.training.step_hooks import StepHooks
from keras_opt.training.step_plugin import StepPlugin


def ascended(weights: list[tf.Tensor], gradients: list[Any], rho: float) -> list[tf.Tensor]:
    """`w + rho g / |g|`, with |g| the L2 norm over all gradients: the highest point within `rho`, to first order.

    Where |g| is 0 or not finite there is no way up, and the weights stay exactly as they are.

    Args:
        weights: The tensors w.
        gradients: The gradients g, tensors or `tf.IndexedSlices` without duplicates, in float32 or float64.
        rho: The length of the step.
    """
    norm = global_norm(gradients)
    factor = tf.where(tf.math.is_finite(norm) & (norm > 0), rho / norm, 0)
    return [_moved(weight, gradient, factor) for weight, gradient in zip(weights, gradients, strict=True)]


def _moved(weight: tf.Tensor, gradient: Any, factor: tf.Tensor) -> tf.Tensor:
    values = values_of(gradient)
    # `multiply_no_nan`: an infinite gradient times the factor 0 is no step.
    step = tf.cast(tf.math.multiply_no_nan(values, tf.cast(factor, values.dtype)), weight.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.tensor_scatter_nd_add(weight, gradient.indices[:, None], step)
    return weight + step


class SharpnessAware(StepPlugin):
    """Gives the optimizer the gradient of where the loss is highest within `rho` of the weights.

    The model's own step runs twice, and both passes start from the same state, so that they see one loss function: the
    same dropout masks, for example. The first pass is the one that counts, for the metrics, for BatchNorm's statistics
    and for every other variable that a step changes; its gradients show the way up. The gradients of the second pass go
    to the optimizer after all that was put back; in an eager step also if an exception or Ctrl-C breaks the second pass
    off. An error in the second pass of a compiled step may leave the weights at its point: no code runs there any more.

    Args:
        model: The model whose hub this plugin is added to.
        rho: How far up, in the L2 norm over all weights that have a gradient.
        interval: Each `interval`-th update is made so, the first one included; the others are plain.
    """

    owner = "SharpnessAwareMinimization"
    is_single = True
    needs_train_step = True

    def __init__(self, model: keras.Model, rho: float, interval: int):
        self._model = model
        self._rho = rho
        self._interval = interval

    def run_step(self, train_step: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
        if self._interval == 1:
            return self._two_passes(train_step, data)
        due = StepHooks.of(self._model).optimizer.iterations % self._interval == 0
        return cond(due, lambda data: self._two_passes(train_step, data), train_step, (data,))

    def _two_passes(self, train_step: Callable[[Any], dict[str, Any]], data: Any) -> dict[str, Any]:
        model, hooks = self._model, StepHooks.of(self._model)
        _build(model, data)
        # What the gradients of both passes are scaled by, under a LossScaleOptimizer.
        scale = model.optimizer.scale_loss(1.0)
        state = model.non_trainable_variables + layer_states(model)
        state_before = _values(state)

        with hooks.captured() as received:
            logs = train_step(data)
        if not received:  # nothing is trainable, as Keras has warned
            return logs
        variables, gradients = _ascent(*received[0], scale)
        weights = _values(variables)
        # The first pass has made the metrics' variables, if this is the first step.
        changed = model.non_trainable_variables + layer_states(model) + model.metrics_variables
        changed_values = _values(changed)

        up = ascended(weights, gradients, self._rho)
        try:
            assign_all(state, state_before)
            assign_all(variables, up)
            with hooks.captured() as received:
                train_step(data)
        except BaseException:
            if tf.executing_eagerly():
                _descend(variables, up, weights, changed, changed_values)
            raise
        assign_all(variables, weights)
        assign_all(changed, changed_values)
        model.optimizer.apply(*received[0])
        return logs


def _build(model: keras.Model, data: Any) -> None:
    """Make the variables of a model that its first batch builds: their values before that batch are needed."""
    if not model.built:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        tf.function(model, autograph=False).get_concrete_function(x)


def _values(variables: list[keras.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable.value) for variable in variables]


def _descend(
    variables: list[keras.Variable],
    up: list[tf.Tensor],
    weights: list[tf.Tensor],
    changed: list[keras.Variable],
    changed_values: list[tf.Tensor],
) -> None:
    """Put this replica's weights back where they are still `up`: a Ctrl-C may have put best or averaged ones there."""
    for variable, above, below in zip(_own_copies(variables), up, weights, strict=True):
        if tf.reduce_all(variable == above):
            variable.assign(below)
    if all(tf.reduce_all(own == below) for own, below in zip(_own_copies(variables), weights, strict=True)):
        for variable, value in zip(_own_copies(changed), changed_values, strict=True):
            variable.assign(value)


def _own_copies(variables: list[keras.Variable]) -> list[tf.Variable]:
    copies = tf.distribute.get_strategy().experimental_local_results
    return [copies(variable.value)[replica_number()] for variable in variables]


def _ascent(gradients: list[Any], variables: list[keras.Variable], scale: Any) -> tuple[list[Any], list[Any]]:
    """The variables that have a gradient, and those gradients: of the whole batch, unscaled, in float32 at least."""
    # Keras's float8 scales are overwritten with their "gradients", which point nowhere.
    pairs = [
        (gradient, variable)
        for gradient, variable in zip(gradients, variables, strict=True)
        if gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
    ]
    variables = [variable for _, variable in pairs]
    wide = [tf.cast(gradient, keras.backend.result_type(gradient.dtype.name, "float32")) for gradient, _ in pairs]
    summed = sum_over_replicas([scaled(gradient, 1 / scale) for gradient in wide])
    pairs = zip(summed, variables, strict=True)
    return variables, [sum_duplicates(gradient, variable.shape) for gradient, variable in pairs]
