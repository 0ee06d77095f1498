"""The commands at work, and help that costs nothing."""

import csv
import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from image_folders import COLOURS, noisy

import keras_opt
from keras_opt.cli.showing import show_table
from keras_opt.compression import Candidate, CompressionResult
from keras_opt.export import LiteRTModel
from keras_opt.recipes import Recipe, compression_job
from keras_opt.recipes.images import image_sizes
from keras_opt.recipes.regularization import MANY, SMALL
from keras_opt.recipes.run_folder import RunFolder
from keras_opt.report import Table

COMMANDS = ("demo", "train", "predict", "compress", "export", "bench", "lr-find")


def test_version(cli):
    assert cli("--version").out == f"keras-opt, version {keras_opt.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(cli, command):
    result = cli(command, "--help")
    assert result.status == 0
    assert f"Example: keras-opt {command}" in result.out
    assert command in cli("--help").out


def test_the_help_of_train_states_the_defaults_of_the_recipe(cli):
    text = " ".join(cli("train", "--help").out.split())
    recipe = Recipe()
    for name in ("image_size", "color_mode", "validation_split", "test_split", "epochs", "batch_size", "quantize"):
        assert f"[default: {getattr(recipe, name)}]" in text, name
    for name in ("sparsity", "seed", "max_learning_rate"):
        assert f"[default: {getattr(recipe, name)}]" in text, name
    assert f"below {MANY:,} affine turns, shifts and flips them a little (up to {SMALL} pixels" in text


