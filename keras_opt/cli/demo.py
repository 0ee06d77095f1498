"""`keras-opt demo`."""

import click

from keras_opt.core.quiet import captured_output


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the run.  [default: 0]")
@click.option("--out", help="Output folder.  [default: runs/demo, runs/demo-2, ...]")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder, once the new one is whole.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted or killed run.")
def command(seed: int | None, out: str | None, overwrite: bool, resume: bool) -> None:
    """Train, prune, quantize and export on an embedded slice of the real Fashion-MNIST.

    One network is trained twice on the same batches, plain and with keras_opt; the optimised one is then pruned, made
    full int8 and run in the LiteRT interpreter. Takes a few minutes on two cores and needs no network.

    Example: keras-opt demo
    """
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_result
        from keras_opt.recipes.main_job import run
        from keras_opt.recipes.recipe import SAMPLE, Recipe
        from keras_opt.recipes.run_folder import resumed_recipe

    changes = {"out": out, "overwrite": overwrite, "resume": resume}
    if seed is not None:
        changes["seed"] = seed
    show_result(run(resumed_recipe({"data": SAMPLE, **changes}) if resume else Recipe.demo(**changes)))
