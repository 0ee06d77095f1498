"""The files that go with a .tflite file."""

import json
from pathlib import Path
from typing import Any

from keras_opt.core.files import write_atomic
from keras_opt.export.file_tensors import FileTensor
from keras_opt.export.metadata import ImageInput, read_metadata
from keras_opt.export.predict_script import write_predict_script
from keras_opt.export.tflite_export import TFLiteExport

LABELS, PREPROCESS, PREDICT = "labels.txt", "preprocess.json", "predict.py"


def write_sidecars(export: TFLiteExport) -> tuple[Path, ...]:
    """Write what a program needs beside an exported file, into its folder.

    - `labels.txt`: the class names, one a line, in output order; where the file has them.
    - `preprocess.json`: for each input and output its name, layout, shape, type, scale and zero point; for an image
      also its colours, the range of its raw values and how images are resized in training.
    - `predict.py`: a script that classifies image files, without keras_opt; for an image classifier.

    Args:
        export: What `to_tflite` returned.

    Returns:
        The paths written.

    Example:
        >>> import keras, tempfile
        >>> from keras_opt.export import to_tflite
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
        >>> export = to_tflite(model, tempfile.mkdtemp() + "/model.tflite", class_names=["cat", "dog"])
        >>> [path.name for path in write_sidecars(export)]
        ['labels.txt', 'preprocess.json', 'predict.py']
    """
    folder, image = export.path.parent, read_metadata(export.path).image
    written = []
    if export.class_names:
        written.append(folder / LABELS)
        write_atomic(written[-1], "".join(f"{name}\n" for name in export.class_names))
    written.append(folder / PREPROCESS)
    write_atomic(written[-1], json.dumps(_preprocessing(export, image), indent=2) + "\n")
    if image is not None and len(export.outputs) == 1 and export.outputs[0].shape[1:] > (1,):
        written.append(folder / PREDICT)
        write_predict_script(written[-1], export.path.name)
    return tuple(written)


def _preprocessing(export: TFLiteExport, image: ImageInput | None) -> dict[str, Any]:
    inputs = [_facts(tensor) for tensor in export.inputs]
    if image is not None:
        _, height, width, channels = export.inputs[0].shape
        inputs[0] |= {
            "colors": "RGB" if channels == 3 else "grey",
            "range": [image.minimum, image.maximum],
            "resize": {"height": height, "width": width, "method": "bilinear, antialiased, stretched to size"},
        }
    return {
        "model": export.path.name,
        "quantize": export.quantize,
        "formula": "stored = round(real / scale) + zero_point; real = scale * (stored - zero_point); scale 0: as it is",
        "inputs": inputs,
        "outputs": [_facts(tensor) for tensor in export.outputs],
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
