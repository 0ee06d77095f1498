"""On a terminal the command shows a bar with the time left, and gives the cursor back."""

import os
import pty
import subprocess
import sys


def on_a_terminal(command, cwd):
    """Run `command` with a pseudo-terminal as its standard error; what it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # Linux says EIO when the other end is closed
        assert seen
    finally:
        os.close(ours)
    assert process.wait(timeout=60) == 0, seen.decode()
    return seen.decode()


def test_a_bar_with_the_time_left(photos, tmp_path):
    code = "from keras_opt.cli.main import main; main()"
    options = ["--image-size", "16", "--epochs", "3", "--batch-size", "16", "--no-baseline", "--out", "run"]
    seen = on_a_terminal([sys.executable, "-c", code, "train", str(photos), *options], tmp_path)
    assert "with keras_opt" in seen
    assert "100%" in seen
    assert "━" in seen
    assert "val_accuracy" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") > 0  # cursor hidden, cursor shown
