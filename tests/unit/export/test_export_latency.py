"""`benchmark`: the order of its calls, its percentiles, what it refuses."""

import itertools
import pathlib
import re

import keras
import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.export import benchmark, latency, to_tflite


def test_calls_are_interleaved_after_a_warm_up(exports, monkeypatch):
    calls = []
    invoke = latency.LiteRTModel.invoke
    monkeypatch.setattr(latency.LiteRTModel, "invoke", lambda model: (calls.append(model.path.stem), invoke(model)))
    benchmark([exports["float32"].path, exports["int8"].path], runs=5)
    assert calls[: -2 * 5] == ["float32"] * 10 + ["int8"] * 10
    assert calls[-2 * 5 :] == ["float32", "int8"] * 5


def test_percentiles_of_a_scripted_clock(exports, monkeypatch):
    """Call n takes n ms: the files get the odd and the even ones."""
    times = itertools.chain.from_iterable((second, second + n / 1e3) for n, second in enumerate(itertools.count(), 1))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(times))
    first, second = benchmark([exports["float32"].path, exports["int8"].path], runs=101)
    assert (first.median_ms, first.low_ms, first.high_ms) == pytest.approx((101, 11, 191))
    assert (second.median_ms, second.low_ms, second.high_ms) == pytest.approx((102, 12, 192))
    assert (first.path, first.runs) == (exports["float32"].path, 101)


def test_real_times_are_ordered(exports, images):
    (result,) = benchmark([exports["int8"].path], x=images)
    assert 0 < result.low_ms <= result.median_ms <= result.high_ms
    assert result.runs == 200


def test_one_path_is_taken_as_a_list_of_one(exports):
    path = exports["int8"].path
    assert [each.path for file in (path, str(path)) for each in benchmark(file, runs=2)] == [path, path]


def test_no_file_is_refused():
    message = "`files` must be a path of a .tflite file, or a list of them. Received: files=[]. Give for example"
    with pytest.raises(InputError, match=re.escape(message)):
        benchmark([])


def test_the_text_of_a_latency():
    timed = latency.Latency(pathlib.Path("runs/a.tflite"), 0.213456, 0.2, 1.23456, 200)
    assert str(timed) == "a.tflite: 0.213 ms a call (0.2 to 1.23 ms in nine calls of ten, 200 calls)"


def test_the_text_of_all_is_a_line_each(exports):
    timed = benchmark([exports["float32"].path, exports["int8"].path], runs=2)
    assert isinstance(timed, tuple)
    assert str(timed).splitlines() == [str(each) for each in timed]


def test_several_inputs_and_whole_numbers(tmp_path):
    """Token ids above the vocabulary would be an error of the embedding; random pixels are."""
    tokens, values = keras.Input((3,), dtype="int32", name="tokens"), keras.Input((4,), name="values")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(200, 2)(tokens))
    model = keras.Model([tokens, values], keras.layers.Dense(2)(keras.layers.Concatenate()([embedded, values])))
    given = {"values": np.ones((100, 4)), "tokens": np.full((100, 3), 199)}
    path = to_tflite(model, tmp_path / "model.tflite", representative_data=given).path
    assert all(benchmark(path, runs=1, x=x)[0].median_ms > 0 for x in (None, given, [given["tokens"], given["values"]]))


def test_token_ids_that_come_as_floats(tmp_path):
    """Keras's input of an Embedding is float32 by default."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(5, 2), keras.layers.Flatten()])
    assert benchmark(to_tflite(model, tmp_path / "model.tflite").path, runs=1)[0].median_ms > 0


def test_what_does_not_fit(exports):
    with pytest.raises(InputError, match="`runs` must be an integer of at least 1"):
        benchmark([exports["int8"].path], runs=0)
    with pytest.raises(InputError, match="`x` must be an array of shape"):
        benchmark([exports["int8"].path], x=np.zeros((1, 5)))
