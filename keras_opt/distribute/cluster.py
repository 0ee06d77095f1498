"""Which workers there are, as TF_CONFIG or SLURM says.

On several machines every worker runs one and the same script, which makes its model in the scope of
`keras_opt.distribute.strategy()`. With TF_CONFIG, start it on each machine with all addresses, in one order, and the
index of that machine; the first is the chief:

    export TF_CONFIG='{"cluster": {"worker": ["node1:12345", "node2:12345"]}, "task": {"type": "worker", "index": 0}}'
    python train.py

Under SLURM there is nothing to set: `srun` tells each task of the others. One worker a node takes all its GPUs; when
one dies, srun ends the others, and submitted again, a script that trains with `BackupAndRestore` goes on:

    #!/bin/bash
    #SBATCH --nodes=2
    #SBATCH --ntasks-per-node=1
    #SBATCH --gpus-per-node=4
    #SBATCH --cpus-per-task=16
    srun --distribution=block --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 python train.py

The ports of SLURM's workers follow from the numbers of job and step, from 12000 to 32000: a node's firewall must let
them in. On one machine `keras-opt launch` starts the workers, and starts them again.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from keras_opt.core.errors import InputError

_FIRST_PORT, _PORTS = 12_000, 20_000
_PORTS_OF_STEP, _STEPS_OF_JOB = 32, 16  # so many have ports of their own, on a node that neighbours share


@dataclass(frozen=True)
class Cluster:
    """The workers of one training, alike in every process of it but for `index`.

    Attributes:
        workers: The address, `"host:port"`, of each; the first is the chief, which writes what is shared.
        index: Which of them this process is, from 0.
        source: Where that was read, for messages: `"TF_CONFIG"` or `"SLURM"`.
    """

    workers: tuple[str, ...]
    index: int
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what is shared."""
        return self.index == 0


def find_cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster that the variables of `environment` name, `None` if they name none.

    TF_CONFIG goes before SLURM's variables, which count only where `srun` has started more than one task. TensorFlow's
    own `SlurmClusterResolver` fails on machines without GPUs.

    Args:
        environment: Names and values; `None` takes `os.environ`.

    Raises:
        ValueError: The variables contradict one another, or name what is not supported.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG", "").strip():
        return _from_tf_config(environment["TF_CONFIG"])
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environment:
        return _from_slurm(environment)
    return None


# --- TF_CONFIG ------------------------------------------------------------------------------------------------------


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _error("TF_CONFIG", f"it is no JSON ({error})", text) from error
    if not isinstance(config, dict):
        raise _error("TF_CONFIG", "it is no JSON object", text)
    jobs, task = config.get("cluster") or {}, config.get("task") or {}
    if not jobs:
        return None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise _error("TF_CONFIG", "`cluster` and `task` must be JSON objects", text)
    unknown = sorted(set(jobs) - {"chief", "worker"})
    if unknown:
        raise _error("TF_CONFIG", f"its cluster has jobs of type {unknown[0]!r}, and only workers train here", text)
    chiefs, others = _addresses(jobs, "chief", text), _addresses(jobs, "worker", text)
    if len(chiefs) > 1:
        raise _error("TF_CONFIG", "it has more than one chief", text)
    workers = (*chiefs, *others)
    if len(set(workers)) < len(workers):
        raise _error("TF_CONFIG", "an address stands twice", text)
    kind, index = task.get("type"), task.get("index")
    of_kind = {"chief": chiefs, "worker": others}.get(kind)
    if of_kind is None or isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(of_kind):
        raise _error("TF_CONFIG", f"its task {task!r} is none of its cluster", text)
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0), "TF_CONFIG")


def _addresses(jobs: Mapping, kind: str, text: str) -> list[str]:
    addresses = jobs.get(kind, [])
    if not isinstance(addresses, list):
        raise _error("TF_CONFIG", f"its {kind!r} is no list of addresses", text)
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r".+:\d+", address):
            raise _error("TF_CONFIG", f"{address!r} is no address", text)
    return addresses


# --- SLURM ----------------------------------------------------------------------------------------------------------


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    read = {
        name: value for name, value in sorted(environment.items()) if name.startswith(("SLURM_STEP_", "SLURM_PROC"))
    }
    hosts = expand_hosts(environment.get("SLURM_STEP_NODELIST", ""))
    counts = expand_counts(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    try:
        tasks, index = int(environment["SLURM_STEP_NUM_TASKS"]), int(environment["SLURM_PROCID"])
        job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    except ValueError as error:
        raise _error("SLURM", "number of tasks, task, job and step are no numbers", read) from error
    if len(hosts) != len(counts) or sum(counts) != tasks or not 0 <= index < tasks:
        raise _error("SLURM", "nodes, tasks per node and number of tasks do not agree", read)
    places = [(host, local) for host, count in zip(hosts, counts, strict=True) for local in range(count)]
    own = environment.get("SLURMD_NODENAME", places[index][0])
    if own != places[index][0]:
        raise _error("SLURM", f"task {index} runs on {own}, where tasks in blocks would put {places[index][0]}", read)
    first = _FIRST_PORT + (job * _STEPS_OF_JOB + step) * _PORTS_OF_STEP % _PORTS
    return Cluster(tuple(f"{host}:{first + local}" for host, local in places), index, "SLURM")


def expand_hosts(text: str) -> list[str]:
    """The hosts of a SLURM list: `"a[1-2,07],b"` is a1, a2, a07, b."""
    hosts = []
    for item in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        expanded = [""]
        for plain, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", item):
            parts = [plain] if plain else [number for part in ranges.split(",") for number in _numbers(part)]
            expanded = [before + part for before in expanded for part in parts]
        hosts += expanded
    return hosts


def _numbers(part: str) -> list[str]:
    first, _, last = part.partition("-")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]


def expand_counts(text: str) -> list[int]:
    """The numbers of a SLURM list: `"2(x3),1"` is 2, 2, 2, 1."""
    counts = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts


_CURES = {
    "TF_CONFIG": 'Set it as {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", '
    '"index": 0}}, with an index of its own in each process, or unset it.',
    "SLURM": "Start the workers with srun, its tasks distributed in blocks, or set TF_CONFIG yourself.",
}


def _error(source: str, fault: str, received: object) -> InputError:
    return InputError(
        f"strategy: {source} names no cluster of workers: {fault}. Received: {received}. {_CURES[source]}"
    )
