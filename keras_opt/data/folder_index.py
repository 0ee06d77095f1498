"""The image files of a folder with one sub-folder a class."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_opt.core.errors import InputError
from keras_opt.data.image_files import SkippedFile

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")

BELOW_ITS_CLASS = "in a folder below its class"

# What file managers leave in every folder.
_NO_ONES_FILES = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True, eq=False)
class FolderIndex:
    """The image files of a folder, class by class, names sorted; nothing is decoded yet."""

    directory: Path
    paths: tuple[Path, ...]
    labels: np.ndarray
    """int64 of shape (len(paths),): positions in `class_names`."""
    class_names: tuple[str, ...]
    passed_over: tuple[SkippedFile, ...] = ()
    """The files in class folders that are not among `paths`, each with the reason."""


def index_folder(directory: str | os.PathLike) -> FolderIndex:
    """List the images of `directory`, whose sub-folders are the classes.

    Files with other suffixes than `IMAGE_SUFFIXES` (in any case) and files in a folder inside a class folder are passed
    over and named. Hidden files and folders, and what file managers leave, are nothing.

    Raises:
        InputError: The folder is missing, is a file, is empty, or has only one class, or a class has no images.
    """
    directory = Path(directory)
    if not directory.exists():
        raise InputError(
            f"Image folder '{directory}' does not exist. Give the path of a folder with one sub-folder a class."
        )
    if not directory.is_dir():
        raise InputError(f"'{directory}' is a file. Give the path of a folder with one sub-folder of images a class.")
    folders = sorted((path for path in _visible(directory) if path.is_dir()), key=lambda path: path.name)
    if not folders:
        raise InputError(
            f"Image folder '{directory}' has no sub-folders. Make one sub-folder a class and put its images there."
        )
    files = [_images(folder) for folder in folders]
    if not any(files):
        raise InputError(
            f"Image folder '{directory}' has no images in its sub-folders. "
            f"Put files that end in {', '.join(IMAGE_SUFFIXES)} straight into the sub-folders."
        )
    if len(folders) == 1:
        raise InputError(
            f"Image folder '{directory}' has only one class, '{folders[0].name}'. "
            "Add a sub-folder for each other class."
        )
    for folder, images in zip(folders, files, strict=True):
        if not images:
            raise InputError(
                f"Class '{folder.name}' has no images in '{folder}'. "
                f"Add files that end in {', '.join(IMAGE_SUFFIXES)}, or remove the folder."
            )
    return FolderIndex(
        directory=directory,
        paths=tuple(path for images in files for path in images),
        labels=np.repeat(np.arange(len(files)), [len(images) for images in files]),
        class_names=tuple(folder.name for folder in folders),
        passed_over=tuple(
            SkippedFile(path, _reason(path, folder))
            for folder, images in zip(folders, files, strict=True)
            for path in sorted(set(_files_below(folder)) - set(images))
        ),
    )


def _images(folder):
    return sorted(path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _files_below(folder):
    for place, folders, names in os.walk(folder):
        folders[:] = filter(_is_visible, folders)
        yield from (Path(place, name) for name in filter(_is_visible, names))


def _reason(path, folder):
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"not read: {path.suffix or 'no suffix'}; use JPEG, PNG, BMP or GIF"
    return BELOW_ITS_CLASS if path.parent != folder else "not read: no file, perhaps a broken link"


def _visible(folder):
    return [path for path in folder.iterdir() if _is_visible(path.name)]


def _is_visible(name):
    return not name.startswith(".") and name.lower() not in _NO_ONES_FILES
