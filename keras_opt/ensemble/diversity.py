"""How differently models err, and what each adds to their ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import argument_error
from keras_opt.ensemble.held_out import outputs_and_targets
from keras_opt.ensemble.prediction_ensemble import check_members
from keras_opt.models.macs import macs


@dataclass(frozen=True, eq=False)
class Diversity:
    """What `diversity` has found; `str` gives a table.

    Args:
        names: Of the models.
        accuracy: (models,), of each by itself.
        ensemble_accuracy: Of the mean of all outputs.
        adds: (models,), that minus the accuracy of the mean of all others; NaN if there are none.
        disagreement: (models, models), the fraction of rows in which two name different classes.
        error_correlation: (models, models), the correlation of the rows in which two are wrong; NaN where one of them
            is always right or always wrong.
        parameters: Of each.
        macs: Multiply-accumulates of each; `None` where `models.macs` cannot count them.
    """

    names: tuple[str, ...]
    accuracy: np.ndarray
    ensemble_accuracy: float
    adds: np.ndarray
    disagreement: np.ndarray
    error_correlation: np.ndarray
    parameters: tuple[int, ...]
    macs: tuple[int | None, ...]

    def plot(self, ax: Any = None) -> Any:
        """Draws the disagreement of each pair; returns the axes."""
        ax = plot_axes(ax, title="Disagreement: fraction of rows with different classes")
        ax.grid(False)
        places = range(len(self.names))
        ax.set_xticks(places, self.names, rotation=45, ha="right")
        ax.set_yticks(places, self.names)
        image = ax.imshow(self.disagreement, vmin=0, cmap="Blues")
        ax.figure.colorbar(image, ax=ax)
        middle = self.disagreement.max() / 2
        for row in places:
            for column in places:
                value = self.disagreement[row, column]
                ax.text(
                    column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > middle else "black"
                )
        return ax

    def __str__(self) -> str:
        width = max(len("all together"), *map(len, self.names))
        heads = ("accuracy", "adds", "disagreement", "error corr.", "parameters", "MACs")
        lines = [f"{'':{width}}" + "".join(f"  {head:>13}" for head in heads)]
        rows = zip(
            self.names,
            self.accuracy,
            self.adds,
            _means_with_others(self.disagreement),
            _means_with_others(self.error_correlation),
            self.parameters,
            self.macs,
            strict=True,
        )
        for name, accuracy, adds, disagreement, correlation, parameters, count in rows:
            numbers = (f"{accuracy:.4f}", f"{adds:+.4f}", f"{disagreement:.4f}", f"{correlation:.4f}")
            lines.append(_line(name, width, (*numbers, f"{parameters:,}", "?" if count is None else f"{count:,}")))
        total = "?" if None in self.macs else f"{sum(self.macs):,}"
        numbers = (f"{self.ensemble_accuracy:.4f}", "", "", "", f"{sum(self.parameters):,}", total)
        lines.append(_line("all together", width, numbers))
        return "\n".join(lines).replace("nan", "  -")


def diversity(models: Sequence[keras.Model], x: Any, y: Any = None, batch_size: int = 32) -> Diversity:
    """Compares classifiers on data that none was trained on: what an ensemble of them gains, and what each costs.

    An ensemble is better than its members where they are wrong in different rows. A member that adds nothing here costs
    its parameters and MACs for nothing.

    Args:
        models: Built functional or Sequential classifiers of the same inputs and output; a single output is the
            probability of the second of two classes.
        x: Inputs, as `predict` takes them; or a `tf.data.Dataset` of batches `(x, y)`, without sample weights.
        y: Class numbers or one-hot rows; `None` for a dataset.
        batch_size: Int of at least 1. Default 32.

    Raises:
        ValueError: There is no model, their shapes differ, `y` does not fit, outputs are not finite, a single one is no
            probability, or a dataset has sample weights.

    Cost: one prediction of each model.

    Source: L. I. Kuncheva, C. J. Whitaker, 2003, "Measures of Diversity in Classifier Ensembles and Their Relationship
        with the Ensemble Accuracy", section 3.1.

    Example:
        >>> import keras_opt, numpy as np
        >>> members = [keras_opt.models.mlp([8], (5,), 3) for _ in range(2)]
        >>> found = keras_opt.ensemble.diversity(members, np.eye(5), np.zeros(5))
        >>> found.disagreement.shape
        (2, 2)
    """
    models = check_members("diversity", models)
    names = [f"models[{place}]" for place in range(len(models))]
    outputs, targets = outputs_and_targets("diversity", models, names, x, y, batch_size)
    if outputs.shape[-1] == 1:
        _check_probabilities(outputs, names)
    elif not np.allclose(targets.sum(axis=-1), 1, atol=1e-3):
        must_be = "one class for each row"
        raise argument_error("diversity", "y", targets, must_be, "Of several labels a row compare each by itself.")
    truth = _classes(targets)
    classes = np.stack([_classes(each) for each in outputs]).reshape(len(models), -1)
    wrong = classes != truth.reshape(-1)
    accuracy = _accuracy(outputs.mean(axis=0), truth)
    without = [np.delete(outputs, place, axis=0) for place in range(len(models))]
    rests = [_accuracy(rest.mean(axis=0), truth) if len(rest) else np.nan for rest in without]
    return Diversity(
        names=tuple(f"{place} {model.name}" for place, model in enumerate(models)),
        accuracy=1 - wrong.mean(axis=1),
        ensemble_accuracy=accuracy,
        adds=accuracy - np.array(rests),
        disagreement=(classes[:, np.newaxis] != classes).mean(axis=2),
        error_correlation=_correlation(wrong.astype(float)),
        parameters=tuple(model.count_params() for model in models),
        macs=tuple(_macs(model) for model in models),
    )


def _check_probabilities(outputs: np.ndarray, names: Sequence[str]) -> None:
    """Raise if a single output is a logit: which class it names would be read off wrong."""
    for name, each in zip(names, outputs, strict=True):
        if each.min() < 0 or each.max() > 1:
            received = f"outputs from {each.min():.3g} to {each.max():.3g}"
            must_be = "a model whose single output is a probability"
            raise argument_error("diversity", name, received, must_be, "Add keras.layers.Activation('sigmoid').")


def _classes(outputs: np.ndarray) -> np.ndarray:
    return outputs[..., 0] > 0.5 if outputs.shape[-1] == 1 else outputs.argmax(axis=-1)


def _accuracy(outputs: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(_classes(outputs) == truth))


def _correlation(rows: np.ndarray) -> np.ndarray:
    deviations = rows - rows.mean(axis=1, keepdims=True)
    spreads = np.sqrt((deviations**2).sum(axis=1))
    spreads[spreads == 0] = np.nan
    return deviations @ deviations.T / np.outer(spreads, spreads)


def _macs(model: keras.Model) -> int | None:
    try:
        return macs(model)
    except ValueError:
        return None


def _means_with_others(matrix: np.ndarray) -> np.ndarray:
    """The mean of each row without the diagonal; NaN if there is nothing else, or a NaN in it."""
    count = len(matrix)
    if count == 1:
        return np.array([np.nan])
    return matrix[~np.eye(count, dtype=bool)].reshape(count, count - 1).mean(axis=1)


def _line(name: str, width: int, cells: Sequence[str]) -> str:
    return f"{name:{width}}" + "".join(f"  {cell:>13}" for cell in cells)
