"""Pruning inside stock `fit`: exact sparsity, in every mode, and nothing left in the file."""

import itertools
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
from full_rows import full
from keras import layers

from keras_opt.callbacks import EarlyStopping, WeightAveraging
from keras_opt.compression import ConstantSparsity, PolynomialSparsity, PruneLowMagnitude, sparsity
from keras_opt.compression.pruning.constraint import pruning_mask
from keras_opt.core.errors import NoEffectWarning

RNG = np.random.default_rng(0)
X = RNG.normal(size=(44, 7)).astype("float32")
Y = RNG.normal(size=(44, 3)).astype("float32")


def dense_model(constraint=None, dtype=None):
    return keras.Sequential(
        [
            keras.Input((7,)),
            layers.Dense(11, activation="tanh", kernel_constraint=constraint, dtype=dtype, name="body"),
            layers.Dense(3, dtype=dtype, name="head"),
        ]
    )


def fit(model, *callbacks, epochs=2, x=X, **settings):
    """Eleven updates an epoch."""
    model.compile(keras.optimizers.Adam(0.01), "mse", **settings)
    return model.fit(x, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def zeros(model):
    """Zeros and size of each kernel."""
    kernels = [w for w in model.trainable_variables if "kernel" in w.name]
    return [(int(np.sum(kernel.numpy() == 0)), kernel.numpy().size) for kernel in kernels]


def assert_exact(model, share):
    assert zeros(model) == [(round(share * size), size) for _, size in zeros(model)]


@pytest.mark.parametrize("settings", [{"run_eagerly": True}, full({}), full({"steps_per_execution": 8})], ids=str)
@pytest.mark.parametrize("share", [0.37, full(0.0), full(0.9)])
def test_the_asked_sparsity_is_met_to_the_weight(settings, share):
    model = dense_model()
    fit(model, PruneLowMagnitude(ConstantSparsity(share)), epochs=1, **settings)
    assert_exact(model, share)


def test_the_smallest_weights_go_and_the_others_are_trained():
    model = dense_model()
    before = model.layers[0].kernel.numpy()
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5)), epochs=1)
    after = model.layers[0].kernel.numpy()
    smallest = np.argsort(np.abs(before), axis=None)[: round(0.5 * before.size)]
    assert set(np.flatnonzero(after == 0)) == set(smallest)
    assert np.mean(after[after != 0] != before[after != 0]) > 0.5  # a unit whose way out is pruned does not learn


def test_what_was_pruned_stays_pruned_while_the_sparsity_rises():
    seen = []

    def look(batch, logs):
        seen.append(model.layers[0].kernel.numpy() == 0)

    model = dense_model()
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    fit(model, PruneLowMagnitude(PolynomialSparsity(0.1, 0.8, 0, 20), every=1), watch)
    assert all(np.all(later[earlier]) for earlier, later in itertools.pairwise(seen))
    assert seen[0].sum() < seen[-1].sum()


def test_validation_sees_the_sparsity_of_its_step():
    shares = []

    class Look(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            shares.append(sparsity(self.model)["total"])

    model = dense_model()
    schedule = PolynomialSparsity(0.0, 0.8, 0, 20)
    model.compile("sgd", "mse")
    callbacks = [PruneLowMagnitude(schedule, every=1000), Look()]
    model.fit(X, Y, batch_size=4, epochs=2, validation_data=(X, Y), verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(shares, [schedule(11), schedule(22)], atol=0.01)


def test_a_norm_that_was_asked_for_is_that_of_the_weights_that_stay():
    model = dense_model(constraint="unit_norm")
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5)), epochs=1)
    assert_exact(model, 0.5)
    np.testing.assert_allclose(np.linalg.norm(model.layers[0].kernel, axis=0), 1, rtol=1e-5)


