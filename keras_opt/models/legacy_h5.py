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
}
_WITHOUT_EFFECT = ("kernel_initializer",)  # of the same: the weights come from the file


def load_h5(path: str | os.PathLike, compile: bool) -> keras.Model:
    """Loads a model that `model.save("name.h5")` wrote, in Keras 3 or in TensorFlow 2.x.

    Keys that Keras 3 no longer has are dropped where they hold the value by which they change nothing
    (DepthwiseConv2D's `groups: 1`).

    Raises:
        InputError: The file holds weights only, a key with another value, or an operation that was no layer; named.
    """
    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise InputError(
            f"{str(path)!r} holds no model, only weights. Build the model and call model.load_weights(path)."
        )
    model_config = json.loads(config)
    if not _modernise(path, model_config):
        return keras.models.load_model(path, compile=compile)
    with tempfile.TemporaryDirectory(prefix="keras_opt-") as folder:
        copy = Path(shutil.copy(path, folder))
        copy.chmod(0o600)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(model_config)
        return keras.models.load_model(copy, compile=compile)


def _modernise(path, model_config):
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
        for key in _unknown_keys(kind, config):
            if key not in _WITHOUT_EFFECT and config[key] not in _FORMER_KEYS[key]:
                raise InputError(
                    f"{str(path)!r} cannot be loaded: layer {config.get('name')!r} ({kind}) has {key}={config[key]!r}, "
                    f"which Keras 3 does not have. Build the model again without it."
                )
            del config[key]
            changed = True
        for key in ("input_layers", "output_layers"):
            if _is_one_tensor_in_a_list(config.get(key)):
                (config[key],) = config[key]
                changed = True
        if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
            (config["axis"],) = config["axis"]
            changed = True
    return changed


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
