"""The full Fashion-MNIST from Debian's package, and the slice of it that keras_opt embeds.

`python benchmarks/_fashion_mnist.py --write-sample` makes keras_opt/data/fashion_mnist/{train,test}.npz again, bit for
bit (NumPy stamps no time into the archive).
"""

import argparse
import gzip
import sys
from pathlib import Path

import numpy as np

SOURCE = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).resolve().parents[1] / "keras_opt" / "data" / "fashion_mnist"
SAMPLE_SEED = 20170825
SAMPLE_PER_CLASS = {"train": 1000, "test": 200}


def load_fashion_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load all 70,000 images: `(x_train, y_train), (x_test, y_test)`, as `keras.datasets.fashion_mnist` gives them."""
    if not SOURCE.is_dir():
        raise SystemExit(f"{SOURCE} is missing. Run: apt-get install dataset-fashion-mnist")
    return _read("train"), _read("t10k")


def sample(x: np.ndarray, y: np.ndarray, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `per_class` images of every class, in shuffled order, by a generator of `SAMPLE_SEED`."""
    generator = np.random.default_rng(SAMPLE_SEED)
    chosen = [generator.choice(np.flatnonzero(y == label), per_class, replace=False) for label in np.unique(y)]
    order = generator.permutation(np.concatenate(chosen))
    return x[order], y[order]


def write_sample(directory: Path) -> None:
    """Write train.npz and test.npz, each with the arrays `x` and `y`."""
    for (split, per_class), (x, y) in zip(SAMPLE_PER_CLASS.items(), load_fashion_mnist(), strict=True):
        x, y = sample(x, y, per_class)
        path = directory / f"{split}.npz"
        np.savez_compressed(path, x=x, y=y)
        print(f"{path}: {len(y)} images, {path.stat().st_size} bytes")


def _read(split):
    images = _decompress(f"{split}-images-idx3-ubyte.gz", header_bytes=16)
    labels = _decompress(f"{split}-labels-idx1-ubyte.gz", header_bytes=8)
    return images.reshape(len(labels), 28, 28), labels


def _decompress(name, header_bytes):
    with gzip.open(SOURCE / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header_bytes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-sample", action="store_true", help=f"write the slice into {SAMPLE}")
    if not parser.parse_args().write_sample:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    write_sample(SAMPLE)
