"""Five ways to train one convnet where memory is short: what each takes of it, and of time.

One convnet with Adam and images of noise (memory and time do not depend on what they show), each way in a process of
its own, in turn. Memory is the peak of resident memory over what the process has before the model is built.
Placement is on two logical CPUs, which share one memory: it takes as much as plain, and the table shows what the fuller
device would hold. Mixed precision is bfloat16, the half precision of CPUs; one without hardware for it is slow in it.
Run it on a quiet machine: about 8 minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _results import report

from keras_opt.callbacks import GradientAccumulation
from keras_opt.distribute import place

CLAIM = (
    "Accumulation over 4 micro-batches takes less memory than plain training of a convnet at the same effective batch, "
    "at most 1.2 of its time, and gives the same loss; mixed precision and keras.RematScope take less memory too."
)
WAYS = ("plain", "accumulation", "mixed_precision", "remat", "place")
MICRO_BATCHES = 4


class Block(keras.layers.Layer):
    """Convolutions in a row.

    A layer of one's own, because `keras.RematScope` on a Sequential fails in a compiled step: TensorFlow cannot compute
    again what takes keyword arguments, such as `training`.
    """

    def __init__(self, parts: list[keras.layers.Layer]):
        super().__init__()
        self.parts = parts

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def build(way: str, side: int, width: int, blocks: int) -> keras.Model:
    """Blocks in two halves; with "remat" only what goes from block to block is kept for the backward pass."""
    x = inputs = keras.Input((side, side, 3))
    for half in ("encoder", "decoder"):
        convolutions = [_convolutions(width) for _ in range(blocks // 2)]
        with keras.RematScope("full" if way == "remat" else None):
            layers = [Block(each) for each in convolutions]
        x = keras.Sequential(layers, name=half)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, dtype="float32")(x))


def _convolutions(width: int) -> list[keras.layers.Layer]:
    return [keras.layers.Conv2D(width, 3, padding="same", activation="relu") for _ in range(3)]


def train(way: str, side: int, width: int, blocks: int, batch: int, updates: int) -> dict[str, float]:
    """Megabytes at the peak, seconds an update after the first two, the last loss; with "place" the fuller device."""
    if way == "place":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    if way == "mixed_precision":
        keras.config.set_dtype_policy("mixed_bfloat16")
    before = _megabytes("VmRSS")
    keras.utils.set_random_seed(0)
    model = build(way, side, width, blocks)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    parts = MICRO_BATCHES if way == "accumulation" else 1
    memory = {}
    if way == "place":
        placement = place({"encoder": "CPU:0", "decoder": "CPU:1"})
        held = placement.memory(placement(model), batch)
        on = [
            sum(kind.get(device, 0) for kind in (held.weights, held.slots, held.activations)) for device in held.weights
        ]
        memory = {"fuller_device_share": max(on) / sum(on)}

    rng = np.random.default_rng(0)
    rows = batch * updates
    x, y = rng.normal(size=(rows, side, side, 3)).astype("float32"), rng.integers(0, 10, rows)
    times = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: times.append((time.process_time(), time.perf_counter()))
    )
    hooks = [GradientAccumulation(parts)] if parts > 1 else []
    history = model.fit(x, y, batch_size=batch // parts, shuffle=False, verbose=0, callbacks=[*hooks, clock])
    first, last = times[2 * parts - 1], times[-1]
    cpu, wall = ((end - begin) / (updates - 2) for begin, end in zip(first, last, strict=True))
    loss = history.history["loss"][-1]
    return {"megabytes": _megabytes("VmHWM") - before, "cpu": cpu, "wall": wall, "loss": loss} | memory


def _megabytes(name: str) -> float:
    """VmRSS, what this process takes now, or VmHWM, its most; `ru_maxrss` would begin with its parent's."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(facts[name].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="one round of a smaller model; prints only")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # what the processes are started with
    arguments = parser.parse_args()
    settings, rounds = ((48, 16, 4, 64, 3), 1) if arguments.quick else ((48, 24, 8, 64, 6), 5)
    if arguments.way:
        print(json.dumps(train(arguments.way, *settings)))
        return

    rows = []
    for _ in range(rounds):
        row = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, *(["--quick"] if arguments.quick else [])]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row[way] = json.loads(output.splitlines()[-1])
        rows.append(row)

    metrics = {}
    print("way | peak MB | of plain | s an update, wall (CPU) | of plain, wall (CPU) | loss")
    for way in WAYS:
        values = {key: statistics.median(row[way][key] for row in rows) for key in ("megabytes", "wall", "cpu", "loss")}
        ratios = {key: [row[way][key] / row["plain"][key] for row in rows] for key in ("megabytes", "wall", "cpu")}
        ratio = {key: statistics.median(each) for key, each in ratios.items()}
        metrics |= {f"{way}_{key}": value for key, value in values.items()}
        if way != "plain":
            metrics |= {f"{way}_{key}_ratio": value for key, value in ratio.items()}
            metrics |= {f"{way}_megabytes_ratio_{f.__name__}": f(ratios["megabytes"]) for f in (min, max)}
        seconds = f"{values['wall']:.3f} ({values['cpu']:.3f}) | {ratio['wall']:.2f} ({ratio['cpu']:.2f})"
        print(f"{way} | {values['megabytes']:.0f} | {ratio['megabytes']:.2f} | {seconds} | {values['loss']:.6f}")
    metrics["place_fuller_device_share"] = rows[0]["place"]["fuller_device_share"]
    report("memory", CLAIM, metrics, rows, write=not arguments.quick)


if __name__ == "__main__":
    main()
