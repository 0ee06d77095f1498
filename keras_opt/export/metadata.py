"""Metadata inside a .tflite file, in the layout of TFLite Support: a ModelMetadata flatbuffer and a zipped label file.

Android's code generators, MediaPipe and model viewers read it. The field numbers below are those of TFLite Support's
`metadata_schema.fbs`, version 1.1.0, file identifier "M001"; only the fields that this package fills are named.
"""

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers.number_types import Uint8Flags
from flatbuffers.table import Table

from keras_opt.core.errors import InputError
from keras_opt.export.model_file import name_ends, pack, schema, shorten_names, unpack

ENTRY_NAME = "TFLITE_METADATA"
LABEL_FILE = "labels.txt"
MIN_PARSER_VERSION = "1.0.0"

IDENTIFIER = b"M001"


class ModelField:
    """Fields of the table ModelMetadata."""

    NAME, DESCRIPTION, VERSION, SUBGRAPHS, AUTHOR, MIN_PARSER_VERSION = 0, 1, 2, 3, 4, 7


class SubGraphField:
    """Fields of SubGraphMetadata."""

    INPUTS, OUTPUTS = 2, 3


class TensorField:
    """Fields of TensorMetadata."""

    NAME, DESCRIPTION, CONTENT, PROCESS_UNITS, STATS, FILES = 0, 1, 3, 4, 5, 6


class UnionField:
    """Content and ProcessUnit hold one union each: a type byte, then the table."""

    TYPE, TABLE = 0, 1
    IMAGE_PROPERTIES, NORMALIZATION_OPTIONS = 2, 1


class ImageField:
    """Field and values of ImageProperties and its ColorSpaceType."""

    COLOR_SPACE = 0
    RGB, GRAYSCALE = 1, 2


class NormalizationField:
    """Fields of NormalizationOptions."""

    MEAN, STD = 0, 1


class StatsField:
    """Fields of Stats."""

    MAX, MIN = 0, 1


class FileField:
    """Fields of AssociatedFile, and the type of a labels file."""

    NAME, DESCRIPTION, TYPE = 0, 1, 2
    TENSOR_AXIS_LABELS = 2


COLOR_SPACES = {1: ImageField.GRAYSCALE, 3: ImageField.RGB}


@dataclass(frozen=True)
class ImageInput:
    """What the file's input tensor takes: images whose pixels become `(pixel - mean) / std`."""

    name: str
    description: str
    color_space: int
    mean: float = 0.0
    std: float = 1.0
    minimum: float = 0.0
    maximum: float = 255.0


@dataclass(frozen=True)
class ModelMetadata:
    """What a .tflite file says about itself.

    Args:
        name: The model's name.
        description: What it does, in a sentence or two.
        version: The model's version.
        author: Who made it.
        image: Its input; `None` for a model whose input is no image.
        labels: Class names in the order of the output; empty where there are none.
    """

    name: str
    description: str
    version: str
    author: str
    image: ImageInput | None = None
    labels: tuple[str, ...] = ()


