"""`keras-opt launch`: what goes to the launcher, what to the script, and the status."""

from pathlib import Path


def shown(result):
    return sorted(line.partition(" | ")[2] for line in result.out.splitlines())


def test_what_follows_the_script_is_the_scripts(cli):
    Path("train.py").write_text("import sys; print(sys.argv[1:])")
    result = cli("--debug", "launch", "--workers", 1, "train.py", "--workers", 7, "--debug", "-x", "--help")
    assert (result.status, result.err) == (0, "")
    assert shown(result) == ["['--workers', '7', '--debug', '-x', '--help']"]


def test_the_workers_are_no_quieter_than_without_it(cli, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    Path("train.py").write_text("import os; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))")
    assert shown(cli("launch", "--workers", 1, "train.py")) == ["None"]


def test_two_workers_are_started_unless_told_otherwise(cli):
    Path("train.py").write_text("import json, os; print(json.loads(os.environ['TF_CONFIG'])['task']['index'])")
    assert shown(cli("launch", "train.py")) == ["0", "1"]


def test_the_status_is_that_of_the_worker_that_failed(cli):
    Path("train.py").write_text("raise SystemExit(7)")
    result = cli("launch", "--workers", 1, "--max-restarts", 1, "train.py")
    assert result.status == 7
    assert result.err.splitlines()[0].startswith("launch: worker 0 ended with status 7 after ")
    assert result.err.splitlines()[1] == "launch: restart 1 of at most 1."
    assert result.err.splitlines()[-1].startswith("keras-opt launch: worker 0 ended with status 7 after ")
    assert result.err.endswith("The workers were started 2 times.\n")


def test_an_error_before_any_worker_is_one_line(cli, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    Path("train.py").write_text("")
    result = cli("launch", "train.py")
    assert result.status == 1
    assert result.err.splitlines() == [
        "keras-opt: launch: TF_CONFIG is set, so this process is a worker, which starts no others. Call launch in "
        "another script than the one it starts, or unset TF_CONFIG."
    ]
