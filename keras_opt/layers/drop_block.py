"""Dropout of whole blocks of a feature map."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_opt.core.errors import argument_error, check_at_least, check_choice, check_fraction
from keras_opt.layers.random_keys import bernoulli, next_key
from keras_opt.layers.seed_generators import saves_its_seed, seed_generator

_RANKS = {3: "(batch, length, channels)", 4: "(batch, height, width, channels)"}


def seed_probability(rate: float, sizes: Sequence[Any], block_size: int) -> Any:
    """The probability of a block at each place where one fits, so that about `rate` of the map is dropped.

        gamma = rate * prod(size / (block_size * (size - block_size + 1)))      over the sizes of the map

    (equation 1 of the paper, for maps of any rank).

    Args:
        rate: The share of the map to drop.
        sizes: The sizes of the map, without batch and channels: ints or scalar tensors.
        block_size: The side of a block.
    """
    for size in sizes:
        size = ops.cast(size, "float32")
        rate = rate * size / (block_size * (size - block_size + 1))
    return rate


def spread(seeds: Any, axis: int, block_size: int) -> Any:
    """Let each True reach over `block_size` places of `axis`, from its own on, which grows by `block_size - 1`."""
    margins = [(0, 0)] * len(seeds.shape)
    margins[axis] = (block_size - 1, block_size - 1)
    seeds = ops.pad(seeds, margins, constant_values=False)
    reach = 1
    while reach < block_size:
        step = min(reach, block_size - reach)
        end = ops.shape(seeds)[axis] - step
        before, after = [slice(None)] * len(seeds.shape), [slice(None)] * len(seeds.shape)
        before[axis], after[axis] = slice(None, end), slice(step, None)
        seeds = ops.logical_or(seeds[tuple(before)], seeds[tuple(after)])
        reach += step
    return seeds


@keras.saving.register_keras_serializable("keras_opt")
@saves_its_seed
class DropBlock(keras.layers.Layer):
    """Drops square blocks of a feature map in training, in each channel on its own.

    Neighbours in a feature map say much the same, so a convolutional network hardly misses the single values that
    `keras.layers.Dropout` takes; it does miss a whole block. For convolutional layers of networks that overfit: a small
    ResNet gained 1.7 points of test accuracy with 500 images and 1.2 with 5,000, and lost 0.4 with 55,000 in four
    epochs (benchmarks/results/regularizers.json). Whole channels are dropped by `keras.layers.SpatialDropout2D`; behind
    a `Dense` layer take `Dropout`.

        seed of a block ~ Bernoulli(gamma), for each channel and each place where a whole block fits
        gamma = rate * prod(size / (block_size * (size - block_size + 1)))      over height and width, or length
        output = inputs * mask * (values in mask / ones in mask)

    The last factor, one for the whole batch, keeps the mean of the map; it is not the expectation of each single value,
    because fewer blocks reach the borders than the middle. Blocks overlap, so the share that is dropped is less than
    `rate`, the more so the higher it is: on 28x28 with blocks of 7, 0.095 for 0.1 and 0.25 for 0.3. In inference it
    gives the inputs themselves. The authors let `rate` rise over the training and stop at 0.1 (ResNet-50, ImageNet).

    Args:
        rate: Float in [0, 1), about the share of each map to drop.
        block_size: Int of at least 1, the side of a block, at most that of the map; 1 is dropout of single values.
            Default 7, the authors' choice for the last two groups of a ResNet-50, whose maps have 14 and 7.
        data_format: `"channels_last"` or `"channels_first"`; `keras.config.image_data_format()` by default.
        seed: Int of at least 0; `None` draws one (after `keras.utils.set_random_seed` always the same one). Give each
            layer another: those of one seed draw alike.

    Input shape: `(batch, height, width, channels)` or `(batch, length, channels)`; or with the channels first.

    Output shape: the input's.

    Raises:
        ValueError: An argument is out of its range, or a block is larger than the map.

    Cost: one seed counter; one random number a value of the map, and a few logical operations on it.

    Source: G. Ghiasi, T.-Y. Lin and Q. V. Le, 2018, "DropBlock: A regularization method for convolutional networks",
        algorithm 1 and equation 1.

    Example:
        >>> import keras
        >>> from keras_opt.layers import DropBlock
        >>> model = keras.Sequential(
        ...     [keras.Input((28, 28, 1)), keras.layers.Conv2D(16, 3, activation="relu"), DropBlock(0.1, 5)]
        ... )
    """

    def __init__(
        self, rate: float, block_size: int = 7, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ):
        check_fraction("DropBlock", "rate", rate)
        check_at_least("DropBlock", "block_size", block_size, 1)
        check_choice("DropBlock", "data_format", data_format, ("channels_last", "channels_first", None))
        super().__init__(**kwargs)
        self.rate = float(rate)
        self.block_size = int(block_size)
        self.data_format = data_format or keras.config.image_data_format()
        self.seed = seed
        self.seed_generator = seed_generator("DropBlock", seed)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if len(input_shape) not in _RANKS:
            cure = "Behind a Dense layer, or for whole videos, take keras.layers.Dropout."
            raise argument_error("DropBlock", "inputs", input_shape, f"a batch {' or '.join(_RANKS.values())}", cure)
        sizes = [input_shape[axis] for axis in self._axes(len(input_shape))]
        if any(size is not None and size < self.block_size for size in sizes):
            must_be = f"at most {min(size for size in sizes if size is not None)}, the side of the feature map"
            cure = "Take a smaller block, or drop earlier in the network, where maps are larger."
            raise argument_error("DropBlock", "block_size", self.block_size, must_be, cure)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        dropped = self._dropped(next_key(self.seed_generator), ops.shape(inputs))
        kept = ops.cast(ops.logical_not(dropped), keras.backend.result_type(inputs.dtype, "float32"))
        scale = ops.divide_no_nan(1.0, ops.mean(kept))  # all may be dropped
        return ops.where(dropped, 0, inputs * ops.cast(scale, inputs.dtype))

    def _dropped(self, key: Any, shape: Sequence[Any]) -> Any:
        axes = self._axes(len(shape))
        gamma = seed_probability(self.rate, [shape[axis] for axis in axes], self.block_size)
        places = [size - self.block_size + 1 if axis in axes else size for axis, size in enumerate(shape)]
        dropped = bernoulli(key, places, gamma)
        for axis in axes:
            dropped = spread(dropped, axis, self.block_size)
        return dropped

    def _axes(self, rank: int) -> range:
        return range(1, rank - 1) if self.data_format == "channels_last" else range(2, rank)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {"rate": self.rate, "block_size": self.block_size, "data_format": self.data_format, "seed": self.seed}
        return {**super().get_config(), **config}
