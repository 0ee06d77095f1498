"""Layers on devices of one's choice."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import keras
import tensorflow as tf

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, argument_error, did_you_mean, kind_error
from keras_opt.distribute.device_memory import DeviceMemory, device_memory
from keras_opt.distribute.placed_step import PlacedStep, is_placed
from keras_opt.distribute.placed_variables import build_slots, move
from keras_opt.models.batch_norms import trace_anew


class Placement:
    """Puts layers of models on devices; `place` makes it.

    Attributes:
        devices: From patterns of layers to devices, such as `"GPU:0"`.
    """

    def __init__(self, devices: Mapping[str, str]):
        self.devices = dict(devices)

    def __call__(self, model: keras.Model) -> keras.Model:
        """Move the layers of `model`, a built one made outside of `tf.distribute` strategies, and give it back."""
        _check(model)
        layers = all_layers(model)
        places = _places(layers, self.devices)
        variables = {}
        for layer in sorted(layers, key=lambda layer: -len(all_layers(layer))):  # an inner layer after those around it
            if id(layer) in places:
                variables.update((id(variable), (variable, places[id(layer)])) for variable in layer.variables)
        for variable, device in variables.values():
            move(variable, device)
        if model.compiled:
            build_slots(model)

        step = PlacedStep.of(model)
        for layer in layers:
            if id(layer) in places:
                step.put(layer, places[id(layer)])
        if model.compiled:
            model.jit_compile = False
        trace_anew(model)
        return model

    def layers(self, model: keras.Model) -> dict[str, str]:
        """The device of each layer of `model` that a pattern names."""
        layers = all_layers(model)
        places = _places(layers, self.devices)
        return {layer.name: places[id(layer)] for layer in layers if id(layer) in places}

    def memory(self, model: keras.Model, batch_size: int = 32) -> DeviceMemory:
        """What each device holds: weights, slots of the optimizer and, as estimated, activations of one step.

        Args:
            model: A built one; where it is not placed, what its devices hold now.
            batch_size: Rows a step, at least 1. Default 32.
        """
        return device_memory(model, batch_size)


def place(devices: Mapping[str, str]) -> Placement:
    """Says on which devices layers lie; called on a built model it puts them there.

    For a model too large for one device: the weights of each layer, their slots in the optimizer, the forward pass and
    the backward pass all lie on the device that the layer was given. `tf.device` around a layer's call, the usual way,
    leaves the slots and the whole backward pass, and with it the activations, on the first device. Results are those of
    the model without placement; what it saves is plain Keras and knows of no devices.

    When not: this is no pipeline. A layer waits for the one before it, so one device works at a time, and every step
    copies what goes from one to the other. It makes room, not speed. If the model fits on one device, train it there,
    with a replica on each of the others (`keras_opt.distribute.strategy`); if it nearly does, accumulation, mixed
    precision or `keras.RematScope` cost less (benchmarks/results/memory.json).

    Build a model that fits on no single device in `with keras.device("cpu:0"):`, compile it, then place it. Layers that
    no pattern names stay where they are, and so does the loss. The backward pass is placed in `fit` and
    `train_on_batch`, not with `run_eagerly` nor in a loop of your own. XLA compiles for one device, so a placed model
    trains without `jit_compile`.

    The first training step checks where TensorFlow has in fact put the forward operations of each layer, and stops if
    one is elsewhere. Placement is no part of a file or a copy of the model: place what you load.

    Args:
        devices: From patterns (as in `fnmatch`) of layers by name to devices, such as `"GPU:1"` or `"CPU:0"`. A pattern
            means also what is inside of the layer; where several fit, the last counts. `"*"` is all of the model.

    Returns:
        The placement: `placement(model)` moves the layers, once, and gives the model back;
        `print(placement.memory(model, batch_size=64))` shows the bytes on each device.

    Raises:
        ValueError: A device does not exist. Called on a model: a pattern fits no layer, the model is not built, or it
            was made in the scope of a strategy.
        RuntimeError: In the first step: TensorFlow computes an operation elsewhere, most often for want of a kernel.

    Cost: one copy of the weights that move; the next step is traced anew.

    Example:
        >>> import keras, keras_opt
        >>> placement = keras_opt.distribute.place({"*": "CPU:0"})
        >>> model = placement(keras_opt.models.mlp([8, 8], (4,), 3))
        >>> placement.layers(model)["dense1"]
        'CPU:0'
    """
    if not isinstance(devices, Mapping) or not devices or not all(isinstance(key, str) for key in devices):
        cure = 'Give {"encoder": "GPU:0", "decoder": "GPU:1"}.'
        raise kind_error("place", "devices", devices, "a dict from patterns of layers to devices", cure)
    present = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    short = {
        pattern: str(device).upper().removeprefix("/").removeprefix("DEVICE:") for pattern, device in devices.items()
    }
    for pattern, device in short.items():
        if device not in present:
            must_be = f"a device that there is, which are {', '.join(present)}"
            raise argument_error(
                "place", f"devices[{pattern!r}]", devices[pattern], must_be, did_you_mean(device, present)
            )
    return Placement(short)


def _check(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise kind_error("Placement", "model", model, "a Keras model", "Load or build one with keras.")
    if not model.built:
        raise argument_error("Placement", "model", model, "built", "Call it once on a batch, so that it has weights.")
    if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
        raise InputError(
            "Placement: the model was made in the scope of a strategy, which says itself where variables lie. Build "
            "and place it outside of the scope, or leave `place` out."
        )
    if "train_step" in vars(model) and not is_placed(model):
        raise InputError(
            "Placement: something else acts in the model's training step already. Place the model before callbacks of "
            "keras_opt attach to it, which is before `fit`."
        )


def _places(layers: list[keras.Layer], devices: Mapping[str, str]) -> dict[int, str]:
    """From the id of each layer that was given a device to that device."""
    places = {}
    for pattern, device in devices.items():
        fitting = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not fitting:
            names = [layer.name for layer in layers[1:]]
            must_be = f"patterns of layers, which are {', '.join(names)}"
            raise argument_error("place", "devices", pattern, must_be, did_you_mean(pattern, names))
        places.update((id(inside), device) for layer in fitting for inside in all_layers(layer))
    return places
