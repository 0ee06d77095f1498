"""Matplotlib axes, made only when something is drawn."""

from typing import Any

from keras_opt.core.optional import require


def plot_axes(ax: Any = None, *, title: str = "", xlabel: str = "", ylabel: str = "") -> Any:
    """Return `ax`, or the axes of a new figure, with its labels set."""
    if ax is None:
        ax = require("matplotlib.pyplot").figure(figsize=(7, 4), layout="constrained").add_subplot()
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.25)
    return ax
