"""A finished run: every file and figure that it promises."""

import csv
import dataclasses
import errno
import hashlib
import json
import shutil
import warnings
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from keras_opt.callbacks.backup import backup_folder
from keras_opt.compression import sparsity
from keras_opt.core.progress import Progress
from keras_opt.data import load_fashion_mnist_sample
from keras_opt.export import LiteRTModel
from keras_opt.models.labelled_file import read_class_names
from keras_opt.recipes import Recipe, run
from keras_opt.recipes.figures import best_within, confusion_matrix, cost_to_reach, worst_mistakes
from keras_opt.recipes.images import Images, prepare

FILES = {
    "report.html",
    "model.keras",
    "model.tflite",
    "plain.tflite",
    "labels.txt",
    "preprocess.json",
    "predict.py",
    "history.csv",
    "model_card.md",
    "result.json",
    "recipe.yaml",
}
SIDE_KEYS = {
    "test_accuracy",
    "pruned_test_accuracy",
    "device_test_accuracy",
    "seconds_to_plain_best",
    "cpu_seconds_to_plain_best",
    "parameters",
    "sparsity",
    "macs",
    "tflite_bytes",
    "tflite_gzip_bytes",
    "latency_ms",
    "argmax_agreement",
    "epochs",
    "batch_size",
}


def test_the_folder_holds_what_is_promised_and_nothing_else(finished):
    assert {path.name for path in finished.folder.iterdir()} == FILES
    assert not list(finished.folder.parent.glob("*.partial"))


def test_result_json_has_the_promised_keys_and_the_figures_of_the_result(finished):
    stored = json.loads((finished.folder / "result.json").read_text())
    for side in ("plain", "optimised"):
        assert set(stored[side]) >= SIDE_KEYS
        assert stored[side] == dataclasses.asdict(getattr(finished, side))
    assert stored["class_names"] == ["blue", "green", "red"]
    assert stored["counts"]["test"] == {"blue": 2, "green": 2, "red": 2}
    assert np.sum(stored["confusion"]) == 6
    assert stored["settings"] == finished.recipe.settings


def test_the_figures_are_those_of_the_files(finished):
    model = keras.models.load_model(finished.folder / "model.keras", compile=False)
    file = LiteRTModel(finished.folder / "model.tflite")
    test, _ = prepare(finished.recipe, Progress(quiet=True)).read_test()
    by_keras = model.predict(test.pixels, verbose=0).argmax(axis=1)
    by_file = file.predict(test.pixels).argmax(axis=1)
    ours = finished.optimised
    assert ours.device_test_accuracy == np.mean(by_file == test.labels)
    assert ours.argmax_agreement == np.mean(by_file == by_keras)
    assert ours.parameters == model.count_params()
    assert ours.tflite_bytes == (finished.folder / "model.tflite").stat().st_size
    assert ours.sparsity == sparsity(model)["total"]
    assert (file.input.dtype, file.class_names) == ("int8", ("blue", "green", "red"))
    if ours.pruned_test_accuracy is not None:
        assert ours.pruned_test_accuracy == np.mean(by_keras == test.labels)
        assert ours.sparsity == pytest.approx(0.5, abs=0.01)
    assert LiteRTModel(finished.folder / "plain.tflite").input.dtype == "float32"
    assert finished.plain.argmax_agreement == 1


def test_the_model_takes_raw_pixels_and_carries_its_class_names(finished):
    model = keras.models.load_model(finished.folder / "model.keras")
    assert isinstance(model.layers[1], keras.layers.Rescaling)
    assert model.input_shape == (None, 16, 16, 3)
    assert not any("Random" in type(layer).__name__ for layer in model.layers)
    assert read_class_names(finished.folder / "model.keras") == ("blue", "green", "red")
    assert (finished.folder / "labels.txt").read_text() == "blue\ngreen\nred\n"


def test_history_csv_has_a_row_an_epoch_of_every_training(finished):
    with (finished.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "grad_norm", "seconds", "cpu_seconds"}
    assert set(rows[0]) >= wanted | {"training", "epoch"}
    for training, history in finished.histories.items():
        values = [float(row["val_accuracy"]) for row in rows if row["training"] == training]
        assert values == history["val_accuracy"]
    assert [row["training"] for row in rows].count("optimised") == finished.optimised.epochs
    assert all(float(row["grad_norm"]) > 0 for row in rows if row["training"] == "optimised")


def test_the_recipe_brings_the_settings_back(finished):
    assert Recipe.load(finished.folder / "recipe.yaml").settings == finished.recipe.settings


def test_the_report_is_one_file_that_shows_the_run(finished):
    text = (finished.folder / "report.html").read_text()
    assert "Confusion" in text
    for name in ("blue", "green", "red", "Gradient norm", "Precision", "device test accuracy"):
        assert name in text

    class Links(HTMLParser):
        found = ()

        def handle_starttag(self, tag, attrs):
            self.found += tuple(value for name, value in attrs if name in ("src", "href") and value)

    links = Links()
    links.feed(text)
    assert all(link.startswith(("data:", "#")) for link in links.found)


