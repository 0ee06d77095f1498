"""What PruneLowMagnitude costs a step of plain `fit`, renewals of the masks included.

The sides of a pair train one after the other in one process, each its own model from the same seed, on one pre-batched
data set. All were traced and warmed up before the first pair. A measured `fit` traces anew, because the masks come with
it; it does so in its first step, and the clock starts after the tenth. The order of the sides alternates from pair to
pair. The schedule rises during half of the steps, where each renewal finds new weights to prune; after each fit the
sparsity of the layers is compared with what was asked. Run it on a quiet machine.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _results import report

from keras_opt.compression import PolynomialSparsity, PruneLowMagnitude, sparsity

CLAIM = (
    "Pruning to 50% takes at most 1.03 times the CPU time a step of plain fit, on a convnet (32x32x3, batch 64) and on "
    "an MLP (784-512-512-10, batch 128), with single weights, 2:4 and 4x4 blocks, and ends with exactly half of the "
    "weights zero."
)
WARM_UP = 10
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


class Clock(keras.callbacks.Callback):
    """CPU and wall time from the end of step `WARM_UP` to the end of the last."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM_UP - 1:
            self._begin = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.cpu = time.process_time() - self._begin[0]
        self.wall = time.perf_counter() - self._begin[1]


def milliseconds_a_step(model: keras.Model, dataset: tf.data.Dataset, steps: int, settings) -> dict[str, float]:
    clock, callbacks = Clock(), []
    if settings is not None:
        schedule = PolynomialSparsity(0.0, 0.5, 0, steps // 2)
        # Not the others: 3 input channels and 10 classes cannot be divided by 4.
        callbacks = [PruneLowMagnitude(schedule, include=["*_pruned"], **settings)]
    model.fit(dataset, steps_per_epoch=steps + WARM_UP, verbose=0, callbacks=[*callbacks, clock])
    if settings is not None:
        shares = {layer: share for layer, share in sparsity(model).items() if layer.endswith("pruned")}
        if set(shares.values()) != {0.5}:
            raise RuntimeError(f"asked for half of the weights, got {shares}")
    return {"cpu": 1000 * clock.cpu / steps, "wall": 1000 * clock.wall / steps}


def measure(name: str, build, shape: tuple[int, ...], batch_size: int, pairs: int, steps: int) -> list[dict]:
    """One row a pair: milliseconds a step of each side."""
    rng = np.random.default_rng(0)
    batches = 8
    x = rng.normal(size=(batches, batch_size, *shape)).astype("float32")
    y = rng.integers(0, 10, size=(batches, batch_size))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).cache().repeat().prefetch(2)

    def fresh():
        keras.utils.set_random_seed(0)
        model = build()
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def turn(order, steps):  # models are made anew, for masks stay
        return {side: milliseconds_a_step(fresh(), dataset, steps, SIDES[side]) for side in order}

    turn(SIDES, WARM_UP)
    rows = []
    for pair in range(pairs):
        row = turn(list(SIDES)[:: 1 if pair % 2 == 0 else -1], steps)
        print(f"{name:7} | {pair} | " + " | ".join(f"{row[s]['cpu']:6.3f} / {row[s]['wall']:6.3f}" for s in SIDES))
        rows.append({"model": name, **{side: row[side] for side in SIDES}})
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