def test_a_constraint_that_was_there_stays_in_force():
    model = dense_model(constraint="non_neg")
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5), every=4))
    kernel = model.layers[0].kernel.numpy()
    assert kernel.min() >= 0
    assert kernel.max() > 0
    assert np.sum(kernel == 0) >= round(0.5 * kernel.size)


def test_a_second_fit_with_a_lower_schedule_gives_nothing_back():
    model = dense_model()
    prune = PruneLowMagnitude(PolynomialSparsity(0.0, 0.6, 0, 11), every=2)
    fit(model, prune, epochs=1)
    gone = model.layers[0].kernel.numpy() == 0
    fit(model, prune, epochs=1)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy() == 0, gone)


def test_the_file_is_a_plain_model_and_its_zeros_are_the_first_mask_of_the_next_pruning(tmp_path):
    model = dense_model()
    path = tmp_path / "model.keras"
    fit(model, PruneLowMagnitude(ConstantSparsity(0.6)), keras.callbacks.ModelCheckpoint(path), epochs=1)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert "keras_opt" not in config
    assert json.loads(config)["config"]["layers"][1]["config"]["kernel_constraint"] is None
    again = keras.models.load_model(path)
    assert_exact(again, 0.6)
    fit(again, PruneLowMagnitude(PolynomialSparsity(0.0, 0.6, 0, 100)), epochs=1)
    assert_exact(again, 0.6)


def test_a_kernel_that_starts_as_zeros_can_still_learn():
    model = keras.Sequential([keras.Input((7,)), layers.Dense(3, kernel_initializer="zeros")])
    fit(model, PruneLowMagnitude(PolynomialSparsity(0.0, 0.5, 0, 10), every=5))
    assert_exact(model, 0.5)


@pytest.mark.parametrize(
    ("settings", "pruned"),
    [
        ({"include": ["*"], "exclude": ["he*"]}, [True, False]),
        full({"include": ["body"]}, [True, False]),
        full({"exclude": ["*body"]}, [False, True]),
    ],
)
@pytest.mark.parametrize("built_by_fit", [True, full(False)], ids=["built by fit", "built before"])
def test_layers_are_chosen_by_name_however_the_model_was_built(settings, pruned, built_by_fit):
    model = dense_model()
    if built_by_fit:  # its paths then begin with the model's name
        model = keras.Sequential([layers.Dense(11, name="body"), layers.Dense(3, name="head")])
        model.compile("sgd", "mse")
        model.fit(X[:4], Y[:4], verbose=0)
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5), **settings), epochs=1)
    assert [count > 0 for count, _ in zeros(model)] == pruned


def test_every_kind_of_kernel():
    inputs = keras.Input((6, 6, 2))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(layers.SeparableConv2D(4, 3)(inputs))
    x = layers.LSTM(3)(layers.Conv1D(4, 1)(layers.Reshape((16, 8))(layers.BatchNormalization()(x))))
    model = keras.Model(inputs, layers.Dense(3)(x))
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5)), x=RNG.normal(size=(44, 6, 6, 2)), epochs=1)
    assert len(zeros(model)) == 7  # depthwise twice, pointwise, convolution, two of the LSTM, dense
    assert_exact(model, 0.5)


