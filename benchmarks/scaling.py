"""What a second worker on the same machine brings, by how long a step takes.

One convnet trains with as many rows a step as take the given time on one core: on one core, by two workers with a core
and so many rows each, and by one process with two threads on both cores and twice the rows, in turn. Every step of the
workers ends with the sum of their gradients over the loopback network. A first process, not counted, finds how many
rows take how long. Then, in one process on one core, the same model with and without
`keras_opt.distribute.strategy("auto")` in turn. Run it on a quiet machine with two cores: about 15 minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _results import report

from keras_opt.distribute import launch, strategy

CLAIM = (
    "Two workers with a core each train at least 1.6 times the examples a second of one worker on one core, where a "
    "step takes half a second or more; on one device strategy('auto') takes at most 1.01 of the step's time."
)
SIDES = {"one": (1, 1), "two_workers": (2, 1), "two_threads": (1, 2), "overhead": (1, 1)}  # workers, cores of each
Seconds = tuple[float, float]  # CPU and wall


class Clock(keras.callbacks.Callback):
    """CPU and wall seconds of a step, the first two not counted."""

    def on_train_batch_end(self, batch, logs=None):
        now = np.array([time.process_time(), time.perf_counter()])
        if batch == 1:
            self._began = now
        elif batch > 1:
            self.seconds = tuple(((now - self._began) / (batch - 1)).tolist())


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((28, 28, 1))]
    for filters in (16, 32):
        layers += [keras.layers.Conv2D(filters, 3, activation="relu"), keras.layers.MaxPooling2D()]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return model


def train(model: keras.Model, rows: int, steps: int) -> Seconds:
    """Seconds of a step of `rows`, over `steps` of them."""
    x = np.random.default_rng(0).random((rows * (steps + 2), 28, 28, 1), dtype=np.float32)
    clock = Clock()
    model.fit(x, np.zeros(len(x), np.int32), batch_size=rows, shuffle=False, verbose=0, callbacks=[clock])
    return clock.seconds


def work(side: str, plan: list[tuple[int, int]], result: Path) -> None:
    """What a process of `side` does: train as `plan` says, in rows and steps; the first worker writes its seconds."""
    workers, cores = SIDES[side]
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"] if workers > 1 else 0
    os.sched_setaffinity(0, range(index * cores, (index + 1) * cores))
    if side == "overhead":
        plain = build()
        with strategy("auto").scope():
            ours = build()
        times = [(train(plain, *each), train(ours, *each)) for each in plan]
    elif side == "two_workers":
        with strategy("auto").scope():
            model = build()
        times = [train(model, 2 * rows, steps) for rows, steps in plan]
    else:
        model = build()
        times = [train(model, cores * rows, steps) for rows, steps in plan]
    if index == 0:
        result.write_text(json.dumps(times))


def run(side: str, plan: list[tuple[int, int]]) -> list:
    """What the first worker of `side` has measured."""
    workers, cores = SIDES[side]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "seconds.json")
        given = [side, json.dumps(plan), str(result)]
        if workers > 1:
            launch(__file__, ["--work", *given], workers=workers, threads_per_worker=cores, max_restarts=0)
        else:
            threads = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
            own = os.environ | dict.fromkeys(threads, str(cores))
            subprocess.run([sys.executable, __file__, "--work", *given], check=True, env=own)
        return json.loads(result.read_text())


def add(metrics: dict[str, float], name: str, ratios: list[Seconds]) -> None:
    cpu, wall = zip(*ratios, strict=True)
    metrics[name], metrics[f"{name}_cpu"] = statistics.median(wall), statistics.median(cpu)
    metrics[f"{name}_min"], metrics[f"{name}_max"] = min(wall), max(wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="one round of two step times; prints only")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)  # what the processes are started with
    arguments = parser.parse_args()
    if arguments.work:
        side, plan, result = arguments.work
        work(side, json.loads(plan), Path(result))
        return

    step_seconds, duration, rounds = ((0.05, 0.5), 1.0, 1) if arguments.quick else ((0.05, 0.1, 0.25, 0.5, 1), 5.0, 5)
    [(_, seconds)] = run("one", [(1024, 3)])
    plan = [(max(1, round(1024 * each / seconds)), max(3, round(duration / each))) for each in step_seconds]

    rows = []
    for _ in range(rounds):
        times = {side: run(side, plan) for side in ("one", "two_workers", "two_threads")}
        rows += [
            {"step_seconds": each, "rows": size} | {side: of_plan[number] for side, of_plan in times.items()}
            for number, (each, (size, _)) in enumerate(zip(step_seconds, plan, strict=True))
        ]

    metrics = {}
    print("step of one core, s | rows | examples a second, of one core: two workers | efficiency | two threads")
    for each, (size, _) in zip(step_seconds, plan, strict=True):
        found = [row for row in rows if row["step_seconds"] == each]
        for side in ("two_workers", "two_threads"):
            ratios = [tuple(2 * a / b for a, b in zip(row["one"], row[side], strict=True)) for row in found]
            add(metrics, f"{side}_at_{round(1000 * each)}_ms", ratios)
        measured = statistics.median(row["one"][1] for row in found)
        workers, threads = (metrics[f"{side}_at_{round(1000 * each)}_ms"] for side in ("two_workers", "two_threads"))
        print(f"{measured:.3f} | {size} | {workers:.2f} | {workers / 2:.2f} | {threads:.2f}")

    pairs = run("overhead", plan[:1] * max(2, rounds))
    add(metrics, "auto_overhead", [tuple(b / a for a, b in zip(*pair, strict=True)) for pair in pairs])
    report("scaling", CLAIM, metrics, [*rows, {"overhead": pairs}], write=not arguments.quick)


if __name__ == "__main__":
    main()
