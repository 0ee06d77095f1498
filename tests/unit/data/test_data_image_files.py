"""Many files in order, the damaged ones listed, and an array that can live on disk."""

import io
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_opt.core.errors import InputError
from keras_opt.core.progress import Progress
from keras_opt.data import image_files
from keras_opt.data.image_files import SkippedFile, decode_files

UNREADABLE = "cannot identify image file (empty, damaged, or not an image)"


@pytest.fixture
def paths(tmp_path):
    """Forty 4x6 images; image i is filled with i."""
    paths = [tmp_path / f"{number:02}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.new("RGB", (6, 4), (number, number, number)).save(path)
    return paths


@pytest.mark.parametrize("limit", [2**31, 0], ids=["memory", "disk"])
def test_order_is_that_of_the_paths_and_gaps_are_closed(paths, limit, monkeypatch):
    monkeypatch.setattr(image_files, "MEMORY_LIMIT_BYTES", limit)
    for bad in (0, 17, 39):
        paths[bad].write_bytes(b"")
    decoded = decode_files(paths, (4, 6), 3)
    good = [number for number in range(40) if number not in (0, 17, 39)]
    assert isinstance(decoded.images, np.memmap) == (limit == 0)
    assert decoded.images.shape == (37, 4, 6, 3)
    np.testing.assert_array_equal(decoded.images, np.broadcast_to(np.reshape(good, (-1, 1, 1, 1)), (37, 4, 6, 3)))
    np.testing.assert_array_equal(decoded.kept, good)
    assert decoded.skipped == tuple(SkippedFile(paths[bad], UNREADABLE) for bad in (0, 17, 39))


def test_order_does_not_depend_on_which_file_is_ready_first(paths, monkeypatch):
    decode_image = image_files.decode_image

    def slow_at_first(path, *settings):
        time.sleep(0.02 if path in paths[:4] else 0)
        return decode_image(path, *settings)

    monkeypatch.setattr(image_files, "decode_image", slow_at_first)
    np.testing.assert_array_equal(decode_files(paths, (1, 1), 1).images.ravel(), range(40))


def test_one_tenth_may_be_bad_and_no_more(paths):
    for path in paths[:4]:
        path.write_text("no image")
    assert len(decode_files(paths, (4, 6), 3).skipped) == 4
    paths[4].write_text("no image")
    listed = "; ".join(f"{path} ({UNREADABLE})" for path in paths[:5])
    message = (
        f"5 of 40 images cannot be read, more than the 10% that may be skipped: {listed}. "
        "Replace or remove these files."
    )
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        decode_files(paths, (4, 6), 3)
    assert len(decode_files(paths, (4, 6), 3, max_bad_fraction=0.125).skipped) == 5


def test_a_long_list_is_cut_at_ten(paths):
    for path in paths[:13]:
        path.write_text("no image")
    with pytest.raises(InputError, match=r"13 of 40 .*; and 3 more\. Replace") as caught:
        decode_files(paths, (4, 6), 3)
    assert str(caught.value).count(UNREADABLE) == 10
    assert "\n" not in str(caught.value)


def test_raise_stops_at_the_first_bad_file(paths):
    paths[3].write_bytes(b"")
    message = f"Cannot read image {paths[3]} ({UNREADABLE}). Replace or remove the file, or give on_error='skip'."
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        decode_files(paths, (4, 6), 3, on_error="raise")


def test_missing_file_is_listed(paths):
    paths[5].unlink()
    (skipped,) = decode_files(paths, (4, 6), 3).skipped
    assert skipped.path == paths[5]
    assert "No such file" in skipped.reason


def test_an_error_that_is_not_the_files_fault_is_not_swallowed(paths, monkeypatch):
    def broken(*settings):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(image_files, "decode_image", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        decode_files(paths, (4, 6), 3)


def test_progress_counts_the_files_and_tells_how_many_were_skipped(paths):
    paths[0].write_bytes(b"")
    stream = io.StringIO()
    decode_files(paths, (4, 6), 3, progress=Progress(stream))
    assert "decode" in stream.getvalue()
    assert "1 skipped" in stream.getvalue()


def test_temporary_file_has_no_name_that_could_stay_behind(paths, tmp_path, monkeypatch):
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(image_files, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(image_files.tempfile, "tempdir", str(directory))
    decoded = decode_files(paths, (4, 6), 3)
    assert isinstance(decoded.images, np.memmap)
    assert list(directory.iterdir()) == []  # nothing to clean up, even after kill -9


def test_disk_without_space_is_named_with_the_cure(paths, monkeypatch):
    monkeypatch.setattr(image_files, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"40 images of 4x6x3 need 0.0 GB, but '.*' has 0.0 GB free. Set TMPDIR"):
        decode_files(paths, (4, 6), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, "decode_files: argument `channels` must be 1 or 3. Received: channels=4"),
        ({"on_error": "skp"}, r"argument `on_error` must be one of 'skip', 'raise'.*Did you mean 'skip'\?"),
        ({"max_bad_fraction": 10}, r"argument `max_bad_fraction` must be a fraction in \[0, 1\].*not a percentage"),
    ],
)
def test_arguments(paths, options, message):
    with pytest.raises(InputError, match=message):
        decode_files(paths, (4, 6), **{"channels": 3, **options})
