"""`keras-opt compress`."""

import re
import shlex
import sys
from typing import Any

import click

from keras_opt.core.quiet import captured_output

_TASKS = ("classification", "multi_label", "regression", "segmentation")
_OBJECTIVES = ("latency", "size", "macs")
_UNITS = {"": 1, "k": 1024, "m": 1024**2}


class _Bytes(click.ParamType):
    """A size such as 256k or 1.5M, in units of 1,024."""

    name = "size"

    def convert(self, value, param, ctx):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)(?:i?b)?", str(value).lower())
        if found is None:
            self.fail(f"{value!r} is no size. Give bytes, or for example 256k or 1.5M.", param, ctx)
        return int(float(found[1]) * _UNITS[found[2]])


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Folder of images, one sub-folder a class, or an .npz file with x and y.")
@click.option("--max-drop", type=click.FloatRange(min=0), default=0.01, show_default=True, help="Of the metric.")
@click.option("--objective", type=click.Choice(_OBJECTIVES), default="latency", show_default=True, help="To minimise.")
@click.option("--max-flash-bytes", type=_Bytes(), help="Largest file, for example 256k.")
@click.option("--max-arena-bytes", type=_Bytes(), help="Largest arena of TFLite Micro, for example 64k.")
@click.option("--budget-seconds", type=click.FloatRange(0, min_open=True), help="When to stop; a later call goes on.")
@click.option("--metric", default="accuracy", show_default=True, help="Accuracy, or a name that compile knows.")
@click.option("--task", type=click.Choice(_TASKS), help="If it is not told.")
@click.option("--epochs", type=click.IntRange(min=1), default=5, show_default=True, help="Of each fine-tuning.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Rows a batch.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split and the order.")
@click.option("--out", default="compressed", show_default=True, help="Folder of the files.")
def command(model: str, data: str, out: str, **options: Any) -> None:
    """Find the best device file of a trained model within limits.

    Tries quantization after training and aware of it, zeros, and fewer channels that learn from the model. Every file
    is checked, run on the validation data and timed; the best is judged once more on test data. Interrupted, the same
    command goes on where it was.

    Example: keras-opt compress model.keras --data photos --max-drop 0.01 --max-flash-bytes 256k
    """
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.recipes.compression_job import compress_file

    again = shlex.join(["keras-opt", *sys.argv[1:]])
    job = compress_file(model, data, out, command=again, **options)
    click.echo(job.result)
    for name, value in job.test.items():
        click.echo(f"{job.result.metric} on {job.rows['test']:,} test rows, {name}: {value:.4f}")
    if job.result.best is None:
        click.echo(f"No file is within the limits ({job.result.limits}). Everything is in {out}.")
        sys.exit(1)
    click.echo(f"The best file is {job.folder / 'model.tflite'}; open {job.folder / 'report.html'} first.")
