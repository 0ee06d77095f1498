"""A folder of backups is one process's at a time, and of a killed process nobody's."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_opt.callbacks import BackupAndRestore
from keras_opt.core import folder_lock
from keras_opt.core.errors import InputError

# Takes the folder, has a child that lives on (told by its number), and waits for its end.
HOLDER = f"""
import os, pathlib, runpy, sys, time
lock = runpy.run_path({folder_lock.__file__!r})
if not lock["hold"](pathlib.Path(sys.argv[1])):
    sys.exit("not taken")
child = os.fork()
if child == 0:
    os.close(1)
else:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    folder_lock.release(tmp_path)


@pytest.fixture
def holder(folder):
    """Another process that has the folder, and the number of its child."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    yield process, child
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


def fit(folder, **settings):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = BackupAndRestore(folder, verbose=0, **settings)
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0, callbacks=[backup])


def test_a_second_process_is_refused_until_the_first_is_killed(folder, holder):
    process, child = holder
    with pytest.raises(InputError, match=r"the folder of one process\. .*another process that still runs") as error:
        fit(folder)
    assert "\n" not in str(error.value)
    assert list(folder.iterdir()) == []
    process.kill()
    process.wait()
    os.kill(child, 0)  # what it forked lives on, and does not have the folder
    assert folder_lock.hold(folder)


def others_can_take(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_what_this_process_will_remove_it_keeps_to_itself(folder):
    fit(folder)
    assert not others_can_take(folder)
    fit(folder)  # anew, with the folder made again
    assert not others_can_take(folder)


def test_backups_that_stay_are_free_for_others(folder):
    fit(folder, delete_checkpoint=False)
    assert others_can_take(folder)


def test_a_folder_made_again_is_taken_again(folder):
    place = folder / "backups"
    for _ in range(2):
        place.mkdir()
        assert folder_lock.hold(place)
        assert folder_lock.hold(place)
        assert not others_can_take(place)
        shutil.rmtree(place)
    folder_lock.release(place)


def test_a_process_may_hold_a_folder_by_several_of_its_names(folder):
    place, link = folder / "backups", folder / "link"
    place.mkdir()
    link.symlink_to(place)
    assert folder_lock.hold(place)
    assert folder_lock.hold(link)
    folder_lock.release(link)
    assert others_can_take(place)


def test_where_there_are_no_locks_all_goes_on_without(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert folder_lock.hold(folder)
    monkeypatch.setattr(folder_lock, "fcntl", None)
    assert folder_lock.hold(folder)
    assert folder not in folder_lock._held
