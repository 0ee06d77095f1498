"""diversity: its numbers, its table, its plot."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.ensemble import diversity


def table_model(classes, name, layer=keras.layers.Dense):
    """Gives each of the rows of an identity matrix the class of its place in `classes`."""
    model = keras.Sequential([keras.Input((len(classes),)), keras.layers.Dense(2, use_bias=False)], name=name)
    model.set_weights([np.eye(2)[classes]])
    return model


TRUTH = [0, 0, 1, 1]
X = np.eye(4, dtype="float32")


def test_its_numbers():
    """Two models err once, in different rows; a third as the first."""
    models = [table_model(classes, f"m{n}") for n, classes in enumerate([[1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1]])]
    found = diversity(models, X, TRUTH)
    np.testing.assert_allclose(found.accuracy, [0.75, 0.75, 0.75])
    np.testing.assert_allclose(found.disagreement, [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]])
    np.testing.assert_allclose(found.error_correlation, [[1, -1 / 3, 1], [-1 / 3, 1, -1 / 3], [1, -1 / 3, 1]])
    assert found.ensemble_accuracy == 0.75  # row 0: two of three are wrong
    # Without the first, row 0 is a tie, which argmax gives to class 0, and so is row 3; without the second it stays.
    np.testing.assert_allclose(found.adds, [0.0, 0.0, 0.0])
    assert found.names == ("0 m0", "1 m1", "2 m2")
    assert found.parameters == (8, 8, 8)
    assert found.macs == (8, 8, 8)


def test_one_hot_targets_and_a_single_output():
    models = [table_model(TRUTH, "right"), table_model([1, 0, 1, 1], "wrong")]
    np.testing.assert_array_equal(diversity(models, X, np.eye(2)[TRUTH]).accuracy, [1, 0.75])
    binary = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid", use_bias=False)])
    binary.set_weights([np.array([[-9.0], [-9.0], [9.0], [9.0]])])
    found = diversity([binary], X, TRUTH)
    assert found.accuracy == [1]
    assert np.isnan(found.adds).all()


def test_its_table_and_its_plot():
    layers = [keras.layers.Reshape((4, 1, 1, 1)), keras.layers.ConvLSTM2D(2, 1), keras.layers.Flatten()]
    odd = keras.Sequential([keras.Input((4,)), *layers], name="odd")  # with a layer whose operations are not counted
    found = diversity([table_model(TRUTH, "right"), odd], X, TRUTH)
    lines = str(found).splitlines()
    assert lines[0].split() == ["accuracy", "adds", "disagreement", "error", "corr.", "parameters", "MACs"]
    assert lines[1].split()[:3] == ["0", "right", "1.0000"]
    assert lines[2].split()[-1] == "?"
    assert "nan" not in str(found)
    axes = found.plot()
    assert [text.get_text() for text in axes.get_xticklabels()] == list(found.names)
    assert len(axes.texts) == 4


def test_bad_input():
    with pytest.raises(ValueError, match="models of the same inputs"):
        diversity([table_model([0, 1], "a"), table_model([0, 1, 1], "b")], X, TRUTH)
    with pytest.raises(ValueError, match=r"diversity: argument `y` must be of shape \(4, 2\)"):
        diversity([table_model(TRUTH, "a")], X, [0, 1, 2, 3])


def test_a_dataset_is_gone_through_once_for_all_models():
    models = [table_model([1, 0, 1, 1], "a"), table_model(TRUTH, "b")]
    shuffled = tf.data.Dataset.from_tensor_slices((X, TRUTH)).shuffle(4).batch(3)
    found = diversity(models, shuffled)
    np.testing.assert_allclose(found.accuracy, [0.75, 1])
    assert found.disagreement[0, 1] == 0.25
    with pytest.raises(ValueError, match=r"diversity: argument `y` must be left out"):
        diversity(models, shuffled, TRUTH)
    with pytest.raises(ValueError, match=r"diversity: argument `x` must be a dataset that ends"):
        diversity(models, shuffled.repeat())


def test_a_dataset_with_sample_weights_is_refused():
    weighted = tf.data.Dataset.from_tensor_slices((X, TRUTH, np.ones(4))).batch(3)
    with pytest.raises(ValueError, match=r"diversity: argument `x` must be .*without sample weights.*dataset\.map"):
        diversity([table_model(TRUTH, "a")], weighted)


def test_a_single_output_that_is_no_probability_is_refused():
    logits = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, bias_initializer="ones")])
    with pytest.raises(ValueError, match=r"models\[0\]` must be a model whose single output is a probability"):
        diversity([logits], X + 9 * np.eye(4), TRUTH)


def test_several_labels_a_row_are_refused():
    with pytest.raises(ValueError, match="`y` must be one class for each row"):
        diversity([table_model(TRUTH, "a")], X, np.ones((4, 2)))
