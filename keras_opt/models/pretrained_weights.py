"""The ImageNet weights of Keras's applications: found or fetched, or said at once to be out of reach."""

import contextlib
import os
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_opt.core.errors import InputError

_SECONDS = 5.0  # for the first answer; a download may take as long as it likes


@contextlib.contextmanager
def named_downloads(owner: str, network: str) -> Iterator[None]:
    """While it lasts, weights that Keras cannot fetch are one error that names the file, its origin and its place.

    Keras waits for minutes where a network lets nothing through, and names no folder. Its builders ask for a file by
    `get_file` in the module of the public `keras.utils.get_file`, and give no other access to its name:
    `tests/contract/test_keras_canary.py` fails, with the Keras version, when that moves.

    Args:
        owner: The public function in whose name the error is raised.
        network: The name of the application.
    """
    fetch = keras.utils.get_file

    def get_file(fname: str, origin: str, *arguments: Any, **settings: Any) -> str:
        folder = _folder(settings.get("cache_subdir", "datasets"))
        if (folder / fname).is_file() or _answers(origin):
            try:
                return fetch(fname, origin, *arguments, **settings)
            except Exception as error:  # Keras raises a plain one
                reason, cause = str(error).splitlines()[0], error
        else:
            reason, cause = f"{urllib.parse.urlsplit(origin).hostname} does not answer", None
        raise InputError(
            f"{owner}: the ImageNet weights of {network} are not here and cannot be fetched ({reason}). Fetch {origin} "
            f"and put it into {folder}, or give `weights` a file of your own, or None for random weights (with "
            "keras-opt train: --weights FILE or --weights none)."
        ) from cause

    module = sys.modules[fetch.__module__]
    module.get_file = get_file
    try:
        yield
    finally:
        module.get_file = fetch


def _folder(subfolder: str) -> Path:
    """Where Keras keeps what it has fetched; it has no public name for it."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return (home if os.access(home, os.W_OK) else Path(tempfile.gettempdir(), ".keras")) / subfolder


def _answers(origin: str) -> bool:
    """Whether there is an answer from `origin` in some seconds. It is asked in a thread: name servers may hang."""
    answers = []

    def ask() -> None:
        request = urllib.request.Request(origin, method="HEAD")
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(request, timeout=_SECONDS).close()
            except urllib.error.HTTPError as refusal:
                refusal.close()  # an answer as well
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(answers)
