"""Which kernels of a model are pruned, and as which matrices."""

import warnings
from collections.abc import Sequence

import keras

from keras_opt.compression.pruning.masks import UNSTRUCTURED, Blocks, Pattern
from keras_opt.compression.pruning.matrix import DEPTHWISE, KernelMatrix, kernel_matrices
from keras_opt.compression.pruning.sparsity import kernels
from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, NoEffectWarning, argument_error
from keras_opt.core.patterns import fits, layer_of


def selected_kernels(model: keras.Model, include: Sequence[str] | None, exclude: Sequence[str]) -> list[keras.Variable]:
    """The trainable kernels of the layers that fit `include` (all, if it is `None`) and do not fit `exclude`.

    Raises:
        InputError: The model is not built.

    Warns:
        NoEffectWarning: There are none, or one of the patterns fits no layer.
    """
    if not model.built:
        raise InputError(
            f"PruneLowMagnitude: model {model.name!r} has no weights yet to prune. Start it with keras.Input(shape), "
            "or build it before `fit`."
        )
    trainable = [kernel for kernel in kernels(model) if kernel.trainable]
    selected = [
        kernel for kernel in trainable if (include is None or fits(kernel, include)) and not fits(kernel, exclude)
    ]
    _warn_without_effect(trainable, selected, include, exclude)
    return selected


def _warn_without_effect(
    trainable: list[keras.Variable],
    selected: list[keras.Variable],
    include: Sequence[str] | None,
    exclude: Sequence[str],
) -> None:
    if selected:
        patterns = [("include", pattern) for pattern in include or ()] + [("exclude", pattern) for pattern in exclude]
        idle = [pair for pair in patterns if not any(fits(kernel, pair[1:]) for kernel in trainable)]
        reasons = [f"the pattern {pattern!r} of `{name}` fits no layer that can be pruned" for name, pattern in idle]
    else:
        reasons = [f"no kernel fits include={include} and exclude={exclude}"]
    layers = ", ".join(sorted({layer_of(kernel) for kernel in trainable})) or "none"
    for reason in reasons:
        warnings.warn(
            f"PruneLowMagnitude: {reason}; the layers with a trainable kernel are: {layers}.",
            NoEffectWarning,
            stacklevel=4,
        )


def depthwise_layers(model: keras.Model) -> list[str]:
    """The depthwise convolutions by their paths, which are better left dense; none if nothing else can be pruned.

    They hold few of the weights of a network and much of its accuracy.
    """
    depthwise = {id(layer.kernel) for layer in all_layers(model) if isinstance(layer, DEPTHWISE) and layer.built}
    trainable = [kernel for kernel in kernels(model) if kernel.trainable]
    found = [kernel for kernel in trainable if id(kernel) in depthwise]
    return sorted({layer_of(kernel) for kernel in found}) if len(found) < len(trainable) else []


def divided_kernels(
    model: keras.Model, selected: list[keras.Variable], structure: Blocks | Pattern, name: object
) -> list[KernelMatrix]:
    """The matrices of `selected` for a structure, which stands under `name` in the arguments.

    Raises:
        InputError: Blocks or groups do not divide one of them.
    """
    if structure == UNSTRUCTURED:
        return [KernelMatrix.column(kernel) for kernel in selected]
    matrices = kernel_matrices(model, selected)
    pairs = zip(selected, matrices, strict=True)
    undivided = {kernel.path: matrix for kernel, matrix in pairs if not structure.divides(matrix)}
    if undivided:
        listed = "; ".join(f"{path} ({matrix})" for path, matrix in undivided.items())
        layers = sorted({path.rsplit("/", 1)[0] for path in undivided})
        cure = f"It does not divide {listed}. Add {layers} to `exclude`, to leave them dense."
        raise argument_error("PruneLowMagnitude", "structure", name, "one that divides each kernel it prunes", cure)
    return matrices
