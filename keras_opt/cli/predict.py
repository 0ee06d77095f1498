"""`keras-opt predict`."""

import csv
import math
import sys

import click

from keras_opt.core.errors import InputError
from keras_opt.core.quiet import captured_output


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with the probability of every class.")
def command(model: str, images: tuple[str, ...], as_csv: bool) -> None:
    """Name the class of image files with a .keras or .tflite model.

    An image that cannot be read is named on standard error, the others are still answered, and the exit code is 1.

    Example: keras-opt predict runs/demo/model.tflite shoe.png
    """
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.recipes.prediction import Predictor

    predictor = Predictor(model)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "class", "probability", *predictor.class_names])
    failed = False
    for image in images:
        try:
            probabilities = predictor(image)
            if math.isnan(probabilities.sum()):
                raise InputError(f"Model file {model!r} answers image {image!r} with NaN. Give a sound model.")
        except InputError as error:  # the other images are answered all the same
            click.echo(f"keras-opt: {' '.join(str(error).splitlines())}", err=True)
            failed = True
            continue
        best = int(probabilities.argmax())
        name, probability = predictor.class_names[best], probabilities[best]
        if as_csv:
            writer.writerow([image, name, f"{probability:.6f}", *(f"{value:.6f}" for value in probabilities)])
        else:
            click.echo(f"{image}: {name} {probability:.1%}")
    if failed:
        sys.exit(1)
