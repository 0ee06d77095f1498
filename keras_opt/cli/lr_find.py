"""`keras-opt lr-find`."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from keras_opt.cli import recipe_options
from keras_opt.cli.kinds import AUGMENTATIONS
from keras_opt.core.quiet import captured_output

_ROWS = 10
_PICTURES = (".png", ".svg", ".pdf")


@click.command()
@click.argument("directory")
@recipe_options.image_size
@recipe_options.color_mode
@recipe_options.batch_size
@click.option("--augment", type=click.Choice(AUGMENTATIONS), help="What is done to images.  [default: as train]")
@recipe_options.class_weight
@recipe_options.mixed_precision
@recipe_options.device
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and order.  [default: 0]")
@click.option("--plot", "picture", help="The file to draw the curve into, for example rates.png.")
def command(directory: str, picture: str | None, **options: Any) -> None:
    """Suggest the learning rate for training on a folder of images.

    Trains the network of `keras-opt train` for at most 100 updates, at rates that rise from tiny to huge, and reads off
    where most of the fall of the loss is done. Give it the options that you will give to train, where it has them.
    Nothing is kept.

    Example: keras-opt lr-find photos --image-size 96 --plot rates.png
    """
    _check_picture(picture)
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_table
        from keras_opt.core.files import atomic_path
        from keras_opt.recipes.range_test import range_test
        from keras_opt.recipes.recipe import Recipe
        from keras_opt.report.inputs import Table

    given = {name: value for name, value in options.items() if value is not None}
    found = range_test(Recipe(data=directory, **given))
    show_table(Table("Loss by learning rate", ("rate", "loss", "smoothed", ""), _rows(found)))
    if found.suggestion is not None:  # else a warning has said why
        rate = ("--max-learning-rate", f"{found.suggestion:.2g}")
        click.echo(f"{found}\nUse it: {shlex.join(['keras-opt', 'train', directory, *_as_given(given), *rate])}")
    if picture:
        with atomic_path(picture) as temporary:
            found.plot().figure.savefig(temporary)
        click.echo(f"The curve is drawn in {picture}.")
    if found.suggestion is None:
        sys.exit(1)


def _as_given(options: Mapping[str, Any]) -> list[str]:
    """The options as a command line has them."""
    written = []
    for name, value in options.items():
        written += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return written


def _rows(found: Any) -> list[tuple[str, ...]]:
    """Evenly spaced points of the curve, and the suggestion."""
    points = list(zip(*found.curve, strict=True))
    every = max(1, len(points) // _ROWS)
    return [
        (f"{rate:.2g}", f"{loss:.4g}", f"{smoothed:.4g}", "<" if rate == found.suggestion else "")
        for number, (rate, loss, smoothed) in enumerate(points)
        if number % every == 0 or rate == found.suggestion
    ]


def _check_picture(picture: str | None) -> None:
    """Refuse before the work what could not be drawn after it."""
    if picture is None:
        return
    if Path(picture).suffix not in _PICTURES:
        raise click.UsageError(f"--plot names a file that ends in {', '.join(_PICTURES)}, not {picture!r}.")
    if not Path(picture).parent.is_dir():
        raise click.UsageError(f"--plot: there is no folder {str(Path(picture).parent)!r}.")
