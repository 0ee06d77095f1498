"""The weights of several models of one network, averaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.core.errors import argument_error, is_number
from keras_opt.ensemble.weight_sources import WeightSources, put_in
from keras_opt.models.reestimate_batch_norm import reestimate_batch_norm as reestimate


def average_weights(
    models_or_files: Sequence[keras.Model | str | Path] | str | Path,
    weights: Sequence[float] | None = None,
    reestimate_batch_norm: Any = None,
    model: keras.Model | None = None,
) -> keras.Model:
    """Returns a new model whose weights are the mean of those of several.

    For models that lie in one valley: checkpoints of one training, or several fine-tunings of one pretrained model.
    The mean of models that were trained from different initial weights is useless: those predict together as a
    `PredictionEnsemble`. Whether a model does the mean good, `greedy_soup` finds out.

        average = sum_i w_i * weights_i / sum_i w_i

    as `numpy.average` does, one after another in float32, float64 in float64. All floating weights are averaged,
    BatchNorm statistics too. Integers, such as the count of an adapted `Normalization`, must be equal.

    Files are read one at a time. The state of an optimizer is not read, and the sources are left as they are.

    Args:
        models_or_files: Built models, paths of `.keras` files, or both. Or the path of a folder in which
            `keras_opt.callbacks.ModelCheckpoint` has saved: all that its `index.json` names. Or, with `model`, also
            `.weights.h5` files.
        weights: One number of at least 0 for each, not all 0. Default `None`: all count the same.
        reestimate_batch_norm: Data for `models.reestimate_batch_norm`, from which BatchNorm statistics are then taken
            anew, since those of an average fit no weights exactly. Default `None`.
        model: A built model of the network, for `.weights.h5` files, which do not tell it; left as it is.

    Returns:
        A model that is not compiled.

    Raises:
        ValueError: There is nothing to average; the names (numbers that Keras gave aside), shapes or dtypes of the
            weights differ, or integers, or the `class_names`; a file cannot be read; `weights` do not fit.

    Cost: one read of each; in memory two times the weights, and some copies of a single variable; on the disk, while a
        `.keras` file is read, its weights once more.

    Source: P. Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization"; M. Wortsman
        et al., 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
        inference time", section 2.

    Example:
        >>> import keras_opt
        >>> first, second = (keras_opt.models.mlp([8], (5,), 3) for _ in range(2))
        >>> average = keras_opt.ensemble.average_weights([first, second], weights=[3, 1])
    """
    sources = WeightSources("average_weights", "models_or_files", models_or_files, model, compile=False)
    shares = _shares(weights, len(sources))
    mean, total = None, 0.0
    for place in np.flatnonzero(shares):
        total += shares[place]
        mean = sources.mixed(mean, int(place), shares[place] / total)
    average = sources.scratch
    put_in(average, mean)
    average.class_names = sources.class_names
    if reestimate_batch_norm is not None:
        reestimate(average, reestimate_batch_norm)
    return average


def _shares(weights: Sequence[float] | None, count: int) -> np.ndarray:
    if weights is None:
        return np.ones(count)
    values = list(weights) if isinstance(weights, Sequence | np.ndarray) else [weights]
    must_be = f"{count} finite numbers of at least 0, not all 0"
    if len(values) != count or not all(is_number(each) and each >= 0 for each in values) or not any(values):
        raise argument_error("average_weights", "weights", weights, must_be, "Give one for each model or file.")
    return np.asarray(values, np.float64) / max(values)
