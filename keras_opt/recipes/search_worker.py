"""A process that trains the trials it is told: `python -m keras_opt.recipes.search_worker FOLDER NUMBER`.

It reads their numbers from standard input, one a line, and ends when that ends: so it does not outlive the process
that made it, however that dies.
"""

import os
import queue
import sys
import threading
from pathlib import Path

from keras_opt.core.progress import Progress
from keras_opt.recipes.devices import take_turns_on_gpus
from keras_opt.recipes.images import prepare
from keras_opt.recipes.search_folder import Plan
from keras_opt.recipes.search_trial import run_trial


def main() -> None:
    """Train until standard input ends."""
    folder = Path(sys.argv[1])
    numbers: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_read, args=(numbers,), daemon=True).start()
    plan = Plan.load(folder)
    take_turns_on_gpus(int(sys.argv[2]), plan.recipe.device)
    prepared = prepare(plan.recipe, Progress(quiet=True))
    store = plan.open_store(folder)
    while True:
        run_trial(plan.recipe, prepared, store, numbers.get())


def _read(numbers: "queue.Queue[int]") -> None:
    for line in sys.stdin:
        numbers.put(int(line))
    os._exit(0)  # in the middle of a trial, which another process will be given


if __name__ == "__main__":
    main()
