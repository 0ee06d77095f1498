"""The first criterion of Prechelt (1998), GL: the validation loss has risen."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.criteria.prechelt import finite_loss, generalization_loss
from keras_opt.core.errors import check_name, check_positive


@single_criterion("reason", "_lowest", "_lowest_epoch")
class GeneralizationLoss:
    """Holds while the validation loss is more than `alpha` percent above its lowest value so far.

        GL = 100 * (E / E_opt - 1) > alpha

    with E the validation loss and E_opt the lowest so far. The quickest of the three criteria of its source; a noisy
    loss trips it. NaN and inf are passed over.

    Args:
        alpha: Float above 0, percent, as in the source, which tries 1 to 5.
        monitor: The name of a loss in the logs. Default `"val_loss"`.

    Raises:
        ValueError: `alpha` is not above 0; while training, the monitored value is below 0.

    Source: L. Prechelt, 1998, "Early Stopping - But When?", class GL.

    Example:
        >>> import keras_opt
        >>> loss = keras_opt.callbacks.GeneralizationLoss(alpha=5)
        >>> [loss.update(epoch, {"val_loss": value}) for epoch, value in enumerate([1.0, 0.5, 0.52, 0.53])]
        [False, False, False, True]
        >>> loss.reason
        'val_loss 0.53 at epoch 4 is 6% above its lowest, 0.5 at epoch 2; alpha is 5%'
    """

    def __init__(self, alpha: float, monitor: str = "val_loss"):
        check_positive("GeneralizationLoss", "alpha", alpha)
        self.alpha = alpha
        check_name("GeneralizationLoss", "monitor", monitor)
        self.monitor = monitor
        self.monitors = (monitor,)
        self.reset()

    def reset(self) -> None:
        self.reason = ""
        self._lowest: float | None = None
        self._lowest_epoch = 0

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = finite_loss(self.monitor, logs, "GeneralizationLoss")
        if value is None:
            return self.reason != ""
        if self._lowest is None or value < self._lowest:
            self._lowest, self._lowest_epoch = value, epoch
        self.reason = ""
        rise = generalization_loss(value, self._lowest)
        if rise > self.alpha:
            self.reason = (
                f"{self.monitor} {value:.4g} at epoch {epoch + 1} is {rise:.3g}% above its lowest, {self._lowest:.4g} "
                f"at epoch {self._lowest_epoch + 1}; alpha is {self.alpha:g}%"
            )
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "monitor": self.monitor}
