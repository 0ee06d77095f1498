"""Which GPUs of this machine each worker sees: none may have another's."""

import subprocess
from collections.abc import Mapping

_VARIABLE = "CUDA_VISIBLE_DEVICES"

NO_GPU = {_VARIABLE: "-1"}
"""The variables of a process that is to see no GPU."""


def share_gpus(environment: Mapping[str, str], workers: int) -> list[dict[str, str]]:
    """The variables that give each of `workers` as many of the GPUs, and GPUs of its own.

    Left over are those that do not share out. Two processes of one training cannot take one GPU.

    Args:
        environment: That of the launcher, whose CUDA_VISIBLE_DEVICES counts; without it, what `nvidia-smi` tells.
        workers: How many there are.

    Returns:
        The variables of each, none if there is nothing to share out; `NO_GPU` for all if there are fewer GPUs than
        workers.
    """
    gpus = _gpus(environment) if workers > 1 else []
    each = len(gpus) // workers
    if not each:
        return [NO_GPU if gpus else {}] * workers
    return [{_VARIABLE: ",".join(gpus[index * each : (index + 1) * each])} for index in range(workers)]


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """Their names, as CUDA_VISIBLE_DEVICES takes them."""
    if _VARIABLE in environment:
        names = [name.strip() for name in environment[_VARIABLE].split(",")]
        return [] if "-1" in names else [name for name in names if name]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver, so no GPUs
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]  # others are parts of one
    return [str(number) for number in range(len(lines))]
