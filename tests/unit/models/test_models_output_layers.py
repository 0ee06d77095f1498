"""Which layers make the outputs."""

import keras
import oracle_models as models

from keras_opt.models.output_layers import output_layers


def names(model):
    return sorted(layer.name for layer in output_layers(model))


def test_sequential_and_functional_models_with_layers_without_weights_at_the_end():
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2, name="head"), keras.layers.Softmax()]
    assert names(keras.Sequential(layers)) == ["head"]
    inputs = keras.Input((3,))
    outputs = keras.layers.Softmax()(keras.layers.Dense(2, name="head")(keras.layers.Dense(4)(inputs)) * 2.0)
    assert names(keras.Model(inputs, outputs)) == ["head"]


def test_several_outputs_and_branches_that_meet():
    assert names(models.two_outputs()) == ["first", "second"]
    inputs = keras.Input((3,))
    left, right = keras.layers.Dense(2, name="left")(inputs), keras.layers.Dense(2, name="right")(inputs)
    assert names(keras.Model({"x": inputs}, {"sum": left + right, "left": left})) == ["left", "right"]


def test_a_nested_model_is_looked_into():
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1, name="inner")])
    inputs = keras.Input((3,))
    assert names(keras.Model(inputs, head(keras.layers.Dense(4)(inputs)))) == ["inner"]
    assert names(keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), head])) == ["inner"]


def test_of_a_subclassed_model_the_last_layer_with_weights():
    model = models.Subclassed()
    model(models.data("subclassed")[0])
    assert output_layers(model) == [model.head]


def test_a_model_without_weights_has_none():
    assert output_layers(keras.Sequential([keras.Input((3,)), keras.layers.Flatten()])) == []
