"""Check each notebook: its pair is in step, its outputs are committed, and it runs in a clean kernel in time."""

import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

LIMIT_SECONDS = 90

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
failures = []
for source in sorted(Path("notebooks").glob("[0-9][0-9]_*.py")):
    notebook = jupytext.read(source)
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in committed.cells]:
        failures.append(f"{source.stem}: the .ipynb is not the pair of the .py; run jupytext --sync and execute it")
    if not any(cell.outputs for cell in committed.cells if cell.cell_type == "code"):
        failures.append(f"{source.stem}: the .ipynb has no outputs; execute it before you commit")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=2 * LIMIT_SECONDS, resources={"metadata": {"path": folder}}).execute()
    seconds = time.monotonic() - start
    print(f"{source.stem}: {seconds:.0f} s")
    if seconds > LIMIT_SECONDS:
        failures.append(f"{source.stem}: took {seconds:.0f} s, the limit is {LIMIT_SECONDS} s")
sys.exit("\n".join(failures))