class Restore(keras.callbacks.Callback):
    """Puts the weights of the first epoch back at the end, as Keras's EarlyStopping does."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


RISING = PolynomialSparsity(0.0, 0.8, 0, 20)  # reached in the second epoch


def test_weights_that_another_callback_put_back_are_pruned_again_with_a_warning():
    model = dense_model()
    with pytest.warns(UserWarning, match=r"weights from before a pruning.* start_from_epoch=1: in that epoch"):
        fit(model, Restore(), PruneLowMagnitude(RISING, every=2), epochs=3)
    assert_exact(model, 0.8)


@pytest.mark.parametrize("prune_first", [True, full(False)])
def test_the_best_weights_of_early_stopping_keep_the_asked_sparsity(prune_first):
    model = dense_model()
    stop = EarlyStopping("loss", patience=9, mode="max", restore_best_weights=True)  # the first epoch is the best
    callbacks = [stop, PruneLowMagnitude(RISING, every=2)]
    with pytest.warns(
        UserWarning, match=r"EarlyStopping: the best weights, of epoch 1, .*body/kernel.* start_from_epoch="
    ):
        fit(model, *(callbacks[::-1] if prune_first else callbacks), epochs=3)
    assert_exact(model, 0.8)


@pytest.mark.parametrize(
    ("kind", "prune_first"),
    [
        pytest.param(EarlyStopping, True, id="ours, after it"),
        full(EarlyStopping, False, id="ours, before it"),
        full(keras.callbacks.EarlyStopping, False, id="Keras's, before it"),
    ],
)
def test_the_best_of_the_sparse_epochs_comes_back_as_it_was(kind, prune_first):
    model, ends = dense_model(), []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(model.get_weights()))
    stop = kind("loss", patience=9, mode="max", restore_best_weights=True, start_from_epoch=1)
    callbacks = [stop, PruneLowMagnitude(RISING, every=2), look]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, *(callbacks[::-1] if prune_first else callbacks), epochs=4)
    assert_exact(model, 0.8)
    for weights, expected in zip(model.get_weights(), ends[1], strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_frozen_kernels_are_left_alone():
    model = dense_model()
    model.layers[0].trainable = False
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5)), epochs=1)
    assert np.all(model.layers[0].kernel.numpy() != 0)
    assert_exact(model, 0.5)


def test_a_mask_stays_and_a_fresh_model_has_none():
    model = dense_model()
    dense = model.get_weights()
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5)), epochs=1)
    fresh = keras.models.clone_model(model)
    masked = model.layers[0].kernel.numpy() == 0
    for again, share in ((model, 0.5), (fresh, 0.0)):
        again.set_weights(dense)
        fit(again, epochs=1)
        assert_exact(again, share)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy() == 0, masked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        full({"include": ["body", "boby"]}, "the pattern 'boby' of `include` fits no layer"),
        ({"exclude": ["haed"]}, "the pattern 'haed' of `exclude` fits no layer"),
    ],
)
def test_a_pattern_that_fits_nothing_is_named(settings, message):
    with pytest.warns(NoEffectWarning, match=f"PruneLowMagnitude: {message}.* are: .*body, .*head") as caught:
        fit(dense_model(), PruneLowMagnitude(ConstantSparsity(0.5), **settings), epochs=1)
    assert len([warning for warning in caught if warning.category is NoEffectWarning]) == 1


def test_no_kernel_fits():
    with pytest.warns(NoEffectWarning, match=r"no kernel fits include=\['conv\*'\].* are: .*body, .*head\."):
        fit(dense_model(), PruneLowMagnitude(ConstantSparsity(0.5), include=["conv*"]), epochs=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneLowMagnitude(0.5), "`schedule` must be a function from step to sparsity"),
        (lambda: PruneLowMagnitude(ConstantSparsity(0.5), every=0), "`every` must be an integer of at least 1"),
        (lambda: PruneLowMagnitude(ConstantSparsity(0.5), include="conv*"), "`include` must be a sequence of patterns"),
        (lambda: PruneLowMagnitude(ConstantSparsity(0.5), exclude="conv*"), "`exclude` must be a sequence of patterns"),
        (lambda: PruneLowMagnitude(ConstantSparsity(0.5), scope="model"), "`scope` must be one of 'layer', 'global'"),
        (
            lambda: PruneLowMagnitude(ConstantSparsity(0.5), structure="4:2"),
            '`structure` must be "unstructured", "n:m"',
        ),
        (
            lambda: PruneLowMagnitude(ConstantSparsity(0.8), structure="2:4"),
            r"`structure` must be .*\. Received: structure='2:4'\. Let the schedule end with 0\.5, .*it ends with 0\.8",
        ),
        (
            lambda: PruneLowMagnitude(PolynomialSparsity(0.0, 0.5, 0, 9), structure="1:4"),
            r"`structure` .*Let the schedule end with 0\.75, the sparsity of '1:4'",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=f"PruneLowMagnitude: argument {message}"):
        make()


def test_a_schedule_in_percent_is_refused_before_training():
    model = dense_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`schedule\(0\)` must be a fraction in \[0, 1\)"):
        fit(model, PruneLowMagnitude(lambda step: 50))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_weights_is_refused():
    model = keras.Sequential([keras.layers.Dense(3)], name="bare")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"model 'bare' has no weights yet to prune\. Start it with keras\.Input"):
        model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0, callbacks=[PruneLowMagnitude(ConstantSparsity(0.5))])


# --- structures, scopes, weights that return -------------------------------------------------------------------------


def test_one_ranking_of_all_kernels_and_nothing_left_of_one():
    model = dense_model()
    model.get_layer("head").kernel.assign(model.get_layer("head").kernel * 1e-3)
    expected = r"at update 0 nothing is left of .*head/kernel\. Give its layer to `exclude`, or"
    with pytest.warns(UserWarning, match=expected):
        fit(model, PruneLowMagnitude(ConstantSparsity(0.5), scope="global"), epochs=1)
    body, head = zeros(model)
    assert head == (33, 33)
    assert body[0] == round(0.5 * 110) - 33


def test_blocks_and_patterns_that_do_not_divide_are_refused_by_name_before_anything_is_done():
    inputs = keras.Input((5, 5, 3))
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.Conv2D(4, 3, name="stem")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    before = model.get_weights()
    x, message = (
        np.ones((44, 5, 5, 3)),
        r"argument `structure` must be one that divides .*structure={}\. It does not divide ",
    )
    with pytest.raises(ValueError, match=message.format("'2:4'") + r"stem/kernel \(27 x 4, in runs of 3 rows\); depth"):
        fit(model, PruneLowMagnitude(ConstantSparsity(0.5), structure="2:4"), x=x)
    with pytest.raises(ValueError, match=r".* Add \['depthwise', 'head', 'stem'\] to `exclude`, to leave them dense"):
        fit(model, PruneLowMagnitude(ConstantSparsity(0.5), structure=(4, 4)), x=x)
    assert all(weight.constraint is None for weight in model.weights)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    prune = PruneLowMagnitude(ConstantSparsity(0.5), exclude=["depthwise", "stem"], structure="2:4")
    fit(model, prune, x=x, epochs=1)
    assert sparsity(model)["head"] == 0.5


def test_a_function_that_asks_for_more_than_the_pattern_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"`schedule\(0\)` must be at most 0.5, the sparsity of structure='2:4'"):
        fit(model, PruneLowMagnitude(lambda step: 0.6, structure="2:4"), x=X[:, :4])


class Turned(keras.callbacks.Callback):
    """Watches how many weights of the first kernel return."""

    def __init__(self):
        super().__init__()
        self.returned, self.gone = [], None

    def on_train_batch_end(self, batch, logs=None):
        gone = self.model.layers[0].kernel.numpy() == 0
        if self.gone is not None:
            self.returned.append(int(np.sum(self.gone & ~gone)))
        self.gone = gone


@pytest.mark.parametrize("regrow", [True, full(False)])
def test_pruned_weights_return_until_the_schedule_ends(regrow):
    model, turned = dense_model(), Turned()
    prune = PruneLowMagnitude(PolynomialSparsity(0.3, 0.6, 0, 12), every=2, regrow=regrow)
    fit(model, prune, turned)
    assert (sum(turned.returned[:12]) > 0) == regrow
    assert sum(turned.returned[12:]) == 0
    assert_exact(model, 0.6)


# --- averages, checkpoints, order ------------------------------------------------------------------------------------


class Shares(keras.callbacks.Callback):
    """The sparsity after each batch, in validation and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = {"batch": [], "validation": [], "epoch": []}

    def on_train_batch_end(self, batch, logs=None):
        self.seen["batch"].append(sparsity(self.model)["total"])

    def on_test_begin(self, logs=None):
        self.seen["validation"].append(sparsity(self.model)["total"])

    def on_epoch_end(self, epoch, logs=None):
        self.seen["epoch"].append(sparsity(self.model)["total"])


