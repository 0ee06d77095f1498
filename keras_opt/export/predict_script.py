"""The predict.py that goes with an exported model: it needs LiteRT, NumPy and Pillow, not this package."""

import ast
import inspect
import os
from importlib import resources

from keras_opt.core.files import write_atomic
from keras_opt.data import decode

TEMPLATE = "predict.py.txt"
PLACE = "# DECODE_IMAGE\n"
MODEL = "MODEL_NAME"


def write_predict_script(path: str | os.PathLike, model: str = "model.tflite") -> None:
    """Write the script that classifies image files with the .tflite file and labels.txt beside it.

    It reads images with the very code that read them in training: the functions of `keras_opt.data.decode`, copied.

    Args:
        path: The file to write, `predict.py` in the folder of the model.
        model: The name of the .tflite file.
    """
    template = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = template.replace(MODEL, repr(model))
    write_atomic(path, template.replace(PLACE, _functions_of(inspect.getsource(decode))))


def _functions_of(source):
    """The module's text after its docstring and imports (the template has those imports)."""
    statements = ast.parse(source).body
    first = next(s for s in statements if not isinstance(s, ast.Expr | ast.Import | ast.ImportFrom))
    return "".join(source.splitlines(keepends=True)[first.lineno - 1 :])
