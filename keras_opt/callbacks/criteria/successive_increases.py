"""The third criterion of Prechelt (1998), UP: the validation loss rises again and again."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.criteria.prechelt import finite_loss
from keras_opt.core.errors import check_at_least, check_name


@single_criterion("reason", "_last", "_strip_end", "_increases", "_epochs")
class SuccessiveIncreases:
    """Holds when the validation loss has risen over `count` strips of epochs in a row, by however little.

    At the end of each strip of `strip` epochs, until the end of the next, the validation loss is compared with that at
    the end of the strip before. It endures rises of any size that do not last. NaN and inf are passed over.

    Args:
        count: Int of at least 1, strips.
        strip: Int of at least 1, epochs. Default 5.
        monitor: The name of a loss in the logs. Default `"val_loss"`.

    Raises:
        ValueError: An argument is out of its range; while training, the monitored value is below 0.

    Source: L. Prechelt, 1998, "Early Stopping - But When?", class UP.

    Example:
        >>> import keras_opt
        >>> increases = keras_opt.callbacks.SuccessiveIncreases(count=2, strip=1)
        >>> [increases.update(epoch, {"val_loss": value}) for epoch, value in enumerate([0.9, 0.5, 0.6, 0.7])]
        [False, False, False, True]
        >>> increases.reason
        'val_loss has risen over 2 strips of 1 epoch in a row, to 0.7 at epoch 4'
    """

    def __init__(self, count: int, strip: int = 5, monitor: str = "val_loss"):
        check_at_least("SuccessiveIncreases", "count", count, 1)
        check_at_least("SuccessiveIncreases", "strip", strip, 1)
        self.count = count
        self.strip = strip
        check_name("SuccessiveIncreases", "monitor", monitor)
        self.monitor = monitor
        self.monitors = (monitor,)
        self.reset()

    def reset(self) -> None:
        self.reason = ""
        self._last: float | None = None
        self._strip_end: float | None = None
        self._increases = 0
        self._epochs = 0

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = finite_loss(self.monitor, logs, "SuccessiveIncreases")
        if value is not None:
            self._last = value
        self._epochs += 1
        if self._epochs % self.strip == 0 and self._last is not None:
            rises = self._strip_end is not None and self._last > self._strip_end
            self._increases = self._increases + 1 if rises else 0
            self._strip_end = self._last
            self.reason = self._sentence(epoch) if self._increases >= self.count else ""
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"count": self.count, "strip": self.strip, "monitor": self.monitor}

    def _sentence(self, epoch: int) -> str:
        strips = f"{self._increases} strip{'s' if self._increases != 1 else ''}"
        epochs = f"{self.strip} epoch{'s' if self.strip != 1 else ''}"
        return f"{self.monitor} has risen over {strips} of {epochs} in a row, to {self._last:.4g} at epoch {epoch + 1}"
