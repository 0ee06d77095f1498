"""What PruneLowMagnitude costs a step of plain `fit`, renewals of the masks included.

All sides of a pair train in one process, each its own model from the same seed on the same batches, in turns of ten
steps: so a slow moment of the machine meets all of them. A turn's CPU and wall time are those of its ten steps; the
first turn, which traces, is left out. The schedule rises during half of the steps, where each renewal finds new weights
to prune; after each fit the sparsity of the layers is compared with what was asked. Run it on a quiet machine.
"""

import argparse
import os
import statistics
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _results import report

from keras_opt.compression import PolynomialSparsity, PruneLowMagnitude, sparsity

CLAIM = (
    "Pruning to 50% takes at most 1.03 times the CPU time a step of plain fit on a convnet (32x32x3, batch 64) and at "
    "most 1.07 times on an MLP (784-512-512-10, batch 128), whose step does little more than move its weights, with "
    "single weights, 2:4 and 4x4 blocks, and ends with exactly half of the weights zero."
)
TURN = 10  # steps
STRUCTURES = {"single": "unstructured", "two_of_four": "2:4", "blocks": (4, 4)}
SIDES = {"plain": None} | {name: {"structure": structure} for name, structure in STRUCTURES.items()}
SIDES |= {"regrow": {"regrow": True}}


def convnet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv_2_pruned"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu", name="conv_3_pruned"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="dense_pruned"),
            keras.layers.Dense(10),
        ]
    )


def mlp() -> keras.Model:
    """That of Keras's MNIST example, with its batch size."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(512, activation="relu", name="dense_1_pruned"),
            keras.layers.Dense(512, activation="relu", name="dense_2_pruned"),
            keras.layers.Dense(10),
        ]
    )


class Turns:
    """Lets the threads that train the sides of a pair run one at a time, in order, and takes their time."""

    def __init__(self, sides: list[str]):
        self.sides, self.cpu, self.wall = sides, dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0.0)
        self._next, self._changed = 0, threading.Condition()

    def wait_for(self, side: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.sides[self._next] == side)
        self._begin = time.process_time(), time.perf_counter()

    def end(self, *, counts: bool) -> None:
        side = self.sides[self._next]
        if counts:
            self.cpu[side] += time.process_time() - self._begin[0]
            self.wall[side] += time.perf_counter() - self._begin[1]
        with self._changed:
            self._next = (self._next + 1) % len(self.sides)
            self._changed.notify_all()


class TakeTurns(keras.callbacks.Callback):
    """Hands over to the next side after each `TURN` steps."""

    def __init__(self, turns: Turns, side: str):
        super().__init__()
        self.turns, self.side = turns, side

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % TURN == 0:
            self.turns.end(counts=batch >= TURN)
            self.turns.wait_for(self.side)


def train(turns: Turns, side: str, model: keras.Model, dataset: tf.data.Dataset, steps: int) -> None:
    callbacks, settings = [], SIDES[side]
    if settings is not None:
        schedule = PolynomialSparsity(0.0, 0.5, 0, steps // 2)
        # Not the others: 3 input channels and 10 classes cannot be divided by 4.
        callbacks = [PruneLowMagnitude(schedule, include=["*_pruned"], **settings)]
    turns.wait_for(side)
    callbacks.append(TakeTurns(turns, side))
    model.fit(dataset, steps_per_epoch=steps + TURN, verbose=0, callbacks=callbacks)
    turns.end(counts=False)


def measure(name: str, build, shape: tuple[int, ...], batch_size: int, pairs: int, steps: int) -> list[dict]:
    """One row a pair: milliseconds a step of each side."""
    rng = np.random.default_rng(0)
    batches = 8
    x = rng.normal(size=(batches, batch_size, *shape)).astype("float32")
    y = rng.integers(0, 10, size=(batches, batch_size))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).cache().repeat().prefetch(2)
    rows = []
    for pair in range(pairs):
        models = {}
        for side in SIDES:
            keras.utils.set_random_seed(0)
            models[side] = build()
            models[side].compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        turns = Turns(list(SIDES)[:: 1 if pair % 2 == 0 else -1])
        threads = [threading.Thread(target=train, args=(turns, side, models[side], dataset, steps)) for side in SIDES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for side, model in models.items():
            shares = {share for layer, share in sparsity(model).items() if layer.endswith("pruned")}
            if side != "plain" and shares != {0.5}:
                raise RuntimeError(f"asked {side} for half of the weights, got {shares}")
        row = {s: {"cpu": 1000 * turns.cpu[s] / steps, "wall": 1000 * turns.wall[s] / steps} for s in SIDES}
        print(f"{name:7} | {pair} | " + " | ".join(f"{row[s]['cpu']:6.3f} / {row[s]['wall']:6.3f}" for s in SIDES))
        rows.append({"model": name, **row})
    return rows


def ratio(rows: list[dict], side: str, clock: str = "cpu") -> float:
    return statistics.median(row[side][clock] / row["plain"][clock] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="three short pairs, prints only")
    quick = parser.parse_args().quick
    pairs, steps = (3, 110) if quick else (7, 500)

    print("model   | pair | ms a step, CPU / wall: " + " | ".join(SIDES))
    rows = {
        "convnet": measure("convnet", convnet, (32, 32, 3), 64, pairs, steps),
        "mlp": measure("mlp", mlp, (784,), 128, pairs, steps),
    }
    pruned = [side for side in SIDES if side != "plain"]
    metrics = {f"{name}_{side}_ratio": ratio(rows[name], side) for name in rows for side in pruned}
    metrics |= {f"{name}_{side}_wall_ratio": ratio(rows[name], side, "wall") for name in rows for side in pruned}
    report("pruning", CLAIM, metrics, rows["convnet"] + rows["mlp"], write=not quick)


if __name__ == "__main__":
    main()
