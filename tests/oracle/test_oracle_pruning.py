"""Pruning inside `fit` against masks found by loops in NumPy, an eager training, TF-MOT, and itself resumed.

The network has a dense and a convolutional layer for each structure, and one callback prunes each pair.
"""

import importlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from full_rows import few, full
from keras import layers
from oracle_models import float64

from keras_opt.callbacks import BackupAndRestore, GradientAccumulation, WeightAveraging
from keras_opt.compression import ConstantSparsity, PolynomialSparsity, PruneLowMagnitude
from keras_opt.compression.bridge.tf_keras_import import tfmot

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 6, 6, 4)).astype("float32")
Y = RNG.normal(size=(44, 4)).astype("float32")
STRUCTURES = {"single": "unstructured", "pattern": "2:4", "block": (4, 4)}


def network(dtype=None):
    convolutions = [layers.Conv2D(8, 2, activation="tanh", dtype=dtype, name=f"{name}_conv") for name in STRUCTURES]
    dense = [layers.Dense(16, activation="tanh", dtype=dtype, name=f"{name}_dense") for name in STRUCTURES]
    return keras.Sequential([keras.Input((6, 6, 4)), *convolutions, layers.Flatten(), *dense, layers.Dense(4)])


def pruning(schedule, every=2, **settings):
    return [
        PruneLowMagnitude(schedule, include=[f"{name}_*"], structure=structure, every=every, **settings)
        for name, structure in STRUCTURES.items()
    ]


def fit(model, callbacks, epochs=2, optimizer=None, x=X, y=Y, **settings):
    """Eleven updates an epoch."""
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", **settings)
    return model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)


def kernels_of(model, name):
    return {kind: keras.ops.convert_to_numpy(model.get_layer(f"{name}_{kind}").kernel) for kind in ("conv", "dense")}


# --- by hand ---------------------------------------------------------------------------------------------------------


