"""What a model with fewer channels costs: multiply-accumulates, bytes of the .tflite file, latency in LiteRT.

`prune_channels` with keep 1, 0.75, 0.5 and 0.25 on two builders, in float32 and int8. The files of a network and kind
run in turn (A B C D A B C D), on one thread; a pair is one round of that. The weights are random, on which none of this
depends. In float32 the bytes are compared with arithmetic: the file of the whole network less 4 for each weight that
went, norms folded. Run it on a quiet machine.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _results import report

from keras_opt.compression import prune_channels
from keras_opt.export import benchmark, to_tflite
from keras_opt.models import fold_batch_norm, macs, mobilenet, resnet

CLAIM = (
    "With half of the channels (a quarter of the multiply-accumulates, 0.30 on MobileNetV2) a MobileNetV2 at 96x96 and "
    "a ResNet-20 at 32x32 take at most half of the time in float32 and 0.55 in int8, and their float32 files have "
    "the bytes that the removed weights predict, to 0.2%."
)
KEEP = (1.0, 0.75, 0.5, 0.25)
KINDS = ("float32", "int8")
SETTINGS = {"zero_init_last": False, "preprocessing": keras.layers.Rescaling(1 / 255)}
NETWORKS = {
    "mobilenet": lambda: mobilenet((96, 96, 3), 10, **SETTINGS),
    "resnet": lambda: resnet(20, (32, 32, 3), 10, 16, **SETTINGS),
}


def with_random_shifts(model: keras.Model) -> keras.Model:
    """Norms that fold into biases of which no two are alike: the converter keeps equal ones once."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(keras.random.normal(layer.beta.shape, stddev=0.1))
    return model


def files_of(models: dict[float, keras.Model], kind: str, folder: Path) -> dict[float, Path]:
    shape = models[1.0].input_shape[1:]
    pixels = np.random.default_rng(0).integers(0, 256, (100, *shape)).astype("float32")
    data = None if kind == "float32" else pixels
    return {keep: to_tflite(model, folder / f"{kind}_{keep}.tflite", kind, data).path for keep, model in models.items()}


def predicted_bytes(models: dict[float, keras.Model], keep: float, whole: int) -> int:
    """The bytes of a float32 file, whose norms are folded into their neighbours."""
    gone = fold_batch_norm(models[1.0]).count_params() - fold_batch_norm(models[keep]).count_params()
    return whole - 4 * gone


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="two rounds of few calls; prints only")
    quick = parser.parse_args().quick
    rounds, runs = (2, 20) if quick else (9, 100)

    metrics, rows = {}, []
    for name, build in NETWORKS.items():
        keras.utils.set_random_seed(0)
        whole = with_random_shifts(build())
        models = {keep: prune_channels(whole, keep) if keep < 1 else whole for keep in KEEP}
        counts = {keep: macs(model) for keep, model in models.items()}
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                files = files_of(models, kind, Path(folder))
                sizes = {keep: file.stat().st_size for keep, file in files.items()}
                turns = [[each.median_ms for each in benchmark(list(files.values()), runs=runs)] for _ in range(rounds)]
            rows += [
                {"network": name, "kind": kind, "milliseconds": dict(zip(KEEP, turn, strict=True))} for turn in turns
            ]
            print(f"\n{name}, {kind}\nkeep | MACs | bytes | predicted | ms | ms ratio | MACs ratio | bytes ratio")
            for place, keep in enumerate(KEEP):
                ratios = [turn[place] / turn[0] for turn in turns]
                ratio, milliseconds = statistics.median(ratios), statistics.median(turn[place] for turn in turns)
                predicted = predicted_bytes(models, keep, sizes[1.0]) if kind == "float32" else None
                print(
                    keep, counts[keep], sizes[keep], predicted, f"{milliseconds:.4g}",
                    f"{ratio:.3f} ({min(ratios):.3f}-{max(ratios):.3f})", f"{counts[keep] / counts[1.0]:.3f}",
                    f"{sizes[keep] / sizes[1.0]:.3f}", sep=" | ", flush=True,
                )  # fmt: skip
                if keep < 1:
                    metrics[f"{name}_{kind}_latency_{keep}"] = ratio
                    metrics[f"{name}_{kind}_bytes_{keep}"] = sizes[keep] / sizes[1.0]
                if keep < 1 and kind == "float32":
                    metrics[f"{name}_macs_{keep}"] = counts[keep] / counts[1.0]
                    metrics[f"{name}_bytes_from_predicted_{keep}"] = abs(sizes[keep] / predicted - 1)
    report("prune_channels", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
