"""Metadata written and read back, and what a repacked file must keep."""

import zipfile

import numpy as np
import pytest
from export_models import CLASS_NAMES, small_model
from flatbuffers.table import Table
from full_rows import full

from keras_opt.core.errors import InputError
from keras_opt.export import read_labels, read_metadata, to_tflite
from keras_opt.export.metadata import ImageInput, ModelMetadata, add_metadata
from keras_opt.export.model_file import pack, unpack

TEN = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def stripped(file):
    """The file without our metadata entry and without the zip at its end."""
    tree = unpack(file)
    tree.metadata = [entry for entry in tree.metadata if entry.name != b"TFLITE_METADATA"]
    tree.buffers.pop()
    return pack(tree)


def test_file_says_what_it_is(exports):
    assert read_metadata(exports["int8"].path) == ModelMetadata(
        name="small",
        description="12 x 12 x 3 input to 3 outputs.",
        version="1",
        author="keras_opt",
        image=ImageInput("image", "12 x 12 RGB pixels, raw 0..255.", color_space=1),
        labels=CLASS_NAMES,
    )


@pytest.mark.parametrize(("shape", "color_space"), [((6, 7, 1), 2), full((6, 7, 3), 1)])
def test_color_space_follows_the_channels(shape, color_space, tmp_path):
    export = to_tflite(
        small_model(input_shape=shape), tmp_path / "m.tflite", name="mine", description="Mine, all mine."
    )
    metadata = read_metadata(export.path)
    assert (metadata.name, metadata.description, metadata.labels) == ("mine", "Mine, all mine.", ())
    assert metadata.image.color_space == color_space


def test_input_that_is_no_image_has_no_image_properties(tmp_path):
    export = to_tflite(small_model(input_shape=(6, 7, 5)), tmp_path / "m.tflite")
    assert read_metadata(export.path).image is None


def test_any_metadata_survives_the_round_trip(exports, tmp_path):
    path = tmp_path / "model.tflite"
    image = ImageInput("Bild", "Größe 3", 2, mean=127.5, std=0.5, minimum=-1.0, maximum=1.0)
    metadata = ModelMetadata("名前", "", "v2", "A. Author", image, labels=("Äpfel", "b c"))
    path.write_bytes(add_metadata(unpack(stripped(exports["int8"].path.read_bytes())), metadata))
    assert read_metadata(path) == metadata


def test_labels_are_a_zip_at_the_end_of_the_file(exports):
    path = exports["float32"].path
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "cat\ndog\nZebra & Co.\n"
    assert read_labels(path) == CLASS_NAMES


def test_metadata_of_ten_classes_costs_less_than_1500_bytes(exports):
    bare = stripped(exports["int8"].path.read_bytes())
    metadata = ModelMetadata("Fashion-MNIST", "Tells ten kinds of clothes apart.", "1", "keras_opt", labels=TEN)
    assert 0 < len(add_metadata(unpack(bare), metadata)) - len(bare) < 1500


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_file_keeps_its_identifier_and_puts_weights_on_16_bytes(kind, exports):
    file = exports[kind].path.read_bytes()
    assert file[4:8] == b"TFL3"
    for buffer in unpack(file).buffers:
        if buffer.data is not None:
            assert buffer.data.__array_interface__["data"][0] % 16 == np.frombuffer(file, "u1").ctypes.data % 16


def test_repacking_loses_nothing(exports):
    file = stripped(exports["int8"].path.read_bytes())
    assert pack(unpack(file)) == file


def test_tensor_names_are_short_and_unique(exports):
    names = [tensor.name for tensor in unpack(exports["int8"].path.read_bytes()).subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert not any(b";" in name for name in names)


def test_file_without_metadata(exports, tmp_path):
    path = tmp_path / "bare.tflite"
    path.write_bytes(stripped(exports["float32"].path.read_bytes()))
    assert read_labels(path) == ()
    with pytest.raises(InputError, match=r"bare\.tflite holds no TFLite metadata\. Export it again with keras_opt"):
        read_metadata(path)


def test_file_that_is_no_model(tmp_path):
    path = tmp_path / "note.tflite"
    path.write_text("not a model")
    with pytest.raises(InputError, match=r"This is no \.tflite file\. Write one with keras_opt\.export\.to_tflite\."):
        read_metadata(path)


def test_fields_stand_where_the_published_schema_has_them(exports):
    """Walked by field numbers typed from metadata_schema.fbs, apart from the package's own reader."""
    tree = unpack(exports["int8"].path.read_bytes())
    (entry,) = (entry for entry in tree.metadata if entry.name == b"TFLITE_METADATA")
    packed = tree.buffers[entry.buffer].data.tobytes()
    assert packed[4:8] == b"M001"
    model = Table(packed, int.from_bytes(packed[:4], "little"))
    assert [text(model, n) for n in (0, 2, 4, 7)] == ["small", "1", "keras_opt", "1.0.0"]
    (subgraph,) = tables(model, 3)
    (image,), (output,) = tables(subgraph, 2), tables(subgraph, 3)
    assert (text(image, 0), text(output, 0)) == ("image", "output")
    content = table(image, 3)
    assert (byte(content, 0), byte(table(content, 1), 0)) == (2, 1)  # ImageProperties, RGB
    (unit,) = tables(image, 4)
    assert byte(unit, 0) == 1  # NormalizationOptions
    assert [floats(table(unit, 1), n) for n in (0, 1)] == [[0.0], [1.0]]  # mean, std
    assert [floats(table(image, 5), n) for n in (0, 1)] == [[255.0], [0.0]]  # max, min
    (labels,) = tables(output, 6)
    assert (text(labels, 0), byte(labels, 2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


def text(parent, number):
    return parent.String(parent.Pos + parent.Offset(4 + 2 * number)).decode()


def byte(parent, number):
    return parent.Bytes[parent.Pos + parent.Offset(4 + 2 * number)]


def table(parent, number):
    return Table(parent.Bytes, parent.Indirect(parent.Pos + parent.Offset(4 + 2 * number)))


def tables(parent, number):
    offset = parent.Offset(4 + 2 * number)
    start = parent.Vector(offset)
    return [Table(parent.Bytes, parent.Indirect(start + 4 * i)) for i in range(parent.VectorLen(offset))]


def floats(parent, number):
    offset = parent.Offset(4 + 2 * number)
    return np.frombuffer(parent.Bytes, "<f4", parent.VectorLen(offset), parent.Vector(offset)).tolist()
