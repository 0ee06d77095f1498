"""What each way to a small file keeps of the accuracy and saves in bytes, operations, memory and time.

Two networks on Fashion-MNIST, three seeds. The float baseline is trained for as many epochs as the longest recipe
takes, at the best of three learning rates (by validation, on the first seed). Most recipes begin with a shorter
training at that rate, as one has a trained network; two are small "from the start", as one may train anew. The fastest
and the smallest file within a point are chosen on 5,000 images of the training set, figures are those of the 10,000
test images, run in LiteRT. Native and TF-MOT's trainings have the same start, batches, rate and epochs. All takes five
hours of CPU: finished trainings are kept in a folder, from which an interrupted run goes on, and `--seed` makes the
rows of one seed.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tf_keras
from _fashion_mnist import load_fashion_mnist
from _results import RESULTS, report

from keras_opt.compression import (
    ConstantSparsity,
    PolynomialSparsity,
    PruneLowMagnitude,
    copy_weights_back,
    distill,
    prune_channels,
    quantize_aware,
    tfmot_cluster,
    tfmot_quantize,
)
from keras_opt.compression.bridge.tf_keras_schedule import as_tf_keras_schedule
from keras_opt.core.files import write_atomic
from keras_opt.core.progress import Progress
from keras_opt.data import arrays
from keras_opt.export import LiteRTModel, benchmark, run_tflm, to_tflite
from keras_opt.models import macs, mobilenet, resnet
from keras_opt.schedules import OneCycle

CLAIM = (
    "On Fashion-MNIST, within one point of the float baseline's test accuracy, keras_opt finds for a mobilenet and a "
    "resnet (the worse of the two, median of the seeds) a file that takes at most a quarter of float's time and one "
    "that takes at most a tenth of its gzip bytes; a natively quantization-aware Keras model predicts its device file "
    "to one step, most of them to the bit; and native training is within 0.3 points of TF-MOT's or better."
)
SEEDS = (0, 1, 2)
RATES = (1e-3, 3e-3, 1e-2)
BATCH_SIZE = 128
BASE, RETRAIN, FINE = 4, 2, 1  # epochs; the longest recipe takes all of them
VALIDATION_IMAGES = 5000  # the last of the 60,000
LABEL_SMOOTHING = 0.1  # without it some logits grow to hundreds, and no 256 steps hold them with the others
WITHIN = 0.01
SAVED = {"latency_ms": "float32's latency / the file's", "gzip_bytes": "float32's gzip bytes / the file's"}
QUICK = ("float", "PTQ", "native QAT", "TF-MOT QAT")
NATIVE_AND_TFMOT = (("native QAT", "TF-MOT QAT"),)


def build(name: str, width: float) -> keras.Model:
    """An untrained network with `width` times its channels."""
    parts = {"classifier_activation": None, "preprocessing": keras.layers.Rescaling(1 / 255)}
    if name == "mobilenet":
        return mobilenet((32, 32, 1), 10, alpha=width, stem="large", **parts)
    return resnet(20, (28, 28, 1), 10, width=round(16 * width), **parts)


SIDES = {"mobilenet": 32, "resnet": 28}  # pixels; 32 with a margin of zeros, the least that the large stem takes


class Run:
    """All trainings and files of one network and seed, in a folder."""

    def __init__(self, name: str, seed: int, data: dict[str, tuple], folder: Path, advance: Callable[[str], None]):
        self.name, self.seed, self.data, self.advance = name, seed, data, advance
        self.folder = folder / f"{name}_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def batches(self):
        x, y = self.data["train"]
        return arrays(x, keras.utils.to_categorical(y, 10), batch_size=BATCH_SIZE, seed=self.seed)

    def fit(self, model: Any, rate: float, epochs: int, callbacks: tuple = (), maker: Any = keras) -> Any:
        """Train `model` by Adam in one cycle; Keras 3 or tf_keras."""
        keras.utils.set_random_seed(self.seed)
        batches = self.batches()
        schedule = OneCycle(rate, epochs * len(batches))
        if maker is tf_keras:
            schedule = as_tf_keras_schedule(schedule)
        loss = maker.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING)
        model.compile(maker.optimizers.Adam(schedule), loss)
        model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks))
        return model

    def fresh(self, width: float = 1.0) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        return build(self.name, width)

    def trained(self, rate: float, epochs: int) -> keras.Model:
        """The float model of a rate; from its file if it was trained before."""
        path = self.folder / f"float_{rate:g}_{epochs}.keras"
        if not path.exists():
            self.fit(self.fresh(), rate, epochs).save(path)
        return keras.models.load_model(path, compile=False)

    def accuracy(self, predict: Callable, part: str) -> float:
        x, y = self.data[part]
        return float(np.mean(predict(x).argmax(-1) == y))

    def best_rate(self) -> float:
        """The rate with the best validation accuracy at the length of the longest recipe."""

        def accuracy(rate):
            model = self.trained(rate, BASE + RETRAIN + FINE)
            self.advance(f"{self.name} {self.seed}, float at {rate:g}")
            return self.accuracy(lambda x: model.predict(x, batch_size=1000, verbose=0), "validation")

        return max(RATES, key=accuracy)

    def row(self, recipe: str, make: Callable[[], tuple[Any, keras.Model, str]]) -> dict[str, Any]:
        """The figures of a recipe, but for its latency, which is measured when all files are there."""
        name = recipe.lower().replace(" ", "_").replace(":", "_").replace("+", "and").replace(",", "").replace("%", "")
        kept = self.folder / f"{name}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        start = time.process_time()
        row = {"network": self.name, "seed": self.seed, "recipe": recipe}
        try:
            model, plain, kind = make()
            path = self.folder / f"{name}.tflite"
            export = to_tflite(model, path, kind, None if kind == "float32" else self.data["train"][0][:1000])
            file = LiteRTModel(path)
            row |= {part: self.accuracy(file.predict, part) for part in ("validation", "test")}
            row |= {"bytes": export.size_bytes, "gzip_bytes": export.gzip_bytes, "macs": macs(plain), "path": str(path)}
            row["arena_bytes"] = run_tflm(path, self.data["test"][0][:1]).arena_bytes
            if kind == "int8":
                x = self.data["test"][0][:2000]
                gap = np.abs(file.predict(x) - np.asarray(model.predict(x.astype("float32"), verbose=0)))
                row["max_lsb"] = round(float(gap.max() / export.output.scale), 3)
                row["within_lsb"] = float(np.mean(gap < 1.01 * export.output.scale))
        except (ValueError, RuntimeError) as error:
            row["failure"] = str(error).splitlines()[0]
        row["cpu_seconds"] = time.process_time() - start
        write_atomic(kept, json.dumps(row))
        return row

    def rows(self, rate: float, wanted: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The figures of all recipes or of the wanted ones, the float baseline first."""
        gentle, fine = rate / 3, rate / 10  # where weights were lost; where they are only rounded
        thin = ["stem*", "*depthwise*"] if self.name == "mobilenet" else ["stem*"]  # kernels of 9 rows
        anew = BASE + RETRAIN
        baseline = self.trained(rate, anew + FINE)

        def base() -> keras.Model:
            return self.trained(rate, BASE)

        def prune(sparsity: float, epochs: int) -> PruneLowMagnitude:
            steps = epochs * len(self.batches())
            schedule = PolynomialSparsity(0.0, sparsity, begin_step=steps // 8, end_step=5 * steps // 8)
            return PruneLowMagnitude(schedule, exclude=thin)

        def pruned() -> keras.Model:
            path = self.folder / "pruned.keras"
            if not path.exists():
                self.fit(base(), gentle, RETRAIN, (prune(0.8, RETRAIN),)).save(path)
            return keras.models.load_model(path, compile=False)

        def two_of_four() -> keras.Model:
            callback = PruneLowMagnitude(ConstantSparsity(0.5), structure="2:4", exclude=thin)
            return self.fit(base(), gentle, RETRAIN, (callback,))

        def aware(model: keras.Model) -> tuple:
            return self.fit(quantize_aware(model), fine, FINE), model, "int8"

        def tfmot_aware() -> tuple:
            model = base()
            return self.fit(tfmot_quantize(model), fine, FINE, maker=tf_keras), model, "int8"

        def clustered() -> tuple:
            model = base()
            copy_weights_back(self.fit(tfmot_cluster(model, 16), gentle, FINE, maker=tf_keras))
            return model, model, "int8"

        def half_of_the_channels() -> tuple:
            teacher = base()
            small = prune_channels(teacher, 0.5, criterion="bn_gamma")
            self.fit(distill(small, teacher, task="classification"), rate, RETRAIN)
            student = quantize_aware(small)
            self.fit(distill(student, teacher, task="classification"), gentle, FINE)
            return student, small, "int8"

        def narrow(*callbacks: keras.callbacks.Callback) -> tuple:
            return aware(self.fit(self.fresh(0.55), rate, anew, callbacks))

        def as_it_is(model: keras.Model, kind: str) -> tuple:
            return model, model, kind

        recipes = {
            "float": lambda: as_it_is(baseline, "float32"),
            "PTQ": lambda: as_it_is(baseline, "int8"),
            "PTQ of the base": lambda: as_it_is(base(), "int8"),
            "native QAT": lambda: aware(base()),
            "TF-MOT QAT": tfmot_aware,
            "80% pruned + int8": lambda: as_it_is(pruned(), "int8"),
            "2:4 + int8": lambda: as_it_is(two_of_four(), "int8"),
            "TF-MOT clustered 16 + int8": clustered,
            "PQAT": lambda: aware(pruned()),
            "channels 0.5 + distil + QAT": half_of_the_channels,
            "width 0.55 from the start + QAT": narrow,
            "width 0.55, 40% pruned from the start + QAT": lambda: narrow(prune(0.4, anew)),
        }
        rows = []
        for recipe in wanted or recipes:
            rows.append({**self.row(recipe, recipes[recipe]), "rate": rate})
            self.advance(f"{self.name} {self.seed}, {recipe}")
        return with_latency(rows)


def with_latency(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the time of a call; all files of a network and seed are timed in turn."""
    made = [row for row in rows if "failure" not in row]
    times = benchmark([row.pop("path") for row in made], runs=500)
    for row, latency in zip(made, times, strict=True):
        row["latency_ms"] = latency.median_ms
    return rows


def gains(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the fastest and the smallest file within a point (by validation) save, if they are on the test data too."""
    plain = rows[0]
    made = [row for row in rows if "failure" not in row and row["validation"] >= plain["validation"] - WITHIN]
    chosen = {key: min(made, key=lambda row: row[key]) for key in SAVED}
    return {key: plain[key] / row[key] if row["test"] >= plain["test"] - WITHIN else 1.0 for key, row in chosen.items()}


def summary(runs: dict[tuple[str, int], list[dict[str, Any]]]) -> dict[str, float]:
    metrics, networks = {}, dict.fromkeys(name for name, _ in runs)
    for key, metric in (("latency_ms", "best_latency_ratio_1pt"), ("gzip_bytes", "best_gzip_ratio_1pt")):
        for name in networks:
            ratios = [gains(rows)[key] for (network, _), rows in runs.items() if network == name]
            metrics[f"{metric}_{name}"] = statistics.median(ratios)
        metrics[metric] = min(metrics[f"{metric}_{name}"] for name in networks)
    rows = [row for found in runs.values() for row in found]
    native = [row for row in rows if row["recipe"].endswith("QAT") and row["recipe"] != "TF-MOT QAT"]
    metrics["qat_max_lsb"] = max(row["max_lsb"] for row in native if "max_lsb" in row)
    for ours, theirs in NATIVE_AND_TFMOT:
        for name in networks:
            tests = {row["recipe"]: [] for row in rows}
            for row in rows:
                if row["network"] == name and "test" in row:
                    tests[row["recipe"]].append(row["test"])
            if tests[theirs]:
                gap = 100 * (statistics.mean(tests[ours]) - statistics.mean(tests[theirs]))
                metrics[f"native_minus_tfmot_points_{name}"] = gap
    metrics["failures"] = sum("failure" in row for row in rows)
    return metrics


def draw(runs: dict[tuple[str, int], list[dict[str, Any]]], path: Path) -> None:
    """A picture of what each recipe loses and saves, medians over the seeds."""
    points: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for (name, _), rows in runs.items():
        for key in SAVED:
            for row in rows:
                if "failure" not in row:
                    saved, gained = rows[0][key] / row[key], 100 * (row["test"] - rows[0]["test"])
                    points.setdefault((key, name), {}).setdefault(row["recipe"], []).append((saved, gained))
    plt.rcParams |= {"svg.hashsalt": "keras_opt", "svg.fonttype": "none"}
    shape = (len(SAVED), len(SIDES))
    figure, panels = plt.subplots(*shape, figsize=(12, 7), layout="constrained", sharex="row", sharey=True)
    for panel, (key, name) in zip(panels.flat, itertools.product(SAVED, SIDES), strict=True):
        for number, (recipe, pairs) in enumerate(points[key, name].items()):
            panel.plot(*np.median(pairs, axis=0), "os"[number // 10], color=f"C{number % 10}", label=recipe)
        panel.axhline(-100 * WITHIN, color="0.6", linestyle="dashed")
        panel.set(title=name, xlabel=SAVED[key])
    figure.supylabel("points of test accuracy over float32")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center")
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    write_atomic(path, image.getvalue())


def load(side: int, images: int | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The parts of Fashion-MNIST as `(rows, side, side, 1)`."""
    (x, y), (test_x, test_y) = load_fashion_mnist()
    margin = (side - x.shape[1]) // 2
    x, test_x = (np.pad(part, ((0, 0), (margin, margin), (margin, margin)))[..., None] for part in (x, test_x))
    train = (x[:-VALIDATION_IMAGES][:images], y[:-VALIDATION_IMAGES][:images])
    return {
        "train": train,
        "validation": (x[-VALIDATION_IMAGES:], y[-VALIDATION_IMAGES:]),
        "test": (test_x, test_y),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="four recipes on 1,000 images and one seed; prints only")
    default = Path(tempfile.gettempdir()) / "keras_opt_compression"
    parser.add_argument("--folder", type=Path, default=default, help="of finished trainings (%(default)s)")
    parser.add_argument("--only", choices=list(SIDES), help="train this network only, and print only")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="this seed only; the committed rows of others stay")
    arguments = parser.parse_args()
    names, seeds, folder, images, rates, wanted = list(SIDES), SEEDS, arguments.folder, None, {}, None
    if arguments.seed is not None:
        seeds = (arguments.seed,)
    if arguments.only:
        names = [arguments.only]
    if arguments.quick:
        names, seeds, folder, images = ["resnet"], SEEDS[:1], Path(tempfile.mkdtemp()), 1000
        rates, wanted = {"resnet": RATES[-1]}, QUICK
    data = {name: load(SIDES[name], images) for name in names}
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    committed = RESULTS / "compression.json"
    if arguments.seed is not None and committed.exists():
        for row in json.loads(committed.read_text())["rows"]:
            runs.setdefault((row["network"], row["seed"]), []).append(row)
            rates[row["network"]] = row["rate"]
    unknown = [name for name in names if name not in rates]
    trainings = len(unknown) * len(RATES) + len(names) * len(seeds) * (len(wanted) if wanted else 12)
    with Progress().stage("trainings", trainings) as stage:

        def run(name: str, seed: int) -> Run:
            return Run(name, seed, data[name], folder, lambda note: stage.advance(1, note))

        rates |= {name: run(name, SEEDS[0]).best_rate() for name in unknown}
        for seed in seeds:
            runs |= {(name, seed): run(name, seed).rows(rates[name], wanted) for name in names}
    print("network | seed | recipe | test | validation | bytes | gzip | MACs | arena | latency, of float | LSB")
    for rows in runs.values():
        for row in rows:
            place = (row["network"], row["seed"], row["recipe"])
            if "failure" in row:
                print(*place, row["failure"], sep=" | ")
                continue
            figures = (row["bytes"], row["gzip_bytes"], row["macs"], row["arena_bytes"])
            latency = f"{row['latency_ms'] / rows[0]['latency_ms']:.2f}"
            lsb = f"{row['max_lsb']:.2f}" if "max_lsb" in row else ""
            print(*place, f"{row['test']:.4f}", f"{row['validation']:.4f}", *figures, latency, lsb, sep=" | ")
    write = not (arguments.quick or arguments.only)
    if write:
        draw(runs, RESULTS / "compression.svg")
    report("compression", CLAIM, summary(runs), [row for rows in runs.values() for row in rows], write=write)


if __name__ == "__main__":
    main()
