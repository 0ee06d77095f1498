"""The launcher with scripts that train nothing: who runs, what is shown, who is stopped and when, and the status."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keras_opt.distribute import launch
from keras_opt.launcher.launch import WorkersFailed
from keras_opt.launcher.log_lines import LogLines
from keras_opt.launcher.worker_processes import WorkerProcesses

BEGIN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
"""
# Tells its number and that of a child it has, and stays.
STAYS = """
child = subprocess.Popen(["sleep", "60"])
Path(f"pids-{index}.new").write_text(f"{os.getpid()} {child.pid}")
os.rename(f"pids-{index}.new", f"pids-{index}")
time.sleep(60)
"""
COMMAND = [sys.executable, "-c", "from keras_opt.cli.main import main; main()", "launch"]


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(code):
        path = tmp_path / "train.py"
        path.write_text(BEGIN + code)
        return path

    return write


def lives(process):
    """Whether a process runs: one that has ended, and that nobody has asked about, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds=10):
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest, "it never came"
        time.sleep(0.02)


def processes(count=2):
    """The processes of `STAYS`, once all are there."""
    files = [Path(f"pids-{index}") for index in range(count)]
    wait_for(lambda: all(file.exists() for file in files))
    return [int(pid) for file in files for pid in file.read_text().split()]


def test_each_worker_finds_the_others_and_its_arguments(script, capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    path = script("print(json.dumps([config, sys.argv[1:], os.environ['TF_NUM_INTRAOP_THREADS']]))")
    assert launch(path, ["--epochs", "3"], workers=3, threads_per_worker=5) == []
    out, err = capfd.readouterr()
    assert err == ""
    names, texts = zip(*(line.split(" | ") for line in sorted(out.splitlines())), strict=True)
    assert names == ("worker 0", "worker 1", "worker 2")
    configs, arguments, threads = zip(*map(json.loads, texts), strict=True)
    assert [config["task"] for config in configs] == [{"type": "worker", "index": index} for index in range(3)]
    assert configs[0]["cluster"] == configs[1]["cluster"] == configs[2]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    assert arguments == (["--epochs", "3"],) * 3
    assert threads == ("5",) * 3


def test_the_cores_are_shared_out_unless_the_user_says_otherwise(script, capfd, monkeypatch):
    path = script("print(os.environ['OMP_NUM_THREADS'])")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    launch(path, workers=1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    launch(path, workers=len(os.sched_getaffinity(0)))
    launch(path, workers=1)
    lines = [line.partition(" | ")[2] for line in capfd.readouterr().out.splitlines()]
    cores = len(os.sched_getaffinity(0))
    assert lines == ["7", *["1"] * cores, str(cores)]


@pytest.mark.parametrize(
    ("visible", "listed", "seen"),
    [
        (None, 4, ["0,1", "2,3"]),
        (None, 3, ["0", "1"]),
        (None, 1, ["-1", "-1"]),
        (None, 0, ["unset", "unset"]),
        ("3,GPU-ab", 4, ["3", "GPU-ab"]),
        ("-1", 4, ["-1", "-1"]),
        ("", 4, ["", ""]),
    ],
)
def test_no_worker_sees_the_gpus_of_another(visible, listed, seen, script, capfd, monkeypatch, tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    lines = "".join(f"GPU {number}: A100 (UUID: GPU-{number})\n  MIG 1g.5gb\n" for number in range(listed))
    tool.write_text(f'#!/bin/sh\nprintf %s "{lines}"\n' if listed else "#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    launch(script("print(os.environ.get('CUDA_VISIBLE_DEVICES', 'unset'))"))
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == [f"worker {index} | {names}" for index, names in enumerate(seen)]
    assert ("fewer GPUs than the 2 workers" in err) == (seen == ["-1", "-1"] and visible is None)


def test_output_and_errors_go_their_own_ways(script, capfd):
    launch(script("print('one'); print('two', file=sys.stderr); print('1/2\\r2/2\\r\\nthree', end='')"), workers=1)
    out, err = capfd.readouterr()
    assert out.splitlines() == ["worker 0 | one", "worker 0 | 2/2", "worker 0 | three"]
    assert err.splitlines() == ["worker 0 | two"]


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", r"caf\xe9 né"), ("latin-1", "café nÃ©")])
def test_bytes_that_are_no_text_to_the_stream_end_no_worker(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    lines = LogLines()
    lines.follow(0, "worker 0", io.BytesIO("café ".encode("latin-1") + "né\nmore\n".encode()), stream)
    lines.finish(5)
    stream.seek(0)
    first, second = stream.read().splitlines()
    assert shown in first
    assert second == "worker 0 | more"


def test_nothing_is_lost_where_the_stream_is_read_late():
    class Pager(io.StringIO):
        def flush(self):
            time.sleep(0.1)

    stream, lines = Pager(), LogLines()
    lines.follow(0, "worker 0", io.BytesIO(b"line\n" * 5), stream)
    lines.finish(0.01)
    assert stream.getvalue() == "worker 0 | line\n" * 5


def test_names_have_colours_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(stream):
        lines = LogLines()
        lines.follow(1, "worker 1", io.BytesIO(b"text\n"), stream)
        lines.finish(5)
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(io.StringIO()) == "worker 1 | text\n"
    assert shown(Terminal()) == "\x1b[33mworker 1 |\x1b[0m text\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(Terminal()) == "worker 1 | text\n"


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("1 / 0", 1)])
def test_the_status_is_that_of_the_worker_that_failed_first(script, capfd, end, status):
    code = f"if index == 1: {end}\ntime.sleep(60)"
    with pytest.raises(WorkersFailed, match=r"launch: worker 1 .*The workers were started once\.") as failed:
        launch(script(code), max_restarts=0)
    assert failed.value.status == status
    assert [failure.worker for failure in failed.value.failures] == [1]


def test_all_are_started_again_until_all_end_well(script, capfd):
    code = "start = len(list(Path().glob(f'{index}-*')))\nPath(f'{index}-{start}').touch()\n"
    code += "while not Path(f'{1 - index}-{start}').exists(): time.sleep(0.01)\n"
    code += "if (index, start) in ((1, 0), (0, 1)): sys.exit(4)\nif start < 2: time.sleep(60)"
    failures = launch(script(code))
    assert [(failure.worker, failure.status) for failure in failures] == [(1, 4), (0, 4)]
    assert sorted(path.name for path in Path().glob("?-?")) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert "launch: restart 2 of at most 3." in capfd.readouterr().err


def test_restarts_have_a_limit_and_a_worker_that_ended_well_is_no_failure(script, capfd):
    with pytest.raises(WorkersFailed, match="started 3 times") as failed:
        launch(script("print('here')\nif index == 0: time.sleep(0.3); sys.exit(2)"), max_restarts=2)
    assert [(each.worker, each.status) for each in failed.value.failures] == [(0, 2)] * 3
    assert capfd.readouterr().out.count("worker 1 | here") == 3


def test_a_worker_that_will_not_end_is_killed_within_five_seconds(script, capfd):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif index == 0:" + STAYS.replace("\n", "\n    ")
    code += "\nwait = Path('pids-0')\nwhile not wait.exists(): time.sleep(0.01)\nprint(time.time())\nsys.exit(5)"
    with pytest.raises(WorkersFailed) as failed:
        launch(script(code), max_restarts=0)
    death = float(capfd.readouterr().out.partition(" | ")[2])
    assert time.time() - death < 5
    assert failed.value.status == 5
    wait_for(lambda: not any(map(lives, processes(1))), 5)


def test_children_of_workers_that_ended_well_go_too(script):
    launch(script(STAYS.replace("time.sleep(60)", "")))
    wait_for(lambda: not any(map(lives, processes())), 5)


def test_workers_whose_output_nobody_reads_are_not_started_again(script):
    path = script("Path(f'start-{os.getpid()}').touch()\nwhile True: print('here'); time.sleep(0.01)")
    launcher = subprocess.Popen(
        [*COMMAND, "--workers", "1", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert launcher.stdout.readline() == "worker 0 | here\n"
    launcher.stdout.close()
    errors = launcher.stderr.read()
    assert launcher.wait(10) == 1
    assert "nobody reads what the workers write" in errors
    assert "restart" not in errors
    assert len(list(Path().glob("start-*"))) == 1


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGHUP, -1), (signal.SIGINT, 130)]
)
def test_no_process_outlives_the_launcher(script, number, status):
    launcher = subprocess.Popen([*COMMAND, str(script(STAYS))], stderr=subprocess.PIPE, text=True)
    started = processes()
    assert all(map(lives, started))
    launcher.send_signal(number)
    assert launcher.wait(10) == status
    wait_for(lambda: not any(map(lives, started)), 5)
    assert not [line for line in launcher.stderr if line.startswith("Traceback")]  # of the launcher itself


def test_interrupts_reach_the_workers_as_such(script):
    code = "try:" + STAYS.replace("\n", "\n    ") + "\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    launcher = subprocess.Popen(
        [*COMMAND, str(script(code))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes()
    launcher.send_signal(signal.SIGINT)
    out, err = launcher.communicate(timeout=10)
    assert sorted(out.splitlines()) == ["worker 0 | interrupted", "worker 1 | interrupted"]
    assert err.split() == ["Interrupted."]


@pytest.mark.parametrize(("end", "is_saved"), [(KeyboardInterrupt, True), (SystemExit, True), (ValueError, False)])
def test_who_is_asked_to_end_has_time_to_save(end, is_saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupted(group):
        saves = "trap 'sleep 0.3; touch saved; exit' INT TERM; touch begun; while :; do sleep 0.02; done"
        group.start(["sh", "-c", saves], os.environ)
        wait_for(Path("begun").exists)
        raise end

    with pytest.raises(end), WorkerProcesses(0.05, 5.0) as group:
        interrupted(group)
    assert Path("saved").exists() == is_saved


def test_handlers_of_signals_stay_as_they_were(script):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    launch(script(""), workers=1)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_it_works_in_a_thread(script):
    results = []
    thread = threading.Thread(target=lambda path: results.append(launch(path)), args=(script(""),))
    thread.start()
    thread.join()
    assert results == [[]]


def test_an_error_in_the_block_stops_all():
    def fail(group):
        group.start(["sleep", "60"], os.environ)
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"), WorkerProcesses(1.0, 1.0) as group:
        fail(group)
    assert group.processes[0].returncode == -signal.SIGTERM


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_worker_starts_no_workers(script, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(ValueError, match="launch: TF_CONFIG is set, so this process is a worker"):
        launch(script(""))


def test_a_system_without_process_groups_is_refused(script, monkeypatch):
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(RuntimeError, match="this system has no process groups"):
        launch(script(""))


def test_a_script_that_is_not_there():
    with pytest.raises(ValueError, match=r"launch: argument `script` must be a Python file\. Received: script='no.py'"):
        launch("no.py")


def test_the_launcher_loads_no_framework():
    code = "import sys, keras_opt.cli.launch; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "keras_opt" in loaded
    assert {"keras", "tensorflow", "numpy"}.isdisjoint(loaded)
