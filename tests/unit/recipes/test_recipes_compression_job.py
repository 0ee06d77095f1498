"""compress_file: data from a folder or a file, the best file under its own name, the report."""

import keras
import numpy as np
import pytest
from image_folders import write_images

from keras_opt.compression import CompressionRecipe
from keras_opt.core.errors import InputError
from keras_opt.export import LiteRTModel
from keras_opt.models import convnet, mlp
from keras_opt.models.labelled_file import save_labelled
from keras_opt.recipes.compression_job import compress_file

QUIET = {"verbose": 0, "recipes": [CompressionRecipe("float32"), CompressionRecipe("dynamic")]}


@pytest.fixture(scope="module")
def on_rows(tmp_path_factory):
    """A folder with a model of 6 values and rows for it."""
    folder = tmp_path_factory.mktemp("rows")
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    mlp([48, 32], (6,), 2).save(folder / "model.keras")
    np.savez(folder / "rows.npz", x=x, y=y)
    return folder


def test_rows_of_a_file(on_rows, tmp_path):
    job = compress_file(str(on_rows / "model.keras"), str(on_rows / "rows.npz"), str(tmp_path), **QUIET)
    assert job.rows == {"training": 144, "validation": 36, "test": 20}
    assert set(job.test) == {"float32", job.result.best.name}
    assert (tmp_path / "model.tflite").read_bytes() == job.result.best.path.read_bytes()
    page = (tmp_path / "report.html").read_text()
    for text in ("bytes of TFLM arena", "Pareto front", f"{job.test['float32']:.4f}"):
        assert text in page
    columns = [page.index(f">{name}</th>") for name in ("MACs", "flash", "TFLM arena", "host latency")]
    assert columns == sorted(columns)


def test_no_file_within_the_limits(on_rows, tmp_path):
    limits = {**QUIET, "max_flash_bytes": 10}
    job = compress_file(str(on_rows / "model.keras"), str(on_rows / "rows.npz"), str(tmp_path), **limits)
    assert job.result.best is None
    assert not (tmp_path / "model.tflite").exists()
    assert "No file is within the limits: a drop of 0.01, 10 bytes of flash" in (tmp_path / "report.html").read_text()


def test_a_folder_of_images(tmp_path):
    photos = write_images(tmp_path / "photos", 10, 8, ("blue", "red"))
    model = convnet([8], (8, 8, 3), 2, preprocessing=keras.layers.Rescaling(1 / 255))
    save_labelled(model, tmp_path / "model.keras", ["blue", "red"])
    job = compress_file(str(tmp_path / "model.keras"), str(photos), str(tmp_path / "out"), **{**QUIET, "max_drop": 1})
    assert LiteRTModel(tmp_path / "out" / "model.tflite").class_names == ("blue", "red")
    assert (tmp_path / "out" / "labels.txt").read_text() == "blue\nred\n"
    assert (tmp_path / "out" / "predict.py").is_file()
    assert job.rows["test"] == 2
    save_labelled(model, tmp_path / "model.keras", ["blue", "green"])
    with pytest.raises(InputError, match=r"The model has the classes blue, green and .* has blue, red"):
        compress_file(str(tmp_path / "model.keras"), str(photos), str(tmp_path / "other"), **QUIET)


def test_data_that_do_not_fit(on_rows, tmp_path):
    model = str(on_rows / "model.keras")
    with pytest.raises(InputError, match=r"takes inputs of shape .*, no square images"):
        compress_file(model, str(tmp_path), str(tmp_path / "out"), **QUIET)
    with pytest.raises(InputError, match="neither a folder of images nor an"):
        compress_file(model, str(tmp_path / "none.npz"), str(tmp_path / "out"), **QUIET)
    np.savez(tmp_path / "wide.npz", x=np.ones((20, 7)), y=np.zeros(20, int))
    with pytest.raises(InputError, match=r"has x of shape \(20, 7\).*takes rows of shape \(6,\)"):
        compress_file(model, str(tmp_path / "wide.npz"), str(tmp_path / "out"), **QUIET)
    np.savez(tmp_path / "odd.npz", x=np.ones((40, 6)), y=np.arange(40) % 2 + 1)
    with pytest.raises(InputError, match=r"compress: argument `train` must be batches with labels from 0 to 1, .* 2 "):
        compress_file(model, str(tmp_path / "odd.npz"), str(tmp_path / "out"), **QUIET)


def test_whole_numbers_to_regress_are_no_classes(tmp_path):
    keras.utils.set_random_seed(0)
    mlp([4], (6,), 1, classifier_activation=None).save(tmp_path / "model.keras")
    np.savez(tmp_path / "rows.npz", x=np.ones((40, 6)), y=np.arange(40))
    settings = {**QUIET, "recipes": [CompressionRecipe("float32")], "task": "regression", "metric": "mae"}
    job = compress_file(str(tmp_path / "model.keras"), str(tmp_path / "rows.npz"), str(tmp_path / "out"), **settings)
    assert job.rows == {"training": 29, "validation": 7, "test": 4}
