"""What the file of a model says about itself, from the arguments of `to_tflite`."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import keras

from keras_opt.core.errors import argument_error, kind_error
from keras_opt.export.metadata import COLOR_SPACES, ImageField, ImageInput, ModelMetadata


def file_metadata(
    model: keras.Model,
    metadata: ModelMetadata | None,
    class_names: Sequence[str] | None,
    name: str | None,
    description: str | None,
) -> tuple[ModelMetadata, int]:
    """What the file says about itself, and the position of the output that its labels belong to.

    Raises:
        InputError: The class names are none, or as many as no output has values.
        TypeError: Something is no text.
    """
    if metadata is None:
        shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        metadata = ModelMetadata(
            name=name or model.name,
            description=description or _describe(shapes, model.outputs),
            version="1",
            author="keras_opt",
            image=_image_input(shapes),
            labels=() if class_names is None else _labels(class_names),
        )
    elif not isinstance(metadata, ModelMetadata):
        raise kind_error("to_tflite", "metadata", metadata, "a ModelMetadata", "Give keras_opt.export.ModelMetadata().")
    elif (class_names, name, description) != (None, None, None):
        cure = "Give its fields `labels`, `name` and `description` there."
        raise argument_error("to_tflite", "metadata", metadata, "alone, without what it holds itself", cure)
    if not isinstance(metadata.name, str) or not isinstance(metadata.description, str):
        received = {"name": metadata.name, "description": metadata.description}
        raise kind_error("to_tflite", "metadata", received, "texts", "Give both as str.")
    names = metadata.labels
    if not all(map(is_label, names)):
        must_be, cure = "texts of one line each", "Take out empty names, line breaks and what is no UTF-8."
        raise argument_error("to_tflite", "class_names", class_names, must_be, cure)
    counts = [tuple(output.shape)[-1] if len(output.shape) > 1 else 1 for output in model.outputs]
    if class_names is None and not names:
        return metadata, 0
    if len(names) not in counts:
        must_be = f"{' or '.join(map(str, counts))} names, one per output of the model"
        raise argument_error("to_tflite", "class_names", names, must_be, f"{len(names)} were given.")
    return metadata, counts.index(len(names))


def is_label(name: Any) -> bool:
    """Whether `name` can be a line of a file of labels; the name of a folder may hold line breaks, and no UTF-8."""
    return isinstance(name, str) and name.encode(errors="ignore").decode().splitlines() == [name]


def _labels(class_names):
    if isinstance(class_names, str | Mapping | Set) or not isinstance(class_names, Iterable):
        cure = 'Give a list of them, for example ["cat", "dog"].'
        raise kind_error("to_tflite", "class_names", class_names, "a sequence of names", cure)
    return tuple(class_names)


def _image_input(shapes):
    """The metadata of an image input; `None` where the input is no image, or one of several."""
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][-1] not in COLOR_SPACES:
        return None
    height, width, channels = shapes[0]
    color_space = COLOR_SPACES[channels]
    colors = "grey" if color_space == ImageField.GRAYSCALE else "RGB"
    return ImageInput("image", f"{height} x {width} {colors} pixels, raw 0..255.", color_space)


def _describe(shapes, outputs):
    takes = " and ".join(" x ".join(map(str, shape)) for shape in shapes)
    gives = " and ".join(" x ".join(map(str, output.shape[1:])) or "1" for output in outputs)
    return f"{takes or 1} input to {gives} outputs."
