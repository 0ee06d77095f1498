"""What the commands that train on a folder of images have in common: options, and the settings they make."""

from collections.abc import Mapping
from typing import Any

import click

from keras_opt.core.quiet import captured_output

FRACTION = click.FloatRange(0, 1, min_open=True, max_open=True)
POSITIVE = click.FloatRange(0, min_open=True)

image_size = click.option(
    "--image-size", type=click.IntRange(min=4), help="Height and width in pixels.  [default: 224]"
)
color_mode = click.option(
    "--color-mode", type=click.Choice(["rgb", "grayscale"]), help="Colours of the images.  [default: rgb]"
)
test_split = click.option("--test-split", type=FRACTION, help="Fraction set aside for the figures.  [default: 0.1]")
backbone = click.option("--backbone", help="Network of keras.applications to fine-tune, for example MobileNetV2.")
batch_size = click.option("--batch-size", type=click.IntRange(min=1), help="Images a batch.  [default: 32]")
class_weight = click.option(
    "--class-weight", type=click.Choice(["balanced"]), help="'balanced' weighs every class alike."
)
mixed_precision = click.option("--mixed-precision", is_flag=True, default=None, help="Compute in float16; for GPUs.")
device = click.option("--device", help="For example cpu or gpu:0.")
recipe_file = click.option(
    "--recipe", "recipe_file", help="A recipe.yaml; options given here go before what stands there."
)


def settings(
    command: str, directory: str | None, recipe_file: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a `Recipe`: those of the file, and before them what was given on the command line.

    Args:
        command: The name of the command, for its errors.
        directory: The folder of images, if it was given.
        recipe_file: The recipe.yaml, if it was given.
        options: All other options, `None` where they were not given.

    Raises:
        click.UsageError: Two options exclude one another, or nothing says which images to train on.
    """
    if options["test"] and options["test_split"]:
        raise click.UsageError("--test names the test images, --test-split draws them: give one of the two.")
    if not (directory or recipe_file or (options["resume"] and options["out"])):
        raise click.UsageError(f"Name the folder of images, for example: keras-opt {command} photos")
    given = {name: value for name, value in {"data": directory, **options}.items() if value is not None}
    if options["test_split"]:
        given["test"] = None  # in place of a folder that the recipe names
    if recipe_file is None:
        return given
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.recipes.recipe import read_settings

    return {**read_settings(recipe_file), **given}
