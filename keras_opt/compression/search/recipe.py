"""One way from a trained model to a small file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from keras_opt.compression.channels.prune_channels import check_keep
from keras_opt.core.errors import check_choice, check_fraction, kind_error
from keras_opt.export.tflite import KINDS


@dataclass(frozen=True)
class CompressionRecipe:
    """One way to a small file, for `compress`: a kind of export, and what is trained before.

    Args:
        quantize: The kind of `to_tflite`.
        keep: Float in (0, 1], the share of the channels that stay, or a dict of such from layers, as `prune_channels`
            takes it; those that go are made up for by distillation from the float model. Default 1, all.
        sparsity: Fraction in [0, 1) of the weights of each kernel that are set to zero. Depthwise convolutions, whose
            weights are few and matter much, stay dense where there is another kernel, and so do frozen layers. Default
            0.
        aware: Whether quantization-aware training comes last. Default False.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: One is out of its range.

    Example:
        >>> from keras_opt.compression import CompressionRecipe
        >>> recipes = [*CompressionRecipe.defaults(), CompressionRecipe("int8", keep={"conv*": 0.5}, aware=True)]
        >>> recipes[-1].name
        'channels of conv* 50%, QAT, int8'
    """

    quantize: str
    keep: float | Mapping[str, float] = 1.0
    sparsity: float = 0.0
    aware: bool = False

    def __post_init__(self) -> None:
        check_choice("CompressionRecipe", "quantize", self.quantize, KINDS)
        check_keep("CompressionRecipe", self.keep)
        check_fraction("CompressionRecipe", "sparsity", self.sparsity)
        if not isinstance(self.aware, bool):
            raise kind_error("CompressionRecipe", "aware", self.aware, "a bool", "Give True or False.")

    @staticmethod
    def defaults() -> tuple["CompressionRecipe", ...]:
        """What `compress` tries if it is not told, from cheap to costly.

        All kinds after training but int16x8; int8 with quantization-aware training; the same with 50% and 80% zeros;
        and with 75%, 50% and 25% of the channels.
        """
        return (
            *(CompressionRecipe(kind) for kind in ("float32", "float16", "dynamic", "int8", "int4")),
            CompressionRecipe("int8", aware=True),
            *(CompressionRecipe("int8", sparsity=sparsity, aware=True) for sparsity in (0.5, 0.8)),
            *(CompressionRecipe("int8", keep=keep, aware=True) for keep in (0.75, 0.5, 0.25)),
        )

    @property
    def cuts(self) -> bool:
        """Whether channels go."""
        return isinstance(self.keep, Mapping) or self.keep < 1

    @property
    def name(self) -> str:
        """The recipe in words."""
        steps = [self._channels] if self.cuts else []
        steps += [f"{100 * self.sparsity:g}% zeros"] if self.sparsity else []
        steps += ["QAT"] if self.aware else []
        return ", ".join([*steps, self.quantize])

    @property
    def _channels(self):
        if not isinstance(self.keep, Mapping):
            return f"{100 * self.keep:g}% channels"
        return "channels of " + ", ".join(f"{layers} {100 * share:g}%" for layers, share in self.keep.items())

    @property
    def file_name(self) -> str:
        """The name of its file, without the suffix."""
        steps = [f"channels_{self._channels_in_short}"] if self.cuts else []
        steps += [f"zeros_{100 * self.sparsity:g}"] if self.sparsity else []
        return "_".join([*steps, *(["qat"] if self.aware else []), self.quantize])

    @property
    def _channels_in_short(self):
        if not isinstance(self.keep, Mapping):
            return f"{100 * self.keep:g}"
        shares = json.dumps(list(self.keep.items()), default=float)  # a list, for the order counts
        return hashlib.sha256(shares.encode()).hexdigest()[:8]

    def epochs(self, epochs: int) -> int:
        """All the epochs that it trains, where one fine-tuning has `epochs`."""
        return epochs * (2 * self.cuts + (self.sparsity > 0) + self.aware)
