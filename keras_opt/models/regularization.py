"""L1 and L2 penalties that hang on the weights of a model, with strengths that can be set."""

import warnings
from typing import Any

import keras

from keras_opt.core.errors import check_at_least
from keras_opt.models.batch_norms import trace_anew
from keras_opt.models.regularization_loss import log_regularization_loss
from keras_opt.models.regularized_weights import RegularizedWeight
from keras_opt.models.saved_regularizers import let_layers_save, unsaved


class Regularization:
    """The penalties that `add_regularization` has put on a model.

    Attributes:
        weights: The paths of the regularized weights.
    """

    def __init__(self, model: keras.Model, chosen: list[RegularizedWeight], l1: float, l2: float):
        self.weights = [weight.variable.path for weight in chosen]
        with model.distribute_strategy.scope():
            self._penalty = Penalty(l1, l2)
        self._stock = keras.regularizers.L1L2(float(l1), float(l2))
        for weight in chosen:
            weight.variable.regularizer = self._penalty
        let_layers_save(model, chosen, self._stock)
        lost = unsaved(model, chosen, self._stock)
        if lost:
            warnings.warn(
                f"add_regularization: the regularizer of {', '.join(lost)} acts now, but a saved file will lack it: "
                "the layer or model has no setting for it alone. Call this again on the loaded model.",
                stacklevel=3,
            )
        log_regularization_loss(model)
        trace_anew(model)

    @property
    def l1(self) -> float:
        """The strength of the L1 penalty. What is set acts from the next step on, and is what the model saves."""
        return self._stock.l1

    @l1.setter
    def l1(self, value: float) -> None:
        self._set("l1", value)

    @property
    def l2(self) -> float:
        """The strength of the L2 penalty, as `l1`."""
        return self._stock.l2

    @l2.setter
    def l2(self, value: float) -> None:
        self._set("l2", value)

    def _set(self, name: str, value: float) -> None:
        check_at_least("Regularization", name, value, 0, whole=False)
        getattr(self._penalty, name).assign(value)
        setattr(self._stock, name, float(value))

    def __repr__(self) -> str:
        return f"Regularization(l1={self.l1:g}, l2={self.l2:g}, weights={self.weights})"


class Penalty(keras.Regularizer):
    """L1 and L2 with strengths that the compiled step reads; it is never saved."""

    def __init__(self, l1: float, l2: float):
        self.l1, self.l2 = (keras.Variable(value, dtype="float64", trainable=False) for value in (l1, l2))

    def __call__(self, x: Any) -> Any:
        ops = keras.ops
        l1, l2 = (ops.cast(strength, x.dtype) for strength in (self.l1, self.l2))
        return l1 * ops.sum(ops.abs(x)) + l2 * ops.sum(ops.square(x))
