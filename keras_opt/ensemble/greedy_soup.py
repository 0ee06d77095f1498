"""An average of the weights of those models that do it good."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_opt.callbacks.monitors import check_mode_is_known, missing_monitor, mode_in_model, resolve_mode
from keras_opt.core.errors import InputError, argument_error, check_choice, check_name
from keras_opt.ensemble.weight_sources import WeightSources, put_in
from keras_opt.models.batches import check_is_repeatable
from keras_opt.models.reestimate_batch_norm import reestimate_batch_norm as reestimate


@dataclass(frozen=True)
class Soup:
    """What `greedy_soup` has found.

    Args:
        members: The places of the models that went in, in the order they did, from 0.
        values: What was monitored, of each model by itself.
        value: The same of their average.
        monitor: Its name.
    """

    members: tuple[int, ...]
    values: tuple[float, ...]
    value: float
    monitor: str


def greedy_soup(
    models: Sequence[keras.Model | str | Path] | str | Path,
    validation: Any,
    monitor: str = "accuracy",
    mode: str = "auto",
    reestimate_batch_norm: Any = None,
    model: keras.Model | None = None,
) -> keras.Model:
    """Returns a new model whose weights are the mean of those models that make it no worse on validation data.

    For fine-tunings of one pretrained model with several settings: the mean of the good ones is often better than the
    best, at its cost. Models from different initial weights have no use for each other here: then the best one comes
    back alone, and `PredictionEnsemble` is for them.

    The models are tried in the order of their own value, the best first. Each one is kept if

        value(mean of the kept ones and this one) >= value(mean of the kept ones)

    or `<=` where lower is better. The choice is made on `validation`, so judge the result on other data.

    Args:
        models: As `average_weights` takes them. The first model, or the first file if there are only files, must be
            compiled, and is evaluated with the weights of each; afterwards it has its own again.
        validation: `(x, y)` or `(x, y, sample_weight)` in arrays, or a dataset that ends, as `evaluate` takes it.
        monitor: The name of the value, among those that `evaluate` returns. Default `"accuracy"`.
        mode: `"auto"`, `"min"` or `"max"`; `"auto"` asks the name, then the compiled metric. Default `"auto"`.
        reestimate_batch_norm: Data for `models.reestimate_batch_norm`, with which the BatchNorm statistics of each mean
            are taken anew. Default `None`: they are averaged.
        model: A compiled model of the network, for `.weights.h5` files.

    Returns:
        A model that is not compiled. Its attribute `soup` says which members it has, and the values: `members`,
        `values`, `value`, `monitor`.

    Raises:
        ValueError: As `average_weights`; or `monitor` is not what `evaluate` returns, or not finite for any model.

    Cost: twice as many evaluations and reads as there are models.

    Source: M. Wortsman et al., 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
        without increasing inference time", recipe 1.

    Example:
        >>> import keras_opt, numpy as np
        >>> members = [keras_opt.models.mlp([8], (5,), 3) for _ in range(3)]
        >>> members[0].compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> soup = keras_opt.ensemble.greedy_soup(members, (np.zeros((6, 5)), np.zeros(6)))
        >>> 1 <= len(soup.soup.members) <= 3
        True
    """
    check_name("greedy_soup", "monitor", monitor)
    check_choice("greedy_soup", "mode", mode, ("auto", "min", "max"))
    check_is_repeatable("greedy_soup", "validation", validation)
    _check_has_targets(validation)
    if reestimate_batch_norm is not None:
        check_is_repeatable("greedy_soup", "reestimate_batch_norm", reestimate_batch_norm)
    sources = WeightSources("greedy_soup", "models", models, model, compile=True)
    tasting = _Tasting(sources.network, validation, monitor, mode, reestimate_batch_norm)
    values = [tasting.value(sources.mixed(None, place, 1.0), is_mean=False) for place in range(len(sources))]
    order = _best_first(values, tasting.mode, monitor)
    members, mean, value = order[:1], sources.mixed(None, order[0], 1.0), values[order[0]]
    for place in order[1:]:
        candidate = sources.mixed([np.copy(array) for array in mean], place, 1 / (len(members) + 1))
        tasted = tasting.value(candidate, is_mean=True)
        if tasted >= value if tasting.mode == "max" else tasted <= value:
            members, mean, value = [*members, place], candidate, tasted
    soup = sources.scratch
    put_in(soup, mean)
    if reestimate_batch_norm is not None and len(members) > 1:
        reestimate(soup, reestimate_batch_norm)
    soup.class_names = sources.class_names
    soup.soup = Soup(tuple(members), tuple(values), value, monitor)
    return soup


def _check_has_targets(validation: Any) -> None:
    has_rows = isinstance(validation, tuple) and len(validation) in (2, 3)
    if not has_rows and not isinstance(validation, tf.data.Dataset | keras.utils.PyDataset):
        must_be = "(x, y), (x, y, sample_weight) or a dataset of such batches"
        raise argument_error("greedy_soup", "validation", validation, must_be, "Give the targets too.")


class _Tasting:
    """Evaluates weights in a compiled model, which may be one of the sources, and has its own again afterwards."""

    def __init__(self, model: keras.Model, validation: Any, monitor: str, mode: str, statistics: Any):
        self._model = model
        self._validation = validation if isinstance(validation, tuple) else (validation,)
        self._monitor = monitor
        self._statistics = statistics
        self.mode = resolve_mode(monitor, mode)

    def value(self, arrays: list[np.ndarray], is_mean: bool) -> float:
        own = self._model.get_weights()
        try:
            put_in(self._model, arrays)
            if is_mean and self._statistics is not None:
                reestimate(self._model, self._statistics)
            logs = self._model.evaluate(*self._validation, verbose=0, return_dict=True)
        finally:
            put_in(self._model, own)
        if self._monitor not in logs:
            cure = "Compile the first model with that metric."
            raise missing_monitor("greedy_soup", self._monitor, logs, cure)
        if self.mode == "auto":
            self.mode = mode_in_model(self._monitor, self._model)
            check_mode_is_known("greedy_soup", self._monitor, self.mode)
        return float(logs[self._monitor])


def _best_first(values: list[float], mode: str, monitor: str) -> list[int]:
    """The places of the finite values, the best first, of equal ones the first."""
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        raise InputError(
            f"greedy_soup: `{monitor}` is not finite for any model: {values}. Leave out those that diverged."
        )
    return sorted(finite, key=lambda place: -values[place] if mode == "max" else values[place])
