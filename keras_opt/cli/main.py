"""The entry point: finds the command, turns every error into one line and an exit status."""

import functools
import importlib
import io
import logging
import os
import sys
import traceback
import warnings

import click

import keras_opt
from keras_opt.core.errors import InputError

# Name of the command to its module and one line of help, so that `--help` imports nothing heavy.
_COMMANDS = {
    "demo": "Train, prune, quantize and export on the embedded images.",
    "train": "The same on a folder of images.",
    "predict": "Name the class of image files.",
    "compress": "Find the best device file of a .keras file within limits.",
    "export": "Turn a .keras file into a .tflite file.",
    "bench": "Time .tflite files beside one another.",
    "tune": "Search the settings of train for the best validation accuracy.",
    "lr-find": "Suggest a learning rate for a folder of images.",
    "launch": "Train with several workers on this machine.",
}

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


class _LazyGroup(click.Group):
    """Imports a command only when it is called."""

    def list_commands(self, context):
        return list(_COMMANDS)

    def get_command(self, context, name):
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"keras_opt.cli.{name.replace('-', '_')}").command

    def format_commands(self, context, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keras_opt.__version__, prog_name="keras-opt")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train Keras 3 models faster, stop them at the right moment, ship them smaller.

    Example: keras-opt demo
    """


def main() -> None:
    """Run the command line."""
    if _command_of(sys.argv[1:]) != "launch":  # whose workers would have it in their environment
        _quieten_tensorflow()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding cannot write is to end nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    debug, arguments = _split_off_debug(sys.argv[1:])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_warning_line, set())
            cli.main(arguments or ["--help"], prog_name="keras-opt", standalone_mode=False)
    except click.ClickException as error:
        click.echo(_usage_line(error), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # click puts an Abort without text in the place of an interrupt, whose text says what is kept.
        click.echo(f"Interrupted. {error.__cause__ or error}".strip(), err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(_one_line(error), err=True)
        sys.exit(EXIT_ERROR)


def _command_of(arguments: list[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _split_off_debug(arguments: list[str]) -> tuple[bool, list[str]]:
    """Take the flag wherever it stands: people add it to the end of the line that failed.

    But what follows `launch` may be the script's.
    """
    end = arguments.index("launch") if _command_of(arguments) == "launch" else len(arguments)
    own, others = arguments[:end], arguments[end:]
    return "--debug" in own, [argument for argument in own if argument != "--debug"] + others


def _warning_line(said: set[str], message: Warning | str, category: type[Warning], *_place: object) -> None:
    if not issubclass(category, DeprecationWarning) and str(message) not in said:  # those are for developers
        said.add(str(message))
        click.echo(f"keras-opt: {message}", err=True)


def _usage_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "keras-opt"
    return f"{command}: {' '.join(error.format_message().split()).rstrip('.')}. See {command} --help."


def _one_line(error: Exception) -> str:
    if isinstance(error, (InputError, ImportError)):
        return f"keras-opt: {' '.join(str(error).splitlines())}"
    text = str(error).strip().splitlines() or ["no reason given"]
    return f"keras-opt: {type(error).__name__}: {text[0].rstrip('.')}. Add --debug to see where it comes from."


def _quieten_tensorflow() -> None:
    """Keep TensorFlow's start-up notes off the terminal; whoever set the variables wants to see them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
