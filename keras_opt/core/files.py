"""Files that are either whole or not there: temporary name, fsync, rename."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

LONGEST_STEM = 40  # of a temporary name, which is longer than the name that it is for


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed to disk and renamed to `path`.

    An error leaves the old file as it was and removes the temporary one; that of a full disk or a folder that cannot be
    written names `path`. The temporary name keeps the suffixes of `path`, because writers such as Keras choose the
    format by them (`.weights.h5`).
    """
    path = Path(path)
    name = f".{path.stem[:LONGEST_STEM]}-{secrets.token_hex(4)}{''.join(path.suffixes)}"
    temporary = path.with_name(name)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            temporary.unlink()


def write_atomic(path: str | os.PathLike, content: str | bytes) -> None:
    """Write `content` to `path` whole or not at all; text is UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