def fit_averaged(model, *callbacks, use_ema=False):
    model.compile(keras.optimizers.Adam(0.01, use_ema=use_ema), "mse")
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, validation_data=(X, Y), callbacks=list(callbacks))


@pytest.mark.parametrize("swaps", [True, full(False), full(None)])
def test_the_averages_of_the_optimizer_are_sparse_wherever_they_are_seen(swaps, tmp_path, recwarn):
    model, shares, path = dense_model(), Shares(), tmp_path / "{epoch}.keras"
    swap = [] if swaps is None else [keras.callbacks.SwapEMAWeights(swap_on_epoch=swaps)]
    prune = PruneLowMagnitude(ConstantSparsity(0.5, begin_step=4), every=2)
    fit_averaged(model, *swap, prune, keras.callbacks.ModelCheckpoint(path), shares, use_ema=True)
    half = (round(0.5 * 77) + round(0.5 * 33)) / 110
    assert shares.seen == {"batch": [0] * 3 + [half] * 19, "validation": [half] * 2, "epoch": [half] * 2}
    assert sparsity(model)["total"] == half
    for epoch in (1, 2):
        assert sparsity(keras.models.load_model(str(path).format(epoch=epoch)))["total"] == half
    assert not [each for each in recwarn if "PruneLowMagnitude" in str(each.message)]


