"""The process of the converter: used again, and gone when it must be.

But for the first test and the one that is left to `--full`, a few lines of Python stand in for TensorFlow's converter:
the true one takes seconds to start, and more than its share of the suite.
"""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from export_models import small_model

from keras_opt.core.errors import InputError
from keras_opt.export import converter, converter_child, converter_process, to_tflite, verify
from keras_opt.export.converter_process import CONVERTER, ConverterCrash, ConverterProcess

ANSWERS = "import sys\nfor line in sys.stdin: print('done', flush=True)"
DIES = "import os, sys; sys.stdin.readline(); os.abort()"


def process():
    return CONVERTER._process


@pytest.fixture
def scripted(monkeypatch):
    """A `ConverterProcess` whose process runs a script."""

    def make(script):
        started = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-3, text=True)
        monkeypatch.setattr(converter_process, "_started", lambda: started)
        made = ConverterProcess()
        request.append(made)
        return made

    request = []
    yield make
    for made in request:
        made.stop()


def test_one_process_serves_every_conversion(exports, tmp_path):
    CONVERTER.start()
    first = process()
    to_tflite(small_model(), tmp_path / "m.tflite")
    assert process() is first
    assert first.poll() is None


def test_a_crash_is_an_error(scripted, monkeypatch, tmp_path):
    dying = scripted(DIES)
    monkeypatch.setattr(converter, "CONVERTER", dying)
    message = (
        r"model 'small' cannot be written as float32: TensorFlow's converter crashed \(SIGABRT; it gave no reason\)"
    )
    with pytest.raises(InputError, match=message):
        to_tflite(small_model(), tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
    assert dying._process is None


@pytest.mark.full
def test_after_a_crash_the_next_conversion_works(monkeypatch, tmp_path):
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


def test_another_process_takes_the_place_of_one_that_died(scripted, tmp_path):
    ours = scripted(DIES)
    with pytest.raises(ConverterCrash, match="SIGABRT"):
        ours.convert(tmp_path)
    scripted(ANSWERS)
    assert ours.convert(tmp_path)


def test_a_large_model_ends_it(scripted, monkeypatch, tmp_path):
    """It would keep gigabytes, which the C library does not give back."""
    ours = scripted(ANSWERS)
    monkeypatch.setattr(converter_process, "LARGE_BYTES", 1000)
    (tmp_path / "variables").write_bytes(b"0" * 1000)
    assert ours.convert(tmp_path)
    running = ours._process
    assert running.poll() is None
    (tmp_path / "model.tflite").write_bytes(b"0")
    assert ours.convert(tmp_path)
    assert ours._process is None
    assert running.poll() is not None


def test_an_interrupt_ends_the_process(scripted, monkeypatch, tmp_path):
    def interrupted(process, folder):
        raise KeyboardInterrupt

    ours = scripted(ANSWERS)
    ours.start()
    running = ours._process
    monkeypatch.setattr(converter, "CONVERTER", ours)
    monkeypatch.setattr(ConverterProcess, "_ask", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        to_tflite(small_model(), tmp_path / "m.tflite")
    assert running.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_the_process_that_started_it(tmp_path):
    """Whose death closes its standard input, also in the middle of a conversion."""
    (tmp_path / "tensorflow.py").write_text("")
    waits = "import time\nprint('waits', flush=True)\ndef load(folder): time.sleep(60)\n"
    stand_in = f"import sys, types\n{waits}\nsaved_model = types.SimpleNamespace(load=load)\n"
    (tmp_path / "tensorflow.py").write_text(stand_in)
    (tmp_path / converter_child.SETTINGS).write_text("{}")
    child = subprocess.Popen(
        [sys.executable, "-P", converter_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    child.stdin.write(f"{tmp_path}\n".encode())
    child.stdin.flush()
    assert re.match(b"waits", child.stdout.readline())
    child.stdin.close()
    assert child.wait(30) == 0
    child.stdout.close()


def test_a_forked_process_does_not_touch_it(monkeypatch):
    ours = ConverterProcess()
    ours._process, ours._owner = object(), -1  # as a fork finds it
    ours.stop()
    assert ours._process is None
