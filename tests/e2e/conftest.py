"""`keras-opt` in a process of its own."""

from pathlib import Path

import forked
import pytest
from image_folders import write_images

COMMAND = "from keras_opt.cli.main import main; main()"


@pytest.fixture(scope="session")
def keras_opt_process():
    def call(*arguments, cwd: Path, code=COMMAND, timeout=120):
        return forked.run(code, *arguments, cwd=cwd, timeout=timeout)

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "photos", count=20)
