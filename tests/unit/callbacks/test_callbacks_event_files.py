"""Event files are cut back at a record, and what is not ours stays."""

import os

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_opt.callbacks.backup.event_files import cut_event_files, event_file_lengths

NOT_OURS = [
    "events.out.tfevents.1700000000.host.7.0",  # PyTorch's
    "events.out.tfevents.1700000000.host.7.0.gradients.v2",
    "events.out.tfevents.1700000000.host.7.0.profile-empty",
    "notes.txt",
]


def open_writer(folder, suffix=None):
    return tf.summary.create_file_writer(str(folder), filename_suffix=suffix)


def write(writer, *steps):
    with writer.as_default():
        for step in steps:
            tf.summary.scalar("loss", step * 10.0, step=step)
    writer.flush()


def steps_in(folder):
    """As TensorBoard reads a folder: all its event files, one after another, by their names.

    Names of one second end in the number of the file, and 10 comes before 9.
    """
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return sorted(event.step for event in events.Tensors("loss"))


def steps_in_file(path):
    events = tf.compat.v1.train.summary_iterator(str(path))
    return [event.step for event in events if event.HasField("summary")]


def test_a_file_is_cut_to_its_length_at_the_backup(tmp_path):
    writer = open_writer(tmp_path)
    write(writer, 0, 1)
    lengths = event_file_lengths(tmp_path)
    write(writer, 2, 3)
    writer.close()
    assert steps_in(tmp_path) == [0, 1, 2, 3]
    cut_event_files(tmp_path, lengths, is_open=False)
    assert event_file_lengths(tmp_path) == lengths
    assert steps_in(tmp_path) == [0, 1]


def test_the_file_of_the_open_writer_stays_and_goes_on(tmp_path):
    old = open_writer(tmp_path)
    write(old, 0, 1)
    lengths = event_file_lengths(tmp_path)
    write(old, 2, 3)
    new = open_writer(tmp_path)
    for _ in range(2):  # loading twice is the same as once
        cut_event_files(tmp_path, lengths, is_open=True)
    write(new, 2)
    assert steps_in(tmp_path) == [0, 1, 2]


def test_a_writer_that_an_exception_left_open_spoils_nothing(tmp_path):
    """What it has not yet flushed would come to lie behind the cut, with a hole before it that ends every reading."""
    old = open_writer(tmp_path)
    write(old, 0, 1)
    lengths = event_file_lengths(tmp_path)
    write(old, 2)
    cut_event_files(tmp_path, lengths, is_open=False)
    write(old, 3)
    old.close()
    (name,) = lengths
    assert steps_in_file(tmp_path / name) == [0, 1]


def test_files_that_came_later_are_set_aside_and_not_deleted(tmp_path):
    first = open_writer(tmp_path)
    write(first, 0)
    lengths = event_file_lengths(tmp_path)
    second = open_writer(tmp_path)  # of a run that was killed too, before its first backup
    write(second, 1, 2)
    third = open_writer(tmp_path)
    cut_event_files(tmp_path, lengths, is_open=True)
    write(third, 1)
    assert steps_in(tmp_path) == [0, 1]
    (aside,) = [path for path in tmp_path.iterdir() if "superseded" in path.name]
    assert steps_in_file(aside) == [1, 2]


def test_only_files_of_this_writer_are_touched(tmp_path):
    for name in NOT_OURS:
        (tmp_path / name).write_text("not ours")
    ours = open_writer(tmp_path)
    write(ours, 0)
    cut_event_files(tmp_path, {}, is_open=False)
    assert {path.name for path in tmp_path.iterdir() if path.read_bytes() == b"not ours"} == set(NOT_OURS)
    assert event_file_lengths(tmp_path) == {}


def test_two_writers_of_one_folder_are_told_apart_by_their_suffix(tmp_path):
    keras_like, gradients = open_writer(tmp_path), open_writer(tmp_path, ".gradients.v2")
    write(keras_like, 0)
    write(gradients, 0)
    cut_event_files(tmp_path, {}, is_open=True)
    cut_event_files(tmp_path, {}, is_open=True, suffix=".gradients.v2")
    assert len(event_file_lengths(tmp_path)) == len(event_file_lengths(tmp_path, ".gradients.v2")) == 1


def test_the_open_file_is_the_newest_of_this_process_though_another_clock_is_ahead(tmp_path):
    ahead = tmp_path / "events.out.tfevents.9900000000.elsewhere.0.3.v2"
    ahead.write_bytes(b"")
    writer = open_writer(tmp_path)
    cut_event_files(tmp_path, {}, is_open=True)
    write(writer, 5)
    assert steps_in(tmp_path) == [5]
    assert not ahead.exists()


@pytest.mark.parametrize("harm", [os.remove, lambda path: os.truncate(path, 10)])
def test_a_file_that_lost_events_is_named(tmp_path, harm):
    writer = open_writer(tmp_path)
    write(writer, 0)
    lengths = event_file_lengths(tmp_path)
    (name,) = lengths
    harm(tmp_path / name)
    with pytest.warns(UserWarning, match=rf"{name} became shorter since the backup was made, or went away"):
        cut_event_files(tmp_path, lengths, is_open=False)


def test_a_folder_that_is_not_there_yet_has_no_files(tmp_path):
    assert event_file_lengths(tmp_path / "later") == {}
    cut_event_files(tmp_path / "later", {}, is_open=False)


def test_file_systems_of_tensorflow_serve_as_well():
    folder = "ram://event_files/train"
    old = open_writer(folder)
    write(old, 0)
    lengths = event_file_lengths(folder)
    write(old, 1)
    old.close()
    cut_event_files(folder, lengths, is_open=False)
    assert event_file_lengths(folder) == lengths
