"""`keras-opt launch`."""

import sys

import click

from keras_opt.launcher.launch import WorkersFailed, launch


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes that train.")
@click.option(
    "--threads-per-worker",
    type=click.IntRange(min=1),
    help="For TensorFlow's operations.  [default: the cores, shared out]",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="How often all are started again when one dies.",
)
def command(script: str, arguments: tuple[str, ...], **options: int | None) -> None:
    """Train with several workers on this machine.

    Each worker runs SCRIPT, a Python file, with the ARGUMENTS that follow it, and finds the others by the variable
    TF_CONFIG: keras_opt.distribute.strategy() in the script is one of several workers. When one dies, the others are
    stopped and all are started again; with BackupAndRestore they go on from the newest backup that all of them have.

    The exit status is that of the worker that failed first, 128 + n if signal n has ended it.

    Example: keras-opt launch --workers 2 train.py --epochs 10
    """
    try:
        launch(script, arguments, **options)
    except WorkersFailed as failed:
        click.echo(f"keras-opt {failed}", err=True)
        sys.exit(failed.status)
