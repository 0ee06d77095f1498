"""What `keras-opt demo` gains over plain Keras, over several seeds.

Each seed is a pair: both sides train in turn in one process, on the same batches, from the same seed; validation
images decide, test images give the figures. Run it on a quiet machine.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _results import report

from keras_opt.recipes import Recipe, run

CLAIM = (
    "On the embedded Fashion-MNIST slice the optimised run reaches the plain run's best validation accuracy in at most "
    "half of its CPU seconds, and its int8 file is at least 3.3 times smaller than the plain float32 file at a test "
    "accuracy no more than 0.005 below the plain network's (medians over the seeds)."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="one short pair, prints only")
    quick = parser.parse_args().quick
    seeds, changes = (range(1), {"epochs": 3, "pruning_epochs": 1}) if quick else (range(5), {})

    pairs = []
    print("seed | CPU s to plain's best, plain / ours | test accuracy, plain / ours / device | bytes, plain / int8")
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            recipe = Recipe.demo(seed=seed, out=str(Path(folder) / "run"), **changes)
            result = run(recipe, verbose=0)
        plain, ours = result.plain, result.optimised
        pairs.append((plain, ours))
        # A side that never got there has cost all of its time, at the least.
        reached = ours.cpu_seconds_to_plain_best or result.histories["optimised"]["cpu_seconds"][-1]
        mark = "" if ours.cpu_seconds_to_plain_best else " (not reached)"
        print(
            f"{seed} | {plain.cpu_seconds_to_plain_best:.1f} / {reached:.1f}{mark} | {plain.test_accuracy:.4f} / "
            f"{ours.test_accuracy:.4f} / {ours.device_test_accuracy:.4f} | {plain.tflite_bytes} / {ours.tflite_bytes}",
            flush=True,
        )

    def over_pairs(figure):
        return [figure(plain, ours) for plain, ours in pairs]

    def ratios(name):
        """Ours over plain's; infinite where the optimised run never reached plain's best."""
        return over_pairs(lambda plain, ours: (getattr(ours, name) or float("inf")) / getattr(plain, name))

    cpu = ratios("cpu_seconds_to_plain_best")
    gains = over_pairs(lambda plain, ours: ours.test_accuracy - plain.test_accuracy)
    metrics = {
        "cpu_ratio": statistics.median(cpu),
        "cpu_ratio_min": min(cpu),
        "wall_ratio": statistics.median(ratios("seconds_to_plain_best")),
        "reached_share": sum(ratio < float("inf") for ratio in cpu) / len(cpu),
        "plain_cpu_seconds": statistics.median(over_pairs(lambda plain, ours: plain.cpu_seconds_to_plain_best)),
        "plain_seconds": statistics.median(over_pairs(lambda plain, ours: plain.seconds_to_plain_best)),
        "plain_test_accuracy": statistics.median(over_pairs(lambda plain, ours: plain.test_accuracy)),
        "test_accuracy": statistics.median(over_pairs(lambda plain, ours: ours.test_accuracy)),
        "test_accuracy_gain": statistics.median(gains),
        "test_accuracy_gain_min": min(gains),
        "test_accuracy_gain_max": max(gains),
        "device_test_accuracy": statistics.median(over_pairs(lambda plain, ours: ours.device_test_accuracy)),
        "size_ratio": min(over_pairs(lambda plain, ours: plain.tflite_bytes / ours.tflite_bytes)),
        "gzip_ratio": min(over_pairs(lambda plain, ours: plain.tflite_gzip_bytes / ours.tflite_gzip_bytes)),
        "latency_ratio": statistics.median(over_pairs(lambda plain, ours: ours.latency_ms / plain.latency_ms)),
        "argmax_agreement_min": min(over_pairs(lambda plain, ours: ours.argmax_agreement)),
    }
    rows = [
        {"seed": seed, "plain": dataclasses.asdict(plain), "optimised": dataclasses.asdict(ours)}
        for seed, (plain, ours) in zip(seeds, pairs, strict=True)
    ]
    report("demo", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
