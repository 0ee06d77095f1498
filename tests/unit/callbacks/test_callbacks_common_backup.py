"""Which backup several workers go on from. The message between them is a list here; real ones are in tests/e2e."""

import pytest

from keras_opt.callbacks.backup import common_backup
from keras_opt.callbacks.backup.common_backup import folder_of_worker, keep_what_all_have
from keras_opt.core.errors import InputError
from keras_opt.core.replicas import Worker


class Sent(Exception):
    """Ends a call where it would wait for the other workers."""


def numbers(folder):
    return [number for number, _ in folder.numbered()]


def write(folder, has_trained=True):
    folder.write({"at": {"has_trained": has_trained}}, is_epoch=True)


@pytest.fixture
def workers(tmp_path):
    folders = [folder_of_worker(tmp_path / "backup", 2, Worker(index, 2)) for index in range(2)]
    for folder in folders:
        folder.take()
    yield folders
    for folder in folders:
        folder.leave()


@pytest.fixture
def agree(workers, monkeypatch):
    """Let all workers call `keep_what_all_have`; their backups afterwards, by number."""

    def call():
        rows = []

        def send(row, strategy):
            rows.append(row)
            raise Sent

        monkeypatch.setattr(common_backup, "this_worker", lambda strategy: Worker(0, 2))
        monkeypatch.setattr(common_backup, "gather_from_workers", send)
        for folder in workers:
            with pytest.raises(Sent):
                keep_what_all_have(folder, None)
        assert len(set(map(len, rows))) == 1, "rows of one length, or the workers wait for ever"
        monkeypatch.setattr(common_backup, "gather_from_workers", lambda row, strategy: rows)
        for folder in workers:
            keep_what_all_have(folder, None)
        return [numbers(folder) for folder in workers]

    return call


def test_workers_have_folders_of_their_own_and_one_has_the_whole(tmp_path, workers):
    assert [folder.path for folder in workers] == [tmp_path / "backup" / name for name in ("worker-0", "worker-1")]
    assert folder_of_worker(tmp_path / "backup", 1, Worker(0, 1)).path == tmp_path / "backup"


def test_the_newest_that_all_have_is_the_newest(workers, agree):
    for _ in range(3):
        write(workers[0])
    for _ in range(2):
        write(workers[1])
    assert agree() == [[2], [2, 1]]
    for folder in workers:
        write(folder)
    assert [numbers(folder)[0] for folder in workers] == [3, 3]


def test_two_are_kept_where_one_was_asked_for(tmp_path):
    folder = folder_of_worker(tmp_path, 1, Worker(1, 2))
    folder.take()
    for _ in range(3):
        folder.write({"at": {}}, is_epoch=True)
    assert numbers(folder) == [3, 2]


def test_a_damaged_one_does_not_count(workers, agree):
    for folder in workers:
        write(folder)
        write(folder)
    newest = max(workers[1].path.glob("backup-*"))
    newest.write_bytes(newest.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="was damaged"):
        assert agree() == [[1], [1]]


def test_one_that_could_not_be_written_has_its_number_all_the_same(workers, agree, monkeypatch):
    def full(path, state):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("keras_opt.callbacks.backup.backup_folder.write_state", full)
        with pytest.raises(OSError, match="No space"):
            write(workers[0])
    write(workers[0])
    write(workers[1])
    write(workers[1])
    assert agree() == [[2], [2, 1]]


def test_nothing_is_lost_where_nobody_has_trained(workers, agree):
    write(workers[0], has_trained=False)
    assert agree() == [[], []]


def test_work_that_only_some_have_is_not_thrown_away(workers, agree):
    write(workers[1])
    with pytest.raises(InputError, match=r"workers \[1\] of 2 have backups that others have not"):
        agree()
    assert numbers(workers[1]) == [1]


def test_workers_that_have_all_ended_well_begin_anew(workers, agree):
    for folder in workers:
        write(folder)
        folder.mark_done()
    workers[0].end()
    assert agree() == [[1], [1]], "one may have died before it had saved its model"
    assert not workers[0].has_ended
    workers[0].end()
    (workers[1].path / "worker_has_ended").touch()  # as where they share no disk
    assert agree() == [[], []]


def test_the_last_worker_that_ends_removes_all(workers):
    for folder in workers:
        write(folder)
    workers[1].end()
    assert [numbers(folder) for folder in workers] == [[1], [1]]
    workers[0].end()
    assert not workers[0].path.parent.exists()


def test_a_backup_after_the_end_takes_it_back(workers):
    write(workers[0])
    workers[0].end()
    assert workers[0].has_ended
    write(workers[0])
    assert not workers[0].has_ended
