"""The best of 40 trials on two functions with known optima, and what choosing a trial costs, by each way to search.

Branin has two parameters and the optimum 0.398, Hartmann6 six and -3.322. Every search goes through `Tuner.run_trial`
in one process with one thread, its files included; the CPU seconds are those of the whole search without those of the
function, by trial. The grid has six values a parameter for Branin, all of its 36 points within the 40 trials, and the
two ends of each range for Hartmann6, of whose 64 points 40 are tried.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_tuner
import numpy as np
from _results import report

from keras_opt import tuning

CLAIM = (
    "In 40 trials BayesianOptimization finds 0.40 or less on Branin and -3.25 or less on Hartmann6 (median of 10 "
    "seeds), at no more than 0.15 CPU seconds a trial and no more than three times those of 40 trials in 200, with no "
    "point tried twice."
)
TRIALS, MANY_TRIALS = 40, 200
A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
WAYS = {
    "random": (tuning.RandomSearch, {}),
    "grid": (tuning.GridSearch, {}),
    "keras_tuner": (keras_tuner.BayesianOptimization, {}),
    "gp": (tuning.BayesianOptimization, {}),
    "tpe": (tuning.BayesianOptimization, {"sampler": "tpe"}),
}


def branin(hp, step: float | None) -> float:
    x = hp.Float("x", -5.0, 10.0, step=step and 15.0 * step)
    y = hp.Float("y", 0.0, 15.0, step=step and 15.0 * step)
    return (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


def hartmann6(hp, step: float | None) -> float:
    x = np.array([hp.Float(f"x{number}", 0.0, 1.0, step=step) for number in range(6)])
    return float(-WEIGHTS @ np.exp(-(A * (x - P) ** 2).sum(1)))


FUNCTIONS = {"branin": (branin, 0.2), "hartmann6": (hartmann6, 1.0)}


def searched(function: str, way: str, seed: int, trials: int) -> dict[str, float]:
    """The best score, the CPU seconds a trial and the repeats of one search."""
    formula, grid_step = FUNCTIONS[function]
    kind, settings = WAYS[way]
    step = grid_step if way == "grid" else None
    spent = 0.0

    class Search(kind):
        def run_trial(self, trial, *args, **kwargs):
            nonlocal spent
            start = time.process_time()
            score = formula(trial.hyperparameters, step)
            spent += time.process_time() - start
            return score

    # keras-tuner takes 0 for no seed.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        search = Search(max_trials=trials, seed=seed + 1, directory=folder, project_name="search", **settings)
        search.search(verbose=0)
        seconds = time.process_time() - start - spent
        done = list(search.oracle.trials.values())
    points = [str(sorted(trial.hyperparameters.values.items())) for trial in done]
    return {
        "function": function,
        "way": way,
        "seed": seed,
        "trials": len(done),
        "best": min(trial.score for trial in done if trial.score is not None),
        "cpu_seconds_a_trial": seconds / len(done),
        "repeats": len(points) - len(set(points)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--quick", action="store_true", help="three seeds, not of keras-tuner, prints only")
    quick = parser.parse_args().quick
    seeds = range(3) if quick else range(10)

    rows, metrics = [], {}
    print("function | way | seed | best | CPU seconds a trial | repeats")
    for function in FUNCTIONS:
        for way in WAYS:
            found = [searched(function, way, seed, TRIALS) for seed in seeds if not (quick and way == "keras_tuner")]
            for row in found:
                cells = (function, way, row["seed"], f"{row['best']:.4f}", f"{row['cpu_seconds_a_trial']:.4f}")
                print(*cells, row["repeats"], sep=" | ", flush=True)
            rows += found
            if found:
                metrics[f"{function}_{way}"] = statistics.median(row["best"] for row in found)
                metrics[f"{function}_{way}_cpu_seconds"] = statistics.median(
                    row["cpu_seconds_a_trial"] for row in found
                )
                metrics[f"{function}_{way}_repeats"] = sum(row["repeats"] for row in found)
    for function in FUNCTIONS:
        many = [searched(function, "gp", seed, 100 if quick else MANY_TRIALS) for seed in seeds[: 1 if quick else 3]]
        seconds = statistics.median(row["cpu_seconds_a_trial"] for row in many)
        metrics[f"{function}_gp_many_trials"] = statistics.median(row["best"] for row in many)
        metrics[f"{function}_gp_many_trials_cpu_seconds"] = seconds
        metrics[f"{function}_gp_many_trials_cpu_ratio"] = seconds / metrics[f"{function}_gp_cpu_seconds"]
        rows += many
    report("search_quality", CLAIM, metrics, rows, write=not quick)


if __name__ == "__main__":
    main()
