"""How many bytes a file takes to download."""

import gzip
import os
from pathlib import Path


def gzip_size(path: str | os.PathLike) -> int:
    """Return the bytes of the file at `path` after gzip at its highest level; the same file gives the same number."""
    return len(gzip.compress(Path(path).read_bytes(), compresslevel=9, mtime=0))