def test_the_model_card_says_where_everything_comes_from(finished):
    text = (finished.folder / "model_card.md").read_text()
    for fact in ("blue", "'photos'", "43 training", "6 test", "keras-opt train --recipe", "Seed", "tensorflow"):
        assert fact.lower() in text.lower(), fact


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_run_and_says_so(finished, tiny_run, tmp_path, monkeypatch, number):
    shutil.copytree(finished.folder, tmp_path / "run")
    before = contents(tmp_path / "run")

    def full(*_):
        raise OSError(number, "No space left on device")

    monkeypatch.setattr("keras_opt.recipes.documents.write_model_card", full)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        tiny_run(overwrite=True, epochs=1, sparsity=0.0)
    message = str(caught.value)
    assert "is full. Free some space" in message
    assert "finished: optimised, pruned" in message
    assert "--resume" in message
    assert f"The older run in {tmp_path / 'run'} is as it was" in message
    assert "\n" not in message
    assert contents(tmp_path / "run") == before
    monkeypatch.undo()
    result = tiny_run(resume=True, epochs=1, sparsity=0.0)
    assert result.plain is None
    assert "plain.tflite" not in contents(tmp_path / "run")


def test_a_disk_that_is_full_at_once_keeps_nothing_and_says_so(tiny_run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backup_folder, "write_state", full)
    monkeypatch.setitem(run.__globals__, "save_labelled", full)
    with (
        pytest.warns(UserWarning, match=r"no backup could be written \(.*No space left on device"),
        pytest.raises(ValueError, match=r"is full\. Free some space\. Nothing of this run is kept"),
    ):
        tiny_run(epochs=1)
    assert not list(tmp_path.iterdir())


def test_other_errors_of_the_disk_are_not_called_a_full_disk(tiny_run, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(run.__globals__, "save_labelled", broken)
    with pytest.raises(OSError, match="Input/output error"):
        tiny_run(epochs=1)


def demo(tmp_path, name):
    recipe = Recipe.demo(epochs=2, pruning_epochs=1, batch_size=32, out=str(tmp_path / name), baseline=False)
    return run(recipe, verbose=0)


def weights(result):
    return keras.models.load_model(result.folder / "model.keras", compile=False).get_weights()


def test_no_test_image_is_read_before_the_last_decision_and_none_decides(tmp_path, monkeypatch):
    sample = {"train": load_fashion_mnist_sample("train"), "test": load_fashion_mnist_sample("test")}
    events = []
    permuted = False

    def load(split):
        events.append(split)
        x, y = sample[split]
        x, y = x[:300], y[:300]
        return x, (np.random.default_rng(0).permutation(y) if permuted and split == "test" else y)

    real_fit = keras.Model.fit

    def fit(self, x, *arguments, **options):
        if isinstance(x, tf.data.Dataset):  # else the warm-up
            events.append("fit")
        return real_fit(self, x, *arguments, **options)

    monkeypatch.setattr("keras_opt.recipes.images.load_fashion_mnist_sample", load)
    monkeypatch.setattr(keras.Model, "fit", fit)
    first = demo(tmp_path, "first")
    assert events == ["train", "fit", "fit", "test"]
    permuted = True
    second = demo(tmp_path, "second")
    assert first.optimised.device_test_accuracy != second.optimised.device_test_accuracy
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (tmp_path / "first/model.tflite").read_bytes() == (tmp_path / "second/model.tflite").read_bytes()


def test_no_test_file_is_read_before_the_last_decision(tiny_run, monkeypatch):
    from keras_opt.recipes import images

    events = []
    real_decode, real_export = images.decode_files, run.__globals__["to_tflite"]

    def decode(paths, *arguments, **options):
        events.append(len(paths))
        return real_decode(paths, *arguments, **options)

    def export(*arguments, **options):
        events.append("export")
        return real_export(*arguments, **options)

    monkeypatch.setattr(images, "decode_files", decode)
    monkeypatch.setitem(run.__globals__, "to_tflite", export)
    tiny_run(epochs=1)
    assert events == [54, "export", 6]


def test_a_training_that_diverges_says_so(tiny_run):
    refused = pytest.raises(ValueError, match=r"'with keras_opt' diverged: its weights are NaN.*below 1e\+30")
    with refused, pytest.warns(UserWarning, match="gradients are not finite"):
        tiny_run(max_learning_rate=1e30)


def test_epochs_of_one_batch_are_pruned_to_the_end_before_one_is_the_best(tiny_run):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*denser than the model became later")
        tiny_run(batch_size=64, pruning_epochs=30, max_learning_rate=1e-12)


def test_times_and_bests_are_read_from_the_right_epoch():
    history = {"val_accuracy": [0.1, 0.6, 0.5, 0.7], "seconds": [1, 2, 3, 4], "cpu_seconds": [10, 20, 30, 40]}
    assert cost_to_reach(0.6, history) == (2, 20)
    assert cost_to_reach(0.65, history) == (4, 40)
    assert cost_to_reach(0.8, history) == (None, None)
    assert [best_within(seconds, history) for seconds in (5, 10, 35, 99)] == [None, 0.1, 0.6, 0.7]


def test_the_confusion_matrix_counts_true_classes_in_rows():
    generator = np.random.default_rng(0)
    outputs, labels = generator.random((50, 4)), generator.integers(0, 4, 50)
    expected = sklearn.metrics.confusion_matrix(labels, outputs.argmax(axis=1), labels=range(4))
    np.testing.assert_array_equal(confusion_matrix(outputs, labels), expected)


def test_the_worst_mistakes_are_the_surest_wrong_answers():
    outputs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], np.float32)
    test = Images(np.arange(4)[:, None], np.array([1, 1, 1, 0]))
    wrong = worst_mistakes(outputs, test, ("a", "b"))
    assert [(one.index, one.true_class, one.predicted_class) for one in wrong] == [
        (0, "b", "a"),
        (3, "a", "b"),
        (1, "b", "a"),
    ]
