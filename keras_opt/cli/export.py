"""`keras-opt export`."""

from pathlib import Path

import click

from keras_opt.cli.kinds import KINDS
from keras_opt.core.quiet import captured_output


@click.command()
@click.argument("model")
@click.option("--quantize", type=click.Choice(KINDS), default="int8", show_default=True, help="Kind of the file.")
@click.option("--representative", help="For int8: a folder of images, or an .npz or .npy file of raw inputs.")
@click.option("--out", help="The file to write.  [default: the model's name with .tflite]")
def command(model: str, quantize: str, representative: str | None, out: str | None) -> None:
    """Turn a .keras file into a .tflite file, check it, and say what a program needs to know.

    Example: keras-opt export model.keras --quantize int8 --representative photos
    """
    if quantize == "int8" and not representative:
        raise click.UsageError("int8 needs --representative, a folder of images or an .npz file of raw inputs.")
    with captured_output():  # TensorFlow talks while it is imported
        from keras_opt.cli.showing import show_table
        from keras_opt.export.tflite import to_tflite
        from keras_opt.export.verification import verify
        from keras_opt.loading import load_model
        from keras_opt.recipes.representative import representative_rows
        from keras_opt.report.inputs import Table

    loaded = load_model(model, compile=False)
    rows = representative_rows(representative, loaded.input_shape) if representative else None
    path = Path(out or Path(model).with_suffix(".tflite"))
    export = to_tflite(loaded, path, quantize, representative_data=rows, class_names=loaded.class_names or None)
    facts = [
        ("size", f"{export.size_bytes:,} bytes, {export.gzip_bytes:,} with gzip"),
        ("input", _tensor(export.input_shape, export.input_dtype, export.input_scale, export.input_zero_point)),
        ("output", _tensor((), export.output_dtype, export.output_scale, export.output_zero_point)),
        ("labels", ", ".join(export.class_names) or "none"),
    ]
    if rows is not None:
        check = verify(loaded, path, rows)
        facts.append(("agrees with Keras", f"{check.argmax_agreement:.1%} of {check.rows} representative inputs"))
    show_table(Table(f"{path} ({quantize})", ("", ""), facts))


def _tensor(shape: tuple[int, ...], dtype: str, scale: float, zero_point: int) -> str:
    sizes = f"{'x'.join(map(str, shape))} " if shape else ""
    return f"{sizes}{dtype}" + (f", real = {scale:g} * (stored - {zero_point})" if scale else "")
