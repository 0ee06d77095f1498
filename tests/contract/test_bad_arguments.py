"""A bad argument of a callback or criterion is an error when it is made, which names it and what was received.

One row an argument; every argument of every public callback and criterion has a row, or a reason for none.
"""

import inspect
import re

import keras
import pytest
from public_names import InFit, rows

from keras_opt import callbacks, compression, distribute, ensemble, export, layers, recipes, tuning

MODES = ["up", None, 3]
NAMES = [3, None, b"loss", ["loss"], ""]
FRACTIONS = [-0.1, 1, 1.5, "0.5", None, float("nan"), True]
PATTERNS = [3, "head", [3], ["head", None]]
PATHS = [3, True, b"folder", ["folder"]]
POSITIVE = [0, -1.0, float("nan"), float("inf"), "1", True]
COUNTS = [-1, 1.5, "5", None, True]
FROM_1 = [0, *COUNTS]
NUMBERS = ["1", float("nan"), float("inf"), True]
SOFTMAX = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
# What all searches take; a trial is never begun with them.
SEARCH = {
    "hypermodel": [3, "model", None],
    "objective": [3, "", [3], [], "val_fitness"],
    "seed": [-1, 1.5, "5", True],
    "hyperparameters": [3, {"rate": 0.1}],
    "max_retries_per_trial": [-1, 1.5, "5", True],
    "max_consecutive_failed_trials": [0, -1, 1.5, "5", True],
    "max_seconds": POSITIVE,
    "directory": PATHS,
    "executions_per_trial": FROM_1,
}

