"""MLPerf Tiny's four networks from Keras to the microcontroller: bytes, arena, agreement, C array.

Each network is built as MLCommons' reference has it (github.com/mlcommons/tiny, benchmark/training), with random
weights and biases, its norms on the statistics of random data in the range of the real inputs: bytes and arena do not
depend on training, and no data is needed. The reference files are MLCommons' own for the same networks in int8.
LiteRT has three sets of kernels, which round differently, by a step an operator; through a deep network with random
weights that grows. TFLite Micro is compared with each: its convolutions are those of the reference set, its dense
layers those of the built-in set, and XNNPACK's, the default on a host, are neither. g++ must be on the path.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _results import report
from keras import layers

from keras_opt.export import LiteRTModel, TFLiteExport, run_tflm, to_c_array, to_tflite, verify
from keras_opt.export.model_file import pack, unpack

CLAIM = (
    "The int8 files of MLPerf Tiny's three convolutional networks are smaller than the published reference files by 9% "
    "or more (the autoencoder's is at most 1.07 of its: a scale for each unit, not one for each layer); TFLite "
    "Micro runs all four within 1 LSB of LiteRT's reference or built-in kernels; and g++ makes of their C arrays the "
    "files, byte for byte."
)
KERNELS = ("reference", "builtin", "default")
PRINTER = """
#include "model.h"
#include <cstdio>
int main() { return std::fwrite(model_data, 1, model_bytes, stdout) == model_bytes ? 0 : 1; }
"""


def normed(x, layer):
    return layers.ReLU()(layers.BatchNormalization()(layer(x)))


def resnet_8() -> keras.Model:
    """Three stages of one block each, 16, 32 and 64 filters; the shortcuts' convolutions have no norm."""
    inputs = keras.Input((32, 32, 3))
    x = normed(inputs, layers.Conv2D(16, 3, padding="same"))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = normed(x, layers.Conv2D(filters, 3, strides, padding="same"))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        if strides == 2:
            x = layers.Conv2D(filters, 1, strides, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def ds_cnn() -> keras.Model:
    inputs = keras.Input((49, 10, 1))
    x = layers.Dropout(0.2)(normed(inputs, layers.Conv2D(64, (10, 4), 2, padding="same")))
    for _ in range(4):
        x = normed(x, layers.DepthwiseConv2D(3, padding="same"))
        x = normed(x, layers.Conv2D(64, 1, padding="same"))
    x = layers.Flatten()(layers.AveragePooling2D((24, 5))(layers.Dropout(0.4)(x)))
    return keras.Model(inputs, layers.Dense(12, activation="softmax")(x))


def mobilenet_v1() -> keras.Model:
    """Version 1, a quarter of its width, ReLU."""
    inputs = keras.Input((96, 96, 3))
    x = normed(inputs, layers.Conv2D(8, 3, 2, padding="same"))
    widths = (16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256)
    for width, strides in zip(widths, (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), strict=True):
        x = normed(x, layers.DepthwiseConv2D(3, strides, padding="same"))
        x = normed(x, layers.Conv2D(width, 1, padding="same"))
    x = layers.Flatten()(layers.AveragePooling2D(3)(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def autoencoder() -> keras.Model:
    inputs = x = keras.Input((640,))
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = normed(x, layers.Dense(units))
    return keras.Model(inputs, layers.Dense(640)(x))


@dataclass(frozen=True)
class Network:
    name: str
    build: Callable[[], keras.Model]
    reference_bytes: int
    task: str
    low: float  # the range of its inputs
    high: float


NETWORKS = (
    Network("resnet_8", resnet_8, 98_496, "classification", 0, 255),
    Network("ds_cnn", ds_cnn, 53_936, "classification", -1, 1),
    Network("mobilenet_v1", mobilenet_v1, 333_288, "classification", 0, 1),
    Network("autoencoder", autoencoder, 276_976, "regression", -3, 3),
)


def as_if_trained(model: keras.Model, x: np.ndarray) -> None:
    """Give every bias a value (the converter leaves out those that are 0), and every norm its statistics on `x`."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)


def without_metadata(file: bytes) -> int:
    """The bytes of a file that says nothing about itself, as the reference files do not."""
    tree = unpack(file)
    for entry in tree.metadata:
        tree.buffers[entry.buffer].data = None
    tree.metadata = None
    return len(pack(tree))


def answers(file: TFLiteExport, kernels: str, x: np.ndarray) -> np.ndarray:
    """The output as the file stores it, from LiteRT with one of its sets of kernels."""
    return file.output.stored(LiteRTModel(file.path, kernels=kernels).predict(x)).astype(int)


def bytes_of_c_array(folder: Path) -> bytes:
    """What g++ makes of model.h and model.cc."""
    if shutil.which("g++") is None:
        raise RuntimeError("There is no g++ on the path. Install build-essential.")
    (folder / "printer.cc").write_text(PRINTER)
    command = ["g++", "-Wall", "-Wextra", "-Werror", "printer.cc", "model.cc", "-o", "printer"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([folder / "printer"], capture_output=True, check=True).stdout


def measure(network: Network, examples: int) -> dict:
    keras.utils.set_random_seed(0)
    model = network.build()
    x = np.random.default_rng(0).uniform(network.low, network.high, (200, *model.input_shape[1:])).astype("float32")
    as_if_trained(model, x)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = to_tflite(model, folder / "model.tflite", "int8", x)
        path = file.path
        run, written = run_tflm(path, x[:examples]), to_c_array(path)
        micro = file.output.stored(run.outputs).astype(int)
        steps = {kernels: int(np.abs(micro - answers(file, kernels, x[:examples])).max()) for kernels in KERNELS}
        return {
            "network": network.name,
            "parameters": model.count_params(),
            "bytes": path.stat().st_size,
            "bytes_without_metadata": without_metadata(path.read_bytes()),
            "reference_bytes": network.reference_bytes,
            "arena_bytes": run.arena_bytes,
            "lsb": steps,
            "int8_to_keras": str(verify(model, path, x[:examples], task=network.task)),
            "operators": len(run.operators),
            "c_array_is_the_file": bytes_of_c_array(written.source.parent) == path.read_bytes(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="five examples of each, prints only")
    quick = parser.parse_args().quick

    rows = []
    for network in NETWORKS:
        row = measure(network, 5 if quick else 100)
        rows.append(row)
        print(
            f"{row['network']}: {row['bytes']:,} bytes, {row['bytes_without_metadata']:,} without metadata (reference "
            f"{row['reference_bytes']:,}); arena {row['arena_bytes']:,}; C array "
            f"{'equal' if row['c_array_is_the_file'] else 'DIFFERS'}\n  LSB between TFLite Micro and LiteRT by its "
            f"kernels: {row['lsb']}\n  int8 beside Keras: {row['int8_to_keras']}"
        )
    metrics = {"c_arrays_equal": sum(row["c_array_is_the_file"] for row in rows)}
    for row in rows:
        metrics[f"{row['network']}_bytes_ratio"] = row["bytes"] / row["reference_bytes"]
        metrics[f"{row['network']}_lsb"] = min(row["lsb"]["reference"], row["lsb"]["builtin"])
    report("mlperf_tiny", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
