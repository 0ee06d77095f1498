"""One live process a folder: by a lock that the system takes away from a process that dies, however it dies."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

# Of this process: the folders that it holds, each with the open file that has the lock.
_held: dict[Path, int] = {}


def hold(folder: Path) -> bool:
    """Take `folder` for this process; `False` if another live process has it.

    The folder itself is locked, so nothing is left in it. Where that cannot be done (Windows, some network drives), it
    is `True`. A process may hold a folder several times; one that was removed and made again it takes anew.
    """
    if fcntl is None:
        return True
    folder = folder.resolve()
    if folder in _held:
        if os.path.samestat(os.fstat(_held[folder]), os.stat(folder)):
            return True
        release(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # a file system without locks
        os.close(descriptor)
        return True
    _held[folder] = descriptor
    return True


def release(folder: Path) -> None:
    """Let another process have `folder`, if this one holds it."""
    folder = folder.resolve()
    if folder in _held:
        os.close(_held.pop(folder))


def _release_all() -> None:
    for folder in list(_held):
        release(folder)


if hasattr(os, "register_at_fork"):
    # The lock is of the open file: a child that outlives the training, such as a loader of data, would keep it.
    os.register_at_fork(after_in_child=_release_all)
