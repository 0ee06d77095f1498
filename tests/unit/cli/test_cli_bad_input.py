"""Every bad input of a command is one line that names the thing and the cure, with a status that is not zero."""

import errno
import json
import shutil
import sys

import keras
import numpy as np
import pytest
from image_folders import damage, write_images

SMALL = ("--image-size", 16, "--epochs", 1, "--batch-size", 16, "--no-baseline", "--augment", "none", "--sparsity", 0)


def assert_one_line(result, *parts, status=1, progress=False):
    lines = result.err.splitlines()
    own = [line for line in lines if line.startswith("keras-opt")]
    assert own == lines[-1:], result.err
    assert progress or lines == own, result.err
    assert "Traceback" not in result.err
    assert result.status == status
    assert result.out == ""
    for part in parts:
        assert part in own[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["No such command 'trian'", "See keras-opt --help."]),
        (["train"], ["keras-opt train: Name the folder of images", "See keras-opt train --help."]),
        (["train", "photos", "--image-size", "0"], ["'--image-size': 0 is not in the range x>=4"]),
        (["train", "photos", "--image-size", "big"], ["'--image-size': 'big' is not a valid integer"]),
        (["train", "photos", "--epochs", "0"], ["'--epochs': 0 is not in the range x>=1"]),
        (["train", "photos", "--validation-split", "20"], ["'--validation-split': 20.0 is not in the range 0<x<1"]),
        (["train", "photos", "--test-split", "0"], ["'--test-split': 0.0 is not in the range 0<x<1"]),
        (["train", "photos", "--quantize", "int7"], ["'int7' is not one of 'int8', 'dynamic', 'float16', 'float32'"]),
        (["train", "photos", "--class-weight", "foo"], ["'--class-weight': 'foo' is not", "'balanced'"]),
        (["train", "photos", "--color-mode", "cmyk"], ["'cmyk' is not one of 'rgb', 'grayscale'"]),
        (["train", "photos", "--seed", "-1"], ["'--seed': -1 is not in the range x>=0"]),
        (["train", "photos", "--epoch", "3"], ["No such option '--epoch'", "--epochs"]),
        (
            ["train", "photos", "--test", "a", "--test-split", "0.2"],
            ["--test names the test images, --test-split draws"],
        ),
        (["demo", "extra"], ["unexpected extra argument"]),
        (["predict", "model.keras"], ["Missing argument 'IMAGES...'"]),
        (["bench"], ["Missing argument 'FILES...'"]),
        (["lr-find"], ["Missing argument 'DIRECTORY'", "See keras-opt lr-find --help."]),
        (["lr-find", "photos", "--batch-size", "0"], ["'--batch-size': 0 is not in the range x>=1"]),
        (["lr-find", "photos", "--plot", "rates"], ["--plot names a file that ends in .png, .svg, .pdf, not 'rates'"]),
        (["lr-find", "photos", "--plot", "no/rates.png"], ["--plot: there is no folder 'no'"]),
        (["train", "photos", "--max-learning-rate", "0"], ["'--max-learning-rate': 0.0 is not in the range x>0"]),
        (["launch"], ["Missing argument 'SCRIPT'", "See keras-opt launch --help."]),
        (["launch", "no.py"], ["'SCRIPT': File 'no.py' does not exist"]),
        (["launch", "--workers", "0", "train.py"], ["'--workers': 0 is not in the range x>=1"]),
        (["launch", "--worker", "2", "train.py"], ["No such option '--worker'", "--workers"]),
        (["bench", "a.tflite", "--runs", "0"], ["'--runs': 0 is not in the range x>=1"]),
        (["export", "a.keras", "--quantize", "int3"], ["'int3' is not one of"]),
        (["export", "a.keras"], ["int8 needs --representative, a folder of images or an .npz file"]),
    ],
)
def test_a_mistyped_command_line(cli, arguments, parts):
    assert_one_line(cli(*arguments), *parts, status=2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--strategy", "multiworker"], ["A run is of one process; for several, give `keras-opt launch` a script"]),
        (["--strategy", "miror"], ["`strategy` must be one of None, 'auto', 'one', 'mirrored'", "Did you mean 'mirro"]),
        (["--strategy", "one", "--device", "cpu"], ["`device` must be None beside strategy='one'", "leave one of the"]),
    ],
)
def test_a_strategy_that_cannot_be(cli, options, parts):
    assert_one_line(cli("train", "photos", *options), *parts)


def test_no_command_shows_the_help(cli):
    result = cli()
    assert (result.status, result.err) == (0, "")
    assert "Usage: keras-opt" in result.out


def no_folder(folder):
    shutil.rmtree(folder)


def empty_folder(folder):
    for path in folder.iterdir():
        shutil.rmtree(path)


def one_class(folder):
    shutil.rmtree(folder / "red")
    shutil.rmtree(folder / "blue")


