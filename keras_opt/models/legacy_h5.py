"""Old .h5 files of TensorFlow 2.x, whose configs hold keys that Keras 3 refuses."""

import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from keras_opt.core.errors import InputError

SUFFIXES = (".h5", ".hdf5")

# What Keras 2 wrote and Keras 3 has no argument for, with the value by which it changes nothing.
_FORMER_KEYS = {
    "groups": (1,),
    "time_major": (False,),
    "renorm": (False,),
    "renorm_clipping": (None, {}),
    "renorm_momentum": (0.99,),
    "virtual_batch_size": (None,),
    "fused": (None, True, False),
    "adjustment": (None,),
    "kernel_regularizer": (None,),  # of separable convolutions, which have a depthwise and a pointwise one
    "kernel_constraint": (None,),
    "softmax_robust_masking": (False,),
}
# An initializer of the separable convolutions, whose weights come from the file, how random layers drew, and the shapes
# that attention was built with, which its call gives too.
_WITHOUT_EFFECT = ("kernel_initializer", "rng_type", "query_shape", "key_shape", "value_shape")
_FORMER_OPTIMIZER_KEYS = ("jit_compile", "is_legacy_optimizer")
_MODELS = ("Functional", "Model", "Sequential")


@keras.saving.register_keras_serializable("keras_opt")
def hard_sigmoid_of_keras_2(x: Any) -> Any:
    """What Keras 2 called "hard_sigmoid", with a slope of 1/5; that of Keras 3 has 1/6."""
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


def load_h5(path: str | os.PathLike, compile: bool) -> keras.Model:
    """Loads a model that `model.save("name.h5")` wrote, in Keras 3 or in TensorFlow 2.x.

    Keys that Keras 3 no longer has are dropped where they hold the value by which they change nothing
    (DepthwiseConv2D's `groups: 1`). Nested models, whose calls Keras 2 counted from 1, and its `hard_sigmoid`, which is
    another function in Keras 3, are taken as they were. So are tensors that a call was given by keyword (attention),
    mixed precision, whose loss scale begins anew, and the settings of the optimizer.

    Raises:
        InputError: The file holds weights only, a key with another value, an operation that was no layer, or a loss,
            metric or optimizer that Keras 3 cannot read; named.
    """
    with h5py.File(path) as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
        training_config = json.loads(file.attrs.get("training_config", "{}"))
    if config is None:
        raise InputError(
            f"{str(path)!r} holds no model, only weights. Build the model and call model.load_weights(path)."
        )
    model_config = json.loads(config)
    is_of_keras_2 = not (version.decode() if isinstance(version, bytes) else version).startswith("3")
    changed = _modernise(path, model_config, is_of_keras_2)
    if is_of_keras_2:
        changed = _modernise_optimizer(training_config) or changed
    if not changed:
        return _load(path, path, compile)
    with tempfile.TemporaryDirectory(prefix="keras_opt-") as folder:
        copy = Path(shutil.copy(path, folder))
        copy.chmod(0o600)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(model_config)
            if training_config:
                file.attrs["training_config"] = json.dumps(training_config)
        return _load(path, copy, compile)


def _load(path, copy, compile):
    try:
        return keras.models.load_model(copy, compile=compile)
    except (TypeError, ValueError) as error:
        if not compile:
            raise
        keras.models.load_model(copy, compile=False)  # raises where it is the model that cannot be read
        raise InputError(
            f"{str(path)!r} holds a loss, metric or optimizer that Keras 3 cannot read ({str(error).splitlines()[0]}). "
            "Give compile=False and compile the model anew."
        ) from error


def _modernise(path, model_config, is_of_keras_2):
    """Write the config as Keras 3 does; whether that changed anything."""
    changed = False
    for layer in _layers(model_config):
        kind, config = layer["class_name"], layer["config"]
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            raise InputError(
                f"{str(path)!r} holds the operation {config.get('name')!r} ({kind}), which is TensorFlow code "
                "between the layers, and which Keras 3 cannot load. Build the model again with layers "
                "(keras.layers.Add in place of x + y) and load the weights from this file."
            )
        if kind == "Policy":
            layer["class_name"], layer["module"] = "DTypePolicy", "keras"
            changed = True
        if kind.startswith("SpatialDropout"):  # the layers that refuse even `trainable` in Keras 3
            for key in config.keys() & {"trainable", "noise_shape"}:
                del config[key]
                changed = True
        for key in _unknown_keys(kind, config):
            if key not in _WITHOUT_EFFECT and config[key] not in _FORMER_KEYS[key]:
                raise InputError(
                    f"{str(path)!r} cannot be loaded: layer {config.get('name')!r} ({kind}) has {key}={config[key]!r}, "
                    f"which Keras 3 does not have. Build the model again without it."
                )
            del config[key]
            changed = True
        if is_of_keras_2:
            for key in ("activation", "recurrent_activation"):
                if config.get(key) == "hard_sigmoid":
                    config[key] = keras.saving.serialize_keras_object(hard_sigmoid_of_keras_2)
                    changed = True
            changed = _count_calls_from_0(config) or changed
            changed = _rewrite_keyword_tensors(config) or changed
        for key in ("input_layers", "output_layers"):
            if _is_one_tensor_in_a_list(config.get(key)):
                (config[key],) = config[key]
                changed = True
        if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
            (config["axis"],) = config["axis"]
            changed = True
    return changed


