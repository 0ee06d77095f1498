"""Quantization-aware training by TF-MOT."""

import functools
from typing import Any

from keras_opt.compression.bridge.tf_keras_import import tf_keras, tfmot
from keras_opt.compression.bridge.tf_keras_models import as_tf_keras, ready_for_fit
from keras_opt.core.errors import InputError, check_choice

COLLABORATIVE = (None, "PQAT", "CQAT", "PCQAT")
# Layers that TF-MOT refuses though they need no more than a range for their output.
_OUTPUT_ONLY = ("Average", "Maximum", "MaxPooling1D", "Minimum", "Multiply", "Rescaling", "Subtract")


def tfmot_quantize(model: Any, collaborative: str | None = None) -> Any:
    """Returns a tf_keras model in TF-MOT's wrappers for 8-bit quantization-aware training, ready for `compile`, `fit`.

    For those who compare with TF-MOT or depend on it; `quantize_aware` works on the Keras 3 model itself, on nested
    models and on more layers, and predicts the device file more closely.

    Train the result a little at a low rate: the ranges of the activations are learnt in `fit`. It takes callbacks of
    Keras 3 and keras_opt (see `for_tf_keras`); compile it as a tf_keras model. `export.to_tflite` writes it as an int8
    file without representative data. `copy_weights_back` brings the float weights into `model`, if that is a Keras 3
    model, but no ranges, which Keras 3 has no place for.

    Rescaling, Multiply, Subtract, Maximum, Minimum, Average and MaxPooling1D, which TF-MOT refuses, get a range for
    their output. A BatchNormalization that does not stand directly behind a convolution or depthwise convolution it
    refuses too: fold it first (`keras_opt.models.fold_batch_norm`).

    Args:
        model: A functional or Sequential model of Keras 3 or tf_keras, without nested models, also one of `tfmot_prune`
            or `tfmot_cluster`, whose wrappers are taken off; it is left as it is.
        collaborative: What the training keeps: `"PQAT"` the zeros of a pruned model, `"CQAT"` the clusters of a
            clustered one (in a convolution each output channel's come to differ), `"PCQAT"` both. Default `None`.

    Raises:
        ValueError: `to_tf_keras` refuses the model, or TF-MOT a layer, which is named; or `collaborative` is another.
        TypeError: `model` is of another kind.

    Source: B. Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference".

    Example:
        >>> import keras
        >>> from keras_opt.compression import tfmot_quantize
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu")])
        >>> wrapped = tfmot_quantize(model)
    """
    check_choice("tfmot_quantize", "collaborative", collaborative, COLLABORATIVE)
    quantization = tfmot().quantization.keras
    source = as_tf_keras("tfmot_quantize", model)
    nested = [layer.name for layer in source.layers if isinstance(layer, tf_keras().Model)]
    if nested:
        raise _refusal(f"`{nested[0]}`", "is a nested model")

    def annotate(layer: Any) -> Any:
        config = _output_config() if type(layer).__name__ in _OUTPUT_ONLY else None
        return quantization.quantize_annotate_layer(layer, config)

    try:
        with tfmot().quantization.keras.quantize_scope():
            annotated = tf_keras().models.clone_model(source, clone_function=annotate)
            quantized = quantization.quantize_apply(annotated, **_scheme(collaborative))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise _refusal(_named_in(str(error), source), f"is refused by TF-MOT ({lines[0]})") from error
    return ready_for_fit(quantized, source)


def _scheme(collaborative: str | None) -> dict[str, Any]:
    combine = tfmot().experimental.combine
    if collaborative is None:
        return {}
    if collaborative == "PQAT":
        return {"scheme": combine.Default8BitPrunePreserveQuantizeScheme()}
    return {"scheme": combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=collaborative == "PCQAT")}


def _refusal(layer: str, reason: str) -> InputError:
    # TF-MOT knows a norm directly behind a convolution only.
    is_norm = layer.endswith("(BatchNormalization)")
    fold = "Give it keras_opt.models.fold_batch_norm(model), or use" if is_norm else "Use"
    return InputError(f"tfmot_quantize: {layer} {reason}. {fold} quantize_aware, which works on Keras 3 itself.")


def _named_in(text: str, model: Any) -> str:
    """The layer that an error speaks of: the one with the longest name in it."""
    named = [layer for layer in model.layers if layer.name in text]
    found = max(named, key=lambda layer: len(layer.name), default=model)
    return f"`{found.name}` ({type(found).__name__})"


@functools.cache
def _output_config() -> Any:
    """TF-MOT's description of a layer that has a range for its output and nothing else; one object serves all."""
    quantization = tfmot().quantization.keras

    @tf_keras().utils.register_keras_serializable("keras_opt")
    class OutputRange(quantization.QuantizeConfig):
        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            return None

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            return None

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [
                quantization.quantizers.MovingAverageQuantizer(
                    num_bits=8, per_axis=False, symmetric=False, narrow_range=False
                )
            ]

        def get_config(self) -> dict[str, Any]:
            return {}

    return OutputRange()
