"""The second criterion of Prechelt (1998), PQ: the validation loss has risen while the training loss hardly falls."""

from typing import Any

from keras_opt.callbacks.criteria.criterion import single_criterion
from keras_opt.callbacks.criteria.prechelt import finite_loss, generalization_loss, training_progress
from keras_opt.core.errors import check_at_least, check_name, check_positive


@single_criterion("reason", "_lowest", "_last", "_strip", "_epochs")
class ProgressQuotient:
    """Holds when the validation loss has risen by much, measured by how much the training loss still falls.

    At the end of each strip of k = `strip` epochs, until the end of the next:

        GL / P > alpha,    GL = 100 * (E / E_opt - 1),    P = 1000 * (mean(T) / min(T) - 1)

    with E the last validation loss, E_opt the lowest so far, and T the training losses of the strip. While training
    still makes fast progress, a rise of the validation loss is endured: it may come back. NaN and inf are passed over.

    Args:
        alpha: Float above 0, as in the source, which tries 0.5 to 3.
        strip: Int of at least 1, epochs. Default 5.
        monitor: The name of the validation loss in the logs. Default `"val_loss"`.
        train: The name of the training loss in the logs. Default `"loss"`.

    Raises:
        ValueError: An argument is out of its range; while training, a monitored value is below 0.

    Source: L. Prechelt, 1998, "Early Stopping - But When?", class PQ.

    Example:
        >>> import keras_opt
        >>> quotient = keras_opt.callbacks.ProgressQuotient(alpha=0.5, strip=2)
        >>> losses = [(1.0, 0.5), (0.9, 0.4), (0.9, 0.44), (0.89, 0.45)]
        >>> [quotient.update(epoch, {"loss": a, "val_loss": b}) for epoch, (a, b) in enumerate(losses)]
        [False, False, False, True]
        >>> quotient.reason
        'val_loss is 12.5% above its lowest while loss fell by 5.62 per mille in 2 epochs; quotient 2.23, alpha 0.5'
    """

    def __init__(self, alpha: float, strip: int = 5, monitor: str = "val_loss", train: str = "loss"):
        check_positive("ProgressQuotient", "alpha", alpha)
        check_at_least("ProgressQuotient", "strip", strip, 1)
        self.alpha = alpha
        self.strip = strip
        check_name("ProgressQuotient", "monitor", monitor)
        check_name("ProgressQuotient", "train", train)
        self.monitor = monitor
        self.train = train
        self.monitors = (monitor, train)
        self.reset()

    def reset(self) -> None:
        self.reason = ""
        self._lowest: float | None = None
        self._last: float | None = None
        self._strip: list[float] = []
        self._epochs = 0

    def update(self, epoch: int, logs: dict[str, Any]) -> bool:
        value = finite_loss(self.monitor, logs, "ProgressQuotient")
        if value is not None:
            self._last = value
            self._lowest = value if self._lowest is None else min(value, self._lowest)
        trained = finite_loss(self.train, logs, "ProgressQuotient")
        if trained is not None:
            self._strip.append(trained)
        self._epochs += 1
        if self._epochs % self.strip == 0:
            self._look()
            self._strip = []
        return self.reason != ""

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "strip": self.strip, "monitor": self.monitor, "train": self.train}

    def _look(self) -> None:
        self.reason = ""
        if self._last is None or not self._strip:
            return
        rise, progress = generalization_loss(self._last, self._lowest), training_progress(self._strip)
        if rise > self.alpha * progress:
            quotient = f"{rise / progress:.3g}" if progress else "inf"
            self.reason = (
                f"{self.monitor} is {rise:.3g}% above its lowest while {self.train} fell by {progress:.3g} per mille "
                f"in {self.strip} epochs; quotient {quotient}, alpha {self.alpha:g}"
            )
