"""A stratified slice of the real Fashion-MNIST that comes with the package."""

import importlib.resources
from typing import Literal

import numpy as np

from keras_opt.core.errors import check_choice

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_fashion_mnist_sample(
    split: Literal["train", "test"] | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | tuple[np.ndarray, np.ndarray]:
    """Load 10,000 training and 2,000 test images of Fashion-MNIST, without a network.

    The arrays have the shape and type that `keras.datasets.fashion_mnist.load_data` gives, in shuffled order with
    every class equally often. Use it for examples and tests; for published figures use the full data set.

    Args:
        split: `"train"` or `"test"` gives that pair alone and reads only its file, so that a program that asks for
            the test images last cannot have looked at them before. `None` gives both pairs.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, or the one pair asked for. Images are uint8 of shape (n, 28, 28),
        labels uint8 of shape (n,), positions in `FASHION_MNIST_CLASSES`.

    Raises:
        InputError: `split` is none of the three.

    Cost: about 0.1 s and 9 MB of memory for both pairs.

    Source: H. Xiao, K. Rasul and R. Vollgraf, 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms". MIT licence, see the NOTICE beside the files.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_fashion_mnist_sample()
        >>> x_train.shape, x_test.shape
        ((10000, 28, 28), (2000, 28, 28))
    """
    check_choice("load_fashion_mnist_sample", "split", split, (None, "train", "test"))
    if split is None:
        return _read("train"), _read("test")
    return _read(split)


def _read(split):
    resource = importlib.resources.files("keras_opt.data") / "fashion_mnist" / f"{split}.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["x"], arrays["y"]
