"""A Keras 3 model rebuilt in tf_keras, which TF-MOT works on."""

import inspect
import warnings
from typing import Any

import keras
import numpy as np

from keras_opt import layers as our_layers
from keras_opt.compression.bridge.agreement import check_same_outputs
from keras_opt.compression.bridge.origins import remember
from keras_opt.compression.bridge.tf_keras_import import tf_keras
from keras_opt.compression.bridge.tf_keras_layers import rebuilt, refusal, refusal_of, refused_by_tf_keras
from keras_opt.compression.bridge.tf_keras_operations import operation_layer
from keras_opt.compression.bridge.tf_keras_weights import copy_weights
from keras_opt.core.call_stack import users_stacklevel
from keras_opt.core.errors import kind_error
from keras_opt.models.graph import functional, has_graph, histories

_OF_IMAGES = ("AugMix", "AutoContrast", "CutMix", "Equalization", "MixUp", "Pipeline", "RandAugment", "Solarization")
_AUGMENTATIONS = tuple(
    kind for name, kind in vars(keras.layers).items() if name.startswith("Random") or name in _OF_IMAGES
) + tuple(kind for kind in vars(our_layers).values() if inspect.isclass(kind))


def to_tf_keras(model: keras.Model) -> Any:
    """Returns a tf_keras (Keras 2) model with the layers, weights and outputs of a Keras 3 model.

    For tools that know tf_keras alone, TF-MOT above all; `tfmot_prune`, `tfmot_cluster` and `tfmot_quantize` call it
    themselves. Each layer is rebuilt from its options, the graph is replayed node by node, the weights are copied, and
    the outputs of both are compared on random inputs, each time. Names of layers, inputs and outputs stay.

    Nested models, shared layers, several inputs and outputs, operators (`x + y`) and `keras.ops`, recurrent layers with
    states, attention, and dtype policies are carried over, as is what is frozen. Layers of augmentation, and
    keras_opt's layers, which do nothing outside of training, are left out (a `RandomAffine` with `rescale` becomes a
    Rescaling): augment in the pipeline (`data.augment`). Refused by name are classes of your own, Lambda, layers of
    texts, states that stay from batch to batch, and every layer or option that tf_keras has not.

    Compile the result anew: it takes losses and metrics by name and tf_keras's own objects; for callbacks and schedules
    there is `for_tf_keras`. After training `copy_weights_back` brings the weights into `model`. A file of the result
    that holds operations of Keras 3 loads where this function has been called before.

    `import keras`, `tf.keras` and the environment stay what they were.

    Args:
        model: A built functional or Sequential Keras 3 model; it is left as it is.

    Returns:
        A functional tf_keras model.

    Raises:
        ValueError: A layer cannot be carried over; or the outputs differ by more than 1e-5 of the largest (0.01 with
            float16 or bfloat16).
        TypeError: `model` is no Keras 3 model with a graph.

    Warns:
        UserWarning: Layers were left out.

    Cost: a second copy of the weights, and one call of each model on four rows.

    Example:
        >>> import keras, keras_opt
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> twin = keras_opt.compression.to_tf_keras(model)
        >>> twin.get_layer("head").units
        2
    """
    if not isinstance(model, keras.Model) or not has_graph(model):
        cure = "Give a functional or Sequential model that starts with keras.Input."
        raise kind_error("to_tf_keras", "model", model, "a built Keras 3 model with a graph of layers", cure)
    replay = _Replay()
    twin = replay.model(model)
    replay.copy_weights()
    check_same_outputs("to_tf_keras", model, twin)
    if replay.left_out:
        warnings.warn(
            f"to_tf_keras: left out, since they act in training only: {', '.join(replay.left_out)}. Augment in the "
            "pipeline (keras_opt.data.augment).",
            UserWarning,
            stacklevel=users_stacklevel(),
        )
    remember(twin, model)
    return twin


