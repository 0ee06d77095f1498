"""`keras-opt tune`."""

import dataclasses
from typing import Any

import click

from keras_opt.cli import recipe_options
from keras_opt.cli.kinds import AUGMENTATIONS
from keras_opt.core.quiet import captured_output

_SEARCHED = ["max_learning_rate", "width", "depth", "dropout", "augment_strength", "weight_decay"]


@click.command()
@click.argument("directory", required=False)
@click.option("--max-trials", type=click.IntRange(min=1), default=30, show_default=True, help="Of all sessions.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at once.")
@click.option("--max-seconds", type=recipe_options.POSITIVE, help="No trial begins after so many.")
@click.option("--search", multiple=True, type=click.Choice(_SEARCHED), help="A setting to search.  [default: all]")
@click.option("--epochs", type=click.IntRange(min=1), help="Of a trial, at most.  [default: 30]")
@recipe_options.image_size
@recipe_options.color_mode
@click.option(
    "--validation-split", type=recipe_options.FRACTION, help="Fraction that trials are judged by.  [default: 0.2]"
)
@click.option("--test", help="Folder of test images, which the search does not read.")
@recipe_options.test_split
@recipe_options.backbone
@recipe_options.batch_size
@click.option("--augment", type=click.Choice(AUGMENTATIONS), help="Done to training images.  [default: as in train]")
@recipe_options.class_weight
@recipe_options.device
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the search and its trainings.  [default: 0]")
@recipe_options.recipe_file
@click.option("--out", help="Output folder.  [default: runs/NAME-tune]")
@click.option("--overwrite", is_flag=True, default=None, help="Replace the search there.")
@click.option("--resume", is_flag=True, default=None, help="Go on with a search, or add trials to it.")
def command(
    directory: str | None,
    recipe_file: str | None,
    max_trials: int,
    workers: int,
    max_seconds: float | None,
    search: tuple[str, ...],
    **options: Any,
) -> None:
    """Search the settings of train for the best validation accuracy.

    Each trial is the optimised training of keras-opt train; unpromising ones are stopped early. The rate is looked for
    around the suggestion of a range test. A search that was interrupted or killed goes on with --resume.

    Example: keras-opt tune photos --image-size 96 --epochs 20 --max-trials 30

    Then: keras-opt train --recipe runs/photos-tune/recipe.yaml
    """
    changes = recipe_options.settings("tune", directory, recipe_file, options)
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_table
        from keras_opt.recipes.recipe import Recipe
        from keras_opt.recipes.search_folder import Plan, place_of
        from keras_opt.recipes.tune import tune

    recipe = Recipe(**changes)
    if recipe.resume:
        recipe = dataclasses.replace(Plan.load(place_of(recipe)).recipe, **changes)
    found = tune(recipe, max_trials, search or None, workers, max_seconds)
    show_table(found.table)
    print(f"\nThe best recipe is {found.folder / 'recipe.yaml'}; open {found.folder / 'report.html'} first.")
