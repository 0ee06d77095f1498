"""`keras-opt bench`."""

import click

from keras_opt.core.quiet import captured_output


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads a call may use.")
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True, help="Timed calls of each file.")
def command(files: tuple[str, ...], threads: int, runs: int) -> None:
    """Time .tflite files on this host, in turn, one call at a time.

    Example: keras-opt bench runs/demo/plain.tflite runs/demo/model.tflite
    """
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_table
        from keras_opt.export.latency import benchmark
        from keras_opt.report.inputs import Table

    timed = benchmark(files, threads=threads, runs=runs)
    rows = [
        (
            str(one.path),
            f"{one.median_ms:.3f}",
            f"{one.low_ms:.3f}",
            f"{one.high_ms:.3f}",
            f"{one.median_ms / timed[0].median_ms:.2f}",
        )
        for one in timed
    ]
    columns = ("file", "median ms", "5 %", "95 %", "to the first")
    note = f"{runs} calls each, in turn, {threads} thread(s), on this host; a device differs."
    show_table(Table("Latency", columns, rows, note))
