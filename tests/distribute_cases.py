"""Trainings that must give the weights of one device, wherever they run.

    python distribute_cases.py FOLDER CASES STEPS STRATEGY [LOGICAL_CPUS]

runs some of them as one worker and writes FOLDER/CASE.INDEX.npz; CASES are names with commas between.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt import callbacks, distribute, models
from keras_opt.distribute.cluster import find_cluster

BATCH, ROWS = 8, 40
ARRAYS = ("outputs", "logs", "running", "seconds")
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def dense() -> keras.Model:
    return keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), *_head()])


def convnet() -> keras.Model:
    convolutions = [keras.layers.Conv2D(3, 3, activation="tanh"), keras.layers.MaxPooling2D()]
    return keras.Sequential([keras.Input((6, 6, 1)), *convolutions, keras.layers.Flatten(), *_head()])


def batch_norm() -> keras.Model:
    convolution = keras.layers.Conv2D(3, 3, use_bias=False)  # whose gradient would be rounding, which Adam makes large
    norm = keras.layers.BatchNormalization(momentum=0.9)
    model = keras.Sequential([keras.Input((6, 6, 1)), convolution, norm, keras.layers.Flatten(), *_head()])
    models.synchronize_batch_norm(model)
    return model


def embedding() -> keras.Model:
    inputs = keras.Input((5,), dtype="int32")
    table = keras.layers.Embedding(7, 3)(inputs)
    return keras.Model(inputs, keras.Sequential([keras.layers.Flatten(), *_head()])(table))


def _head() -> list[keras.layers.Layer]:
    return [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        model: What is trained.
        callbacks: What acts in it.
        optimizer: A key of `OPTIMIZERS`.
        dtype: A dtype policy.
        way: How the data come; all but `"bare"` also validate and predict.
    """

    model: Callable[[], keras.Model]
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list
    optimizer: str = "sgd"
    dtype: str = "float64"
    way: str = "bare"

    def fit(self, strategy: tf.distribute.Strategy | None, steps: int) -> dict[str, Any]:
        """Train for that many updates; the weights, the logs of the epochs, the seconds it took."""
        begin = time.perf_counter()
        with _policy(self.dtype):
            keras.utils.set_random_seed(0)
            with strategy.scope() if strategy is not None else contextlib.nullcontext():
                model = self.model()
                several = 4 if self.way == "steps_per_execution" else 1
                model.compile(OPTIMIZERS[self.optimizer](), "mse", metrics=["mae"], steps_per_execution=several)
            running = []  # what decides in mid-epoch, such as a loss that is no number
            look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: running.append(logs["loss"]))
            epochs = max(1, steps * BATCH // ROWS)
            history = model.fit(**self._data(steps), epochs=epochs, verbose=0, callbacks=[*self.callbacks(), look])
            few = _rows(self.model)[0][:7]  # of which replicas get shares that differ
            outputs = [] if self.way == "bare" else model.predict(few, batch_size=4, verbose=0)
        return {
            "weights": [np.asarray(weight, "float64") for weight in model.get_weights()],
            "outputs": np.asarray(outputs, "float64"),
            "logs": np.asarray([history.history[key] for key in sorted(history.history)], "float64"),
            "running": np.asarray(running, "float64"),
            "seconds": time.perf_counter() - begin,
        }

    def _data(self, steps: int) -> dict[str, Any]:
        x, y = _rows(self.model)
        validation = (x[:20], y[:20])
        if self.way == "arrays":
            return {"x": x, "y": y, "batch_size": BATCH, "validation_data": validation}
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
        if self.way == "bare":
            return {"x": data, "shuffle": False}
        if self.way == "steps_per_epoch":
            return {"x": data.repeat(), "steps_per_epoch": ROWS // BATCH, "validation_data": validation}
        return {"x": data, "validation_data": tf.data.Dataset.from_tensor_slices(validation).batch(BATCH)}


def _rows(model: Callable[[], keras.Model]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.normal(size=(ROWS, 1)).astype(keras.config.floatx())
    if model is embedding:
        return generator.integers(0, 4, size=(ROWS, 5)), y  # ids repeat, within a share and between them
    return generator.normal(size=(ROWS, 6, 6, 1)).astype(keras.config.floatx()), y


@contextlib.contextmanager
def _policy(dtype: str):
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64" if dtype == "float64" else "float32")
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _everything() -> list[keras.callbacks.Callback]:
    return [
        callbacks.GradientAccumulation(3),
        callbacks.GradientClipping(global_clipnorm=0.1),
        callbacks.WeightAveraging(ema_momentum=0.9),
    ]


_KINDS = {
    "dense": Case(dense),
    "convnet": Case(convnet),
    "synchronised BatchNorm": Case(batch_norm),
    "global clip": Case(dense, lambda: [callbacks.GradientClipping(global_clipnorm=0.1)]),
    "accumulation": Case(dense, lambda: [callbacks.GradientAccumulation(3)]),
    "averaging": Case(dense, lambda: [callbacks.WeightAveraging(ema_momentum=0.9)]),
    "embedding": Case(embedding, lambda: [callbacks.SparseGradientFix()]),
    "all at once": Case(batch_norm, _everything),
}

CASES = {
    f"{kind}/{optimizer}/{dtype}": replace(case, optimizer=optimizer, dtype=dtype)
    for kind, case in _KINDS.items()
    for optimizer in OPTIMIZERS
    for dtype in ("float64", "float32")
}
CASES |= {
    f"{way}/sgd/float64": Case(dense, way=way)
    for way in ("dataset", "arrays", "steps_per_epoch", "steps_per_execution")
}
CASES |= {f"mixed precision/sgd/{policy}": Case(dense, dtype=policy) for policy in ("mixed_float16", "mixed_bfloat16")}


def save(path: Path, result: dict[str, Any]) -> None:
    weights = {f"weight_{place}": weight for place, weight in enumerate(result["weights"])}
    np.savez(path, **weights, **{name: result[name] for name in ARRAYS})


def load(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        weights = [file[f"weight_{place}"] for place in range(sum(name.startswith("weight_") for name in file))]
        return {"weights": weights, **{name: file[name] for name in ARRAYS}}


def file_name(case: str, index: int) -> str:
    return f"{case.replace('/', '.').replace(' ', '_')}.{index}.npz"


if __name__ == "__main__":
    folder, names, steps = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
    made = distribute.strategy(sys.argv[4], logical_cpus=int(sys.argv[5]) if len(sys.argv) > 5 else None)
    cluster = find_cluster()
    for name in names:
        result = CASES[name].fit(made, steps)
        save(folder / file_name(name, cluster.index if cluster else 0), result)
        print(name, round(float(result["seconds"]), 2), flush=True)
