"""greedy_soup: which models it takes, and what it leaves alone."""

import keras
import numpy as np
import pytest

from keras_opt.ensemble import greedy_soup

ONES = np.ones((8, 1), "float32")


def scale(value, metrics=("mae",), compiled=True):
    """Multiplies by `value`."""
    layers = [keras.layers.BatchNormalization(center=False, scale=False), keras.layers.Dense(1, use_bias=False)]
    model = keras.Sequential([keras.Input((1,)), *layers])
    model.layers[1].kernel.assign([[value]])
    if compiled:
        model.compile("adam", "mse", metrics=list(metrics))
    return model


def kernel(model):
    return float(model.layers[1].kernel[0, 0])


def factor():
    """What BatchNorm makes of a one."""
    return float(scale(1.0, compiled=False)(ONES)[0, 0])


def test_it_takes_in_order_of_value_what_makes_the_mean_no_worse():
    """To hit 1: 0.8 is best; 0.7, the next, would make it worse; 1.4 gives 1.1; and -3 would spoil that."""
    models = [scale(value) for value in (-3.0, 1.4, 0.8, 0.7)]
    soup = greedy_soup(models, (ONES, ONES * factor()), monitor="mae")
    assert soup.soup.members == (2, 1)
    assert kernel(soup) == pytest.approx(1.1)


def test_the_models_are_left_alone_the_first_too():
    models = [scale(value) for value in (0.5, 1.5, 3.0)]
    optimizer_before = [np.array(each) for each in models[0].optimizer.variables]
    soup = greedy_soup(models, (ONES, ONES * factor()), monitor="mae")
    assert [kernel(model) for model in models] == [0.5, 1.5, 3.0]
    for now, then in zip(models[0].optimizer.variables, optimizer_before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert soup.soup.members == (0, 1)
    assert kernel(soup) == 1.0
    assert soup.soup.value == pytest.approx(0, abs=1e-6)
    assert not soup.compiled


def test_higher_is_better_for_what_the_name_or_the_metric_says():
    x = np.linspace(-1, 1, 8, dtype="float32")[:, np.newaxis]
    models = [scale(value, [keras.metrics.BinaryAccuracy(name="hits", threshold=0.0)]) for value in (-1.0, 1.0)]
    soup = greedy_soup(models, (x, (x > 0).astype("float32")), monitor="hits", mode="max")
    assert soup.soup.members == (1,)
    assert soup.soup.values == (0.0, 1.0)


def test_files_and_diverged_models(tmp_path):
    for number, value in enumerate((0.5, 1.5, np.nan)):
        scale(value).save(tmp_path / f"{number}.keras")
    files = [tmp_path / f"{number}.keras" for number in range(3)]
    soup = greedy_soup(files, (ONES, ONES * factor()), monitor="loss")
    assert soup.soup.members == (0, 1)
    assert np.isnan(soup.soup.values[2])
    with pytest.raises(ValueError, match="`loss` is not finite for any model"):
        greedy_soup(files[2:], (ONES, ONES), monitor="loss")


def test_statistics_are_taken_anew_for_means_only():
    models = [scale(0.9), scale(1.1)]
    soup = greedy_soup(models, (ONES, ONES * -100), monitor="mae", reestimate_batch_norm=ONES * 5)
    assert soup.soup.members == (0, 1)  # with statistics of fives a one becomes -4 / sqrt(epsilon), which is -126
    assert float(soup.layers[0].moving_mean[0]) == pytest.approx(5)
    assert [float(model.layers[0].moving_mean[0]) for model in models] == [0, 0]


def test_what_cannot_be_evaluated():
    with pytest.raises(ValueError, match=r"must be compiled models"):
        greedy_soup([scale(1.0, compiled=False)], (ONES, ONES))
    with pytest.raises(ValueError, match=r"`monitor` must be in the logs.*'loss', 'mae'.*Compile the first model"):
        greedy_soup([scale(1.0)], (ONES, ONES), monitor="accuracy")
    model = scale(1.0, [keras.metrics.MeanMetricWrapper(lambda y, p: p, name="odd")])
    with pytest.raises(ValueError, match='give mode="min" or "max"'):
        greedy_soup([model], (ONES, ONES), monitor="odd")


@pytest.mark.parametrize("validation", [ONES, (ONES,), [ONES, ONES]])
def test_validation_without_targets(validation):
    with pytest.raises(ValueError, match=r"`validation` must be \(x, y\), .* or a dataset of such"):
        greedy_soup([scale(1.0)], validation)