class _Replay:
    """Builds models of tf_keras from graphs of Keras 3; a layer that stands in two models becomes one in two."""

    def __init__(self):
        self._made: dict[int, tuple[Any, Any]] = {}  # by the identity of the layer: it and its twin
        self.left_out: list[str] = []

    def model(self, model: keras.Model) -> Any:
        graph = functional(model)
        config = graph.get_config()
        layers = {layer.name: layer for layer in graph.layers}
        tensors: dict[tuple[str, int, int], Any] = {}
        waiting = [(data, number) for data in config["layers"] for number in range(len(data["inbound_nodes"]))]
        for data in config["layers"]:
            if data["class_name"] == "InputLayer":
                tensors[data["name"], 0, 0] = _input(layers[data["name"]])
        while waiting:
            later = []
            for data, number in waiting:
                node = data["inbound_nodes"][number]
                sources = histories(node)
                if any(source not in tensors for source in sources):
                    later.append((data, number))
                    continue
                outputs = self._call(data, node, layers.get(data["name"]), [tensors[each] for each in sources])
                for place, tensor in enumerate(keras.tree.flatten(outputs)):
                    tensors[data["name"], number, place] = tensor
            if len(later) == len(waiting):
                raise RuntimeError(f"to_tf_keras: the graph of {model.name!r} cannot be followed at {later[0][0]!r}.")
            waiting = later

        def tensor_of(leaf: list[Any]) -> Any:
            name, number, place = leaf
            # In the list of outputs Keras counts the calls of a nested functional model from 1, else from 0.
            nested = isinstance(layers.get(name), keras.Model) and not isinstance(layers[name], keras.Sequential)
            return tensors[name, number - nested, place]

        inputs, outputs = (_by_leaves(config[key], tensor_of) for key in ("input_layers", "output_layers"))
        return tf_keras().Model(inputs, outputs, name=model.name)

    def copy_weights(self) -> None:
        for layer, twin in self._made.values():
            if not isinstance(layer, keras.Model):
                copy_weights(layer, twin)

    def _call(self, data: dict[str, Any], node: dict[str, Any], layer: Any, tensors: list[Any]) -> Any:
        name, kind = data["name"], data["class_name"]
        if layer is None:
            if not data["module"].startswith("keras."):
                raise refusal_of(name, kind, "is an operation of its own")
            with refused_by_tf_keras(name, kind):
                return operation_layer(data, node, tensors, name)(tensors if len(tensors) > 1 else tensors[0])
        if isinstance(layer, our_layers.RandomAffine) and layer.rescale is not None and layer.output_size is None:
            self.left_out.append(layer.name)
            return tf_keras().layers.Rescaling(layer.rescale, name=layer.name)(tensors[0])
        if isinstance(layer, _AUGMENTATIONS):
            _check_does_nothing(layer, tensors)
            self.left_out.append(layer.name)
            return tensors[0]
        left = iter(tensors)
        arguments = keras.tree.map_structure(
            lambda part: next(left) if isinstance(part, keras.KerasTensor) else part,
            keras.saving.deserialize_keras_object({"args": node["args"], "kwargs": node["kwargs"]}),
        )
        # What `fit` and `predict` say of training counts in Keras 3, in tf_keras what the graph says.
        given = {key: each for key, each in arguments["kwargs"].items() if each is not None and key != "training"}
        twin = self._twin(layer)
        with refused_by_tf_keras(name, kind):
            return twin(*arguments["args"], **given)

    def _twin(self, layer: keras.Layer) -> Any:
        if id(layer) not in self._made:
            self._made[id(layer)] = layer, self.model(layer) if has_graph(layer) else rebuilt(layer)
        return self._made[id(layer)][1]


def _input(layer: keras.layers.InputLayer) -> Any:
    if layer.sparse or getattr(layer, "optional", False) or getattr(layer, "ragged", False):
        raise refusal(layer, "is sparse, ragged or optional")
    return tf_keras().Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name)


def _by_leaves(structure: Any, tensor_of: Any) -> Any:
    """The inputs or outputs of a config, its leaves ["layer", call, place] replaced by tensors."""
    if isinstance(structure, dict):
        return {key: _by_leaves(each, tensor_of) for key, each in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        return tensor_of(structure)
    return [_by_leaves(each, tensor_of) for each in structure]


def _check_does_nothing(layer: keras.Layer, tensors: list[Any]) -> None:
    """Raise unless `layer` gives back its input outside of training."""
    shape = [2 if size is None and place == 0 else size or 32 for place, size in enumerate(tensors[0].shape)]
    values = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    try:
        after = keras.ops.convert_to_numpy(layer(values, training=False))
        is_same = np.array_equal(after, values) and layer.compute_output_shape(values.shape) == values.shape
    except (ValueError, TypeError):
        is_same = False
    if not is_same or len(tensors) > 1:
        raise refusal(layer, "changes its input outside of training too")
