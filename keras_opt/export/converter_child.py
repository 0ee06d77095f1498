"""TensorFlow's converter as a program of its own: its C++ may take down the process that it runs in, LiteRT's too.

    python converter_child.py

Reads the path of a folder from each line of standard input, converts the graph in it, runs the file once and answers
with a line: "done" (the file is MODEL) or "failed" (the reason is REASON). What TensorFlow says meanwhile goes to LOG.
It ends with its standard input, that is with the process that started it.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import tensorflow as tf

GRAPH, SETTINGS, ROWS = "graph", "settings.json", "rows.npz"  # what it is given
MODEL, REASON, LOG = "model.tflite", "reason.txt", "log.txt"  # what it leaves
DONE, FAILED = ANSWERS = "done", "failed"


def main() -> None:
    """Answer one request after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits; it ends this one
    answers = os.fdopen(os.dup(1), "w")
    requests = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        folder = Path(requests.get())
        with _output_to(folder / LOG):
            answer = _answer(folder)
        print(answer, file=answers, flush=True)


def _read(requests):
    for line in sys.stdin:
        requests.put(line.rstrip("\n"))
    os._exit(0)  # also in the middle of a conversion, which nobody waits for


class _output_to:
    """Sends both standard streams, C++'s too, to a file."""

    def __init__(self, path):
        self._path = path

    def __enter__(self):
        log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    def __exit__(self, *error):
        sys.stdout.flush()
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _answer(folder):
    try:
        (folder / MODEL).write_bytes(_converted(folder))
        _run(folder / MODEL)
    except Exception as error:  # the converter raises whatever it meets
        (folder / REASON).write_text(str(error), encoding="utf-8")
        return FAILED
    return DONE


def _converted(folder):
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    graph = tf.saved_model.load(folder / GRAPH)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.call])
    if settings["optimize"]:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings["types"]:
        converter.target_spec.supported_types = [tf.as_dtype(name) for name in settings["types"]]
    if settings["operators"]:
        converter.target_spec.supported_ops = [tf.lite.OpsSet(name) for name in settings["operators"]]
    if settings["io_dtype"]:
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(settings["io_dtype"])
    if (folder / ROWS).exists():
        converter.representative_dataset = lambda: _rows(folder / ROWS)
    file = converter.convert()
    return _in_int4(file) if settings["int4"] else file


def _rows(path):
    """What the converter calibrates with: for each row a list of one batch an input."""
    with np.load(path) as arrays:
        inputs = [arrays[name] for name in arrays.files]
    return ([array[np.newaxis] for array in row] for row in zip(*inputs, strict=True))


def _in_int4(file):
    """A float32 file with the kernels of its layers in four bits, a scale for each output channel."""
    quantizer = importlib.import_module("ai_edge_quantizer")
    work = quantizer.Quantizer(bytearray(file))
    work.load_quantization_recipe(quantizer.recipe.dynamic_wi4_afp32())
    return bytes(work.quantize().quantized_model)


def _run(path):
    """Once, on zeros: there are files that LiteRT crashes on, which must happen here."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter(str(path))
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()


if __name__ == "__main__":
    main()