BAD = {
    callbacks.BackupAndRestore: {
        "backup_dir": [*PATHS, None],
        "save_freq": [0, -1, 1.5, "batch", None],
        "every_seconds": ["5", -1],
        "keep": FROM_1,
    },
    callbacks.Divergence: {"monitor": NAMES, "above": NUMBERS},
    callbacks.EarlyStopping: {
        "monitor": [3, None, "", ["loss"]],
        "min_delta": NUMBERS,
        "patience": COUNTS,
        "mode": MODES,
        "baseline": NUMBERS,
        "start_from_epoch": COUNTS,
        "best": [3, ""],
        "filepath": [3, True, b"a.weights.h5", "a.keras"],
    },
    callbacks.GeneralizationLoss: {"alpha": POSITIVE, "monitor": NAMES},
    callbacks.GradientAccumulation: {"gradient_accumulation_steps": [*FROM_1, {}, {1: 2}, {0: 2, 1: 0}, {0: "4"}]},
    callbacks.GradientClipping: {
        "clipvalue": POSITIVE,
        "clipnorm": POSITIVE,
        "global_clipnorm": POSITIVE,
        "adaptive": POSITIVE,
        "percentile": [*POSITIVE, 100],
        "exclude": PATTERNS,
    },
    callbacks.GradientMonitor: {"every": FROM_1, "histograms": [True], "log_dir": PATHS},
    callbacks.GradualUnfreezing: {"schedule": [3, None, {}, {1: "all"}, {0: 3}, "all"], "lr_decay": ["2", -1, 0]},
    callbacks.LearningRateMonitor: {"effective": ["yes", None, 1]},
    callbacks.ModelCheckpoint: {
        "filepath": [3, None, b"a.keras"],
        "monitor": NAMES,
        "mode": MODES,
        "save_freq": [0, -1, 1.5, "batch"],
        "initial_value_threshold": ["1"],
        "keep": [0, -1, 1.5, "3"],
    },
    callbacks.OverfitGap: {"train": NAMES, "validation": NAMES, "above": [*NUMBERS, None], "mode": MODES},
    callbacks.Plateau: {
        "monitor": NAMES,
        "patience": COUNTS,
        "min_delta": [*NUMBERS, None],
        "mode": MODES,
        "smoothing": [-0.1, 1, 1.5, "0.5", None],
        "patience_unit": ["epochs", None, 3],
        "start_from_epoch": COUNTS,
        "baseline": NUMBERS,
    },
    callbacks.ProgressBar: {"title": [3, None], "progress": [3, True]},
    callbacks.ProgressQuotient: {"alpha": POSITIVE, "strip": FROM_1, "monitor": NAMES, "train": NAMES},
    callbacks.ReduceLROnPlateau: {
        "monitor": NAMES,
        "factor": [-0.1, 1, "0.5", None],
        "patience": COUNTS,
        "mode": MODES,
        "min_delta": [*NUMBERS, None],
        "cooldown": COUNTS,
        "min_lr": [-1, "0", None],
    },
    callbacks.ScheduleLearningRate: {"schedule": [3, None, 0.1, lambda step: 0.1], "unit": ["epochs", None, 3]},
    callbacks.SharpnessAwareMinimization: {"rho": POSITIVE, "interval": FROM_1},
    callbacks.SuccessiveIncreases: {"count": FROM_1, "strip": FROM_1, "monitor": NAMES},
    callbacks.Target: {"monitor": NAMES, "value": [*NUMBERS, None], "mode": MODES},
    callbacks.TimeBudget: {"max_seconds": POSITIVE},
    callbacks.WeightAveraging: {
        "kind": ["mean", None, 3, ["ema"]],
        "ema_momentum": [-0.1, 1, "0.9", None],
        "start": [-1, 1.5, 0.0, "5", True, float("nan")],
        "every": [0, -1, 1.5, "5", True],
        "reestimate_batch_norm": [3, True, "images"],
        "slow_step_size": [0, 1.5, "0.5", None],
    },
    compression.PruneLowMagnitude: {
        "schedule": [0.5, None, "constant"],
        "include": PATTERNS,
        "exclude": PATTERNS,
        "structure": ["4:2", "dense", (4,), (0, 4), (4.0, 4), 4, None],
        "scope": ["model", None, 3],
        "every": FROM_1,
    },
    compression.prune_channels: {
        "model": [3, None, "model.keras", keras.Sequential([keras.layers.Dense(2)])],
        "keep": [0, -0.1, 1.1, "0.5", None, True, float("nan"), [], {}, {3: 0.5}, {"*": 0}, {"nothing": 0.5}],
        "criterion": ["L1", "gamma", None, 1],
    },
    compression.CompressionRecipe: {
        "quantize": ["int9", None, 3],
        "keep": [0, 1.5, "half", None, {}, {"conv1": 0}, {3: 0.5}],
        "sparsity": [-0.1, 1, "0.5", None],
        "aware": [1, None, "yes"],
    },
    compression.compress: {
        "model": [3, None, "model.keras"],
        "train": [3, None, "images", [1, 2]],
        "validation": [3, None, "images"],
        "metric": ["no metric", 3],
        "max_drop": [-1, "1", None, True, float("nan")],
        "objective": ["speed", None, 3],
        "max_flash_bytes": [0, -1, 1.5, "5"],
        "max_arena_bytes": [0, -1, 1.5, "5"],
        "budget_seconds": POSITIVE,
        "folder": PATHS,
        "epochs": FROM_1,
        "learning_rate": POSITIVE,
        "task": ["logits", 3],
        "recipes": [3, ["int8"], []],
        "seed": COUNTS,
        "verbose": ["loud", 3, None],
    },
    compression.distill: {
        "student": [3, None, "student.keras"],
        "teacher": [3, None, "teacher.keras"],
        "temperature": POSITIVE,
        "student_loss_weight": [-0.1, 1.5, "0.5", None, True],
        "features": ["body", ["body"], 3],
        "feature_loss_weight": POSITIVE,
        "task": ["logits", 3],
    },
    compression.quantize_aware: {"model": [3, None, "a.keras", keras.Sequential()], "skip": [*PATTERNS, None]},
    compression.cache_teacher: {"teacher": [3, None, keras.Sequential()], "batch_size": FROM_1},
    compression.copy_weights_back: {"model": [3, None, SOFTMAX]},
    compression.for_tf_keras: {"callbacks": [3, None, "stop", [3]]},
    compression.tfmot_cluster: {
        "model": [3, None, "a.keras"],
        "number_of_clusters": [1, *FROM_1],
        "cluster_centroids_init": ["MEANS", None, 3],
    },
    compression.tfmot_prune: {
        "model": [3, None, "a.keras"],
        "pruning_schedule": [0.5, None, "constant"],
        "frequency": FROM_1,
    },
    compression.tfmot_quantize: {"model": [3, None, "a.keras"], "collaborative": ["QAT", 3, True]},
    compression.to_tf_keras: {"model": [3, None, "a.keras", keras.Sequential()]},
    distribute.launch: {
        "script": [3, None, "no such file.py", "."],
        "arguments": ["--epochs", [3], 3],
        "workers": FROM_1,
        "threads_per_worker": [0, -1, 1.5, "1", True],
        "max_restarts": COUNTS,
    },
    distribute.place: {
        "devices": [3, None, [], {}, "CPU:1", {3: "CPU:1"}, {"*": 3}, {"*": None}, {"*": "TPU:7"}],
    },
    distribute.strategy: {
        "name": [3, None, "two", ["auto"], "multi_worker"],
        "logical_cpus": [1, 0, -1, 1.5, "2", True],
    },
    distribute.preflight: {"model": [3, None, "a.keras", SOFTMAX], "batch_size": FROM_1},
    ensemble.SnapshotEnsemble: {"cycles": FROM_1, "max_learning_rate": POSITIVE, "folder": PATHS},
    ensemble.average_weights: {
        "models_or_files": [[], 3, None, "no folder", [3], ["a.txt"], ["no file.keras"]],
        "weights": [[-1], [0], [1, 2], "a", [float("nan")]],
        "model": [3, "a.keras"],
    },
    ensemble.diversity: {"models": [[], 3, None, [3]]},
    ensemble.greedy_soup: {
        "models": [[], 3, None, "no folder", [3], ["no file.keras"]],
        "validation": [3, None, "images"],
        "monitor": NAMES,
        "mode": MODES,
        "reestimate_batch_norm": [3, True, "images"],
    },
    ensemble.train_ensemble: {
        "build": [3, None],
        "n": FROM_1,
        "data": [([1], [2])],
        "vary": ["seeds", None, 3],
        "folder": PATHS,
        "processes": FROM_1,
        "seed": COUNTS,
        "verbose": ["loud", 3, None],
    },
    ensemble.PredictionEnsemble: {"models": [[], 3, None, [3], [keras.Sequential()]], "method": ["median", None, 3]},
    export.quantization_report: {"path": [*PATHS, None]},
    export.run_tflm: {"path": [*PATHS, None]},
    export.to_c_array: {"path": [*PATHS, None]},
    export.write_sidecars: {"path": [*PATHS, None]},
    layers.CutMix: {
        "factor": [-0.1, 0, 1.5, "1", None, (0.2,), (0.5, 1.5), True, float("nan")],
        "seed": [1.5, "1"],
        "data_format": ["channels", 3],
        "num_classes": [1, 0, 1.5, "3", True],
    },
    layers.DropBlock: {"rate": FRACTIONS, "block_size": FROM_1, "data_format": ["channels", 3], "seed": [1.5, "1"]},
    layers.MixUp: {
        "alpha": POSITIVE,
        "num_classes": [1, 0, 1.5, "3", True],
        "seed": [1.5, "1"],
        "data_format": ["channels", 3],
    },
    layers.RandAugment: {
        "value_range": [255, "01", (0,), (1, 0), (0, 0), (0, 1, 2), (0, float("inf")), ("0", "1"), None],
        "num_ops": FROM_1,
        "factor": [-0.1, 1.5, "0.5", None, (0.2,), (0.5, 1.5), True, float("nan")],
        "interpolation": ["bicubic", None, 3],
        "seed": [1.5, "1"],
        "data_format": ["channels", 3],
        "bounding_box_format": ["coco", 3],
    },
    layers.RandomAffine: {
        "rotation_degrees": [-1, 361, "20", None, (0, 10, 20), (10, 0), (-400, 0), True, float("nan")],
        "width_shift": [-0.1, 1.5, -3, "0.2", None, (0.2,), (0.2, -0.2), True],
        "height_shift": [-0.1, 1.5, -3, "0.2", None, (0.2,), (0.2, -0.2), True],
        "zoom": [-0.1, 1, "0.2", None, (0.8, 1.2), (-1, 0)],
        "shear_degrees": [-1, 90, "20", None, (-90, 0)],
        "fill_mode": ["zeros", None, 3],
        "fill_value": ["0", None, float("nan"), True],
        "interpolation": ["bicubic", None, 3],
        "rescale": ["1", float("nan"), True],
        "output_size": [224, "ab", (224,), (0, 224), (224.0, 224), (224, 224, 3)],
        "bounding_box_format": ["coco", 3],
        "seed": [1.5, "1"],
    },
    layers.RandomCrop: {
        "height": [*FROM_1, "5"],
        "width": FROM_1,
        "seed": [1.5, "1"],
        "data_format": ["channels", 3],
        "padding": COUNTS,
        "fill_mode": ["zeros", None, 3],
        "fill_value": ["0", None, float("nan"), True],
        "bounding_box_format": ["coco", 3],
    },
    layers.ScheduledDropout: {
        "rate_schedule": [0.5, None, lambda step: 0.5, keras.optimizers.schedules.CosineDecay(1.5, 10)],
        "noise_shape": [3, "11", (0, 1), (1.5,), (True,)],
        "seed": [1.5, "1"],
    },
    layers.StochasticDepth: {"rate": FRACTIONS, "seed": [1.5, "1"]},
    tuning.BayesianOptimization: SEARCH
    | {
        "max_trials": [0, -1, 1.5, "5", True],
        "num_initial_points": [0, -1, 1.5, "5", True],
        "alpha": POSITIVE,
        "beta": POSITIVE,
        "sampler": ["GP", "random", None, 3],
    },
    tuning.GridSearch: SEARCH | {"max_trials": [0, -1, 1.5, "5", True]},
    tuning.Hyperband: SEARCH | {"max_epochs": FROM_1, "factor": [1, *FROM_1], "hyperband_iterations": FROM_1},
    tuning.OptunaOracle: {
        "objective": [3, "", [3], [], "val_fitness"],
        "max_trials": [0, -1, 1.5, "5", True],
        "sampler": ["TPE", "random", None, 3],
        "pruner": ["hyperband", 3],
        "min_epochs": FROM_1,
        "storage": PATHS,
        "hyperparameters": [3, {"rate": 0.1}],
        "seed": [-1, 1.5, "5", True],
        "max_retries_per_trial": [-1, 1.5, "5", True],
        "max_consecutive_failed_trials": [0, -1, 1.5, "5", True],
    },
    tuning.RandomSearch: SEARCH | {"max_trials": [0, -1, 1.5, "5", True]},
    recipes.tune: {
        "recipe": [3, "recipe.yaml", None],
        "max_trials": FROM_1,
        "search": [3, "dropout", [], ["dropuot"]],
        "workers": FROM_1,
        "max_seconds": POSITIVE,
        "sampler": ["TPE", None],
        "pruner": ["hyperband", 3],
        "max_consecutive_failed_trials": [0, -1, 1.5, "5", True],
        "verbose": ["yes", 3, None],
    },
}

