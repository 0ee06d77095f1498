"""`keras-opt export`."""

from pathlib import Path

import click

from keras_opt.cli.kinds import EXPORT_KINDS, IO_DTYPES
from keras_opt.core.errors import InputError
from keras_opt.core.quiet import captured_output

CALIBRATED = ("int8", "int16x8")
NEEDS_ROWS = "{} needs --representative, a folder of images or an .npz file of raw inputs."


@click.command()
@click.argument("model")
@click.option(
    "--quantize", type=click.Choice(EXPORT_KINDS), default="int8", show_default=True, help="Kind of the file."
)
@click.option(
    "--representative", help="For int8 and int16x8: a folder of images, or an .npz or .npy file of raw inputs."
)
@click.option("--io-dtype", type=click.Choice(IO_DTYPES), help="Type of inputs and outputs.  [default: the kind's own]")
@click.option("--out", help="The file to write.  [default: the model's name with .tflite]")
@click.option("--sidecars", is_flag=True, help="Write labels.txt, preprocess.json and predict.py beside it.")
@click.option("--tflm", is_flag=True, help="Run it in TFLite Micro: its arena, or the operators that it lacks.")
@click.option("--c-array", metavar="NAME", help="Write NAME.h, NAME.cc and NAME_operators.h beside it.")
def command(
    model: str,
    quantize: str,
    representative: str | None,
    io_dtype: str | None,
    out: str | None,
    sidecars: bool,
    tflm: bool,
    c_array: str | None,
) -> None:
    """Turn a .keras or .h5 file into a .tflite file, check it, and say what a program needs to know.

    With --tflm and --c-array the exit code is 1 where TFLite Micro cannot run the file, which is written all the same.

    Example: keras-opt export model.keras --quantize int8 --representative photos --tflm
    """
    calibrates = quantize in CALIBRATED and not representative
    if calibrates and not Path(model).exists():
        raise click.UsageError(NEEDS_ROWS.format(quantize))
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_table
        from keras_opt.core.quantized_ranges import has_quantized_ranges
        from keras_opt.export.run_tflm import run_tflm
        from keras_opt.export.sidecars import write_sidecars
        from keras_opt.export.tflite import to_tflite
        from keras_opt.export.to_c_array import to_c_array
        from keras_opt.loading import load_model
        from keras_opt.report.inputs import Table

    loaded = load_model(model, compile=False)
    if calibrates and not has_quantized_ranges(loaded):
        raise click.UsageError(NEEDS_ROWS.format(quantize))
    path = Path(out or Path(model).with_suffix(".tflite"))
    if path.exists() and path.samefile(model):
        raise click.UsageError("--out names the model itself. Give the .tflite file another name.")
    export = to_tflite(
        loaded,
        path,
        quantize,
        representative_data=representative,
        class_names=loaded.class_names or None,
        io_dtype=io_dtype,
    )
    check, rows = export.verification, "rows" if representative else "made-up rows"
    facts = [
        ("size", f"{export.size_bytes:,} bytes, {export.gzip_bytes:,} with gzip"),
        *(("input", _tensor(tensor)) for tensor in export.inputs),
        *(("output", _tensor(tensor)) for tensor in export.outputs),
        ("labels", ", ".join(export.class_names) or "none"),
        ("differs from Keras", f"by {check.relative_error:.1%} on {check.rows} {rows}"),
    ]
    if sidecars:
        facts.append(("beside it", ", ".join(file.name for file in write_sidecars(path))))
    failure = None
    try:
        if tflm:
            run = run_tflm(path)
            operators = ", ".join(run.operators)
            facts.append(("TFLite Micro", f"an arena of {run.arena_bytes:,} bytes; its operators: {operators}"))
        if c_array is not None:
            written = to_c_array(path, name=c_array, arena_bytes=run.arena_bytes if tflm else None)
            facts.append(("C array", f"{written.header.name}, {written.source.name}, {written.operators.name}"))
    except (InputError, ImportError) as error:  # the file is as good as it was
        failure = error
    show_table(Table(f"{path} ({quantize})", ("", ""), facts))
    if failure is not None:
        raise failure


def _tensor(tensor) -> str:
    sizes = "x".join(map(str, tensor.shape))
    formula = f", real = {tensor.scale:g} * (stored - {tensor.zero_point})" if tensor.scale else ""
    return f"{tensor.name} {sizes} {tensor.dtype}{formula}"
