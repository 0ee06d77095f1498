"""TFLite Micro run on rows, as a program of its own: its C++ may take down the process that it runs in.

    python tflm_child.py MODEL.tflite OUTPUTS < inputs.npz > outputs.npz

Each array holds the rows of one input or output as the file stores them; the arena's bytes stand behind the outputs.
What TFLite Micro says goes to standard error.
"""

import bisect
import importlib
import io
import os
import re
import sys
import tempfile
from typing import Any

import numpy as np

ARENA_ALIGNMENT = 16  # what TFLite Micro aligns its buffers to
AMPLE_ARENA = 256 * 2**20  # far above any microcontroller's; only what is used of it is ever touched


def main(path: str, outputs: int) -> None:
    """Run the file in the smallest arena that it runs in, on the rows that come from standard input."""
    inputs = np.load(io.BytesIO(sys.stdin.buffer.read()))
    runtime = importlib.import_module("tflite_micro").runtime
    arena_bytes = smallest_arena(runtime, path)
    interpreter = runtime.Interpreter.from_file(path, arena_size=arena_bytes)
    rows = [_run(interpreter, row, outputs) for row in zip(*inputs.values(), strict=True)]
    np.savez(sys.stdout.buffer, *(np.concatenate(output) for output in zip(*rows, strict=True)), arena_bytes)


def smallest_arena(runtime: Any, path: str) -> int:
    """The smallest arena, a multiple of 16 bytes, in which the file's tensors can be laid out.

    It is what they fill at last, or somewhat more where the planning of their places takes memory of its own.
    """
    filled = -(-_filled(runtime, path) // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
    sizes = range(filled, AMPLE_ARENA, ARENA_ALIGNMENT)
    return sizes[bisect.bisect_left(sizes, True, key=lambda size: _fits(runtime, path, size))]


def _filled(runtime, path):
    interpreter = runtime.Interpreter.from_file(path, arena_size=AMPLE_ARENA)
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        interpreter.print_allocations()
        os.dup2(stderr, 2)
        log.seek(0)
        return int(re.search(rb"Arena allocation total (\d+) bytes", log.read())[1])


def _fits(runtime, path, arena_bytes):
    """Whether the interpreter starts, in a fork of this process: in an arena that is too small it may crash."""
    fork = os.fork()
    if not fork:
        try:
            runtime.Interpreter.from_file(path, arena_size=arena_bytes)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(fork, 0)[1] == 0


def _run(interpreter, row, outputs):
    interpreter.reset()
    for index, stored in enumerate(row):
        interpreter.set_input(stored[np.newaxis], index)
    interpreter.invoke()
    return [interpreter.get_output(index) for index in range(outputs)]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