# What the class cannot be made without, or what the argument in question is for.
BESIDE = {
    callbacks.BackupAndRestore: {"backup_dir": "backup"},
    callbacks.Divergence: {"monitor": "loss"},
    callbacks.GeneralizationLoss: {"alpha": 5},
    callbacks.GradualUnfreezing: {"schedule": {0: "all"}},
    callbacks.ModelCheckpoint: {"filepath": "best.weights.h5", "save_weights_only": True},
    callbacks.OverfitGap: {"train": "loss", "validation": "val_loss", "above": 1.0},
    callbacks.Plateau: {"monitor": "loss", "patience": 1},
    callbacks.ProgressQuotient: {"alpha": 1},
    callbacks.ScheduleLearningRate: {"schedule": keras.optimizers.schedules.CosineDecay(0.1, 10)},
    callbacks.SuccessiveIncreases: {"count": 1},
    callbacks.Target: {"monitor": "loss", "value": 1.0},
    compression.PruneLowMagnitude: {"schedule": lambda step: 0.5},
    compression.CompressionRecipe: {"quantize": "int8"},
    compression.compress: {"model": SOFTMAX, "train": ([[0, 0]], [0]), "validation": ([[0, 0]], [0])},
    compression.distill: {"student": SOFTMAX, "teacher": SOFTMAX},
    compression.prune_channels: {"model": SOFTMAX},
    compression.quantize_aware: {"model": SOFTMAX},
    compression.cache_teacher: {"teacher": SOFTMAX, "x": [[0, 0]], "y": [0]},
    compression.tfmot_cluster: {"model": SOFTMAX},
    compression.tfmot_prune: {"model": SOFTMAX, "pruning_schedule": compression.ConstantSparsity(0.5)},
    compression.tfmot_quantize: {"model": SOFTMAX},
    distribute.launch: {"script": __file__},
    distribute.preflight: {"model": SOFTMAX},
    ensemble.PredictionEnsemble: {"models": [keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])]},
    ensemble.SnapshotEnsemble: {"cycles": 2},
    export.quantization_report: {"model": SOFTMAX, "data": [[0, 0]]},
    export.run_tflm: {"x": [[0, 0]]},
    (ensemble.average_weights, "model"): {"models_or_files": [keras.Sequential([keras.Input((2,))])]},
    (ensemble.average_weights, "weights"): {
        "models_or_files": [keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])]
    },
    ensemble.diversity: {"x": [], "y": []},
    ensemble.greedy_soup: {"models": [], "validation": ([], [])},
    ensemble.train_ensemble: {"build": dict, "n": 2, "data": ()},
    layers.DropBlock: {"rate": 0.1},
    layers.RandomCrop: {"height": 4, "width": 4},
    layers.ScheduledDropout: {"rate_schedule": keras.optimizers.schedules.CosineDecay(0.5, 10)},
    layers.StochasticDepth: {"rate": 0.1},
    tuning.BayesianOptimization: {"hypermodel": lambda hp: SOFTMAX, "objective": "val_loss"},
    tuning.GridSearch: {"hypermodel": lambda hp: SOFTMAX, "objective": "val_loss"},
    tuning.Hyperband: {"hypermodel": lambda hp: SOFTMAX, "objective": "val_loss"},
    tuning.OptunaOracle: {"objective": "val_loss"},
    recipes.tune: {"recipe": recipes.Recipe()},
    tuning.RandomSearch: {"hypermodel": lambda hp: SOFTMAX, "objective": "val_loss"},
    (callbacks.EarlyStopping, "best"): {"restore_best_weights": True},
    (callbacks.EarlyStopping, "filepath"): {"restore_best_weights": True},
    (callbacks.GradientClipping, "exclude"): {"adaptive": 0.01},
}

