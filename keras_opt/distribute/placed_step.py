"""The training step of a model whose layers lie on several devices.

It hangs wrappers on instances, of public methods: `call` of each placed layer, `train_step` and `make_train_function`
of the model. So layers and model keep their classes, their configs and their files.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from keras_opt.distribute.landed import check_landed, recorded_nodes
from keras_opt.distribute.placed_variables import build_slots
from keras_opt.training.instance_wrappers import InstanceWrappers

# Of the training step that is being traced: from the name scope of each call of a placed layer to the layer's device.
_scopes: ContextVar[dict[str, str] | None] = ContextVar("scopes", default=None)


class PlacedStep:
    """Gives the operations of placed layers their devices, those of the forward and of the backward pass.

    `tf.device` around `call` gives them to the forward pass. The backward pass TensorFlow makes where it
    differentiates, with no device, in the name scope `gradient_tape/` and that of the forward pass. So the wrapper of
    `call` notes its scope, and while `train_step` is traced, a function of the graph gives each operation the device
    of its scope.

    Args:
        model: The Keras model, which has none yet; take `PlacedStep.of`.
    """

    wraps_train_step = True  # for `keras_opt.training`: the model's own is called

    def __init__(self, model: keras.Model):
        self._model = model
        self._scopes: dict[str, str] = {}
        self._traces = 0
        self._train_step, self._make_train_function = model.train_step, model.make_train_function
        wrappers = InstanceWrappers()
        wrappers.put_on(model, "train_step", self.train_step)
        wrappers.put_on(model, "make_train_function", self.make_train_function)

    @classmethod
    def of(cls, model: keras.Model) -> "PlacedStep":
        """The one of `model`: the one that is there, else a new one."""
        return vars(model)["train_step"].__self__ if is_placed(model) else cls(model)

    def put(self, layer: keras.Layer, device: str) -> None:
        """Compute `layer` on `device` from now on."""
        call = layer.call.__wrapped__ if hasattr(layer.call, "device") else layer.call
        InstanceWrappers().put_on(layer, "call", _call_on(device, call))
        layer.supports_jit = False  # XLA compiles for one device

    def train_step(self, data: Any) -> dict[str, Any]:
        """The model's own, with the backward pass of each layer on the layer's device."""
        if tf.executing_eagerly():
            return self._train_step(data)
        self._traces += 1  # in the names, since TensorFlow records functions of earlier traces too
        self._scopes = {}
        token = _scopes.set(self._scopes)
        graph = tf.compat.v1.get_default_graph()
        try:
            with tf.name_scope(f"placed_{self._traces}"), graph.device(self._backward_device):
                return self._train_step(data)
        finally:
            _scopes.reset(token)

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """The model's own, whose first call checks where its operations are computed."""
        before = self._model.train_function
        function = self._make_train_function(force=force)
        if self._model.train_function is not before and not self._model.run_eagerly:
            self._model.train_function = function = self._checked_once(self._model.train_function)
        return function

    def _checked_once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        is_checked = False

        def call(iterator):
            nonlocal is_checked
            if is_checked:
                return function(iterator)
            build_slots(self._model)
            with recorded_nodes() as nodes:
                logs = function(iterator)
            check_landed(nodes, self._scopes)
            is_checked = True
            return logs

        return call

    def _backward_device(self, operation: tf.Operation) -> str:
        if operation.device or not operation.name.startswith("gradient_tape/"):
            return operation.device
        return innermost(operation.name.removeprefix("gradient_tape/"), self._scopes)


def is_placed(model: keras.Model) -> bool:
    """Whether `model` has a `PlacedStep`."""
    return isinstance(getattr(vars(model).get("train_step"), "__self__", None), PlacedStep)


def innermost(name: str, scopes: dict[str, str]) -> str:
    """The device of the longest of `scopes` that `name` begins with; empty if there is none."""
    found = [scope for scope in scopes if name.startswith(f"{scope}/")]
    return f"/device:{scopes[max(found, key=len)]}" if found else ""


def _call_on(device: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def placed_call(*args, **kwargs):
        scopes = _scopes.get()
        if scopes is not None:
            scopes[tf.get_current_name_scope()] = device
        with tf.device(device):
            return call(*args, **kwargs)

    placed_call.device = device
    return placed_call