def _modernise_optimizer(training_config):
    """Write the optimizer as Keras 3 does; whether that changed anything.

    The optimizer around it that scales the loss goes: Keras 3 puts its own there. Of "Custom>Adam", which TensorFlow
    2.11 and later wrote, Keras 3 would take the name alone and lose the settings.
    """
    before = json.dumps(training_config)
    optimizer = training_config.get("optimizer_config")
    if optimizer is None:
        return False
    optimizer = optimizer["config"].get("inner_optimizer", optimizer)
    name = optimizer["class_name"].removeprefix("Custom>")
    if hasattr(keras.optimizers, name):
        config = {key: value for key, value in optimizer["config"].items() if key not in _FORMER_OPTIMIZER_KEYS}
        optimizer = {"class_name": name, "config": config}
    for part in _layers(optimizer):
        if part["config"].get("name", "") is None:  # of a schedule, which must have one in Keras 3
            del part["config"]["name"]
    training_config["optimizer_config"] = optimizer
    return json.dumps(training_config) != before


def _rewrite_keyword_tensors(config):
    """Write the calls that are given tensors by keyword as Keras 3 does; whether that changed anything.

    In the form of Keras 2 it reads only the first argument: [["query", 0, 0, {"value": ["value", 0, 0]}]].
    """
    names = {layer["name"] for layer in config["layers"]} if "output_layers" in config else set()

    def rewritten(part):
        if isinstance(part, list):
            if len(part) == 3 and isinstance(part[0], str) and part[0] in names:
                tensor = {"shape": [], "dtype": "float32", "keras_history": part}  # Keras reads the last alone
                return {"class_name": "__keras_tensor__", "config": tensor}
            return [rewritten(each) for each in part]
        return {key: rewritten(each) for key, each in part.items()} if isinstance(part, dict) else part

    changed = False
    for layer in config["layers"] if names else ():
        for place, call in enumerate(layer["inbound_nodes"]):
            keywords = call[-1][3] if isinstance(call, list) and call and len(call[-1]) == 4 else {}
            if rewritten(keywords) != keywords:
                first = [rewritten(tensor[:3]) for tensor in call]
                args = first if len(first) == 1 else [first]
                layer["inbound_nodes"][place] = {"args": args, "kwargs": rewritten(keywords)}
                changed = True
    return changed


def _count_calls_from_0(config):
    """Number the calls of nested models in a functional config as Keras 3 does; whether that changed anything.

    Keras 3 does so itself where a nested functional model gives an output of the whole.
    """
    if "output_layers" not in config:
        return False
    kinds = {layer["name"]: layer["class_name"] for layer in config["layers"]}
    inputs = _tensors([layer["inbound_nodes"] for layer in config["layers"]])
    counted_from_1 = [tensor for tensor in inputs if kinds.get(tensor[0]) in _MODELS]
    counted_from_1 += [tensor for tensor in _tensors(config["output_layers"]) if kinds[tensor[0]] == "Sequential"]
    for tensor in counted_from_1:
        tensor[1] -= 1
    return bool(counted_from_1)


def _tensors(part):
    """Each ["name", call, place, ...] in a part of a functional config of Keras 2."""
    if isinstance(part, dict):
        part = list(part.values())
    if not isinstance(part, list):
        return []
    if part and isinstance(part[0], str):
        return [part, *_tensors(part[3:])]  # behind it stand the tensors that its call was given by keyword
    return [tensor for each in part for tensor in _tensors(each)]


def _is_one_tensor_in_a_list(tensors):
    """How Keras 2 wrote the only input or output, [["name", 0, 0]], which Keras 3 gives as a list with one entry."""
    return isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list)


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Every `{"class_name": ..., "config": {...}}` in a config, the outermost first."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str) and isinstance(config.get("config"), dict):
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _layers(part)


def _unknown_keys(kind, config):
    """The former keys in a layer's config that its class in Keras 3 does not take."""
    known = getattr(keras.layers, kind, None)
    if not inspect.isclass(known):
        return []
    taken = {name for base in known.__mro__ for name in inspect.signature(base.__init__).parameters}
    return [key for key in (*_FORMER_KEYS, *_WITHOUT_EFFECT) if key in config and key not in taken]
