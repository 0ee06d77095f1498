"""What GradientMonitor costs a step of plain `fit`, beside a compiled GradientTape in a callback.

The sides of a pair train one after the other in one process, each its own model from the same seed, on one pre-batched
data set. All were traced and warmed up before the first pair. A measured `fit` may trace anew, because the hooks come
and go with it; it does so in its first step, and the clock starts after the tenth. The order of the sides alternates
from pair to pair. Run it on a quiet machine.
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

from keras_opt.callbacks import GradientMonitor

CLAIM = (
    "The global gradient norm of every step costs at most 1.03 of plain fit's CPU time on a convnet (32x32x3, batch "
    "64) and 1.10 on a 2k-parameter MLP, norms by layer with update ratios at most 1.08 and 1.30; a compiled tape in a "
    "callback adds at least 8 times as much as the norm on the convnet."
)
WARM_UP = 10
BATCH_SIZE = 64


def convnet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def mlp() -> keras.Model:
    """2,090 parameters."""
    return keras.Sequential(
        [
            keras.Input((32,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(24, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


class TapeNorm(keras.callbacks.Callback):
    """What people write without hooks: the batch's gradients once more, in a compiled function of their own."""

    def __init__(self, batch):
        super().__init__()
        self._batch = batch
        self.norms = []

    def on_train_begin(self, logs=None):
        model = self.model

        @tf.function
        def norm(x, y):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            return tf.linalg.global_norm(tape.gradient(loss, [v.value for v in model.trainable_variables]))

        self._norm = norm

    def on_train_batch_end(self, batch, logs=None):
        self.norms.append(float(self._norm(*self._batch)))


class Clock(keras.callbacks.Callback):
    """CPU and wall time from the end of step `WARM_UP` to the end of the last."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM_UP - 1:
            self._begin = time.process_time(), time.perf_counter()

    def on_train_end(self, logs=None):
        self.cpu = time.process_time() - self._begin[0]
        self.wall = time.perf_counter() - self._begin[1]


def milliseconds_a_step(model: keras.Model, dataset: tf.data.Dataset, steps: int, callback) -> dict[str, float]:
    clock = Clock()
    # The clock stops before the callback's own end of training, and after its end of the epoch.
    callbacks = [clock] if callback is None else [clock, callback]
    model.fit(dataset, steps_per_epoch=steps + WARM_UP, verbose=0, callbacks=callbacks)
    return {"cpu": 1000 * clock.cpu / steps, "wall": 1000 * clock.wall / steps}


def measure(name: str, build, shape: tuple[int, ...], with_tape: bool, pairs: int, steps: int) -> list[dict]:
    """One row a pair: milliseconds a step of each side."""
    rng = np.random.default_rng(0)
    batches = 8
    x = rng.normal(size=(batches, BATCH_SIZE, *shape)).astype("float32")
    y = rng.integers(0, 10, size=(batches, BATCH_SIZE))
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).cache().repeat().prefetch(2)
    batch = tf.constant(x[0]), tf.constant(y[0])
    callbacks = {
        "plain": lambda: None,
        "norm": lambda: GradientMonitor(per_layer=False),
        "full": lambda: GradientMonitor(ratios=True),
    }
    if with_tape:
        callbacks["tape"] = lambda: TapeNorm(batch)
    models = {}
    for side in callbacks:
        keras.utils.set_random_seed(0)
        models[side] = build()
        models[side].compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def turn(order, steps):
        return {side: milliseconds_a_step(models[side], dataset, steps, callbacks[side]()) for side in order}

    turn(callbacks, WARM_UP)
    rows = []
    for pair in range(pairs):
        order = list(callbacks)[:: 1 if pair % 2 == 0 else -1]
        row = turn(order, steps)
        print(f"{name:7} | {pair} | " + " | ".join(f"{row[s]['cpu']:6.3f} / {row[s]['wall']:6.3f}" for s in callbacks))
        rows.append({"model": name, **{side: row[side] for side in callbacks}})
    return rows


def ratio(rows: list[dict], side: str, clock: str = "cpu") -> float:
    return statistics.median(row[side][clock] / row["plain"][clock] for row in rows)


def advantage(row: dict) -> float:
    plain = row["plain"]["cpu"]
    return (row["tape"]["cpu"] - plain) / max(row["norm"]["cpu"] - plain, 0.005 * plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="three short pairs, prints only")
    quick = parser.parse_args().quick
    pairs, steps = (3, 50) if quick else (7, 200)

    print("model   | pair | ms a step, CPU / wall: plain | norm | per layer with ratios | tape in a callback")
    of_convnet = measure("convnet", convnet, (32, 32, 3), True, pairs, steps)
    of_mlp = measure("mlp", mlp, (32,), False, pairs, steps)
    metrics = {
        "convnet_norm_ratio": ratio(of_convnet, "norm"),
        "mlp_norm_ratio": ratio(of_mlp, "norm"),
        "convnet_full_ratio": ratio(of_convnet, "full"),
        "mlp_full_ratio": ratio(of_mlp, "full"),
        "advantage_over_tape": statistics.median(advantage(row) for row in of_convnet),
        "convnet_norm_wall_ratio": ratio(of_convnet, "norm", "wall"),
        "mlp_norm_wall_ratio": ratio(of_mlp, "norm", "wall"),
        "convnet_full_wall_ratio": ratio(of_convnet, "full", "wall"),
        "mlp_full_wall_ratio": ratio(of_mlp, "full", "wall"),
        "convnet_tape_ratio": ratio(of_convnet, "tape"),
    }
    report("gradient_monitor", CLAIM, metrics, of_convnet + of_mlp, write=not quick)


if __name__ == "__main__":
    main()
