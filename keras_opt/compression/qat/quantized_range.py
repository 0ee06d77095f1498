"""Where a device stores a tensor in 8 bits: its range is observed in training, and its values are rounded."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_opt.compression.qat.fake_quant import fake_quant, fake_quant_means, grid, step_of, straight_through
from keras_opt.compression.qat.requantization import requantized
from keras_opt.core.quantized_ranges import is_written_for_a_device
from keras_opt.core.replicas import least_over_replicas
from keras_opt.models.softmax import logit_ends


@keras.saving.register_keras_serializable("keras_opt")
class QuantizedRange(keras.Layer):
    """Rounds tensors to 256 steps between the ends of a range that it learns from the batches of training.

    The range always holds 0. Each end is a moving average of the batches' ends, from batch n = 0, 1, ... on

        low = m * low + (1 - m) * min(batch)        m = min(momentum, n / (n + 1))

    and so for `high`: the first batches count alike. Under a strategy the batch is that of all replicas. A layer with
    `trainable=False` observes no more. Until it has seen a batch in training, it takes the range of each batch that it
    is given.

    Args:
        momentum: Float in [0, 1), m above.
        limits: The two ends where they are known, as those of a softmax; `None` observes.
        inference_only: Whether training goes on with what is not rounded: with probabilities that a loss takes the
            logarithm of. One below 1/512 would be 0, and its example give no gradient.
        before_softmax: Whether what is rounded goes into a softmax alone. Few logits far beyond the others then do not
            widen the range: min and max above are those of `logit_ends`.

    Call arguments:
        inputs: What to round.
        means: Whether these are means of what the layer rounded: they are not observed, and halves go where LiteRT's
            average-pooling puts them.
        addends: For each tensor of `inputs` what a device sums up in whole numbers to get it, as `requantized` takes
            it, or `None`. At inference the tensor is rounded from there, to the bit as on a device.

    Input shape: a tensor or a list of tensors, which share the range.
    Output shape: a list: the tensor or list of tensors; and the step between two values, a scalar.

    Source: B. Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", section 3.1.
    """

    keeps_quantized_ranges = True

    def __init__(
        self,
        momentum: float = 0.99,
        limits: tuple[float, float] | None = None,
        inference_only: bool = False,
        before_softmax: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.momentum = momentum
        self.limits = limits
        self.inference_only = inference_only
        self.before_softmax = before_softmax

    def build(self, input_shape: Any) -> None:
        def variable(name):
            # All replicas know the ends of the whole batch, and so assign the same numbers.
            return self.add_weight(
                shape=(), initializer="zeros", trainable=False, aggregation="only_first_replica", name=name
            )

        if self.limits is None:
            self.mean_low, self.mean_high, self.batches = map(variable, ("mean_low", "mean_high", "batches"))
            # What the means make is kept, because the converter needs constants here.
            self.low, self.high = map(variable, ("low", "high"))

    def call(
        self, inputs: Any, training: bool = False, means: bool = False, addends: Sequence[Any] | None = None
    ) -> list[Any]:
        tensors = [keras.ops.cast(tensor, "float32") for tensor in keras.tree.flatten(inputs)]
        low, high = self._ends(tensors, training and self.trainable and not means)
        step = step_of(low, high)
        # The file has the operations, which round by themselves.
        is_inference = not (training or is_written_for_a_device())
        rounding = fake_quant_means if means and not is_written_for_a_device() else fake_quant
        rounded = [rounding(tensor, low, high) for tensor in tensors]
        if training and self.inference_only:
            rounded = tensors
        elif is_inference and addends is not None:
            rounded = [
                tensor if each is None else straight_through(requantized(each, low, high, step), tensor)
                for tensor, each in zip(rounded, addends, strict=True)
            ]
        return [keras.tree.pack_sequence_as(inputs, rounded), step]

    def compute_output_spec(self, inputs: Any, **arguments: Any) -> list[Any]:
        # Keras 3.15 takes the result of `x * 2.0` for a sparse tensor, which it cannot trace.
        return [
            keras.tree.map_structure(lambda tensor: keras.KerasTensor(tensor.shape, "float32"), inputs),
            keras.KerasTensor((), "float32"),
        ]

    @property
    def is_observed(self) -> bool:
        """Whether the range is known."""
        return self.limits is not None or bool(self.batches > 0)

    def _ends(self, tensors, observe):
        if self.limits is not None:
            return self.limits
        ops = keras.ops
        ends = logit_ends if self.before_softmax else _extremes
        lows, highs = zip(*(ends(ops.stop_gradient(tensor)) for tensor in tensors), strict=True)
        low, high = ops.min(ops.stack(lows)), ops.max(ops.stack(highs))
        if not observe:
            return ops.cond(self.batches > 0, lambda: (self.low.value, self.high.value), lambda: grid(low, high))
        low, high = ops.unstack(least_over_replicas(ops.stack([low, -high])) * [1.0, -1.0])
        kept = ops.minimum(self.momentum, self.batches / (self.batches + 1))
        self.mean_low.assign(kept * self.mean_low + (1 - kept) * low)
        self.mean_high.assign(kept * self.mean_high + (1 - kept) * high)
        self.batches.assign_add(1)
        low, high = grid(self.mean_low, self.mean_high)
        self.low.assign(low)
        self.high.assign(high)
        return low, high

    def get_config(self) -> dict[str, Any]:
        names = ("momentum", "limits", "inference_only", "before_softmax")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _extremes(tensor):
    return keras.ops.min(tensor), keras.ops.max(tensor)
