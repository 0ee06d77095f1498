"""States come back bit for bit; a damaged file is told as such."""

import math
import os

import ml_dtypes
import numpy as np
import pytest

from keras_opt.core.state_files import DamagedFile, read_state, write_state

STATE = {
    "none": None,
    "flags": [True, False],
    "numbers": {"int": 2**70, "float": 0.1 + 0.2, "inf": -math.inf, "not a number": math.nan},
    "text": "é\n",
    "pair": (1, 2.5),
    "empty": {},
    "a key named dict": {"dict": {"array": "x"}},
    "arrays": [np.arange(6, dtype=np.float64).reshape(2, 3), np.zeros((0, 3), np.int8), np.float32(0.1)],
}


def test_what_was_written_is_read(tmp_path):
    write_state(tmp_path / "state.npz", STATE)
    read = read_state(tmp_path / "state.npz")

    assert list(read) == list(STATE)
    assert read["flags"] == [True, False]
    assert read["numbers"]["int"] == 2**70
    assert read["numbers"]["float"] == 0.1 + 0.2
    assert math.isnan(read["numbers"]["not a number"])
    assert read["text"] == "é\n"
    assert read["pair"] == [1, 2.5]
    assert read["empty"] == {}
    assert read["a key named dict"] == {"dict": {"array": "x"}}
    for before, after in zip(STATE["arrays"], read["arrays"], strict=True):
        assert after.dtype == before.dtype
        assert np.array_equal(after, before)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4"])
def test_types_that_numpy_files_do_not_know(kind, tmp_path):
    array = np.arange(6).astype(getattr(ml_dtypes, kind)).reshape(2, 3)
    write_state(tmp_path / "state.npz", {"array": array})
    read = read_state(tmp_path / "state.npz")["array"]
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()
    assert read.shape == (2, 3)


def test_arrays_that_are_not_contiguous(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[1:]
    write_state(tmp_path / "state.npz", {"array": array, "half": array.astype(ml_dtypes.bfloat16)})
    read = read_state(tmp_path / "state.npz")
    assert np.array_equal(read["array"], array)
    assert np.array_equal(read["half"].astype(np.float32), array)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.98])
def test_one_wrong_bit_is_seen(place, tmp_path):
    path = tmp_path / "state.npz"
    write_state(path, {"array": np.arange(5000.0)})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        read_state(path)


def test_a_wrong_bit_anywhere_is_seen_or_does_no_harm(tmp_path):
    path = tmp_path / "state.npz"
    write_state(path, {"array": np.arange(3.0)})
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0, 3, 7):
            wrong = bytearray(content)
            wrong[place] ^= 1 << bit
            path.write_bytes(wrong)
            try:
                read = read_state(path)
            except DamagedFile:
                continue
            assert list(read) == ["array"]
            assert np.array_equal(read["array"], np.arange(3.0))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_was_cut_is_seen(share, tmp_path):
    path = tmp_path / "state.npz"
    write_state(path, {"array": np.arange(5000.0)})
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(DamagedFile):
        read_state(path)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), r"state\['x'\] is a object"),
        ({1: 2}, "is a dict"),
        (np.array(["a"]), "array of str"),
        ({1}, "is a set"),
    ],
)
def test_what_a_state_cannot_hold(value, what, tmp_path):
    with pytest.raises(TypeError, match=what):
        write_state(tmp_path / "state.npz", {"x": value})
    assert list(tmp_path.iterdir()) == []


def test_no_pickle_is_ever_read(tmp_path):
    path = tmp_path / "state.npz"
    np.savez(path, state=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFile):
        read_state(path)
