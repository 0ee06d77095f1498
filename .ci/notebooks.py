"""Check each notebook, or with `--write` run it in full and write its pair.

The check: the .ipynb holds the cells of its .py, has outputs, and the notebook runs in a clean kernel in time with
KERAS_OPT_QUICK=1.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

QUICK_LIMIT_SECONDS = 90
FULL_LIMIT_SECONDS = 300

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def execute(notebook: nbformat.NotebookNode) -> float:
    """Run all cells in an empty folder; return the seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=FULL_LIMIT_SECONDS, kernel_name="python3", resources=resources).execute()
    return time.monotonic() - start


def write(source: Path) -> str:
    notebook = jupytext.read(source)
    seconds = execute(notebook)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # wall-clock stamps
        if cell.cell_type == "code":  # TensorFlow's start-up notes
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, source.with_suffix(".ipynb"))
    print(f"{source.stem}: {seconds:.0f} s in full, written")
    return f"{source.stem}: took {seconds:.0f} s in full" if seconds > FULL_LIMIT_SECONDS else ""


def check(source: Path) -> str:
    notebook = jupytext.read(source)
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in committed.cells]:
        return f"{source.stem}: the .ipynb is not the pair of the .py; run python .ci/notebooks.py --write"
    if not any(cell.outputs for cell in committed.cells if cell.cell_type == "code"):
        return f"{source.stem}: the .ipynb has no outputs; run python .ci/notebooks.py --write"
    os.environ["KERAS_OPT_QUICK"] = "1"
    seconds = execute(notebook)
    print(f"{source.stem}: {seconds:.0f} s")
    return f"{source.stem}: took {seconds:.0f} s in quick mode" if seconds > QUICK_LIMIT_SECONDS else ""


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--write", action="store_true", help="run in full and write the .ipynb")
parser.add_argument("stems", nargs="*", metavar="NN_topic", help="which notebooks; all of them by default")
arguments = parser.parse_args()
work = write if arguments.write else check
sources = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.py"))
sources = [source for source in sources if source.stem in arguments.stems or not arguments.stems]
sys.exit("\n".join(filter(None, map(work, sources))) or 0)
