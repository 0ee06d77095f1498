"""Files told to be whole or damaged by their two ends."""

import numpy as np
import pytest
from PIL import Image

from keras_opt.data import check_image as module
from keras_opt.data.check_image import check_image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8))
KINDS = ("jpg", "png", "gif", "bmp")


def saved(tmp_path, kind):
    path = tmp_path / f"image.{kind}"
    PICTURE.save(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_pass(tmp_path, kind):
    check_image(saved(tmp_path, kind))


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_whole_files_are_not_decoded(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(module, "decode_image", lambda *arguments: pytest.fail("decoded"))
    check_image(saved(tmp_path, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files_do_not(tmp_path, kind, damage):
    path = saved(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image at all"}[damage])
    with pytest.raises((OSError, ValueError)):
        check_image(path)


def test_photographs_of_phones_are_not_decoded(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "image.jpg", format="MPO", save_all=True, append_images=[PICTURE])
    monkeypatch.setattr(module, "decode_image", lambda *arguments: pytest.fail("decoded"))
    check_image(tmp_path / "image.jpg")


def test_bytes_behind_the_end_do_no_harm(tmp_path):
    path = saved(tmp_path, "jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    check_image(path)


def test_pixels_of_no_known_range_do_not_pass(tmp_path):
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match="32-bit pixels have no known range"):
        check_image(tmp_path / "deep.tiff")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        check_image(tmp_path / "none.png")