def zeros_by_hand(kernel, structure, share):
    """Where a kernel, (inputs, outputs) or (height, width, inputs, outputs), is to be zero."""
    four = kernel if kernel.ndim == 4 else kernel[None, None]
    height, width, inputs, outputs = four.shape
    places = list(itertools.product(range(height), range(width), range(inputs), range(outputs)))
    zeros = np.zeros(four.shape, bool)
    if structure == "unstructured":
        for place in sorted(places, key=lambda place: abs(four[place]))[: round(share * len(places))]:
            zeros[place] = True
    elif structure == "2:4":
        for h, w, first, o in places:
            if first % 4 == 0:
                group = [(h, w, first + i, o) for i in range(4)]
                for place in sorted(group, key=lambda place: abs(four[place]))[:2]:
                    zeros[place] = True
    else:
        blocks = {}
        for h, w, i, o in places:
            blocks.setdefault((((h * width + w) * inputs + i) // 4, o // 4), []).append((h, w, i, o))
        sizes = {block: sum(abs(float(four[place])) for place in held) for block, held in blocks.items()}
        for block in sorted(sizes, key=sizes.get)[: round(share * len(sizes))]:
            for place in blocks[block]:
                zeros[place] = True
    return zeros.reshape(kernel.shape)


MODES = {
    "plain": {},
    "steps_per_execution": {"steps_per_execution": 8},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


class Zeros(keras.callbacks.Callback):
    """Listed first, it sees what the compiled steps of each execution have left, and no callback has touched."""

    def on_train_begin(self, logs=None):
        self.before = {name: kernels_of(self.model, name) for name in STRUCTURES}
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append({name: kernels_of(self.model, name) for name in STRUCTURES})

    def assert_by_hand(self, share=0.5):
        for name, structure in STRUCTURES.items():
            for kind, before in self.before[name].items():
                expected = zeros_by_hand(before, structure, share)
                for kernels in self.seen:
                    np.testing.assert_array_equal(kernels[name][kind] == 0, expected, name)


@pytest.mark.parametrize("settings", few(MODES, "steps_per_execution", "jit"))
def test_masks_equal_those_found_by_hand(settings):
    zeros = Zeros()
    fit(network(), [zeros, *pruning(ConstantSparsity(0.5))], epochs=1, **settings)
    zeros.assert_by_hand()


@pytest.mark.parametrize("kind", ["half", "accumulated", "averaged"])
def test_masks_equal_those_found_by_hand_in_company(kind):
    zeros = Zeros()
    company = {"half": [], "accumulated": [GradientAccumulation(3)], "averaged": [WeightAveraging(ema_momentum=0.5)]}
    model = network("mixed_float16" if kind == "half" else None)
    fit(model, [zeros, *pruning(ConstantSparsity(0.5)), *company[kind]], epochs=1)
    zeros.seen.append({name: kernels_of(model, name) for name in STRUCTURES})  # the averages, if there are any
    zeros.assert_by_hand()


def test_two_replicas(two_replicas):
    with two_replicas.scope():
        model = network()
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    before = {name: kernels_of(model, name) for name in STRUCTURES}
    alone = network()
    alone.set_weights(model.get_weights())
    callbacks = [pruning(PolynomialSparsity(0.2, 0.5, 0, 7), regrow=True) for _ in range(2)]
    fit(model, callbacks[0], epochs=1, optimizer=optimizer)
    fit(alone, callbacks[1], epochs=1)
    for name in STRUCTURES:
        for kind, kernel in kernels_of(model, name).items():
            expected = kernels_of(alone, name)[kind]
            np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-6)
            assert np.mean(kernel == 0) == 0.5
            assert np.any((kernel == 0) != zeros_by_hand(before[name][kind], STRUCTURES[name], 0.5))  # some returned
    for each in callbacks[0]:
        for mask in each._masks:
            for copy in two_replicas.experimental_local_results(mask.kernel.value):
                np.testing.assert_array_equal(copy.numpy() * (1 - mask.kept), 0)


@pytest.mark.parametrize("end_step", [21, full(13)])
def test_the_end_of_the_schedule_is_met_after_the_last_renewal(end_step):
    model = network()
    fit(model, pruning(PolynomialSparsity(0.1, 0.5, 4, end_step), every=12), steps_per_execution=8)  # at update 19
    for name, structure in STRUCTURES.items():
        for kernel in kernels_of(model, name).values():
            assert np.mean(kernel == 0) == 0.5
            # What is zero already is the smallest, so the rule finds it again.
            np.testing.assert_array_equal(kernel == 0, zeros_by_hand(kernel, structure, 0.5))


# --- an eager training -----------------------------------------------------------------------------------------------


def eager_training(x, y, kernels, schedule, steps, renewals, rate):
    """Two linear layers, pruned together by magnitude, whose pruned weights go on learning unseen.

    Guo, Yao and Chen, 2016: `dense` gets the gradient at `dense * mask`.
    """
    dense = [kernel.copy() for kernel in kernels]
    masks = [np.ones_like(kernel) for kernel in kernels]

    def renew(step):
        flat = np.abs(np.concatenate([kernel.ravel() for kernel in dense]))
        gone = np.argsort(flat, kind="stable")[: round(schedule(step) * flat.size)]
        kept = np.ones(flat.size)
        kept[gone] = 0
        masks[0], masks[1] = (
            kept[: dense[0].size].reshape(dense[0].shape),
            kept[dense[0].size :].reshape(dense[1].shape),
        )

    renew(0)
    for step in range(1, steps + 1):
        batch = slice(4 * ((step - 1) % 11), 4 * ((step - 1) % 11) + 4)
        first, second = dense[0] * masks[0], dense[1] * masks[1]
        hidden = x[batch] @ first
        error = 2 * (hidden @ second - y[batch]) / y[batch].size
        gradients = x[batch].T @ (error @ second.T), hidden.T @ error
        for kernel, gradient in zip(dense, gradients, strict=True):
            kernel -= rate * gradient
        if step in renewals:
            renew(step)
    return [kernel * mask for kernel, mask in zip(dense, masks, strict=True)]


@pytest.mark.parametrize(
    "settings", [{"steps_per_execution": 3}, full({"steps_per_execution": 3, "jit_compile": True})], ids=str
)
def test_weights_that_return_equal_an_eager_training(settings):
    with float64():
        x, y = RNG.normal(size=(44, 6)), RNG.normal(size=(44, 3))
        model = keras.Sequential([keras.Input((6,)), layers.Dense(5, use_bias=False), layers.Dense(3, use_bias=False)])
        before = model.get_weights()
        schedule = PolynomialSparsity(0.3, 0.6, 0, 20)
        prune = PruneLowMagnitude(schedule, scope="global", every=3, regrow=True)
        fit(model, [prune], epochs=3, optimizer=keras.optimizers.SGD(0.1), x=x, y=y, **settings)
        renewals = [3, 6, 9, 14, 17, 20]  # at the end of an execution, three updates or more since; then `end_step`
        expected = eager_training(x, y, before, schedule, 33, renewals, 0.1)
        frozen = eager_training(x, y, before, ConstantSparsity(0.6), 33, [], 0.1)
    assert any(np.any((each == 0) != (other == 0)) for each, other in zip(expected, frozen, strict=True))
    for weights, right in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weights, right, rtol=1e-10, atol=0)


# --- resumed ---------------------------------------------------------------------------------------------------------


class Broken(Exception):
    """What ends a training here."""


class Breaking(keras.callbacks.Callback):
    """Ends a training after so many batches, until it is resumed."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_batch_end(self, batch, logs=None):
        self.batches -= 1
        if self.batches == 0:
            raise Broken

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.batches = 0


def trained(folder, broken_after, seed, **settings):
    keras.utils.set_random_seed(seed)
    model = network()
    callbacks = pruning(PolynomialSparsity(0.1, 0.5, 0, 17), **settings)
    backup = BackupAndRestore(folder, save_freq=3, delete_checkpoint=False, verbose=0)
    fit(model, [backup, *callbacks, Breaking(broken_after)])
    return model, callbacks


@pytest.mark.parametrize("settings", [{"regrow": True}, full({"scope": "global"}), full({})], ids=str)
@pytest.mark.parametrize("broken_after", [14, full(5)])
def test_a_resumed_training_is_bit_equal(settings, broken_after, tmp_path):
    straight, expected = trained(tmp_path / "straight", 0, 0, **settings)
    with pytest.raises(Broken):
        trained(tmp_path / "broken", broken_after, 0, **settings)
    resumed, callbacks = trained(tmp_path / "broken", broken_after, 1, **settings)
    for one, other in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(expected, callbacks, strict=True):
        for key, value in one.state_dict().items():
            np.testing.assert_equal(other.state_dict()[key], value, key)


# --- TF-MOT ----------------------------------------------------------------------------------------------------------

SHAPES = {"single": [(16, 8), (3, 3, 4, 8), (5, 4, 8)], "pattern": [(16, 8), (3, 3, 4, 8)], "block": [(16, 8), (36, 8)]}


@pytest.mark.parametrize("name", STRUCTURES)
def test_tfmot_gives_the_same_masks(name):
    schedules = tfmot().sparsity.keras
    implementation = importlib.import_module("tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl")
    for shape in SHAPES[name]:
        magnitudes = RNG.permutation(np.arange(1, np.prod(shape) + 1))  # distinct
        kernel = (magnitudes * RNG.choice([-1, 1], magnitudes.size)).reshape(shape).astype("float32")
        weights = [tf.Variable(kernel), tf.Variable(tf.ones(shape)), tf.Variable(0.0)]
        block, pattern = (
            (STRUCTURES[name], None) if name == "block" else ((1, 1), (2, 4) if name == "pattern" else None)
        )
        theirs = implementation.Pruning(
            lambda: tf.constant(1), [weights], schedules.ConstantSparsity(0.5, 0, frequency=1), block, "AVG", pattern
        )
        theirs.conditional_mask_update()
        kind = {2: layers.Dense(8), 3: layers.Conv1D(8, 5), 4: layers.Conv2D(8, 3)}[len(shape)]
        ours = keras.Sequential([keras.Input((*[8] * (len(shape) - 2), shape[-2])), kind])
        ours.layers[0].kernel.assign(kernel)
        prune = PruneLowMagnitude(ConstantSparsity(0.5), structure=STRUCTURES[name])
        ours.compile("sgd", "mse")
        prune.set_model(ours)
        prune.on_train_begin()
        np.testing.assert_array_equal(prune._masks[0].kept, weights[1].numpy())
