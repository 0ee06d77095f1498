"""The files that go with a .tflite file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_opt.core.errors import InputError, check_path
from keras_opt.core.files import write_atomic
from keras_opt.export.file_tensors import FileTensor, inputs_and_outputs
from keras_opt.export.metadata import ImageInput, read_metadata
from keras_opt.export.model_file import unpack
from keras_opt.export.predict_script import write_predict_script

LABELS, PREPROCESS, PREDICT = "labels.txt", "preprocess.json", "predict.py"


def write_sidecars(path: str | os.PathLike) -> tuple[Path, ...]:
    """Write what a program needs beside the file of `to_tflite`, into its folder.

    - `labels.txt`: the class names, one a line, in output order; where the file has them.
    - `preprocess.json`: for each input and output its name, layout, shape, type, scale and zero point; for an image
      also its colours, the range of its raw values and how images are resized in training.
    - `predict.py`: a script that classifies image files, without keras_opt; for an image classifier.

    Args:
        path: The .tflite file.

    Returns:
        The paths written.

    Raises:
        InputError: There is no such file, or `to_tflite` has not written it.

    Example:
        >>> import keras, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> export = to_tflite(model, tempfile.mkdtemp() + "/model.tflite", class_names=["cat", "dog"])
        >>> [path.name for path in write_sidecars(export.path)]
        ['labels.txt', 'preprocess.json', 'predict.py']
    """
    check_path("write_sidecars", "path", path)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"write_sidecars: there is no file {path}. Give the path of a .tflite file.")
    metadata = read_metadata(path)
    inputs, outputs = inputs_and_outputs(unpack(path.read_bytes()))
    written = []
    if metadata.labels:
        written.append(path.with_name(LABELS))
        write_atomic(written[-1], "".join(f"{name}\n" for name in metadata.labels))
    written.append(path.with_name(PREPROCESS))
    facts = _preprocessing(path.name, inputs, outputs, metadata.image)
    write_atomic(written[-1], json.dumps(facts, indent=2) + "\n")
    if metadata.image is not None and len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] > 1:
        written.append(path.with_name(PREDICT))
        write_predict_script(written[-1], path.name)
    return tuple(written)


def _preprocessing(
    name: str, inputs: Sequence[FileTensor], outputs: Sequence[FileTensor], image: ImageInput | None
) -> dict[str, Any]:
    takes = [_facts(tensor) for tensor in inputs]
    if image is not None:
        _, height, width, channels = inputs[0].shape
        takes[0] |= {
            "colors": "RGB" if channels == 3 else "grey",
            "range": [image.minimum, image.maximum],
            "resize": {"height": height, "width": width, "method": "bilinear, antialiased, stretched to size"},
        }
    return {
        "model": name,
        "formula": "stored = round(real / scale) + zero_point; real = scale * (stored - zero_point); scale 0: as it is",
        "inputs": takes,
        "outputs": [_facts(tensor) for tensor in outputs],
    }


def _facts(tensor: FileTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "layout": _LAYOUTS.get(len(tensor.shape), ""),
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


_LAYOUTS = {2: "NC", 3: "NTC", 4: "NHWC"}
