"""Several models as one, whose output is a mean of theirs."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import InputError, argument_error, check_choice, kind_error
from keras_opt.ensemble.class_names import class_names_of, common_class_names
from keras_opt.ensemble.combining import METHODS, WEIGHTS_LAYER, combine
from keras_opt.ensemble.copies import functional_copy
from keras_opt.ensemble.held_out import outputs_and_targets
from keras_opt.ensemble.simplex_weights import least_squares_weights, likelihood_weights
from keras_opt.models.convolutions import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from keras_opt.models.graph import calls, functional, has_graph, output_leaves

_LOSSES = ("log", "squared")
_LAYERS_WITH_ACTIVATION_LAST = (
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    *CONVOLUTIONS,
    *TRANSPOSED_CONVOLUTIONS,
)


@keras.saving.register_keras_serializable("keras_opt")
class PredictionEnsemble(keras.Model):
    """Predicts with several models at once, each trained by itself, and gives a mean of what they say.

    Members that err in different places are more often right together than each by itself; those that err in the same
    places (see `diversity`) gain little. Their mean is less sure than they are: better calibrated where they were too
    sure, as networks that were trained long are, and worse where they were not; the geometric mean is surer. It costs
    as much as all members together: one wider network of that cost may gain as much. Where it is too much, look at
    `average_weights` and `greedy_soup`, or let it teach one small model.

    With p_m the output of member m of n:

        mean        sum_m p_m / n, for probabilities, logits or regression
        geometric   prod_m p_m^(1/n), normalised; computed without rounding or overflow as the softmax (sigmoid) of the
                    mean of what goes into the members' softmax (sigmoid)
        vote        the share of the members whose highest output it is; where members end in a sigmoid or have a
                    single output, that find it above 0.5; has no int8 form in LiteRT
        weighted    sum_m w_m p_m, with the w of `fit_weights`, before that 1 / n

    It is a Keras model like any other: one graph, which can be compiled, evaluated, saved, exported by `to_tflite`. It
    holds copies of the members, under the names `member_0`, `member_1`, ...: the members themselves are left alone, and
    may have layers of the same names. Load it with `keras_opt.load_model`; what must open in plain Keras, save as
    `ensemble.to_plain()`.

    Members are combined in float32, or float64 if the output of one is.

    Args:
        models: Built functional or Sequential models of the same input and output shapes, at least one, each with one
            output; for "geometric" all of them end in a softmax, or all in a sigmoid, as the `activation` of a dense or
            convolutional layer or an `Activation`. Where they take different types of numbers, the ensemble takes the
            one that holds both.
        method: `"mean"`, `"geometric"`, `"vote"` or `"weighted"`. Default `"mean"`.
        name: The name of the model. Default `"ensemble"`.

    Attributes:
        method: As given.
        members: The copies; those of "geometric" give logits.
        member_weights: What each member counts; they sum to 1.

    Raises:
        ValueError: There is no member, one is not built, the shapes or the `class_names` differ, or `method` does not
            fit.
        TypeError: A member is no Keras model.

    Cost: the parameters and MACs of all members. In `benchmarks/results/ensembles.json` five gain 0.9 points of test
        accuracy over one, a wider network of their MACs 1.1 (medians of three seeds); the geometric mean has about half
        the calibration error of one member, the mean somewhat more than one.

    Source: L. K. Hansen, P. Salamon, 1990, "Neural Network Ensembles"; B. Lakshminarayanan et al., 2017, "Simple and
        Scalable Predictive Uncertainty Estimation using Deep Ensembles", section 2.4; for "weighted" L. Breiman, 1996,
        "Stacked Regressions".

    Example:
        >>> import keras_opt, numpy as np
        >>> members = [keras_opt.models.mlp([8], (5,), 3) for _ in range(3)]
        >>> ensemble = keras_opt.ensemble.PredictionEnsemble(members)
        >>> ensemble.predict(np.zeros((2, 5)), verbose=0).shape
        (2, 3)
    """

    def __init__(self, models: Sequence[keras.Model], method: str = "mean", name: str = "ensemble"):
        check_choice("PredictionEnsemble", "method", method, METHODS)
        models = check_members("PredictionEnsemble", models)
        activation = _common_activation(models)
        if method == "geometric" and activation is None:
            raise _activation_error(models)
        linear = {"activation": "linear"} if method == "geometric" else {}
        members = [
            functional_copy(model, f"member_{place}", {_output_layer(model).name: linear} if linear else {})
            for place, model in enumerate(models)
        ]
        inputs = _common_inputs(members)
        super().__init__(inputs, combine([member(inputs) for member in members], method, activation), name=name)
        self.method = method
        self.class_names = next(filter(None, map(class_names_of, models)), ())

    @property
    def members(self) -> list[keras.Model]:
        """The copies that the ensemble is made of."""
        found = {layer.name: layer for layer in self.layers if isinstance(layer, keras.Model)}
        return [found[f"member_{place}"] for place in range(len(found))]

    @property
    def member_weights(self) -> np.ndarray:
        """What each member counts, (members,); they sum to 1."""
        if self.method == "weighted":
            return keras.ops.convert_to_numpy(self.get_layer(WEIGHTS_LAYER).kernel)[:, 0]
        return np.full(len(self.members), 1 / len(self.members), np.float32)

    def fit_weights(self, x: Any, y: Any = None, loss: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Sets what each member counts to what is best on data that no member was trained on.

        None is negative and they sum to 1, so with few rows they overfit little, and useless members get 0.

        Args:
            x: Inputs, as `predict` takes them; or a `tf.data.Dataset` of batches `(x, y)`, without sample weights.
            y: Targets: class numbers, one-hot rows or probabilities; or those of a regression. `None` for a dataset.
            loss: `"log"`, the mean negative log-likelihood of `y`, by expectation maximisation; or `"squared"`, the
                squared error, by non-negative least squares. Default `None`: "log" if the outputs of all members are
                probabilities, which sum to 1 unless there is one only.
            batch_size: Int of at least 1. Default 32.

        Returns:
            The weights, (members,).

        Raises:
            RuntimeError: `method` is not "weighted".
            ValueError: `y` does not fit the outputs; outputs are not finite; `loss` is "log" and these are no
                probabilities; or a dataset has sample weights.

        Cost: one prediction of each member; some milliseconds for 10,000 rows.
        """
        if self.method != "weighted":
            raise RuntimeError(
                f'PredictionEnsemble: fit_weights needs method="weighted"; this ensemble has {self.method!r}. Make it '
                "anew from its members with that."
            )
        if loss is not None:
            check_choice("PredictionEnsemble.fit_weights", "loss", loss, _LOSSES)
        members, names = self.members, [f"models[{place}]" for place in range(len(self.members))]
        outputs, targets = outputs_and_targets("PredictionEnsemble.fit_weights", members, names, x, y, batch_size)
        outputs = np.moveaxis(outputs, 0, -1)
        are_probabilities = _are_probabilities(outputs) and _are_probabilities(targets[..., np.newaxis])
        if loss == "log" and not are_probabilities:
            cure = "Let the members end in a softmax or sigmoid, or use 'squared'."
            raise argument_error(
                "PredictionEnsemble.fit_weights", "loss", loss, "'squared' for these outputs and y", cure
            )
        if are_probabilities and loss != "squared":
            weights = likelihood_weights(*_likelihoods(outputs, targets))
        else:
            weights = least_squares_weights(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))
        self.get_layer(WEIGHTS_LAYER).kernel.assign(weights[:, np.newaxis])
        return weights

    def to_plain(self) -> keras.Model:
        """A functional copy that needs no keras_opt, unless a member does."""
        plain = functional_copy(self, self.name)
        plain.class_names = self.class_names
        return plain

    def get_config(self) -> dict[str, Any]:
        # That of the functional model, so that whatever reads a graph from the config finds it.
        graph = keras.Model(self.input, self.output, name=self.name).get_config()
        return {**graph, "method": self.method, "class_names": list(self.class_names)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "PredictionEnsemble":
        config = dict(config)
        method, class_names = config.pop("method"), config.pop("class_names")
        plain = keras.Model.from_config(config, custom_objects)
        ensemble = cls.__new__(cls)
        # Past `__init__`, which would copy the members: to Keras's functional model, the base class of the first one.
        super(PredictionEnsemble, ensemble).__init__(plain.input, plain.output, name=plain.name)
        ensemble.method = method
        ensemble.class_names = tuple(class_names)
        return ensemble


def check_members(owner: str, models: Any) -> list[keras.Model]:
    """The members as a list; raise unless they are built models of the same inputs and the same, single, output."""
    if isinstance(models, keras.Model) or not isinstance(models, Sequence):
        raise kind_error(owner, "models", models, "a sequence of models", "Give a list, as in [first, second].")
    if not models:
        raise argument_error(owner, "models", models, "at least one model", "Give the members.")
    for place, model in enumerate(models):
        if not isinstance(model, keras.Model):
            raise kind_error(
                owner, f"models[{place}]", model, "a Keras model", "Load a file with keras_opt.load_model."
            )
        if not has_graph(model):
            cure = "Start a Sequential one with keras.Input(shape); a subclassed one has no graph."
            raise argument_error(owner, f"models[{place}]", model, "a built functional or Sequential model", cure)
        if len(model.outputs) != 1:
            cure = "Make one ensemble for each output."
            raise argument_error(owner, f"models[{place}]", model, "a model with one output", cure)
        if not isinstance(functional(model).output, keras.KerasTensor):
            cure = "Take it out of its list or dict: keras.Model(model.inputs, model.outputs[0])."
            raise argument_error(owner, f"models[{place}]", model, "a model whose output is a tensor", cure)
    facts = [{"inputs": _input_shapes(each), "output": tuple(each.outputs[0].shape[1:])} for each in models]
    for place, found in enumerate(facts):
        for name, value in found.items():
            if value != facts[0][name]:
                raise InputError(
                    f"{owner}: argument `models` must be models of the same inputs and output. Received: "
                    f"models[0] has {name} {facts[0][name]}, models[{place}] has {value}. Train them on the same task."
                )
    _check_order(owner, models)
    common_class_names(
        owner, "models", [(f"models[{place}]", class_names_of(each)) for place, each in enumerate(models)]
    )
    return list(models)


def _check_order(owner: str, models: Sequence[keras.Model]) -> None:
    """Raise if models that take a list of inputs take the same ones in another order: each would get another's."""
    if isinstance(functional(models[0]).input, dict):
        return
    names = [[each.name for each in model.inputs] for model in models]
    for place, found in enumerate(names):
        if found != names[0] and sorted(found) == sorted(names[0]):
            raise InputError(
                f"{owner}: argument `models` must be models that take their inputs in the same order. Received: "
                f"models[0] takes {names[0]}, models[{place}] takes {found}. Make it anew as keras.Model(inputs, "
                "outputs) with the inputs in that order."
            )


def _input_shapes(model: keras.Model) -> Any:
    """The shape of each input, by name where the model takes them so."""
    inputs = functional(model).input
    if isinstance(inputs, dict):
        return keras.tree.map_structure(lambda each: tuple(each.shape[1:]), inputs)
    return [tuple(each.shape[1:]) for each in model.inputs]


def _common_inputs(members: Sequence[keras.Model]) -> Any:
    """Inputs like those of the first, of types that hold what each member takes: a member casts what it gets."""
    types = zip(*([each.dtype for each in member.inputs] for member in members), strict=True)
    common = [each[0] if len(set(each)) == 1 else keras.backend.result_type(*each) for each in types]
    inputs = [
        keras.Input(batch_shape=(None, *each.shape[1:]), dtype=dtype, name=each.name)
        for each, dtype in zip(members[0].inputs, common, strict=True)
    ]
    return keras.tree.pack_sequence_as(members[0].input, inputs)


def _output_layer(model: keras.Model) -> keras.Layer | None:
    """The layer that makes the output of `model` and nothing else; `None` if an operation such as `x + y` does."""
    (name,) = output_leaves(model)
    layer = next((layer for layer in model.layers if layer.name == name), None)
    return layer if layer is not None and len(calls(model)[name]) == 1 else None


def _activations(models: Sequence[keras.Model]) -> set[Any]:
    """The last thing that each model does, if that is the activation of its last layer; else `None`.

    A recurrent layer, or one of the user's with a `call` of its own, may use its activation before the end.
    """
    known = {each.call for each in _LAYERS_WITH_ACTIVATION_LAST}
    last = [_output_layer(model) for model in models]
    return {each.activation if getattr(type(each), "call", None) in known else None for each in last}


def _common_activation(models: Sequence[keras.Model]) -> str | None:
    """Where all members end in a softmax, or all in a sigmoid, its name."""
    found = _activations(models)
    return next((name for name in ("softmax", "sigmoid") if found == {keras.activations.get(name)}), None)


def _activation_error(models: Sequence[keras.Model]) -> InputError:
    names = ", ".join(sorted(getattr(each, "__name__", "none") for each in _activations(models)))
    must_be = (
        "models whose last layers, dense, convolutional or Activation, "
        'all have activation="softmax", or all "sigmoid", for method="geometric"'
    )
    cure = f'The activations are: {names}. Use method="mean", or let the members end in the same one.'
    return argument_error("PredictionEnsemble", "models", models, must_be, cure)


def _are_probabilities(outputs: np.ndarray) -> bool:
    """Whether (rows, ..., outputs, members) are all in [0, 1], and, unless there is one output, sum to 1."""
    in_range = np.all((outputs >= 0) & (outputs <= 1))
    return bool(in_range and (outputs.shape[-2] == 1 or np.allclose(outputs.sum(axis=-2), 1, atol=1e-2)))


def _likelihoods(outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each member gives to the classes that `targets` has: (rows, members), and how much of it there is, (rows,).

    A single output is the probability of the second of two classes.
    """
    if targets.shape[-1] == 1:
        outputs, targets = np.concatenate([1 - outputs, outputs], -2), np.concatenate([1 - targets, targets], -1)
    is_there = targets > 0
    return outputs[is_there], targets[is_there]