def two_images(folder):
    for path in sorted((folder / "red").iterdir())[2:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (
            no_folder,
            ["Image folder 'photos' does not exist.", "Give the path of a folder with one sub-folder a class."],
        ),
        (empty_folder, ["Image folder 'photos' has no sub-folders.", "Make one sub-folder a class"]),
        (one_class, ["Image folder 'photos' has only one class, 'green'.", "Add a sub-folder"]),
        (two_images, ["Class 'red' has 2 images, but the split needs at least 3", "Add images"]),
    ],
)
def test_a_folder_that_cannot_be_used(cli, photos, tmp_path, spoil, parts):
    spoil(photos)
    assert_one_line(cli("train", "photos", *SMALL), *parts)
    assert_one_line(cli("lr-find", "photos", "--image-size", 16), *parts)
    assert not list(tmp_path.glob("runs/*"))


def test_more_than_a_tenth_damaged(cli, photos, tmp_path):
    for number in range(6):
        damage(photos / "red" / f"{number:03d}.png", "truncated")
    result = cli("train", "photos", *SMALL)
    assert_one_line(result, "images cannot be read, more than the 10%", "photos/red/00", "Replace", progress=True)
    assert "with keras_opt" not in result.err  # no training was begun
    assert not list(tmp_path.glob("runs/*"))


def test_a_few_damaged_files_are_named_at_the_end(cli, photos):
    damage(photos / "red" / "003.png", "truncated")
    damage(photos / "blue" / "004.png", "text")
    result = cli("train", "photos", *SMALL)
    assert result.status == 0
    assert "2 files were left out:" in result.out
    assert "photos/red/003.png (" in result.out
    assert "truncated" in result.out
    assert "photos/blue/004.png (cannot identify image file" in result.out
    assert "Files that were left out" in (photos.parent / "runs/photos/report.html").read_text()
    again = cli("train", "photos", *SMALL)
    assert "Everything is in runs/photos-2;" in again.out


def test_files_that_are_passed_over_are_named_at_the_end(cli, photos):
    (photos / "red" / "new.webp").write_bytes(b"webp")
    (photos / "red" / "deeper").mkdir()
    (photos / "red" / "000.png").rename(photos / "red" / "deeper" / "000.png")
    (photos / "blue" / "Thumbs.db").write_bytes(b"")
    result = cli("train", "photos", *SMALL)
    assert result.status == 0
    assert "2 files were left out:" in result.out
    assert "photos/red/new.webp (not read: .webp; use JPEG, PNG, BMP or GIF)" in result.out
    assert "photos/red/deeper/000.png (in a folder below its class)" in result.out
    figures = json.loads((photos.parent / "runs/photos/result.json").read_text())
    assert {file["path"] for file in figures["skipped"]} == {"photos/red/new.webp", "photos/red/deeper/000.png"}
    assert "new.webp" in (photos.parent / "runs/photos/report.html").read_text()


def test_a_test_folder_with_other_classes(cli, photos, tmp_path):
    write_images(tmp_path / "other", 1, classes=("red", "green"))
    result = cli("train", "photos", "--test", "other", *SMALL)
    assert_one_line(result, "Test folder 'other' must have the classes of 'photos'", "differ in: blue.", "Give both")


