"""What `tune` searches: settings of a recipe, each with its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_opt.core.errors import argument_error, did_you_mean, kind_error
from keras_opt.core.optional import require
from keras_opt.recipes.networks import usual_depth
from keras_opt.recipes.recipe import Recipe, most_stages

# A network with weights has the width and the depth that it has.
OF_THE_NETWORK = ("width", "depth")
SEARCHED = ("max_learning_rate", *OF_THE_NETWORK, "dropout", "augment_strength", "weight_decay")
# How far from the rate of the range test, down and up, the peak is looked for.
RATE_DOWN, RATE_UP = 8, 2


@dataclass(frozen=True)
class Parameter:
    """A setting and its range, both ends included.

    Args:
        name: That of the recipe's field.
        low: The least value.
        high: The largest.
        log: Whether values are spread by their ratio.
        whole: Whether they are whole numbers.
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def distribution(self) -> Any:
        """Optuna's."""
        distributions = require("optuna").distributions
        kind = distributions.IntDistribution if self.whole else distributions.FloatDistribution
        return kind(self.low, self.high, log=self.log)


def check_searched(recipe: Recipe, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the settings to search, those of `names` or all that apply.

    Raises:
        ValueError: A name is none that can be searched, or none is left that has more than one value.
    """
    can = [name for name in SEARCHED if recipe.backbone is None or name not in OF_THE_NETWORK]
    if names is None:
        return tuple(can)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise kind_error("tune", "search", names, "a sequence of names", f"Give for example {can[:2]!r}.")
    if not names:
        raise argument_error("tune", "search", names, "at least one name", f"Choose from {', '.join(can)}.")
    for name in names:
        if name not in can:
            raise argument_error("tune", "search", name, f"names out of {', '.join(can)}", did_you_mean(name, can))
    if tuple(names) == ("depth",) and most_stages(recipe.image_size) == 1:
        cure = "Give larger images, or search another setting too."
        raise argument_error("tune", "search", names, "a setting with more than one value", cure)
    return tuple(name for name in can if name in names)


def parameters(recipe: Recipe, names: Sequence[str], rate: float) -> list[Parameter]:
    """The ranges: the peak of the rate around `rate`, one stage less or more than usual, and so on."""
    usual = usual_depth(recipe.image_size)
    every = [
        Parameter("max_learning_rate", rate / RATE_DOWN, rate * RATE_UP, log=True),
        Parameter("width", 0.5, 2.0, log=True),
        Parameter("depth", max(1, usual - 1), min(usual + 1, most_stages(recipe.image_size)), whole=True),
        Parameter("dropout", 0.0, 0.6),
        Parameter("augment_strength", 0.0, 2.0),
        Parameter("weight_decay", 1e-5, 0.3, log=True),
    ]
    return [each for each in every if each.name in names]