# Flags are taken by their truth, as Keras's are; and Keras's own way of counting what is printed.
WITHOUT_A_ROW = {
    "verbose",
    "callbacks",
    "delete_checkpoint",
    "horizontal_flip",
    "vertical_flip",
    "double_checkpoint",
    "effective",
    "freeze_batch_norm",
    "per_layer",
    "ratios",
    "regrow",
    "relative",
    "restore_best_weights",
    "save_best_only",
    "save_weights_only",
    "warn",
}

CASES = [(kind, name, value) for kind, names in BAD.items() for name, values in names.items() for value in values]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _name(case):
    """What tells a case, the same in every process: the address in an object's text is not."""
    return getattr(case, "__name__", re.sub(" at 0x[0-9a-f]+", "", repr(case)))


@pytest.mark.parametrize(("kind", "name", "value"), CASES, ids=_name)
def test_a_bad_argument_is_named(kind, name, value):
    arguments = BESIDE.get(kind, {}) | BESIDE.get((kind, name), {}) | {name: value}
    with pytest.raises((TypeError, ValueError), match=rf"\w+: argument `{name}\b.*Received: .*{name}"):
        kind(**arguments)


def test_every_argument_of_every_callback_and_criterion_has_a_row():
    rooms = ("callbacks.", "compression.Prune", "ensemble.")
    kinds = {row.make for name, row in rows(InFit).items() if name.startswith(rooms)}
    bare = {
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name in inspect.signature(kind).parameters
        if name not in BAD.get(kind, {}) and name not in WITHOUT_A_ROW
    }
    assert bare == set()
