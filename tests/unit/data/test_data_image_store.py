"""Images decoded once, kept where asked, and found again by another process, never stale."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_opt.core.errors import InputError
from keras_opt.data import cache_file
from keras_opt.data.decode import decode_image
from keras_opt.data.image_store import ImageStore

SHAPE = (3, 4, 3)
COUNT = 30


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(rng.integers(0, 256, SHAPE, np.uint8)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


class Decoder:
    """Decodes, and writes down what."""

    def __init__(self):
        self.decoded = []

    def __call__(self, path, image_size, channels):
        self.decoded.append(path)
        return decode_image(path, image_size, channels)


def open_store(paths, cache, decoder, recipe="exact", on_error="skip", shape=SHAPE):
    return ImageStore(paths, shape, decoder, cache=cache, recipe=recipe, on_error=on_error, skipped=[])


def pixels(paths):
    return np.stack([decode_image(path, SHAPE[:2], 3) for path in paths])


ORDER = np.random.default_rng(1).permutation(COUNT)


@pytest.mark.parametrize(("cache", "times"), [("auto", 1), ("memory", 1), ("file", 1), (None, 3)])
def test_every_cache_gives_the_pixels_of_the_files(paths, tmp_path, cache, times):
    decoder = Decoder()
    store = open_store(paths, tmp_path / "cache" if cache == "file" else cache, decoder)
    for _ in range(3):
        for positions in np.array_split(ORDER, 4):
            images, kept = store.read(positions)
            np.testing.assert_array_equal(kept, positions)
            np.testing.assert_array_equal(images, pixels([paths[position] for position in positions]))
    assert sorted(decoder.decoded) == sorted(paths * times)


def test_half_a_batch_from_the_cache_and_half_from_the_files(paths):
    decoder = Decoder()
    store = open_store(paths, "memory", decoder)
    store.read(np.arange(0, COUNT, 2))
    images, _ = store.read(ORDER)
    np.testing.assert_array_equal(images, pixels(paths)[ORDER])
    assert len(decoder.decoded) == COUNT


def test_a_file_is_used_again_and_goes_on_where_the_first_process_broke_off(paths, tmp_path):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(10))
    decoder = Decoder()
    images, _ = open_store(paths, tmp_path / "cache", decoder).read(np.arange(COUNT))
    np.testing.assert_array_equal(images, pixels(paths))
    assert sorted(decoder.decoded) == paths[10:]


CHILD = """
import sys
from pathlib import Path
import numpy as np
from keras_opt.data.decode import decode_image
from keras_opt.data.image_store import ImageStore
paths = sorted(Path(sys.argv[1]).iterdir())
decoded = []
decode = lambda *arguments: (decoded.append(arguments), decode_image(*arguments))[1]
store = ImageStore(paths, (3, 4, 3), decode, cache=sys.argv[2], recipe="exact", on_error="raise", skipped=[])
print(len(decoded), int(store.read(np.arange(len(paths)))[0].sum()), len(decoded))
"""


def test_another_process_decodes_nothing(paths, tmp_path):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    command = [sys.executable, "-c", CHILD, paths[0].parent, tmp_path / "cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.split() == ["0", str(pixels(paths).sum()), "0"]


def replace(path, keep_times):
    facts = path.stat()
    size = facts.st_size
    Image.new("RGB", (4, 3), (9, 9, 9)).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    if keep_times:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


CHANGES = {
    "replaced": lambda paths: replace(paths[3], keep_times=False),
    "replaced_as_if_not": lambda paths: replace(paths[3], keep_times=True),
    "removed": lambda paths: paths.pop(3).unlink(),
    "renamed": lambda paths: paths.append(paths.pop(3).rename(paths[0].with_name("zz.png"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_read_anew(paths, tmp_path, change):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    time.sleep(0.02)  # the clock of some file systems is no finer
    CHANGES[change](paths)
    decoder = Decoder()
    images, _ = open_store(paths, tmp_path / "cache", decoder).read(np.arange(len(paths)))
    np.testing.assert_array_equal(images, pixels(paths))
    assert len(decoder.decoded) == len(paths)


@pytest.mark.parametrize("other", [{"recipe": "fast"}, {"shape": (4, 3, 3)}])
def test_other_pixels_are_made_anew(paths, tmp_path, other):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    decoder = Decoder()
    with pytest.warns(
        UserWarning, match=r"image_folder: cache '.*cache' is begun anew: it was made .* another image size"
    ):
        store = open_store(paths, tmp_path / "cache", decoder, **other)
    store.read(np.arange(COUNT))
    assert len(decoder.decoded) == COUNT


def test_pixels_of_another_tensorflow_are_made_anew(paths, tmp_path, monkeypatch):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    monkeypatch.setattr(cache_file.tf, "__version__", "9.9")
    decoder = Decoder()
    open_store(paths, tmp_path / "cache", decoder).read(np.arange(COUNT))
    assert len(decoder.decoded) == COUNT


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this system has no pwrite")
def test_a_row_that_the_system_takes_in_part_is_whole(paths, tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, image, place: whole(descriptor, image[:1], place))
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    decoder = Decoder()
    images, _ = open_store(paths, tmp_path / "cache", decoder).read(np.arange(COUNT))
    np.testing.assert_array_equal(images, pixels(paths))
    assert decoder.decoded == []


def test_a_row_that_was_written_in_part_is_not_used(paths, tmp_path):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    content = bytearray((tmp_path / "cache").read_bytes())
    content[-20:] = bytes(20)
    (tmp_path / "cache").write_bytes(content)
    decoder = Decoder()
    images, _ = open_store(paths, tmp_path / "cache", decoder).read(np.arange(COUNT))
    np.testing.assert_array_equal(images, pixels(paths))
    assert decoder.decoded == paths[-1:]


def test_a_shortened_file_is_begun_anew(paths, tmp_path):
    open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    os.truncate(tmp_path / "cache", 500)
    images, _ = open_store(paths, tmp_path / "cache", Decoder()).read(np.arange(COUNT))
    np.testing.assert_array_equal(images, pixels(paths))


def test_a_file_of_someone_else_is_not_overwritten(paths, tmp_path):
    (tmp_path / "thesis.txt").write_text("two years of work")
    message = f"image_folder: cache '{tmp_path / 'thesis.txt'}' exists and is no cache of keras_opt. Give the name"
    with pytest.raises(InputError, match="^" + re.escape(message)):
        open_store(paths, tmp_path / "thesis.txt", Decoder())
    assert (tmp_path / "thesis.txt").read_text() == "two years of work"


def test_a_full_disk_is_said_before_anything_is_written(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_file.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"needs 0\.0 GB, but its disk has 0\.0 GB free\. Give a file on another disk"):
        open_store(paths, tmp_path / "cache", Decoder())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cache", ["memory", "file", None])
def test_damaged_files_leave_their_batch(paths, tmp_path, cache):
    paths[4].write_bytes(b"")
    store = open_store(paths, tmp_path / "cache" if cache == "file" else cache, Decoder())
    for _ in range(2):
        with pytest.warns(UserWarning, match="left out the damaged image") if not store._skipped else no_warning():
            images, kept = store.read(np.arange(COUNT))
        assert kept.tolist() == [*range(4), *range(5, COUNT)]
        np.testing.assert_array_equal(images, pixels([paths[position] for position in kept]))
    assert [file.path for file in store._skipped] == [paths[4]]


def no_warning():
    return np.errstate()  # any context; a warning of keras_opt is an error


def test_too_many_damaged_files(paths):
    for path in paths[:4]:
        path.write_bytes(b"")
    with (
        pytest.raises(InputError, match="4 of 30 images cannot be read, more than the 10% that may be skipped"),
        pytest.warns(UserWarning, match="left out"),
    ):
        open_store(paths, "memory", Decoder()).read(np.arange(COUNT))


def test_a_batch_of_damaged_files_only(paths):
    paths[0].write_bytes(b"")
    with (
        pytest.raises(InputError, match="No image of a batch of 1 can be read"),
        pytest.warns(UserWarning, match="left out"),
    ):
        open_store(paths, "memory", Decoder()).read(np.array([0]))
