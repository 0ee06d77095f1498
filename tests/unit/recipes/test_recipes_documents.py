"""What the table, the headline and the model card say where a run went another way than hoped."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from image_folders import write_images

from keras_opt.recipes import Recipe, training
from keras_opt.recipes.documents import comparison, write_documents
from keras_opt.recipes.recipe import CHOSEN_FIELDS
from keras_opt.recipes.regularization import regularization


def changed(result, folder, **optimised):
    side = dataclasses.replace(result.optimised, **optimised)
    folder.mkdir(exist_ok=True)
    shutil.copy(result.folder / "model.tflite", folder)
    return dataclasses.replace(result, optimised=side, folder=folder)


def cells(result):
    return {row[0]: row[1:] for row in comparison(result).rows}


def written(result, name):
    write_documents(result, result.folder)
    return (result.folder / name).read_text()


def test_a_side_that_never_gets_there_is_said_so(finished, tmp_path):
    missed = changed(
        finished, tmp_path, seconds_to_plain_best=None, cpu_seconds_to_plain_best=None, pruned_test_accuracy=0.5
    )
    table = cells(missed)
    assert table["CPU seconds to plain's best validation accuracy"][1] == "not reached"
    assert table["Seconds to plain's best validation accuracy"][1] == "not reached"
    assert table["Test accuracy after pruning"] == ("-", "50.00 %")
    page = written(missed, "report.html")
    assert "was not reached" in page
    assert "faster to plain" not in page


@pytest.mark.parametrize(("factor", "word", "other"), [(0.5, "faster", "slower"), (2.0, "slower", "faster")])
def test_the_headline_says_slower_where_it_is_slower(finished, tmp_path, factor, word, other):
    seconds = factor * finished.plain.cpu_seconds_to_plain_best
    page = written(changed(finished, tmp_path, cpu_seconds_to_plain_best=seconds), "report.html")
    assert "2.0×" in page  # noqa: RUF001
    assert f"{word} to plain" in page
    assert f"{other} to plain" not in page


def test_figures_of_two_sessions_are_marked(finished):
    assert finished.one_session
    assert "interrupted" not in comparison(finished).note
    assert "taken at different times" in comparison(dataclasses.replace(finished, one_session=False)).note


def test_a_resumed_run_has_two_sessions_and_warms_up_in_each(tiny_run, monkeypatch):
    real = training.Trainer.optimised

    def interrupt(self):
        raise KeyboardInterrupt

    warmed = []
    monkeypatch.setattr(training, "_warm_up", lambda *_: warmed.append("warm-up"))
    monkeypatch.setattr(training.Trainer, "optimised", interrupt)
    with pytest.raises(KeyboardInterrupt, match="finished: plain"):
        tiny_run(baseline=True, epochs=1, sparsity=0.0)
    assert warmed == ["warm-up"]
    monkeypatch.setattr(training.Trainer, "optimised", real)
    result = tiny_run(baseline=True, epochs=1, sparsity=0.0, resume=True)
    assert warmed == ["warm-up"] * 2
    assert not result.one_session


def test_the_warm_up_changes_no_weights():
    def first_weights():
        model = training.keras.Sequential([training.keras.Input((3,)), training.keras.layers.Dense(4)])
        return model.get_weights()[0]

    trainer = training.Trainer.__new__(training.Trainer)
    trainer.recipe = Recipe(seed=3)
    training._warm_up.cache_clear()
    values = []
    for _ in range(2):  # the first session warms up, the second does not
        with trainer._session("float32"):
            values.append(first_weights())
    np.testing.assert_array_equal(*values)


def test_the_card_of_a_folder_named_after_the_sample_claims_no_licence(tmp_path, tiny_run):
    folder = write_images(tmp_path / "my Fashion-MNIST photos")
    tested = write_images(tmp_path / "held-out", count=3, first_seed=900)
    result = tiny_run(data=folder, test=tested, epochs=1, sparsity=0.0)
    card = " ".join((result.folder / "model_card.md").read_text().split())
    assert "Licence: that of the folder's images" in card
    assert "the test images are the folder 'held-out', the others were drawn by class with seed 0" in card
    assert "come from 9 test images of the test folder 'held-out'" in card
    assert "of the same source" not in card


def test_the_worst_class_is_one_with_test_images(finished, tmp_path):
    counts = {**finished.counts, "test": {"blue": 4, "green": 0, "red": 2}}
    result = dataclasses.replace(finished, counts=counts, confusion=np.array([[3, 0, 1], [0, 0, 0], [0, 0, 2]]))
    card = written(changed(result, tmp_path), "model_card.md")
    assert "It finds fewest of class 'blue': 75.00 % of its test images." in card


def test_the_command_makes_the_model_again(finished, tmp_path):
    assert finished.command == f"keras-opt train --recipe {finished.folder / 'recipe.yaml'}"
    demo = dataclasses.replace(finished, recipe=Recipe.demo(seed=7, resume=True, out="runs/x"))
    assert demo.command == "keras-opt demo --seed 7"
    shorter = dataclasses.replace(finished, recipe=Recipe.demo(epochs=1))
    assert shorter.command.startswith("keras-opt train --recipe")
    code = "from keras_opt.cli.main import main; main()"
    words = finished.command.split()[1:]
    done = subprocess.run([sys.executable, "-c", code, *words, "--out", tmp_path / "run"], capture_output=True)
    assert done.returncode == 0, done.stderr
    for name in ("model.tflite", "plain.tflite", "recipe.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes()


def test_a_run_writes_down_what_was_chosen(finished):
    settings = json.loads((finished.folder / "result.json").read_text())["settings"]
    assert {name: settings[name] for name in CHOSEN_FIELDS} == regularization(42, 16, pretrained=False)
    assert Recipe.load(finished.folder / "recipe.yaml").augment == finished.recipe.augment == "cut_mix"
    assert "<td>cut_mix</td>" in (finished.folder / "report.html").read_text()
    assert "| augment | cut_mix |" in (finished.folder / "model_card.md").read_text()
    assert "training figures are those of augmented images" in (finished.folder / "report.html").read_text()
