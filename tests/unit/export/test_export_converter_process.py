"""The process of the converter: used again, and gone when it must be."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from export_models import small_model

from keras_opt.core.errors import InputError
from keras_opt.export import converter, converter_child, to_tflite, verify
from keras_opt.export.converter_process import CONVERTER, ConverterProcess


def process():
    return CONVERTER._process


def test_one_process_serves_every_conversion(exports, tmp_path):
    first = process()
    to_tflite(small_model(), tmp_path / "m.tflite")
    assert process() is first
    assert first.poll() is None


def test_a_crash_is_an_error_and_the_next_conversion_works(monkeypatch, tmp_path):
    """TensorFlow's int8 calibration does crash on a recurrent loop, which we unroll."""
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(8), keras.layers.Dense(2)], name="memory")
    x = np.random.default_rng(0).normal(size=(100, 6, 3)).astype("float32")
    with monkeypatch.context() as patch:
        patch.setattr(converter, "unrolled", lambda owner, model: model)
        message = (
            r"'memory' cannot be written as int8: TensorFlow's converter crashed \(SIG[A-Z]+; .*\)\. Use another kin"
        )
        with pytest.raises(InputError, match=message):
            to_tflite(model, tmp_path / "m.tflite", "int8", x)
    assert list(tmp_path.iterdir()) == []
    assert process() is None
    file = to_tflite(model, tmp_path / "m.tflite", "int8", x)
    assert verify(model, file.path, x, task="regression").relative_error < 0.1


def test_an_interrupt_ends_the_process(monkeypatch, exports, tmp_path):
    def interrupted(process, folder):
        raise KeyboardInterrupt

    CONVERTER.start()
    running = process()
    monkeypatch.setattr(ConverterProcess, "_ask", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        to_tflite(small_model(), tmp_path / "m.tflite")
    assert running.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_the_process_that_started_it():
    """Whose death closes its standard input."""
    ended = subprocess.run(
        [sys.executable, "-P", converter_child.__file__], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert ended.returncode == 0


def test_a_forked_process_does_not_touch_it(monkeypatch):
    ours = ConverterProcess()
    ours._process, ours._owner = object(), -1  # as a fork finds it
    ours.stop()
    assert ours._process is None