def test_an_output_folder_that_holds_a_run(cli, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/result.json").write_text("{}")
    result = cli("train", "photos", "--out", "out", *SMALL)
    assert_one_line(result, "Output folder 'out' holds a run already.", "--overwrite", "another --out")
    (tmp_path / "out").rename(tmp_path / "out.partial")
    result = cli("train", "photos", "--out", "out", *SMALL)
    assert_one_line(result, "'out.partial' holds an interrupted run.", "--resume", "--overwrite")
    assert_one_line(cli("train", "photos", "--resume", "--overwrite", *SMALL), "choose one")
    result = cli("train", "photos", "--out", "other", "--resume", *SMALL)
    assert_one_line(result, "no interrupted run of 'other'", "Leave out --resume")


def test_the_folder_of_images_is_never_the_output(cli, photos):
    result = cli("train", "photos", "--out", "photos", "--overwrite", *SMALL)
    assert_one_line(result, "Output folder 'photos' holds files that are no run.", "another with --out")
    assert len(list(photos.rglob("*.png"))) == 30


def test_an_output_that_cannot_be_written(cli, photos, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("train", "photos", "--out", "file/run", *SMALL)
    assert_one_line(result, "'file/run' cannot be written (Not a directory).", "Give another with --out")


def test_a_full_disk(cli, photos, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("keras_opt.recipes.documents.write_report", full)
    result = cli("train", "photos", "--out", "run", *SMALL)
    parts = ["The disk of 'run.partial' is full. Free some space.", "finished: optimised, pruned", "--resume"]
    assert_one_line(result, *parts, progress=True)


def test_an_unknown_key_in_a_recipe(cli, tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: photos\nepoch: 3\n")
    result = cli("train", "--recipe", "recipe.yaml")
    assert_one_line(result, "Recipe file 'recipe.yaml' has an unknown key 'epoch'. Did you mean 'epochs'?")
    assert_one_line(cli("train", "--recipe", "none.yaml"), "Recipe file 'none.yaml' cannot be read", "Give a YAML file")


def test_a_device_that_is_not_there(cli, photos):
    result = cli("train", "photos", "--device", "gpu:3", *SMALL)
    assert_one_line(result, "argument `device` must be one of cpu:0", "Received: device='gpu:3'", "Leave it out")
    result = cli("lr-find", "photos", "--device", "gpu:3")
    assert_one_line(result, "argument `device` must be one of cpu:0", "Received: device='gpu:3'", "Leave it out")


def test_a_backbone_without_its_weights(cli, photos):
    unknown = cli("train", photos, *SMALL, "--backbone", "MobileNetV4")
    assert_one_line(unknown, "argument `backbone` must be a network of keras.applications", "'MobileNetV")
    absent = cli("train", photos, *SMALL[2:], "--image-size", 32, "--backbone", "MobileNet", "--weights", "no.h5")
    assert_one_line(
        absent, 'finetune: argument `weights` must be "imagenet", a file or None', "no.h5", "--weights none"
    )


def test_weights_none_are_random_ones(cli, photos, monkeypatch):
    given = []
    monkeypatch.setattr("keras_opt.recipes.main_job.run", lambda recipe: given.append(recipe) or sys.exit(3))
    for text in ("none", "None"):
        assert cli("train", photos, *SMALL, "--backbone", "MobileNet", "--weights", text).status == 3
    assert [recipe.weights for recipe in given] == [None, None]


def test_a_test_split_takes_the_place_of_the_test_folder_of_a_recipe(cli, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("keras_opt.recipes.main_job.run", lambda recipe: given.append(recipe) or sys.exit(3))
    (tmp_path / "recipe.yaml").write_text("data: photos\ntest: elsewhere\n")
    assert cli("train", "--recipe", "recipe.yaml", "--test-split", "0.3").status == 3
    assert (given[0].test, given[0].test_split) == (None, 0.3)


def test_the_model_is_never_the_output_of_its_export(cli, tmp_path, model_file):
    shutil.copy(model_file, tmp_path / "model.keras")
    result = cli("export", "model.keras", "--quantize", "float32", "--out", "model.keras")
    assert_one_line(result, "--out names the model itself", "another name", status=2)
    assert (tmp_path / "model.keras").read_bytes() == model_file.read_bytes()


def test_a_model_that_answers_with_nan_names_no_class(cli, tmp_path, photos):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    result = cli("predict", "nan.keras", "photos/red/000.png")
    assert_one_line(result, "'nan.keras' answers image 'photos/red/000.png' with NaN")


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_keras_file_that_is_none(cli, tmp_path, command):
    (tmp_path / "model.keras").write_text("no model")
    more = ["image.png"] if command == "predict" else ["--quantize", "float32"]
    result = cli(command, "model.keras", *more)
    assert_one_line(result, "'model.keras' is no .keras file", "Give a file that model.save('name.keras') wrote")
    assert_one_line(cli(command, "none.keras", *more), "'none.keras' is not there")


def test_other_files_that_are_not_what_they_should_be(cli, tmp_path, model_file):
    (tmp_path / "model.tflite").write_text("no model")
    (tmp_path / "image.png").write_text("no image")
    assert_one_line(cli("bench", "model.tflite"), "model.tflite")
    assert_one_line(cli("bench", "none.tflite"), "there is no file none.tflite")
    assert_one_line(cli("predict", "model.tflite", "image.png"), "model.tflite")
    assert_one_line(cli("predict", model_file, "image.png"), "Image 'image.png' cannot be read", "Give a JPEG")
    result = cli("export", model_file, "--out", "a.tflite", "--representative", "none")
    assert_one_line(result, "must be a folder of images or a NumPy file", "representative_data='none'")
    result = cli("export", model_file, "--out", "none/a.tflite", "--quantize", "float32")
    assert_one_line(result, "Make none first")


def test_debug_shows_where_an_error_comes_from(cli):
    result = cli("train", "none", "--debug", *SMALL)
    assert result.status == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("keras-opt: Image folder 'none' does not exist.")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("odd\nmore"), "keras-opt: RuntimeError: odd. Add --debug to see where it comes from."),
        (MemoryError(), "keras-opt: MemoryError: no reason given. Add --debug to see where it comes from."),
        (ImportError("Run: pip install x"), "keras-opt: Run: pip install x"),
    ],
)
def test_an_unforeseen_error_is_one_line_too(cli, monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("keras_opt.recipes.prediction.Predictor", fail)
    result = cli("predict", "model.keras", "image.png")
    assert (result.status, result.err) == (1, line + "\n")


def test_an_interrupt_anywhere_is_one_line_and_130(cli, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt("Kept: all.")

    monkeypatch.setattr("keras_opt.recipes.prediction.Predictor", interrupt)
    result = cli("predict", "model.keras", "image.png")
    assert result.status == 130
    assert result.err.strip() == "Interrupted. Kept: all."
