"""The README's first screen, as it is written."""

import re
import subprocess
import sys
from pathlib import Path

from keras_opt.compression import sparsity

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command(kind):
    script = [sys.executable, ROOT / ".ci/readme_command.py", kind]
    return subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip()


def test_there_are_exactly_two_set_up_commands():
    assert command("demo") == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/keras-opt demo"
    assert command("tests") == 'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/python -m pytest'
    assert README.count("python3 -m venv") == 2


def test_the_python_versions_are_those_of_the_package():
    assert "Python 3.11, 3.12 or 3.13" in README
    assert "python_requires = >=3.11,<3.14" in (ROOT / "setup.cfg").read_text()


def code_blocks():
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_ten_lines_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = code_blocks()[0]
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) == 10
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    history = names["history"]
    assert {"grad_norm", "grad_norm_max", "loss", "val_accuracy"} <= set(history.history)
    assert len(history.history["grad_norm"]) == len(history.history["loss"])
    assert isinstance(history.stop_reason, str)
    assert history.history["val_accuracy"][-1] > 0.8
    assert (names["export"].input.dtype, names["export"].output.dtype) == ("int8", "int8")
    assert (tmp_path / "model.tflite").stat().st_size == names["export"].size_bytes


def test_the_lines_on_rates_stopping_and_backups_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = code_blocks()[1]
    assert "epochs=20" in code
    names = {}
    exec(compile(code.replace("epochs=20", "epochs=2"), "README.md", "exec"), names)
    assert 1e-4 < names["rate"] < 1e-1
    assert "all 2 epochs were run" in capsys.readouterr().out
    assert names["history"].history["val_loss"][-1] < 0.6
    assert list((tmp_path / "backup").glob("backup-*.npz"))


def test_the_lines_on_augmentation_and_builders_run(capsys):
    code = code_blocks()[2]
    assert "model.fit(train, shuffle=False)" in code
    shorter = code.replace("model.fit(train,", "model.fit(train.take(4),").replace(
        "set(train)", "set(train, max_seconds=2)"
    )
    names = {}
    exec(compile(shorter, "README.md", "exec"), names)
    assert 0 < names["history"].history["regularization_loss"][0] < names["history"].history["loss"][0]
    norms = [layer for layer in names["small"].layers if type(layer).__name__ == "BatchNormalization"]
    assert norms == []
    assert "Slowest: " in capsys.readouterr().out


def test_the_lines_on_several_devices_run(tmp_path):
    """In a process of their own: a process has one strategy."""
    code = code_blocks()[4]
    assert "fit(x[..., None], y, batch_size=128, epochs=2)" in code
    code = code.replace("fit(x[..., None], y,", "fit(x[:500, ..., None], y[:500],")
    subprocess.run([sys.executable, "-c", f"{code}\nassert history.history['loss'][-1] < 3"], cwd=tmp_path, check=True)


def test_what_the_readme_points_at_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_lines_on_small_models_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = code_blocks()[3]
    fewer = code.replace("arrays(x[..., None], y,", "arrays(x[:1280, ..., None], y[:1280],")
    assert fewer != code
    names = {}
    exec(compile(fewer.replace("end_step=100", "end_step=15"), "README.md", "exec"), names)
    assert names["small"].count_params() < 0.4 * names["teacher"].count_params()
    assert abs(sparsity(names["small"])["total"] - 0.5) < 1e-3
    assert (names["file"].input.dtype, names["file"].output.dtype) == ("int8", "int8")
    assert "of the answers are the same" in capsys.readouterr().out


def test_the_lines_on_searching_and_ensembles_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code_blocks()[5], "README.md", "exec"), names)
    assert set(names["tuner"].get_best_hyperparameters()[0].values) == {"width", "dropout"}
    assert len(names["members"]) == 2
    x, y = names["held_out"]
    assert (names["ensemble"].predict(x, verbose=0).argmax(-1) == y).mean() > 0.6
