"""A report and a model card as a real run gives them, with names that try to break the page."""

import numpy as np
from sklearn.datasets import load_digits

from keras_opt.report import Bar, Chart, ConfusionMatrix, Curve, KeyNumber, Line, Mistake, ModelCard, Report, Table

HOSTILE = "<script>alert(\"1\")</script> & 'x' | 🧥"
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", HOSTILE, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make_report(class_names=CLASSES, errors=0.12):
    """A report over `class_names`: two runs, each with curves, and the digits of scikit-learn as mistakes."""
    rng = np.random.default_rng(0)
    classes = len(class_names)
    counts = np.diag(rng.integers(150, 200, classes))
    counts = counts + rng.poisson(errors * 180 / classes, (classes, classes)) * (rng.random((classes, classes)) < 0.4)
    images = (load_digits().images * 15).astype(np.uint8)[..., None]
    return Report(
        title="Fashion-MNIST, 10,000 images",
        summary="One stack of layers trained twice on the same batches: with plain Keras, and with keras_opt, which "
        "then pruned it, made it int8 and ran the file in LiteRT.",
        headline=[
            KeyNumber("90.3 %", "accuracy on the device", "plain Keras: 89.5 %"),
            KeyNumber("41.0 kB", "int8 file", "3.5 times smaller than float32"),
            KeyNumber("0.21 ms", "latency, one thread", "2.1 times faster than float32"),
            KeyNumber("18.4 s", "CPU time to the plain run's best", "2.9 times faster than 53.1 s"),
        ],
        comparison=Table(
            "Plain beside optimised",
            ("", "plain", "optimised", "change"),
            [
                ("test accuracy, Keras model", "0.8950", "0.9052", "+0.0102"),
                ("test accuracy after pruning", "-", "0.9041", "+0.0091"),
                ("test accuracy, device file", "0.8950", "0.9030", "+0.0080"),
                ("CPU seconds to the plain run's best", "53.1", "18.4", "2.9 times faster"),
                ("accuracy at equal CPU seconds", "0.8701", "0.8988", "+0.0287"),
                ("parameters", "34,826", "35,018", "+0.6 %"),
                ("zeros in the weights", "0.0 %", "50.0 %", ""),
                (".tflite file", "143,212 B", "41,020 B", "3.5 times smaller"),
                (".tflite file, gzip", "132,001 B", "27,310 B", "4.8 times smaller"),
                ("latency, median of 200", "0.44 ms", "0.21 ms", "2.1 times faster"),
                ("agreement with the Keras model", "1.000", "0.991", ""),
            ],
            note="Measured on 2,000 test images that were read once, at the end. Latency is of this machine.",
        ),
        skipped=Table(
            "Skipped files",
            ("file", "reason"),
            [(f"photos/{HOSTILE}/{i}.png", "truncated image") for i in range(3)],
        ),
        charts=[
            Chart(
                "File size",
                [Bar("plain float32", 143.2, "143.2 kB"), Bar("optimised int8", 41.0, "41.0 kB", highlight=True)],
                "Smaller is better.",
            ),
            Chart("Latency", [Bar("plain float32", 0.44, "0.44 ms"), Bar("optimised int8", 0.21, "0.21 ms", True)]),
            Chart(
                "Test accuracy", [Bar("plain float32", 0.895, "89.5 %"), Bar("optimised int8", 0.903, "90.3 %", True)]
            ),
        ],
        curves=_curves(rng),
        confusion=ConfusionMatrix(class_names, counts),
        mistakes=[
            Mistake(images[i], class_names[i % classes], class_names[(i + 1) % classes], 0.99 - i / 50, f"test #{i}")
            for i in range(12)
        ],
        details=[
            Table("Settings", ("setting", "value"), [("batch_size", "128"), ("epochs", "15"), ("quantize", "int8")]),
            Table("Versions", ("package", "version"), [("tensorflow", "2.21.0"), ("platform", "Linux-6.1-x86_64")]),
            Table("Files", ("file", "what for"), [("model.keras", "opens in plain Keras"), ("model.tflite", "device")]),
        ],
        footer="keras-opt demo · keras_opt 0.1.0 · seed 0",
    )


def _curves(rng):
    epochs, steps = np.arange(1, 16), np.arange(1, 1051)
    fall, fast = np.exp(-epochs / 4), np.exp(-epochs / 2)
    return [
        Curve(
            "Loss",
            "epoch",
            "cross-entropy",
            [
                Line("plain, training", epochs, 0.25 + 0.6 * fall, series=0, dashed=True),
                Line("plain, validation", epochs, 0.28 + 0.5 * fall, series=0),
                Line("optimised, training", epochs[:9], (0.2 + 0.6 * fast)[:9], series=1, dashed=True),
                Line("optimised, validation", epochs[:9], (0.25 + 0.5 * fast)[:9], series=1),
            ],
        ),
        Curve(
            "Validation accuracy",
            "CPU seconds",
            "accuracy",
            [
                Line("plain", epochs * 3.6, 0.9 - 0.2 * fall, series=0),
                Line("optimised", epochs[:9] * 3.9, (0.91 - 0.15 * fast)[:9], series=1),
                Line("plain run's best", [0, 54], [0.895, 0.895], series=2, dashed=True),
            ],
        ),
        Curve(
            "Learning rate",
            "step",
            "learning rate",
            [
                Line("plain", steps, np.full(1050, 1e-3), series=0),
                Line("optimised", steps, 4e-3 * np.sin(np.pi * steps / 1051) ** 2 + 1e-5, series=1),
            ],
        ),
        Curve(
            "Gradient norm",
            "step",
            "global norm",
            [Line("optimised", steps, np.where(steps == 500, np.nan, rng.lognormal(-0.5, 0.6, 1050)), series=1)],
            log_y=True,
            note="Before clipping.",
        ),
    ]


def make_card():
    """A model card with names, settings and a command that Markdown would misread."""
    return ModelCard(
        name="Fashion-MNIST *int8*",
        purpose="Names the kind of a piece of clothing on a 28x28 grey image.",
        intended_use="Teaching and benchmarks.",
        limits=["Not for photographs.", "Shirt & T-shirt are confused: 0.7 < recall."],
        data_source="https://github.com/zalandoresearch/fashion-mnist, load_fashion_mnist_sample()",
        data_licence="MIT",
        split="9,000 training, 1,000 validation, 2,000 test images",
        class_counts=Table(
            "Images", ("class", "training", "test"), [("T-shirt", "900", "200"), (HOSTILE, "900", "200")]
        ),
        metrics=Table("Metrics", ("", "test"), [("accuracy", "0.903")], note="Read once."),
        command="keras-opt demo --out `runs`\n  --seed 0",
        seed=0,
        settings=Table("Settings", ("setting", "value"), [("initial_sparsity", "[0, 1]"), ("_private_", "a|b\nc")]),
        versions=Table("Versions", ("package", "version"), [("tensorflow", "2.21.0")]),
        files=Table("Files", ("file", "what for"), [("model.tflite", "the device")]),
        licence="Apache-2.0",
    )
