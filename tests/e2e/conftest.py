"""`keras-opt` in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from image_folders import write_images

COMMAND = [sys.executable, "-c", "from keras_opt.cli.main import main; main()"]


@pytest.fixture(scope="session")
def keras_opt_process():
    def call(*arguments, cwd: Path, code=None, timeout=120):
        command = [sys.executable, "-c", code, *arguments] if code else [*COMMAND, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "photos", count=20)
