"""The learning-rate range test of a recipe."""

from keras_opt.callbacks.range_test_result import RangeTestResult
from keras_opt.core.progress import Progress
from keras_opt.recipes.devices import check_devices
from keras_opt.recipes.images import prepare
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.regularization import settled
from keras_opt.recipes.training import Trainer


def range_test(recipe: Recipe, verbose: str | int = "auto") -> RangeTestResult:
    """Looks for the `max_learning_rate` of a recipe: tests the network and optimizer of `run` on its training images.

    Nothing is written. Validation and test images are held out as in `run`; the test images are not read.

    Args:
        recipe: The settings.
        verbose: 0 is silent, 2 shows plain lines, `"auto"` and 1 a bar with the time left on a terminal and lines
            elsewhere; on standard error.

    Raises:
        InputError: A setting or the folder cannot be used.

    Warns:
        NoEffectWarning: There is no rate to suggest.
    """
    progress = Progress.of("range_test", verbose)
    check_devices(recipe)
    prepared = prepare(recipe, progress)
    return Trainer(settled(recipe, len(prepared.train), progress), prepared, progress).range_test()