def test_help_and_mistakes_never_wait_for_tensorflow():
    lines = [[command, "--help"] for command in COMMANDS]
    lines += [["--version"], ["--help"], ["train", "photos", "--image-size", "0"], ["export", "a.keras"]]
    code = f"""
import sys
from keras_opt.cli.main import main
for line in {lines!r}:
    sys.argv = ["keras-opt", *line]
    try:
        main()
    except SystemExit:
        heavy = {{"tensorflow", "keras", "matplotlib"}} & set(sys.modules)
        if heavy:
            raise RuntimeError(f"{{line}} imported {{heavy}}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    for command in COMMANDS:
        assert f"Example: keras-opt {command}" in run.stdout


@pytest.fixture
def images(tmp_path):
    for number, (name, colour) in enumerate(COLOURS.items()):
        noisy(colour, seed=number).save(tmp_path / f"{name}.png")
    return [f"{name}.png" for name in COLOURS]


def test_predict_names_each_image(cli, model_file, images):
    result = cli("predict", model_file, *images)
    lines = result.out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == ["blue.png: blue", "green.png: green", "red.png: red"]
    assert all(line.endswith("%") for line in lines)


def test_predict_answers_the_others_beside_a_bad_image(cli, model_file, images, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    result = cli("predict", model_file, images[0], "bad.png", "none.png", images[1])
    assert [line.split(":")[0] for line in result.out.splitlines()] == ["blue.png", "green.png"]
    errors = result.err.splitlines()
    assert [line.split(" cannot be read (")[0] for line in errors] == [
        "keras-opt: Image 'bad.png'",
        "keras-opt: Image 'none.png'",
    ]
    assert result.status == 1


def test_names_that_the_output_cannot_write_are_shown_all_the_same(cli, model_file, images, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    os.rename(tmp_path / images[0], tmp_path / name)
    result = cli("predict", model_file, name, images[1])
    assert (result.status, result.err) == (0, "")
    assert [line.rsplit(" ", 1)[0] for line in result.out.splitlines()] == [
        "caf\\udce9.png: blue",
        "green.png: green",
    ]


@pytest.mark.parametrize("columns", [0, 5, 40, 80])
def test_no_figure_of_a_table_is_broken_or_left_out_where_the_terminal_is_narrow(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    figures = [f"{number}.2345" for number in range(12)]
    row = ("a/long/path/of/a/file/in/a/folder/model.tflite", *figures)
    show_table(Table("Title", [f"heading {number}" for number in range(13)], [row]))
    shown = capsys.readouterr().out.split()
    assert [word for word in shown if word in figures] == figures


def test_predict_csv_has_the_probability_of_every_class(cli, model_file, images):
    rows = list(csv.DictReader(io.StringIO(cli("predict", "--csv", model_file, *images).out)))
    assert [row["class"] for row in rows] == ["blue", "green", "red"]
    for row in rows:
        values = {name: float(row[name]) for name in ("blue", "green", "red")}
        assert sum(values.values()) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(values.values()) == values[row["class"]]


@pytest.mark.filterwarnings("default")
def test_export_bench_and_predict_with_a_folder(cli, model_file, photos, images):
    result = cli("export", model_file, "--out", "colours.tflite", "--representative", photos)
    assert result.err.splitlines()[-1].startswith("keras-opt: to_tflite: representative_data has 30 rows; under 100")
    assert result.status == 0, result.err
    for part in ("colours.tflite (int8)", "bytes", "1x16x16x3 int8", "blue, green, red", "on 16 rows"):
        assert part in result.out
    assert "blue.png: blue" in cli("predict", "colours.tflite", *images).out
    cli("export", model_file, "--out", "float.tflite", "--quantize", "float32")
    result = cli("bench", "float.tflite", "colours.tflite", "--runs", "20")
    assert result.status == 0, result.err
    assert "float.tflite" in result.out
    assert "colours.tflite" in result.out
    assert "1.00" in result.out


def test_export_reads_npz_and_writes_beside_the_model(cli, model_file, tmp_path):
    (tmp_path / "colours.keras").write_bytes(model_file.read_bytes())
    x = np.random.default_rng(0).integers(0, 256, (150, 16, 16, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    result = cli("export", "colours.keras", "--representative", "x.npz", "--sidecars")
    assert result.status == 0, result.err
    assert "labels.txt, preprocess.json, predict.py" in result.out
    file = LiteRTModel(tmp_path / "colours.tflite")
    assert file.class_names == ("blue", "green", "red")
    expected = keras.models.load_model(model_file).predict(x, verbose=0)
    assert np.abs(file.predict(x) - expected).max() < 0.1


def test_export_for_a_microcontroller(cli, model_file, tmp_path):
    result = cli("export", model_file, "--out", "a.tflite", "--quantize", "float32", "--tflm", "--c-array", "colours")
    assert result.status == 0, result.err
    arena = re.search(r"an arena of ([\d,]+) bytes; its operators: [A-Z_, \n]*SOFTMAX", result.out)[1].replace(",", "")
    assert "colours.h, colours.cc, colours_operators.h" in result.out
    assert f"colours_arena_bytes = {arena};" in (tmp_path / "colours.h").read_text()
    assert "// 'output'" in (tmp_path / "colours.h").read_text()


def test_export_of_what_a_microcontroller_cannot_run(cli, tmp_path):
    tiled = keras.Input((2,))
    keras.Model(tiled, keras.ops.tile(tiled, (1, 3))).save("tiled.keras")
    result = cli("export", "tiled.keras", "--quantize", "float32", "--tflm", "--c-array", "tiled")
    assert result.status == 1
    assert result.err.splitlines()[-1].startswith("keras-opt: run_tflm: tiled.tflite has operators that TFLite Micro")
    assert "lacks: TILE" in result.err
    assert "tiled.tflite (float32)" in result.out
    assert sorted(path.name for path in tmp_path.glob("tiled*")) == ["tiled.keras", "tiled.tflite"]


def test_train_with_a_recipe_and_options_that_go_before(cli, photos, tmp_path):
    changes = {"sparsity": 0.0, "baseline": False, "augment": "none"}
    settings = Recipe(data="photos", image_size=16, epochs=5, batch_size=8, **changes)
    settings.save(tmp_path / "mine.yaml")
    options = ("--epochs", 1, "--quantize", "float16", "--dropout", 0.25)
    result = cli("train", "--recipe", "mine.yaml", *options, "--out", "run")
    assert result.status == 0, result.err
    done = Recipe.load("run/recipe.yaml")
    assert (done.epochs, done.batch_size, done.quantize, done.image_size) == (1, 8, "float16", 16)
    assert (done.dropout, done.label_smoothing, done.augment) == (0.25, 0.0, "none")
    assert " training images: label smoothing 0\n" in result.err  # what nobody has set
    assert "run: what was trained" in result.out
    assert "open run/report.html first" in result.out
    assert "keras-opt train --recipe run/recipe.yaml" in (tmp_path / "run/model_card.md").read_text()
    assert "with keras_opt: 1/1 in" in result.err  # plain lines, as there is no terminal
    assert "\x1b[" not in result.err
    assert "\r" not in result.err


def test_demo_passes_its_options_on(cli, monkeypatch):
    shown = []
    monkeypatch.setattr("keras_opt.cli.showing.show_result", shown.append)
    monkeypatch.setattr(sys.modules["keras_opt.recipes.main_job"], "run", lambda recipe: recipe)
    assert cli("demo", "--seed", 3, "--out", "here", "--overwrite").status == 0
    assert shown == [Recipe.demo(seed=3, out="here", overwrite=True)]


def interrupted(monkeypatch, cli, *arguments):
    """Run a command until its first stage would be trained; `model.keras` is what it leaves."""

    def interrupt(folder, *_):
        (folder.path / "model.keras").write_bytes(b"model")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["keras_opt.recipes.main_job"], "_trained", interrupt)
    result = cli(*arguments)
    assert result.status == 130, result.err
    assert " --resume." in result.err


def recipes_run(monkeypatch):
    """The recipes that the commands run from now on, instead of running them."""
    recipes = []

    def run(recipe):
        RunFolder(recipe, image_sizes(recipe))
        recipes.append(recipe)

    monkeypatch.setattr("keras_opt.cli.showing.show_result", lambda result: None)
    monkeypatch.setattr(sys.modules["keras_opt.recipes.main_job"], "run", run)
    return recipes


def test_the_demo_goes_on_with_the_settings_of_the_interrupted_run(cli, monkeypatch):
    interrupted(monkeypatch, cli, "demo", "--seed", 2, "--out", "runs/d2")
    recipes = recipes_run(monkeypatch)
    assert cli("demo", "--out", "runs/d2", "--resume").status == 0
    assert cli("demo", "--out", "runs/d2", "--resume", "--seed", 2).status == 0
    assert recipes == [Recipe.demo(seed=2, out="runs/d2", resume=True)] * 2
    assert "has seed=2, this one seed=3" in cli("demo", "--out", "runs/d2", "--resume", "--seed", 3).err
    assert "no interrupted run of 'demo' under runs" in cli("demo", "--resume").err


def test_train_goes_on_with_the_settings_of_the_interrupted_run(cli, monkeypatch, photos):
    interrupted(monkeypatch, cli, "train", "photos", "--image-size", 16, "--seed", 7)
    recipes = recipes_run(monkeypatch)
    for arguments in (["photos/"], [photos], ["--out", "runs/photos"], ["photos", "--seed", 7]):
        result = cli("train", *arguments, "--resume")
        assert result.status == 0, result.err
    assert {(recipe.image_size, recipe.seed) for recipe in recipes} == {(16, 7)}
    assert "has epochs=30, this one epochs=9" in cli("train", "photos", "--epochs", 9, "--resume").err
    (photos / "red/new.png").write_bytes((photos / "red/000.png").read_bytes())
    assert "'red/new.png' of the data folder was added after" in cli("train", "photos", "--resume").err


def test_a_mistyped_folder_costs_no_interrupted_run(cli, monkeypatch, photos, tmp_path):
    interrupted(monkeypatch, cli, "train", "photos", "--out", "run")
    assert "does not exist" in cli("train", "fotos", "--out", "run", "--overwrite").err
    assert (tmp_path / "run.partial/model.keras").read_bytes() == b"model"
    for path in photos.rglob("*.png"):
        path.write_bytes(b"damaged")
    assert "images cannot be read, more than" in cli("train", "photos", "--out", "run", "--overwrite").err
    assert (tmp_path / "run.partial/model.keras").read_bytes() == b"model"


def test_lr_find_suggests_a_rate_and_draws_the_curve(cli, photos, tmp_path):
    options = ("--image-size", 16, "--batch-size", 27, "--augment", "none")
    result = cli("lr-find", "photos", *options, "--plot", "rates.png")
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    command = f"Use it: keras-opt train photos {' '.join(map(str, options))} --max-learning-rate "
    assert lines[-2].startswith(command)
    rate = lines[-2].removeprefix(command)
    assert 1e-4 < float(rate) < 0.1
    assert lines[-3].startswith(f"Learning rate {rate}: in ")
    marked = [line.split() for line in lines if line.rstrip().endswith("<")]
    assert [cells[0] for cells in marked] == [rate]
    assert lines[-1] == "The curve is drawn in rates.png."
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert "learning rates: " in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "rates.png"]


def test_lr_find_tells_what_it_found_also_where_the_curve_cannot_be_drawn(cli, monkeypatch):
    def plot():
        raise OSError("no space")

    found = SimpleNamespace(curve=([0.1], [1.0], [1.0]), suggestion=0.1, plot=plot)
    monkeypatch.setattr("keras_opt.recipes.range_test.range_test", lambda recipe: found)
    result = cli("lr-find", "my photos", "--mixed-precision", "--plot", "rates.png")
    said = "Use it: keras-opt train 'my photos' --mixed-precision --max-learning-rate 0.1"
    assert result.out.splitlines()[-1] == said
    assert (result.status, "no space" in result.err) == (1, True)


def test_lr_find_tests_what_train_trains(cli, photos, monkeypatch):
    """The network, the optimizer, the loss and the training images are those of the optimised run."""
    seen, peaks = [], []

    def remember(model, data, **_):
        config = model.optimizer.get_config()
        peaks.append(config["learning_rate"]["config"].pop("max_learning_rate"))
        del config["name"]
        names = [layer.name for layer in model.layers]
        seen.append((names, model.loss.get_config(), config, [x.numpy().sum() for x, *_ in data.fresh_copy()]))
        raise KeyboardInterrupt

    training = sys.modules["keras_opt.recipes.training"]
    monkeypatch.setattr(training, "find_learning_rate", remember)
    batches = lambda trainer: trainer._batches(augmented=True)  # noqa: E731
    monkeypatch.setattr(training.Trainer, "_fit", lambda trainer, model, *_: remember(model, batches(trainer)))
    options = ("photos", "--image-size", 16, "--batch-size", 8, "--seed", 3, "--class-weight", "balanced")
    assert cli("lr-find", *options).status == 130
    assert cli("train", *options, "--no-baseline", "--max-learning-rate", 0.01).status == 130
    assert seen[0] == seen[1]
    assert peaks == [Recipe().max_learning_rate, 0.01]


def test_lr_find_without_a_suggestion_says_why_and_fails(cli, photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        if number:
            path.write_bytes(sorted(photos.rglob("*.png"))[0].read_bytes())
    result = cli("lr-find", "photos", "--image-size", 16, "--batch-size", 4)
    assert result.status == 1
    assert "find_learning_rate: there is no learning rate to suggest: in " in result.err.splitlines()[-1]
    assert "Use it" not in result.out


@pytest.mark.parametrize("is_within", [True, False])
def test_compress_hands_over_its_options_and_names_the_best_file(cli, monkeypatch, tmp_path, is_within):
    given = {}

    def compress_file(model, data, out, **options):
        given.update(model=model, data=data, out=out, **options)
        best = Candidate("int8", metric=0.9, drop=0.0, size_bytes=1000)
        result = CompressionResult(
            (best,), (best,), best if is_within else None, "accuracy", 0.9, "size", "a drop", None
        )
        return compression_job.CompressionJob(result, tmp_path, {"test": 20}, {"int8": 0.875})

    monkeypatch.setattr(compression_job, "compress_file", compress_file)
    line = "compress m.keras --data rows.npz --max-drop 0.02 --objective size --max-flash-bytes 256k --out out"
    done = cli(*line.split())
    assert (given["model"], given["data"], given["out"], given["objective"]) == ("m.keras", "rows.npz", "out", "size")
    assert (given["max_drop"], given["max_flash_bytes"], given["budget_seconds"]) == (0.02, 256 * 1024, None)
    assert "accuracy on 20 test rows, int8: 0.8750" in done.out
    assert done.status == (0 if is_within else 1)
    assert ("model.tflite; open" if is_within else "No file is within the limits (a drop)") in done.out
