"""What counts as an image and as a class, and the one line for each folder that cannot be used."""

import re

import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.data.folder_index import index_folder


def fill(directory, files):
    for name in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return directory


def test_classes_and_files_are_sorted_and_everything_else_is_passed_over(tmp_path):
    images = ["cat/b.PNG", "cat/a.jpg", "ant/c.Jpeg", "bee/d.gif", "bee/e.bmp"]
    others = ["cat/.hidden.jpg", "cat/notes.txt", "cat/raw.tiff", "cat/deeper/f.jpg", ".git/g.jpg", "readme.jpg"]
    others += ["cat/README", "cat/Thumbs.db", "bee/desktop.ini", "ant/.DS_Store", "ant/.cache/h.jpg"]
    fill(tmp_path, images + others)
    (tmp_path / "bee/link.png").symlink_to("nowhere")
    (tmp_path / "ant/circle").symlink_to(tmp_path)
    index = index_folder(str(tmp_path))
    assert index.directory == tmp_path
    assert index.class_names == ("ant", "bee", "cat")
    names = [path.relative_to(tmp_path).as_posix() for path in index.paths]
    assert names == ["ant/c.Jpeg", "bee/d.gif", "bee/e.bmp", "cat/a.jpg", "cat/b.PNG"]
    np.testing.assert_array_equal(index.labels, [0, 1, 1, 2, 2])
    reasons = {file.path.relative_to(tmp_path).as_posix(): file.reason for file in index.passed_over}
    assert reasons == {
        "bee/link.png": "not read: no file, perhaps a broken link",
        "cat/README": "not read: no suffix; use JPEG, PNG, BMP or GIF",
        "cat/deeper/f.jpg": "in a folder below its class",
        "cat/notes.txt": "not read: .txt; use JPEG, PNG, BMP or GIF",
        "cat/raw.tiff": "not read: .tiff; use JPEG, PNG, BMP or GIF",
    }


SUFFIXES = ".jpg, .jpeg, .png, .bmp, .gif"


@pytest.mark.parametrize(
    ("files", "folder", "message"),
    [
        ([], "none", "Image folder '{}' does not exist. Give the path of a folder with one sub-folder a class."),
        (["a.jpg"], "a.jpg", "'{}' is a file. Give the path of a folder with one sub-folder of images a class."),
        (
            ["a.jpg", ".hidden/b.jpg"],
            "",
            "Image folder '{}' has no sub-folders. Make one sub-folder a class and put its images there.",
        ),
        (
            ["a/readme.txt", "b/deep/c.jpg"],
            "",
            "Image folder '{}' has no images in its sub-folders. "
            f"Put files that end in {SUFFIXES} straight into the sub-folders.",
        ),
        (["a/b.jpg"], "", "Image folder '{}' has only one class, 'a'. Add a sub-folder for each other class."),
        (
            ["a/b.jpg", "b/c.txt", "c/d.jpg"],
            "",
            f"Class 'b' has no images in '{{}}/b'. Add files that end in {SUFFIXES}, or remove the folder.",
        ),
    ],
    ids=["missing", "file", "no sub-folders", "no images", "one class", "class without images"],
)
def test_folder_that_cannot_be_used(tmp_path, files, folder, message):
    directory = fill(tmp_path, files) / folder
    with pytest.raises(InputError, match="^" + re.escape(message.format(directory)) + "$"):
        index_folder(directory)