def test_weights_that_lookahead_sets_are_sparse():
    model, shares = dense_model(), Shares()
    prune = PruneLowMagnitude(ConstantSparsity(0.5, begin_step=4), every=2)
    fit_averaged(model, prune, WeightAveraging("lookahead", every=3), shares)
    assert len(set(shares.seen["batch"][3:])) == 1


@pytest.mark.parametrize(
    "late",
    [keras.callbacks.SwapEMAWeights(), keras.callbacks.EarlyStopping("loss", restore_best_weights=True)],
    ids=lambda late: type(late).__name__,
)
def test_who_would_put_denser_weights_back_is_refused_with_the_right_order(late):
    name = f"keras.callbacks.{type(late).__name__}"
    with pytest.raises(ValueError, match=rf"{name} is listed after it.* as callbacks=\[{name}, PruneLowMagnitude\]"):
        fit(dense_model(), PruneLowMagnitude(ConstantSparsity(0.5)), late)


def test_an_evaluation_prunes_nothing():
    model = dense_model()
    prune = PruneLowMagnitude(PolynomialSparsity(0.0, 0.8, 0, 100))
    fit(model, prune, epochs=1)
    model.optimizer.iterations.assign(50)  # as if it was trained on without the callback
    before = model.get_weights()
    model.evaluate(X, Y, verbose=0, callbacks=[prune])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_sparse_model_that_came_from_a_file_is_trained_on_as_it_is():
    model = dense_model()
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.abs(kernel) > 0.3))
    before = kernel.numpy()
    fit(model, PruneLowMagnitude(ConstantSparsity(0.0), include=["body"]), epochs=1)
    np.testing.assert_array_equal(kernel.numpy() == 0, before == 0)


def test_the_mask_of_a_kernel():
    model = dense_model()
    fit(model, PruneLowMagnitude(ConstantSparsity(0.5), include=["body"]), epochs=1)
    body, head = (layer.kernel for layer in model.layers)
    np.testing.assert_array_equal(pruning_mask(body).numpy(), body.numpy() != 0)
    assert pruning_mask(head) is None
