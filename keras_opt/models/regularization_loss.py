"""The penalties of the regularizers in the logs of a model's training."""

import threading
from typing import Any

import keras

from keras_opt.training.callers import is_called_by_evaluation

NAME = "regularization_loss"


def log_regularization_loss(model: keras.Model) -> None:
    """From now on give the penalty of all trainable weights as `regularization_loss` with the results of training.

    It is computed where Keras asks for the results, so no callback and no `train_step` is needed. What `evaluate` and,
    without `return_dict`, `train_on_batch` give stays as it was, for `loss, accuracy = model.evaluate(...)` must go on
    working.
    """
    if not isinstance(getattr(vars(model).get("get_metrics_result"), "__self__", None), _LoggedLoss):
        _LoggedLoss(model)


class _LoggedLoss:
    """Stands in for three public methods of one model, by instance attributes."""

    def __init__(self, model: keras.Model):
        self.model = model
        self._metrics_result, self._test_step = model.get_metrics_result, model.test_step
        self._train_on_batch = model.train_on_batch
        self._testing = threading.local()  # replicas are traced in threads of their own
        # Past `__setattr__`: Keras's tracker must not take this for a part of the model.
        vars(model)["get_metrics_result"] = self.get_metrics_result
        vars(model)["test_step"] = self.test_step
        vars(model)["train_on_batch"] = self.train_on_batch

    def get_metrics_result(self) -> dict[str, Any]:
        result = self._metrics_result()
        if getattr(self._testing, "now", False) or is_called_by_evaluation(self.model):
            return result
        return {**result, NAME: regularization_loss(self.model)}

    def test_step(self, data: Any) -> dict[str, Any]:
        self._testing.now = True
        try:
            return self._test_step(data)
        finally:
            self._testing.now = False

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        results = self._train_on_batch(x, y, sample_weight, class_weight, return_dict=True)
        if return_dict:
            return results
        return self.model._flatten_metrics_in_order({key: each for key, each in results.items() if key != NAME})


def regularization_loss(model: keras.Model) -> Any:
    """The sum of the penalties of all trainable weights, a scalar tensor."""
    ops, dtype = keras.ops, keras.config.floatx()
    penalties = [each.regularizer(each) for each in model.trainable_variables if each.regularizer is not None]
    return sum((ops.cast(each, dtype) for each in penalties), start=ops.zeros((), dtype))
