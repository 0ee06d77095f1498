"""What counts as the batches of a model: in every form that `fit` takes, decided by the model's inputs."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_opt.callbacks import WeightAveraging
from keras_opt.models import reestimate_batch_norm
from keras_opt.models.batches import batches_of, check_inputs

RNG = np.random.default_rng(0)
X1, X2, Y = RNG.normal(3, 2, (48, 2)).astype("float32"), RNG.normal(-1, 3, (48, 3)).astype("float32"), np.ones((48, 1))


def two_inputs():
    """Its norms see the inputs themselves, so their statistics are those of the arrays."""
    inputs = [keras.Input((2,), name="first"), keras.Input((3,), name="second")]
    norms = [keras.layers.BatchNormalization(name=f"norm_{i}")(each) for i, each in enumerate(inputs)]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(norms)))
    model.compile("sgd", "mse")
    return model


def one_input():
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Pairs(keras.utils.PyDataset):
    num_batches = 3

    def __getitem__(self, place):
        rows = slice(16 * place, 16 * place + 16)
        return (X1[rows], X2[rows]), Y[rows]


class EndlessPairs(Pairs):
    num_batches = None

    def __getitem__(self, place):
        return super().__getitem__(place % 3)


DATASET = tf.data.Dataset.from_tensor_slices(((X1, X2), Y)).batch(20)
FORMS = {
    "a list": [X1, X2],
    "a list of tensors": [tf.constant(X1), tf.constant(X2)],
    "a list and labels": ([X1, X2], Y),
    "a tuple and labels": ((X1, X2), Y),
    "a dict": {"first": X1, "second": X2},
    "a dict and labels": ({"first": X1, "second": X2}, Y),
    "a dataset": DATASET,
    "a PyDataset": Pairs(),
    "a list of batches": [((X1[:20], X2[:20]), Y[:20]), ((X1[20:], X2[20:]), Y[20:])],
    "a generator": None,
}


@pytest.mark.parametrize("form", FORMS)
def test_two_inputs_in_every_form(form):
    model = two_inputs()
    reestimate_batch_norm(model, iter(FORMS["a list of batches"]) if form == "a generator" else FORMS[form])
    for norm, x in zip((model.get_layer("norm_0"), model.get_layer("norm_1")), (X1, X2), strict=True):
        np.testing.assert_allclose(norm.moving_mean, x.mean(0), rtol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, x.var(0), rtol=1e-5)


@pytest.mark.parametrize(
    "dataset",
    [(X1, X2), X1, [X1, X2, X2], tf.data.Dataset.from_tensor_slices((X1, X2)).batch(4)],
    ids=["a tuple, whose second is y", "one array", "three arrays", "a dataset of (x, y)"],
)
def test_other_inputs_than_those_of_the_model_are_an_error_before_anything_is_drawn(dataset):
    with pytest.raises(ValueError, match=r"`dataset` must have the inputs of model .*, which are 2.*\[x1, x2\]"):
        reestimate_batch_norm(two_inputs(), dataset)
    with pytest.raises(ValueError, match="WeightAveraging: argument `reestimate_batch_norm` must have the inputs"):
        two_inputs().fit([X1, X2], Y, verbose=0, callbacks=[WeightAveraging(reestimate_batch_norm=dataset)])


def test_a_list_of_arrays_is_batches_to_a_model_of_one_input():
    model = one_input()
    reestimate_batch_norm(model, [X1[:30], X1[30:]])
    np.testing.assert_allclose(model.layers[0].moving_mean, X1.mean(0), rtol=1e-5)
    with pytest.raises(ValueError, match=r"which are 1\. Received: 2\. Give x or"):
        check_inputs("f", "dataset", ((X1, X2), Y), model)


ENDLESS = {
    "tf.data": lambda: DATASET.repeat(),
    "PyDataset": EndlessPairs,
}


@pytest.mark.parametrize("make", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_set_needs_steps(make):
    with pytest.raises(ValueError, match=r"argument `steps` must be an int for an endless dataset"):
        reestimate_batch_norm(two_inputs(), make())
    assert len(list(batches_of(make(), two_inputs(), 4, 32))) == 4
    with pytest.raises(ValueError, match=r"argument `reestimate_batch_norm` must be a dataset that ends"):
        WeightAveraging(reestimate_batch_norm=make())


ONE_SHOT = {
    "a generator": lambda: (batch for batch in [X1]),
    "an iterator of tf.data": lambda: iter(DATASET),
    "itertools": lambda: itertools.repeat(X1),
    "zip": lambda: zip([X1], [Y], strict=True),
}


@pytest.mark.parametrize("make", ONE_SHOT.values(), ids=ONE_SHOT)
def test_a_one_shot_set_is_no_set_for_every_epoch(make):
    with pytest.raises(ValueError, match=r"`reestimate_batch_norm` must be a dataset that can be gone through repea"):
        WeightAveraging(reestimate_batch_norm=make())


@pytest.mark.parametrize("dataset", ["images", b"images", 3, True, lambda: X1])
def test_what_is_no_data(dataset):
    with pytest.raises(ValueError, match="must be batches or arrays"):
        reestimate_batch_norm(one_input(), dataset)
    with pytest.raises(ValueError, match="`reestimate_batch_norm` must be batches or arrays"):
        WeightAveraging(reestimate_batch_norm=dataset)


@pytest.mark.parametrize("make", [pd.DataFrame, lambda x: pd.Series(x[:, 0])], ids=["DataFrame", "Series"])
def test_a_data_frame_is_refused_with_the_cure(make):
    with pytest.raises(ValueError, match=r"`dataset` must be batches or arrays\. Received: a \w+\. Give dataset\.to_n"):
        reestimate_batch_norm(one_input(), make(X1))
    with pytest.raises(ValueError, match=r"WeightAveraging: .*Give reestimate_batch_norm\.to_numpy\(\)\."):
        WeightAveraging(reestimate_batch_norm=make(X1))


def test_weight_averaging_takes_every_form_that_can_be_repeated():
    for form, dataset in FORMS.items():
        if form != "a generator":
            model = two_inputs()
            averaging = WeightAveraging(ema_momentum=0.5, reestimate_batch_norm=dataset)
            model.fit([X1, X2], Y, epochs=2, verbose=0, callbacks=[averaging])
            np.testing.assert_allclose(model.get_layer("norm_1").moving_mean, X2.mean(0), rtol=1e-5)
