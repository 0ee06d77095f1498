"""The bytes that a model's training holds on each device."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from keras_opt.core.errors import check_at_least
from keras_opt.distribute.placed_variables import device_of


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes by device; `print` shows them as a table.

    Attributes:
        batch_size: Rows a step, for the activations.
        weights: The model's variables.
        slots: The optimizer's variables, `None` as long as it has none: compile the model before you place it.
        activations: What the forward pass keeps for the backward pass, as estimated from a trace of both; `None` for a
            model without symbolic `inputs` or with inputs of unknown length. What loops (RNNs) keep is not counted.
    """

    batch_size: int
    weights: dict[str, int]
    slots: dict[str, int] | None
    activations: dict[str, int] | None

    def __str__(self) -> str:
        columns = (self.weights, self.slots, self.activations)
        devices = sorted(set().union(*(column for column in columns if column is not None)))
        rows = [["device", "weights", "optimizer slots", f"activations of {self.batch_size} rows (estimated)"]]
        rows += [
            [device, *("unknown" if c is None else f"{c.get(device, 0):,}" for c in columns)] for device in devices
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(r, widths, strict=True)) for r in rows)


def device_memory(model: keras.Model, batch_size: int) -> DeviceMemory:
    """What `model` holds on each device. It traces a step, and computes nothing.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    check_at_least("Placement.memory", "batch_size", batch_size, 1)
    optimizer = model.optimizer if model.compiled else None
    slots = bytes_of(optimizer.variables) if optimizer is not None and optimizer.built else None
    return DeviceMemory(batch_size, bytes_of(model.variables), slots, _activations(model, batch_size))


def bytes_of(variables: list[keras.Variable]) -> dict[str, int]:
    """The bytes of `variables` on each device."""
    total: dict[str, int] = {}
    for variable in variables:
        size = variable.value.dtype.size * variable.value.shape.num_elements()
        total[device_of(variable)] = total.get(device_of(variable), 0) + size
    return total


def _activations(model: keras.Model, batch_size: int) -> dict[str, int] | None:
    inputs = getattr(model, "inputs", None)
    if not inputs or any(None in each.shape[1:] for each in inputs):
        return None

    def step(x):
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(x, training=True))
            total = tf.add_n([tf.reduce_sum(tf.cast(output, "float32")) for output in outputs])
        return tape.gradient(total, [variable.value for variable in model.trainable_variables])

    given = model.input if len(inputs) > 1 else inputs[0]  # a Sequential has no `input`
    specs = keras.tree.map_structure(lambda x: tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype), given)
    graph = tf.function(step, autograph=False).get_concrete_function(specs).graph
    kept = {
        tensor.name: tensor
        for operation in graph.get_operations()
        for tensor in operation.inputs
        if _is_backward(operation) and not _is_backward(tensor.op) and tensor.op.type not in _NOT_COMPUTED
    }
    total: dict[str, int] = {}
    first = "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"
    for tensor in kept.values():
        device = tensor.device.rpartition("device:")[2] or first
        total[device] = total.get(device, 0) + tensor.dtype.size * (tensor.shape.num_elements() or 0)
    return total


_NOT_COMPUTED = ("Const", "Placeholder", "ReadVariableOp")


def _is_backward(operation: tf.Operation) -> bool:
    return operation.name.startswith("gradient_tape/")