def add_metadata(
    tree: Any,
    metadata: ModelMetadata,
    inputs: Sequence[str] = ("input",),
    outputs: Sequence[str] = ("output",),
    labelled: int = 0,
) -> bytes:
    """Return an unpacked file as a .tflite file with `metadata` in it and its labels zipped to its end.

    Args:
        tree: The file; it is changed.
        metadata: What it is to say about itself.
        inputs: Names for its tensors, and for its signature.
        outputs: As `inputs`.
        labelled: The position in `outputs` of the one that the labels belong to.
    """
    shorten_names(tree)
    name_ends(tree, inputs, outputs)
    packed = _pack_metadata(_tree(metadata, inputs, outputs, labelled))
    tree.buffers.append(schema().BufferT(data=np.frombuffer(packed, np.uint8)))
    tree.metadata = [*(tree.metadata or []), schema().MetadataT(name=ENTRY_NAME, buffer=len(tree.buffers) - 1)]
    return _append_labels(pack(tree), metadata.labels)


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """Return the class names packed into the .tflite file `path`; empty where it holds none."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        if LABEL_FILE not in archive.namelist():
            return ()
        return tuple(archive.read(LABEL_FILE).decode().splitlines())


def read_metadata(path: str | os.PathLike) -> ModelMetadata:
    """Return what the .tflite file `path` says about itself.

    Raises:
        InputError: The file holds no metadata.
    """
    packed = _metadata_buffer(Path(path).read_bytes())
    if packed is None or packed[4:8] != IDENTIFIER:
        raise InputError(f"{path} holds no TFLite metadata. Export it again with keras_opt.export.to_tflite.")
    model = _Reader.root(packed)
    subgraph = model.tables(ModelField.SUBGRAPHS)[0]
    return ModelMetadata(
        name=model.text(ModelField.NAME),
        description=model.text(ModelField.DESCRIPTION),
        version=model.text(ModelField.VERSION),
        author=model.text(ModelField.AUTHOR),
        image=_read_image(subgraph.tables(SubGraphField.INPUTS)[0]),
        labels=read_labels(path),
    )


def _pack_metadata(tree):
    builder = flatbuffers.Builder(1024)
    builder.Finish(_add(builder, tree), IDENTIFIER)
    return bytes(builder.Output())


def _tree(metadata, inputs, outputs, labelled):
    """The metadata as nested tables: {field number: text, byte, list or table}."""
    if len(inputs) == 1 and metadata.image is not None:
        takes = [_input_tree(metadata.image)]
    else:
        takes = [{TensorField.NAME: name} for name in inputs]
    gives = [{TensorField.NAME: name} for name in outputs]
    if metadata.labels:
        gives[labelled][TensorField.DESCRIPTION] = "One value per class."
        labels = {FileField.NAME: LABEL_FILE, FileField.DESCRIPTION: "Class names, one a line, in output order."}
        gives[labelled][TensorField.FILES] = [{**labels, FileField.TYPE: FileField.TENSOR_AXIS_LABELS}]
    return {
        ModelField.NAME: metadata.name,
        ModelField.DESCRIPTION: metadata.description,
        ModelField.VERSION: metadata.version,
        ModelField.AUTHOR: metadata.author,
        ModelField.MIN_PARSER_VERSION: MIN_PARSER_VERSION,
        ModelField.SUBGRAPHS: [
            {SubGraphField.INPUTS: takes, SubGraphField.OUTPUTS: gives},
        ],
    }


def _input_tree(image):
    return {
        TensorField.NAME: image.name,
        TensorField.DESCRIPTION: image.description,
        TensorField.CONTENT: {
            UnionField.TYPE: UnionField.IMAGE_PROPERTIES,
            UnionField.TABLE: {ImageField.COLOR_SPACE: image.color_space},
        },
        TensorField.PROCESS_UNITS: [
            {
                UnionField.TYPE: UnionField.NORMALIZATION_OPTIONS,
                UnionField.TABLE: {NormalizationField.MEAN: [image.mean], NormalizationField.STD: [image.std]},
            }
        ],
        TensorField.STATS: {StatsField.MAX: [image.maximum], StatsField.MIN: [image.minimum]},
    }


def _add(builder, value):
    """Write a text, a list of floats, a list of tables or a table; return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, dict):
        return _add_table(builder, value)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.array(value, np.float32))
    offsets = [_add(builder, item) for item in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _add_table(builder, fields):
    """Write `{field number: value}`; a whole number is an enum, one byte wide, the only scalar in this schema."""
    offsets = {number: _add(builder, value) for number, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields) + 1)
    for number, value in fields.items():
        if number in offsets:
            builder.PrependUOffsetTRelativeSlot(number, offsets[number], 0)
        else:
            builder.PrependUint8Slot(number, value, 0)
    return builder.EndObject()


def _append_labels(file, labels):
    """Add the label file as a zip archive after the model; its date is fixed, so that equal models are equal files."""
    if not labels:
        return file
    whole = io.BytesIO(file)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABEL_FILE), "\n".join(labels) + "\n")
    return whole.getvalue()


def _metadata_buffer(file):
    tree = unpack(file)
    entries = [entry for entry in tree.metadata or [] if entry.name == ENTRY_NAME.encode()]
    return tree.buffers[entries[0].buffer].data.tobytes() if entries else None


def _read_image(tensor):
    content, stats = tensor.table(TensorField.CONTENT), tensor.table(TensorField.STATS)
    if content is None:
        return None
    normalization = tensor.tables(TensorField.PROCESS_UNITS)[0].table(UnionField.TABLE)
    return ImageInput(
        name=tensor.text(TensorField.NAME),
        description=tensor.text(TensorField.DESCRIPTION),
        color_space=content.table(UnionField.TABLE).byte(ImageField.COLOR_SPACE),
        mean=normalization.number(NormalizationField.MEAN),
        std=normalization.number(NormalizationField.STD),
        minimum=stats.number(StatsField.MIN),
        maximum=stats.number(StatsField.MAX),
    )


class _Reader:
    """Reads the fields of one flatbuffer table by number; a field that is not there reads as empty."""

    def __init__(self, packed, position):
        self._table = Table(packed, position)

    @classmethod
    def root(cls, packed):
        return cls(packed, int.from_bytes(packed[:4], "little"))

    def _position(self, field):
        """Where the field's value stands; `None` where the table lacks the field."""
        offset = self._table.Offset(4 + 2 * field)
        return self._table.Pos + offset if offset else None

    def text(self, field):
        position = self._position(field)
        return "" if position is None else self._table.String(position).decode()

    def byte(self, field):
        position = self._position(field)
        return 0 if position is None else self._table.Get(Uint8Flags, position)

    def number(self, field):
        """The first number of a vector of floats."""
        start = self._table.Vector(self._position(field) - self._table.Pos)
        return float(np.frombuffer(self._table.Bytes, np.float32, count=1, offset=start)[0])

    def table(self, field):
        position = self._position(field)
        return None if position is None else _Reader(self._table.Bytes, self._table.Indirect(position))

    def tables(self, field):
        relative = self._position(field) - self._table.Pos
        start, count = self._table.Vector(relative), self._table.VectorLen(relative)
        return [_Reader(self._table.Bytes, self._table.Indirect(start + 4 * index)) for index in range(count)]
