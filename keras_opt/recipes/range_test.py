"""The learning-rate range test of a recipe."""

from keras_opt.callbacks.range_test_result import RangeTestResult
from keras_opt.core.progress import Progress, check_progress
from keras_opt.recipes.images import prepare
from keras_opt.recipes.recipe import Recipe
from keras_opt.recipes.regularization import settled
from keras_opt.recipes.training import Trainer, check_device


def range_test(recipe: Recipe, progress: Progress | None = None) -> RangeTestResult:
    """Looks for the `max_learning_rate` of a recipe: tests the network and optimizer of `run` on its training images.

    Nothing is written. Validation and test images are held out as in `run`; the test images are not read.

    Args:
        recipe: The settings.
        progress: Where to show progress; a bar or plain lines on standard error by default.

    Raises:
        InputError: A setting or the folder cannot be used.

    Warns:
        NoEffectWarning: There is no rate to suggest.
    """
    check_progress("range_test", progress)
    check_device(recipe)
    progress = progress or Progress()
    prepared = prepare(recipe, progress)
    return Trainer(settled(recipe, len(prepared.train), progress), prepared, progress).range_test()
