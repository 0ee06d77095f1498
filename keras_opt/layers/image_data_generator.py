"""The layers that stand in for Keras 2's `ImageDataGenerator`."""

import inspect
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_opt.core.errors import argument_error, check_choice, did_you_mean, is_number
from keras_opt.layers.brightness_factor import RandomBrightnessFactor

_OWNER = "RandomAffine.from_image_data_generator"
_INTERPOLATIONS = {0: "nearest", 1: "bilinear"}
_STATISTICS = 'Put a `keras.layers.Normalization` in the model, or take `keras_opt.data.arrays(normalize="standard")`.'
_REPLACEMENTS = {
    "featurewise_center": _STATISTICS,
    "featurewise_std_normalization": _STATISTICS,
    "samplewise_center": "Map `tf.image.per_image_standardization` over the dataset.",
    "samplewise_std_normalization": "Map `tf.image.per_image_standardization` over the dataset.",
    "zca_whitening": "Whiten the arrays beforehand, with `sklearn.decomposition.PCA(whiten=True)`.",
    "preprocessing_function": (
        "Put it into the model, by `preprocessing=keras.layers.Rescaling(1 / 127.5, -1)` of its builder "
        "(`keras_opt.models.finetune` has that of its network inside), or map it over the training and the validation "
        'dataset, after augmentation: `train.map(lambda x, y: (preprocess_input(tf.cast(x, "float32")), y))`.'
    ),
    "validation_split": "Give `validation_split` to `keras_opt.data.image_folder` or `keras_opt.data.arrays`.",
}


def like_image_data_generator(
    make_affine: Callable[..., keras.layers.Layer],
    featurewise_center: bool = False,
    samplewise_center: bool = False,
    featurewise_std_normalization: bool = False,
    samplewise_std_normalization: bool = False,
    zca_whitening: bool = False,
    zca_epsilon: float = 1e-6,
    rotation_range: float = 0,
    width_shift_range: float = 0.0,
    height_shift_range: float = 0.0,
    brightness_range: Sequence[float] | None = None,
    shear_range: float = 0.0,
    zoom_range: float | Sequence[float] = 0.0,
    channel_shift_range: float = 0.0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    rescale: float | None = None,
    preprocessing_function: Callable | None = None,
    data_format: str | None = None,
    validation_split: float = 0.0,
    interpolation_order: int = 1,
    dtype: str | None = None,
    seed: int | None = None,
) -> keras.layers.Layer | list[keras.layers.Layer]:
    """What augments as `ImageDataGenerator` with these arguments: a `RandomAffine`, or a list that begins with one.

    `RandomAffine.from_image_data_generator` says what is taken over, refused and different. In the list the shift of
    channels comes before the brightness and `rescale` last, as there.

    Args:
        make_affine: `RandomAffine`.
        seed: That of the layers; `ImageDataGenerator` took it in `flow`.

    The others are those of `ImageDataGenerator`.

    Raises:
        ValueError: An argument that cannot be honoured; the message names what to take instead.
    """
    refused = {
        "featurewise_center": featurewise_center,
        "featurewise_std_normalization": featurewise_std_normalization,
        "samplewise_center": samplewise_center,
        "samplewise_std_normalization": samplewise_std_normalization,
        "zca_whitening": zca_whitening,
        "preprocessing_function": preprocessing_function,
        "validation_split": validation_split,
    }
    for name, value in refused.items():
        if value:
            raise argument_error(_OWNER, name, value, "left out", _REPLACEMENTS[name])
    check_choice(_OWNER, "data_format", data_format, (None, "channels_last"))
    check_choice(_OWNER, "interpolation_order", interpolation_order, _INTERPOLATIONS)
    check_choice(_OWNER, "dtype", dtype, (None, "float32"))
    shift, factors = _channel_shift(channel_shift_range), _brightness(brightness_range)
    colours = []
    if shift:
        colours.append(keras.layers.RandomBrightness(shift, value_range=(0, 255), seed=seed))
    if factors:
        colours.append(RandomBrightnessFactor(factors, seed=seed))
    affine = make_affine(
        rotation_degrees=rotation_range,
        width_shift=_shift("width_shift_range", width_shift_range),
        height_shift=_shift("height_shift_range", height_shift_range),
        zoom=_zoom(zoom_range),
        shear_degrees=shear_range,
        horizontal_flip=horizontal_flip,
        vertical_flip=vertical_flip,
        fill_mode=fill_mode,
        fill_value=cval,
        interpolation=_INTERPOLATIONS[interpolation_order],
        rescale=1.0 if colours else rescale or 1.0,
        seed=seed,
    )
    if not colours:
        return affine
    return [affine, *colours, *([keras.layers.Rescaling(rescale)] if rescale else [])]


def check_names(given: Iterable[str]) -> None:
    """Raise unless all of these are arguments of `ImageDataGenerator`.

    Raises:
        TypeError: One is not.
    """
    known = list(inspect.signature(like_image_data_generator).parameters)[1:]
    for name in given:
        if name not in known:
            raise TypeError(f"{_OWNER}: unexpected argument `{name}`. {did_you_mean(name, known)}")


def _shift(name: str, value: Any) -> float:
    if not is_number(value):
        raise argument_error(_OWNER, name, value, "one number", "Give the largest shift; all below it are drawn too.")
    if value < 1 or isinstance(value, numbers.Integral):
        return value
    if value != int(value):
        raise argument_error(_OWNER, name, value, "a fraction below 1 or whole pixels", f"Give {int(value)}.")
    return int(value)


def _zoom(value: Any) -> Any:
    return tuple(end - 1 for end in value) if isinstance(value, Sequence) and all(map(is_number, value)) else value


def _brightness(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and len(value) == 2 and all(is_number(n) and n >= 0 for n in value):
        return tuple(sorted(value))
    cure = "Give for example (0.8, 1.2)."
    raise argument_error(_OWNER, "brightness_range", value, "a pair of numbers of at least 0", cure)


def _channel_shift(value: Any) -> float:
    if is_number(value) and 0 <= value <= 255:
        return value / 255
    raise argument_error(_OWNER, "channel_shift_range", value, "a number in [0, 255]", "Give grey levels.")
