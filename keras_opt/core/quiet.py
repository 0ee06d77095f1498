"""Silence for libraries that talk to the terminal from C++."""

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def captured_output() -> Iterator[TextIO]:
    """Send what this process writes to standard output and error to a temporary file, and yield that file.

    Python's streams and the descriptors that C++ writes to both go there; warnings and log records below ERROR are
    dropped. The file is gone when the block ends: read it inside. What other threads write meanwhile goes there too; a
    thread that enters such a block itself waits, since all of these belong to the process.
    """
    with _ONE_THREAD:
        stderr = sys.stderr
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
            _descriptors_to(log.fileno()),
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            warnings.catch_warnings(action="ignore"),
            _no_log_records(),
        ):
            try:
                yield log
            finally:
                _rebind_handlers(log, stderr)


_ONE_THREAD = threading.RLock()


@contextlib.contextmanager
def _descriptors_to(target):
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the process was started with the descriptor closed
            stream.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        for descriptor in saved:
            os.dup2(target, descriptor)
        yield
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def _rebind_handlers(closed, stream):
    """Handlers that were made while the streams were captured, as by the import of TensorFlow, write to `stream`."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if getattr(handler, "stream", None) is closed:
            handler.setStream(stream)


@contextlib.contextmanager
def _no_log_records():
    """Drop log records below ERROR, and the handlers of the root logger that were bound to the captured streams."""
    level, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers
