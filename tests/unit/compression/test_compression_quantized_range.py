"""A range follows the batches of training, and only those."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_opt.compression.qat.quantized_range import QuantizedRange

BATCHES = [np.array([[-1.0, 2.0]]), np.array([[-3.0, 4.0]]), np.array([[0.5, 9.0]])]


def means(layer):
    return tuple(float(keras.ops.convert_to_numpy(mean)) for mean in (layer.mean_low, layer.mean_high))


def test_the_first_batches_count_alike_then_the_momentum_holds():
    layer = QuantizedRange(momentum=0.5)
    expected = []
    for n, batch in enumerate(BATCHES):
        layer(batch, training=True)
        kept = min(0.5, n / (n + 1))
        ends, last = (batch.min(), batch.max()), expected[-1] if expected else (0, 0)
        expected.append(tuple(kept * old + (1 - kept) * new for old, new in zip(last, ends, strict=True)))
        assert means(layer) == pytest.approx(expected[-1])


def test_inference_observes_nothing_and_before_training_takes_the_batch():
    layer = QuantizedRange()
    outputs, step = layer(BATCHES[1])
    assert not layer.is_observed
    assert float(step) == pytest.approx(7 / 255, rel=0.01)
    np.testing.assert_allclose(outputs, BATCHES[1], atol=float(step))
    layer(BATCHES[0], training=True)
    outputs, step = layer(BATCHES[1])
    assert layer.is_observed
    assert means(layer) == (-1, 2)
    assert float(step) == pytest.approx(3 / 255, rel=0.01)
    np.testing.assert_allclose(outputs, [[-1, 2]], atol=float(step))  # cut off


def test_a_frozen_layer_and_a_second_use_observe_nothing():
    layer = QuantizedRange()
    layer(BATCHES[0], training=True)
    layer(BATCHES[1], training=True, means=True)
    layer.trainable = False
    layer(BATCHES[2], training=True)
    assert means(layer) == (-1, 2)


def test_tensors_share_a_range_and_fixed_limits_hold():
    (first, second), step = QuantizedRange()([BATCHES[0], BATCHES[2]])
    assert first.shape == second.shape
    assert float(step) == pytest.approx(10 / 255, rel=0.01)
    layer = QuantizedRange(limits=(0.0, 255 / 256))
    outputs, step = layer(np.array([[0.5, 1.0]]), training=True)
    assert float(step) == 1 / 256
    assert outputs.numpy().tolist() == [[0.5, 255 / 256]]
    assert layer.is_observed
    assert layer.weights == []


def test_before_a_softmax_few_huge_logits_do_not_widen_the_range():
    logits = np.array([[1.0, -2.0, 3.0], [400.0, -400.0, 0.0]], "float32")
    layer = QuantizedRange(before_softmax=True)
    tf.function(lambda: layer(logits, training=True), jit_compile=True)()
    assert means(layer) == (-2, 16)
    copy = QuantizedRange.from_config(layer.get_config())
    assert copy.before_softmax


def test_the_gradient_is_one_inside_and_zero_outside():
    layer = QuantizedRange()
    layer(np.array([[-1.0, 1.0]]), training=True)
    x = tf.constant([[-5.0, -0.3, 0.4, 5.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = keras.ops.sum(layer(x)[0])
    assert tape.gradient(total, x).numpy().tolist() == [[0, 1, 1, 0]]


def test_two_replicas_observe_the_range_of_their_batches_together(two_replicas):
    with two_replicas.scope():
        layer = QuantizedRange()
        layer.build((None, 2))
    batches = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(BATCHES[context.replica_id_in_sync_group], tf.float32)
    )
    two_replicas.run(tf.function(lambda batch: layer(batch, training=True)), args=(batches,))
    assert means(layer) == pytest.approx((-3, 4))
