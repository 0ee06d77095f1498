"""Ensembles against NumPy, SciPy and scikit-learn; the memory that averaging files takes, in a process of its own."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.metrics import log_loss

from keras_opt.ensemble import PredictionEnsemble, average_weights, diversity
from keras_opt.ensemble.simplex_weights import least_squares_weights, likelihood_weights

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.random.default_rng(1).integers(0, 3, 60)


@pytest.fixture(autouse=True)
def _float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def members(count=3, activation="softmax"):
    made = []
    for seed in range(count):
        keras.utils.set_random_seed(seed)
        layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(3, activation)]
        made.append(keras.Sequential([keras.Input((4,)), *layers]))
    return made


def predictions(models):
    return np.stack([np.asarray(model(X)) for model in models])


def test_the_formulas_in_float64():
    models = members()
    p = predictions(models)
    geometric = scipy.special.softmax(np.log(p).mean(0), axis=1)
    votes = np.eye(3)[p.argmax(2)].mean(0)
    for method, wanted in (("mean", p.mean(0)), ("geometric", geometric), ("vote", votes), ("weighted", p.mean(0))):
        rtol = 1e-7 if method == "weighted" else 1e-12  # Keras's `Constant(1 / 3)` is of single precision
        np.testing.assert_allclose(PredictionEnsemble(models, method)(X), wanted, rtol=rtol, atol=1e-14)


def test_likelihood_weights_are_those_of_a_constrained_optimiser():
    models = members()
    p = predictions(models)
    ensemble = PredictionEnsemble(models, "weighted")
    found = ensemble.fit_weights(X, Y)
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = scipy.optimize.minimize(
        lambda w: log_loss(Y, np.einsum("m,mrc->rc", w, p)), np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=simplex
    )
    assert log_loss(Y, np.asarray(ensemble(X))) <= best.fun + 1e-6
    np.testing.assert_allclose(ensemble(X), np.einsum("m,mrc->rc", found, p), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_weights_are_those_of_a_constrained_optimiser(seed):
    draw = np.random.default_rng(seed)
    predicted, targets = draw.normal(size=(40, 4)) * 10.0 ** draw.integers(-4, 5), draw.normal(size=40)
    found = least_squares_weights(predicted, targets)
    error = lambda w: np.mean((predicted @ w - targets) ** 2)  # noqa: E731
    corners = [np.eye(4)[place] for place in range(4)]
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    scale = error(np.full(4, 0.25))
    others = [
        scipy.optimize.minimize(
            lambda w: error(w) / scale, start, bounds=[(0, 1)] * 4, constraints=simplex, method="SLSQP"
        ).x
        for start in (np.full(4, 0.25), *corners)
    ]
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert error(found) <= min(error(np.clip(w, 0, 1) / w.sum()) for w in others) * (1 + 1e-9)


def test_the_likelihood_with_soft_targets_counts_each_class_by_its_share():
    draw = np.random.default_rng(2)
    likelihoods = draw.uniform(size=(20, 3))
    counts = draw.integers(1, 4, 20)
    repeated = np.repeat(likelihoods, counts, axis=0)
    np.testing.assert_allclose(
        likelihood_weights(likelihoods, counts), likelihood_weights(repeated, np.ones(len(repeated))), rtol=1e-9
    )


def test_averages_are_numpys():
    models, weights = members(4), [0, 1, 2.5, 4]
    groups = zip(*(model.get_weights() for model in models), strict=True)
    for found, group in zip(average_weights(models, weights).get_weights(), groups, strict=True):
        np.testing.assert_allclose(found, np.average(group, axis=0, weights=weights), rtol=1e-12, atol=1e-15)


def test_the_correlation_of_errors_is_numpys():
    models = members()
    wrong = predictions(models).argmax(2) != Y
    np.testing.assert_allclose(diversity(models, X, Y).error_correlation, np.corrcoef(wrong), rtol=1e-10)


MEMORY = """
    import sys
    from pathlib import Path
    import numpy as np, keras, keras_opt
    from keras_opt.ensemble import average_weights
    # Of /proc: what `resource` tells begins at the memory of the process that started this one.
    facts = lambda: dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = lambda name: int(facts()[name].split()[0])
    before = kilobytes("VmRSS")
    average = average_weights(sys.argv[1:])
    print(1024 * (kilobytes("VmHWM") - before), float(np.mean(average.get_weights()[0])))
"""


@pytest.mark.full
def test_averaging_files_takes_the_memory_of_two(tmp_path):
    """Eight files of 100 MB; S4 measures twenty. The rise has TensorFlow's own first allocations in it."""
    keras.config.set_dtype_policy("float32")
    layers = [keras.layers.Dense(800, kernel_initializer="zeros", use_bias=False) for _ in range(40)]
    model = keras.Sequential([keras.Input((800,)), *layers])
    files = [str(tmp_path / f"{number}.keras") for number in range(8)]
    for number, file in enumerate(files):
        model.layers[0].kernel.assign(np.full((800, 800), number, "float32"))
        model.save(file)
    code = [sys.executable, "-c", textwrap.dedent(MEMORY), *files]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=True)
    rise, mean = map(float, done.stdout.split()[-2:])
    assert mean == 3.5
    assert rise < 3 * os.path.getsize(files[0])
