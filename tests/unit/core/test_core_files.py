"""Files that are whole or not there."""

import errno
import os

import pytest

from keras_opt.core.files import atomic_path, write_atomic


def test_text_and_bytes_arrive_as_written(tmp_path):
    write_atomic(tmp_path / "a.txt", "grüße\n")
    write_atomic(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == "grüße\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.bin"]


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")

    def break_off():
        with atomic_path(path) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".keras"
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_follows_the_umask_as_for_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a.txt", "text")
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
        assert os.umask(umask) == umask  # and the umask is what it was
    finally:
        os.umask(before)


def test_an_error_of_the_disk_names_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.txt'") as caught, atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(FileNotFoundError, match=r"'.*/none/a\.txt'"):
        write_atomic(tmp_path / "none" / "a.txt", "text")
    with pytest.raises(NotADirectoryError, match=r"'.*/a\.txt/b\.txt'"):
        write_atomic(path / "b.txt", "text")
    with pytest.raises(PermissionError, match="'/elsewhere'"), atomic_path(path):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_folder_takes(tmp_path):
    path = tmp_path / ("x" * 248 + ".tflite")
    write_atomic(path, "text")
    assert path.read_text() == "text"


def test_the_mask_of_the_process_is_never_changed(monkeypatch, tmp_path):
    """Not even for a moment, in which another thread would make files that all may write."""
    monkeypatch.setattr(os, "umask", None)
    write_atomic(tmp_path / "a.txt", "text")
