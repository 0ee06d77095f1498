"""BatchNorm that a training leaves as it is."""

import keras

from keras_opt.models.batch_norms import batch_norms, trace_anew


def freeze_batch_norm(model: keras.Model) -> None:
    """Freezes each BatchNormalization: gamma and beta do not train, and the statistics are used as they are.

    For the finetuning of a pretrained model on batches too small or too different for statistics of their own; the
    other layers train on. Norms inside of nested models and wrappers are frozen too. A frozen norm normalises by its
    moving statistics in training as well, and reads `trainable=False` in the saved file.

    Call it after the `trainable` of the model or of a block is set, which sets that of the layers within, and before
    `compile`. A model that is compiled traces its next step anew, with the norms frozen. To train them again, set their
    `trainable` and compile.

    Args:
        model: A Keras model, built or not.

    Raises:
        ValueError: `model` is no Keras model.

    Warns:
        NoEffectWarning: The model has no BatchNormalization.

    Source: S. Ioffe and C. Szegedy, 2015, "Batch Normalization", section 3.1 (normalisation at inference).

    Example:
        >>> import keras_opt
        >>> model = keras_opt.models.convnet((8, 16), (28, 28, 1), 10)
        >>> keras_opt.models.freeze_batch_norm(model)
        >>> model.get_layer("norm1").trainable
        False
    """
    for norm in batch_norms("freeze_batch_norm", model):
        norm.trainable = False
    trace_anew(model)
