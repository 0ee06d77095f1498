"""gzip_size against the gzip module's own file."""

import gzip

from keras_opt.export import gzip_size


def test_size_is_that_of_a_gzip_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1000)
    with (tmp_path / "file.gz").open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(path.read_bytes())
    assert gzip_size(path) == (tmp_path / "file.gz").stat().st_size
