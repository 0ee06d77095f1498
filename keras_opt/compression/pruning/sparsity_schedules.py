"""How sparse a model should be at which step; the argument names are TF-MOT's."""

from typing import Any

import keras

from keras_opt.core.errors import argument_error, check_at_least, check_fraction, check_positive


@keras.saving.register_keras_serializable("keras_opt")
class ConstantSparsity:
    """Asks for `target_sparsity` from `begin_step` on.

    Args:
        target_sparsity: Float in [0, 1), the share of weights that are zero.
        begin_step: Int of at least 0, the first update with it.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.compression.ConstantSparsity(0.5, begin_step=100)
        >>> [schedule(step) for step in (0, 100, 1000)]
        [0.0, 0.5, 0.5]
    """

    def __init__(self, target_sparsity: float, begin_step: int = 0):
        check_fraction("ConstantSparsity", "target_sparsity", target_sparsity)
        check_at_least("ConstantSparsity", "begin_step", begin_step, 0)
        self.target_sparsity = target_sparsity
        self.begin_step = begin_step

    def __call__(self, step: int) -> float:
        """The sparsity after `step` updates."""
        return self.target_sparsity if step >= self.begin_step else 0.0

    def get_config(self) -> dict[str, Any]:
        return {"target_sparsity": self.target_sparsity, "begin_step": self.begin_step}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ConstantSparsity":
        return cls(**config)


@keras.saving.register_keras_serializable("keras_opt")
class PolynomialSparsity:
    """Raises the sparsity fast at first, while there is much to remove, then ever slower.

        sparsity(t) = final + (initial - final) * (1 - (t - begin_step) / (end_step - begin_step)) ^ power

    between `begin_step` and `end_step`; 0 before, `final_sparsity` after.

    Args:
        initial_sparsity: Float in [0, 1), at `begin_step`.
        final_sparsity: Float in [0, 1) and at least `initial_sparsity`, from `end_step` on.
        begin_step: Int of at least 0.
        end_step: Int above `begin_step`.
        power: Float above 0. Default 3.

    Raises:
        ValueError: An argument is out of its range.

    Source: M. Zhu and S. Gupta, 2017, "To prune, or not to prune", equation 1.

    Example:
        >>> import keras_opt
        >>> schedule = keras_opt.compression.PolynomialSparsity(0.0, 0.8, begin_step=0, end_step=100)
        >>> [round(schedule(step), 2) for step in (0, 25, 50, 100)]
        [0.0, 0.46, 0.7, 0.8]
    """

    def __init__(
        self, initial_sparsity: float, final_sparsity: float, begin_step: int, end_step: int, power: float = 3.0
    ):
        check_fraction("PolynomialSparsity", "initial_sparsity", initial_sparsity)
        check_fraction("PolynomialSparsity", "final_sparsity", final_sparsity)
        if final_sparsity < initial_sparsity:
            constraint = f"at least initial_sparsity={initial_sparsity}"
            cure = "Pruned weights do not come back; let the sparsity rise."
            raise argument_error("PolynomialSparsity", "final_sparsity", final_sparsity, constraint, cure)
        check_at_least("PolynomialSparsity", "begin_step", begin_step, 0)
        check_positive("PolynomialSparsity", "power", power)
        check_at_least("PolynomialSparsity", "end_step", end_step, 1)
        if end_step <= begin_step:
            cure = "Let pruning end after it begins."
            raise argument_error("PolynomialSparsity", "end_step", end_step, f"above begin_step={begin_step}", cure)
        self.initial_sparsity = initial_sparsity
        self.final_sparsity = final_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.power = power

    def __call__(self, step: int) -> float:
        """The sparsity after `step` updates."""
        if step < self.begin_step:
            return 0.0
        left = 1 - min((step - self.begin_step) / (self.end_step - self.begin_step), 1.0)
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left**self.power

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_sparsity": self.initial_sparsity,
            "final_sparsity": self.final_sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "power": self.power,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PolynomialSparsity":
        return cls(**config)
