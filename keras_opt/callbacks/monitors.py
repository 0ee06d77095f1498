"""What a callback monitors: the value in the logs and which direction is better."""

import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_opt.core.errors import InputError, argument_error, did_you_mean

# Words of a metric's name. "io" is how Keras spells IoU in a default name: `mean_io_u`.
_LOWER_IS_BETTER = re.compile(
    "loss|error|mae|mse|mape|msle|rmse|logcosh|hinge|poisson|divergence|crossentropy|perplexity"
)
_HIGHER_IS_BETTER = re.compile(
    "acc|accuracy|auc|precision|recall|sensitivity|specificity|f1|fbeta|iou|io|dice|r2|correlation|similarity"
)


def resolve_mode(monitor: str, mode: str) -> str:
    """`"min"` or `"max"`; `"auto"` reads it off the name, whose last known word decides (`dice_loss` is a loss).

    It stays `"auto"` where the name does not tell; then the model may, see `mode_in_model`.
    """
    if mode != "auto":
        return mode
    for word in reversed(re.split(r"[\W_]+", monitor.lower())):
        if _LOWER_IS_BETTER.fullmatch(word):
            return "min"
        if _HIGHER_IS_BETTER.fullmatch(word):
            return "max"
    return "auto"


def mode_in_model(monitor: str, model: keras.Model) -> str:
    """The direction of the compiled metric of this name, as Keras finds it; `"auto"` if there is none or it has none.

    Before the metric's name `monitor` may have a prefix, as `val_` or that of another validation set; the longest name
    counts. Compiled metrics are there from the first batch on. Keras keeps their direction in `_direction`, for which
    it has no public name; `tests/contract/test_keras_canary.py` fails, with the Keras version, when it moves.
    """
    metrics = [metric for group in getattr(model, "metrics", ()) for metric in getattr(group, "metrics", [group])]
    for metric in sorted(metrics, key=lambda metric: -len(metric.name)):
        if monitor == metric.name or monitor.endswith(f"_{metric.name}"):
            return {"up": "max", "down": "min"}.get(getattr(metric, "_direction", None), "auto")
    return "auto"


def resolve_modes(criteria: Iterable[Any], model: keras.Model | None, logs: dict[str, Any]) -> None:
    """Let `model` say the direction of those criteria whose value is in `logs` and whose `mode` is still `"auto"`."""
    for criterion in criteria:
        if getattr(criterion, "mode", None) == "auto" and criterion.monitors[0] in logs:
            criterion.mode = mode_in_model(criterion.monitors[0], model)


def check_mode_is_known(owner: str, monitor: str, mode: str) -> None:
    """Raise if `mode` is still `"auto"`."""
    if mode == "auto":
        cure = f'Neither the name {monitor!r} nor a compiled metric tells which is better: give mode="min" or "max".'
        raise argument_error(owner, "mode", mode, '"min" or "max" here', cure)


def better(value: float, reference: float, mode: str) -> bool:
    """Whether `value` is strictly better than `reference`; NaN never is."""
    return value > reference if mode == "max" else value < reference


def monitored_value(monitor: str, logs: dict[str, Any], owner: str) -> float | None:
    """The monitored value as a float; `None` in an epoch without it.

    That is an epoch without validation (`validation_freq`), or one where the logs hold `None` under its name.

    Raises:
        ValueError: It is not in the logs; the message lists what is.
    """
    if is_unvalidated(monitor, logs):
        return None
    if monitor not in logs:
        raise missing_monitor(owner, monitor, logs)
    return None if logs[monitor] is None else float(logs[monitor])


def is_unvalidated(monitor: str, logs: dict[str, Any]) -> bool:
    """Whether `monitor` is a validation value, and these are the logs of an epoch without validation."""
    return monitor.startswith("val_") and not any(name.startswith("val_") for name in logs)


def missing_monitor(
    owner: str,
    monitor: str,
    logs: dict[str, Any],
    cure: str = "A callback that adds it must stand earlier in the list.",
) -> InputError:
    """The error that `monitor` is not in the logs: what is, the closest name, and the order of callbacks."""
    names = ", ".join(map(repr, logs)) or "nothing"
    return InputError(
        f"{owner}: argument `monitor` must be in the logs. Received: monitor={monitor!r}; the logs hold {names}. "
        f"{did_you_mean(monitor, logs)} {cure}"
    )
