"""BatchNorm with the statistics of all replicas."""

import keras

from keras_opt.models.batch_norms import batch_norms, trace_anew


def synchronize_batch_norm(model: keras.Model) -> None:
    """Lets each BatchNormalization normalise by the statistics of the batch of all replicas together.

    Under a `tf.distribute` strategy a stock norm sees only its replica's share of the batch: with eight replicas of
    four images each, statistics of four. Synchronised, training is that of one device with the whole batch. Leave it
    where the share of each replica is large (32 or more), because each norm then costs a communication a step.

    It sets Keras's own `synchronized=True` on the layers of a built or loaded model, those inside of nested models and
    wrappers too; weights stay, the saved file opens in plain Keras. Without a strategy nothing changes. A model that is
    compiled traces its next step anew, with the norms synchronised. The builders of keras_opt take `norm="sync"`.

    Args:
        model: A Keras model, built or not.

    Raises:
        ValueError: `model` is no Keras model.

    Warns:
        NoEffectWarning: The model has no BatchNormalization.

    Cost: one all-reduce of two values a channel for each norm in each training step.

    Source: C. Peng et al., 2018, "MegDet: A Large Mini-Batch Object Detector", section 3.3.

    Example:
        >>> import keras, keras_opt
        >>> model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))
        >>> keras_opt.models.synchronize_batch_norm(model)
        >>> model.get_layer("bn_Conv1").synchronized
        True
    """
    for norm in batch_norms("synchronize_batch_norm", model):
        norm.synchronized = True
    trace_anew(model)
