"""Nothing gets out, and everything is back as it was."""

import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest

from keras_opt.core import quiet
from keras_opt.core.quiet import captured_output

SCRIPT = """
import logging, os, runpy, sys, warnings
captured_output = runpy.run_path(sys.argv[1])["captured_output"]
print("before"); print("error before", file=sys.stderr)
with captured_output() as log:
    print("python"); print("python error", file=sys.stderr)
    os.write(1, b"descriptor\\n"); os.write(2, b"descriptor error\\n"); os.system("echo child")
    warnings.warn("a warning"); logging.getLogger("absl").warning("a record")
    log.seek(0); caught = log.read()
print("after"); print("error after", file=sys.stderr)
assert {"python", "python error", "descriptor", "descriptor error", "child"} == set(caught.split("\\n")) - {""}, caught
"""


def test_python_and_descriptors_are_silent():
    done = subprocess.run([sys.executable, "-c", SCRIPT, quiet.__file__], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "error before\nerror after\n")


def test_all_is_back_after_an_error(capfd):
    with pytest.raises(KeyError), captured_output():
        raise KeyError
    os.write(1, b"out")
    print("err", file=sys.stderr)
    assert capfd.readouterr() == ("out", "err\n")
    assert logging.root.manager.disable == logging.NOTSET
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)


def test_streams_that_the_process_does_not_have(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with captured_output() as log:
        print("python", flush=True)
        log.seek(0)
        assert log.read() == "python\n"
    assert (sys.stdout, sys.stderr) == (None, None)


def test_no_handler_stays_bound_to_the_captured_streams():
    before = logging.root.handlers[:]
    with captured_output():
        logging.root.addHandler(logging.StreamHandler(sys.stderr))
    assert logging.root.handlers == before


def test_a_handler_of_a_library_imported_inside_is_heard_outside(capfd):
    logger = logging.getLogger("imported_inside")
    with captured_output():
        logger.addHandler(logging.StreamHandler())
    logger.warning("heard")
    logger.handlers.clear()
    assert capfd.readouterr().err == "heard\n"


def test_threads_that_overlap_leave_all_as_it_was(capfd):
    """The first to come is the last to go: each would put back what the other had put there."""
    inside, leave = threading.Event(), threading.Event()

    def first():
        with captured_output():
            inside.set()
            leave.wait(5)

    def second():
        inside.wait(5)
        with captured_output(), captured_output():  # one in the other does not wait for itself
            leave.wait(5)

    filters = warnings.filters[:]
    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    leave.wait(0.2)
    leave.set()
    for thread in threads:
        thread.join(10)
    os.write(1, b"out")
    print("err", file=sys.stderr)
    assert capfd.readouterr() == ("out", "err\n")
    assert warnings.filters == filters
    assert logging.root.manager.disable == logging.NOTSET
