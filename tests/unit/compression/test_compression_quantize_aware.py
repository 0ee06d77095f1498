"""What `quantize_aware` makes of a model's graph: names, weights, files, pruned kernels and what it refuses."""

import keras
import numpy as np
import pytest

import keras_opt
from keras_opt import compression, models
from keras_opt.compression import quantize_aware
from keras_opt.compression.qat.quantized_affine import QuantizedAffine
from keras_opt.compression.qat.quantized_kernel import QuantizedKernel
from keras_opt.core.errors import InputError, NoEffectWarning
from keras_opt.core.quantized_ranges import has_quantized_ranges

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype("float32")


def small(**options):
    return models.convnet((4,), (6, 6, 2), 3, **options)


def chain(*layers, shape=(6, 6, 2)):
    return keras.Sequential([keras.Input(shape), *layers])


def observed(model, x=X):
    """`model` after one eager batch of training, by which it knows its ranges."""
    model(x, training=True)
    return model


def near(model, x=X, tolerance=0.1):
    """Whether the quantization-aware copy of `model` gives its outputs, but for the rounding."""
    copy = quantize_aware(model)
    expected, got = (keras.tree.flatten(each(x, training=False)) for each in (model, copy))
    return all(np.abs(a - b).max() < tolerance * np.abs(a).max() for a, b in zip(expected, got, strict=True))


def test_it_computes_what_the_model_does_but_for_the_rounding():
    model = small(dropout=0.5)
    before = model.get_weights()
    assert near(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="hard_silu"), keras.layers.ReLU(6.0)],
        [keras.layers.Conv2DTranspose(5, 3, strides=2), keras.layers.BatchNormalization(), keras.layers.LeakyReLU()],
        [
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
        ],
        [keras.layers.Conv2D(4, 3, groups=2, dilation_rate=2, padding="same"), keras.layers.GlobalAveragePooling2D()],
        [keras.layers.BatchNormalization(), keras.layers.Activation("silu"), keras.layers.AveragePooling2D(2)],
        [keras.layers.Reshape((12, 6)), keras.layers.Conv1D(4, 3, padding="causal"), keras.layers.MaxPooling1D()],
        [keras.layers.Reshape((12, 6)), keras.layers.DepthwiseConv1D(3, strides=2), keras.layers.Softmax()],
        [keras.layers.RandomFlip(), keras.layers.Rescaling(0.1, -1.0), keras.layers.Dense(3, "tanh")],
        [keras.layers.Normalization(mean=[1.0, 2.0], variance=[3.0, 4.0]), keras.layers.Dense(3, "gelu")],
    ],
    ids=lambda layers: type(layers[0]).__name__,
)
def test_every_kind_of_layer_computes_what_it_did(layers):
    assert near(chain(*layers))


@pytest.mark.parametrize(
    "head",
    [
        [keras.layers.Dense(4, activation="softmax")],
        [keras.layers.Dense(4), keras.layers.Activation("softmax")],
        [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Softmax()],
    ],
    ids=["dense", "activation", "norm"],
)
def test_few_examples_with_huge_logits_do_not_take_the_steps_of_the_others(head):
    model = chain(*head, shape=(1024,))
    kernel = RNG.normal(size=(1024, 4)) / 4
    model.layers[0].set_weights([kernel, np.zeros(4)])
    ordinary = RNG.uniform(-1, 1, size=(300, 1024)).astype("float32")
    sure = np.sign(kernel[:, :1] - kernel[:, 1:]).T.astype("float32")  # logits of +-200
    copy = quantize_aware(model)
    for layer in copy.layers:
        layer.trainable = not isinstance(layer, QuantizedKernel)  # its statistics stay
    observed(copy, np.concatenate([ordinary, sure]))
    assert np.abs(model(ordinary) - copy(ordinary)).max() < 0.1


def test_graphs_keep_names_structures_and_shared_layers():
    first, second = keras.Input((6, 6, 2), name="first"), keras.Input((6, 6, 2), name="second")
    shared = keras.layers.Conv2D(4, 3, activation="relu", name="shared")
    inner = chain(keras.layers.Conv2D(4, 1), keras.layers.ReLU(), shape=(4, 4, 4))
    a, b = shared(first), inner(shared(second))
    both = keras.layers.Concatenate()([a, keras.layers.MaxPooling2D(3, 1, "same")(b), a * 2.0])
    total = keras.layers.Add(name="total")([a, b, a - b])
    model = keras.Model(
        {"first": first, "second": second}, {"total": total, "class": keras.layers.Dense(3, "sigmoid")(both)}
    )
    x = {"first": X, "second": X + 1}
    assert near(model, x)
    copy = quantize_aware(model)
    assert copy.output_names == model.output_names
    assert set(copy.input) == {"first", "second"}
    assert copy.get_layer("quantized_shared").layer.name == "shared"
    flat = keras.Model([first, second], [total, both])
    assert quantize_aware(flat).output_names == flat.output_names


