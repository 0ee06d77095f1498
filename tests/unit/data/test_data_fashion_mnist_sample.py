"""The embedded slice, and the program that makes it (fed with a small stand-in for Debian's files)."""

import gzip
import hashlib
import importlib.resources
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_opt.core.errors import InputError
from keras_opt.data import FASHION_MNIST_CLASSES, load_fashion_mnist_sample

FILES = importlib.resources.files("keras_opt.data") / "fashion_mnist"


@pytest.fixture
def maker():
    path = Path(__file__).parents[3] / "benchmarks" / "_fashion_mnist.py"
    spec = importlib.util.spec_from_file_location("fashion_mnist_maker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_source(maker, tmp_path, monkeypatch):
    """50 training and 30 test images of each class; every image is its own number."""
    for split, per_class in (("train", 50), ("t10k", 30)):
        labels = np.arange(10, dtype=np.uint8).repeat(per_class)
        images = np.zeros((len(labels), 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(len(labels)), 256)
        for name, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            with gzip.open(tmp_path / f"{split}-{name}-ubyte.gz", "wb") as file:
                file.write(bytes(header) + values.tobytes())
    monkeypatch.setattr(maker, "SOURCE", tmp_path)
    monkeypatch.setattr(maker, "SAMPLE_PER_CLASS", {"train": 40, "test": 20})
    return tmp_path


def test_arrays_are_those_of_keras_datasets_only_fewer():
    (x_train, y_train), (x_test, y_test) = load_fashion_mnist_sample()
    assert x_train.shape == (10000, 28, 28)
    assert x_test.shape == (2000, 28, 28)
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(np.bincount(y_train), [1000] * 10)
    np.testing.assert_array_equal(np.bincount(y_test), [200] * 10)
    assert len(FASHION_MNIST_CLASSES) == 10


def test_rows_are_shuffled_and_no_test_image_is_a_training_image():
    (x_train, y_train), (x_test, _) = load_fashion_mnist_sample()
    assert all(len(np.unique(y_train[start : start + 500])) == 10 for start in range(0, 10000, 500))
    seen = {image.tobytes() for image in x_train}
    assert not [image for image in x_test if image.tobytes() in seen]


def test_files_are_small_and_are_those_that_the_notice_names():
    assert sum((FILES / f"{split}.npz").stat().st_size for split in ("train", "test")) < 6e6
    notice = (FILES / "NOTICE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in notice
    for name in ("train.npz", "test.npz"):
        assert f"{hashlib.sha256((FILES / name).read_bytes()).hexdigest()}  {name}" in notice


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_one_split_reads_only_its_own_file(split, other, tmp_path, monkeypatch):
    whole = dict(zip(("train", "test"), load_fashion_mnist_sample(), strict=True))[split]
    (tmp_path / "fashion_mnist").mkdir()
    shutil.copy(str(FILES / f"{split}.npz"), tmp_path / "fashion_mnist")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    for alone, both in zip(load_fashion_mnist_sample(split), whole, strict=True):
        np.testing.assert_array_equal(alone, both)
    with pytest.raises(FileNotFoundError):
        load_fashion_mnist_sample(other)


def test_unknown_split():
    with pytest.raises(InputError, match=r"argument `split` must be one of .*split='tset'. Did you mean 'test'\?"):
        load_fashion_mnist_sample("tset")


def test_maker_draws_by_class_without_repeats_and_the_same_bits_each_time(maker, small_source, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        maker.write_sample(tmp_path / name)
    for split, per_class, available in (("train", 40, 50), ("test", 20, 30)):
        assert (tmp_path / "a" / f"{split}.npz").read_bytes() == (tmp_path / "b" / f"{split}.npz").read_bytes()
        with np.load(tmp_path / "a" / f"{split}.npz", allow_pickle=False) as sample:
            numbers = sample["x"][:, 0, 0].astype(int) * 256 + sample["x"][:, 0, 1]
            np.testing.assert_array_equal(np.bincount(sample["y"]), [per_class] * 10)
            np.testing.assert_array_equal(numbers // available, sample["y"])
        assert len(set(numbers)) == 10 * per_class


def test_maker_names_the_package_that_brings_the_source(maker, tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "SOURCE", tmp_path / "none")
    with pytest.raises(SystemExit, match=r"is missing\. Run: apt-get install dataset-fashion-mnist"):
        maker.load_fashion_mnist()
