"""`keras-opt lr-find`: the same answer twice, and the command that it proposes runs."""

import shlex

import pytest

SETTINGS = ("--image-size", "16", "--batch-size", "54", "--augment", "none")


@pytest.fixture(scope="module")
def answer(keras_opt_process, photos):
    run = keras_opt_process("lr-find", "photos", *SETTINGS, cwd=photos.parent)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_same_seed_gives_the_same_answer(keras_opt_process, photos, answer):
    assert keras_opt_process("lr-find", "photos", *SETTINGS, cwd=photos.parent).stdout == answer


@pytest.mark.full
def test_another_seed_gives_another_answer(keras_opt_process, photos, answer):
    other = keras_opt_process("lr-find", "photos", *SETTINGS, "--seed", "1", cwd=photos.parent)
    assert other.stdout != answer


def test_the_proposed_command_runs(keras_opt_process, photos, answer, tmp_path):
    command, *proposed = shlex.split(answer.splitlines()[-1].removeprefix("Use it: "))
    assert (command, proposed[0]) == ("keras-opt", "train")
    more = ("--epochs", "1", "--no-baseline", "--sparsity", "0", "--out", str(tmp_path / "run"))
    run = keras_opt_process(*proposed, *more, cwd=photos.parent)
    assert run.returncode == 0, run.stderr
    rate = proposed[proposed.index("--max-learning-rate") + 1]
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert f"max_learning_rate: {float(rate)}" in recipe