def test_the_rectifier_goes_before_a_pooling_and_the_norm_into_the_kernel():
    copy = quantize_aware(small())
    unit = copy.get_layer("quantized_conv1")
    assert isinstance(unit, QuantizedKernel)
    assert (unit.norm.name, unit.pooling.name, unit.activation) == ("norm1", "pool1", "relu")
    after = quantize_aware(small(norm_position="after_activation"))
    assert isinstance(after.get_layer("quantized_norm1"), QuantizedAffine)


def test_what_has_no_8_bit_form_is_refused_by_name():
    for layer in (
        keras.layers.LayerNormalization(name="odd"),
        keras.layers.Activation("mish", name="odd"),
        keras.layers.Conv2D(3, 3, activity_regularizer="l2", name="odd"),
        keras.layers.ReLU(activity_regularizer="l2", name="odd"),
        keras.layers.BatchNormalization(activity_regularizer="l2", name="odd"),
    ):
        with pytest.raises(InputError, match="layer 'odd'"):
            quantize_aware(chain(layer))
    inputs = keras.Input((4,))
    outputs = keras.layers.BatchNormalization(name="live")(inputs, training=True)
    with pytest.raises(InputError, match="layer 'live'"):
        quantize_aware(keras.Model(inputs, outputs))
    image, twice = keras.Input((4, 4, 2)), keras.layers.Conv2DTranspose(2, 3, padding="same", name="twice")
    with pytest.raises(InputError, match=r"layer 'twice' \(Conv2DTranspose\)"):
        quantize_aware(keras.Model(image, twice(twice(image))))
    with pytest.raises(InputError, match=r"layer 'gru' \(GRU\)"):
        quantize_aware(chain(keras.layers.GRU(3, unroll=True, name="gru"), shape=(4, 2)))


def test_a_model_that_is_quantization_aware_is_refused():
    with pytest.raises(InputError, match=r"must be not quantization-aware yet.*Fit it as it is"):
        quantize_aware(quantize_aware(chain(keras.layers.Flatten())))


def test_a_skipped_layer_stays_float_and_its_outputs_are_rounded():
    model = chain(keras.layers.Conv2D(3, 3, name="stem"), keras.layers.LayerNormalization(name="odd"))
    copy = quantize_aware(model, skip=["odd", "st*"])
    assert type(copy.get_layer("stem")) is keras.layers.Conv2D
    values = np.unique(copy(X))
    assert len(values) <= 256
    with pytest.warns(NoEffectWarning, match="'head'"):
        quantize_aware(small(), skip=["head"])


def test_a_saved_model_is_equal_to_the_bit(tmp_path):
    model = observed(quantize_aware(small(dropout=0.5)))
    model.save(tmp_path / "model.keras")
    loaded = keras_opt.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]


def test_zeros_of_a_pruned_kernel_stay_zero_and_prunable():
    model = small()
    kernel = model.get_layer("conv1").kernel
    kernel.assign(kernel * (RNG.random(kernel.shape) < 0.5))
    pruned = kernel.numpy() == 0
    copy = quantize_aware(model)
    copy.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "sparse_categorical_crossentropy")
    callback = compression.PruneLowMagnitude(compression.ConstantSparsity(0.75), include=["classifier"])
    copy.fit(X, RNG.integers(0, 3, 16), batch_size=4, verbose=0, callbacks=[callback])
    unit = copy.get_layer("quantized_conv1")
    assert np.all(unit.layer.kernel.numpy()[pruned] == 0)
    assert np.any(unit.layer.kernel.numpy() != kernel.numpy())
    assert np.all(unit.device_weights()[0].numpy()[pruned] == 0)
    assert compression.sparsity(copy)["quantized_classifier/classifier"] == 0.75


def test_frozen_layers_stay_frozen_and_mixed_precision_computes_in_float32():
    model = small()
    model.get_layer("conv1").trainable = False
    copy = quantize_aware(model)
    assert not copy.get_layer("quantized_conv1").layer.trainable_variables
    keras.config.set_dtype_policy("mixed_float16")
    try:
        copy = quantize_aware(small(dropout=0.5))
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(layer.compute_dtype == "float32" for layer in copy.layers[1:])
    assert copy(X).dtype == "float32"


def test_ranges_must_be_observed_before_export():
    model = quantize_aware(small())
    with pytest.raises(InputError, match="'image_range'"):
        has_quantized_ranges(model)
    assert has_quantized_ranges(observed(model))
    assert not has_quantized_ranges(small())
