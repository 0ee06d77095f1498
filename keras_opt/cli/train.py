"""`keras-opt train`."""

from typing import Any

import click

from keras_opt.cli import recipe_options
from keras_opt.cli.kinds import AUGMENTATIONS, KINDS
from keras_opt.core.quiet import captured_output

_FRACTION_OR_0 = click.FloatRange(0, 1, max_open=True)


@click.command()
@click.argument("directory", required=False)
@recipe_options.image_size
@recipe_options.color_mode
@click.option("--validation-split", type=recipe_options.FRACTION, help="Fraction that decisions read.  [default: 0.2]")
@click.option("--test", help="Folder of test images with the same classes.")
@recipe_options.test_split
@recipe_options.backbone
@click.option("--weights", help="Weights of the backbone: imagenet, a file or none.  [default: imagenet]")
@click.option("--epochs", type=click.IntRange(min=1), help="Length of the one-cycle.  [default: 30]")
@recipe_options.batch_size
@click.option(
    "--max-learning-rate", type=recipe_options.POSITIVE, help="Peak of the one-cycle; see lr-find.  [default: 0.004]"
)
@click.option("--augment", type=click.Choice(AUGMENTATIONS), help="Done to training images.  [default: see above]")
@click.option("--dropout", type=_FRACTION_OR_0, help="Rate before the classifier.  [default: see above]")
@click.option("--label-smoothing", type=_FRACTION_OR_0, help="Of the optimised run.  [default: see above]")
@click.option("--quantize", type=click.Choice(KINDS), help="Kind of the device file.  [default: int8]")
@click.option("--sparsity", type=_FRACTION_OR_0, help="Fraction of weights to prune; 0 skips pruning.  [default: 0.5]")
@recipe_options.class_weight
@click.option("--baseline/--no-baseline", default=None, help="Train plain Keras too.  [default: baseline]")
@recipe_options.mixed_precision
@recipe_options.device
@click.option("--strategy", metavar="[auto|one|mirrored]", help="'mirrored' trains on all GPUs.  [default: none]")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.  [default: 0]")
@recipe_options.recipe_file
@click.option("--out", help="Output folder.  [default: runs/NAME, runs/NAME-2, ...]")
@click.option("--overwrite", is_flag=True, default=None, help="Replace the run there, once the new one is whole.")
@click.option("--resume", is_flag=True, default=None, help="Go on with an interrupted or killed run.")
def command(directory: str | None, recipe_file: str | None, **options: Any) -> None:
    """Train on a folder of images with one sub-folder a class, and make a device file.

    JPEG, PNG, BMP and GIF files are read; damaged and other files are left out and named. The recipe.yaml of a run
    makes the same weights again. A run that was interrupted or killed goes on where it was, with:
    keras-opt train --out FOLDER --resume

    Example: keras-opt train photos --image-size 96 --epochs 20

    What is left out of --augment, --dropout and --label-smoothing follows from the number of training images: below
    20,000 affine turns, shifts and flips them a little (up to 64 pixels, without a backbone, cut_mix pastes parts of
    other images into them instead), above they stay as they are; dropout is 0 (with a pretrained backbone 0.2), label
    smoothing 0. What was chosen is said before training, and stands in the run's recipe.yaml.

    With --strategy mirrored each GPU takes its share of every batch: the same model, sooner.

    With a backbone its head is trained first, then its upper third, then all of it, each at a tenth of the rate.

    Example: keras-opt train photos --backbone MobileNetV2
    """
    changes = recipe_options.settings("train", directory, recipe_file, options)
    if (options["weights"] or "").lower() == "none":
        changes["weights"] = None
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_result
        from keras_opt.recipes.main_job import run
        from keras_opt.recipes.recipe import Recipe
        from keras_opt.recipes.run_folder import resumed_recipe

    show_result(run(resumed_recipe(changes) if changes.get("resume") else Recipe(**changes)))
