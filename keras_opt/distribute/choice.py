"""What a strategy is to be made of."""

from dataclasses import dataclass

from keras_opt.core.errors import InputError, argument_error
from keras_opt.distribute.cluster import Cluster

NAMES = ("auto", "one", "mirrored", "multiworker")


@dataclass(frozen=True)
class Choice:
    """What a strategy is made of; two calls that mean the same have equal ones."""

    kind: str
    devices: tuple[str, ...] = ()
    cluster: Cluster | None = None

    def __str__(self) -> str:
        if self.cluster is not None:
            return f"{self.kind} over {len(self.cluster.workers)} workers"
        return f"{self.kind} on {', '.join(self.devices)}"


def choose(name: str, logical_cpus: int | None, gpus: int, cluster: Cluster | None) -> Choice:
    """What `strategy` is to make on a machine with so many `gpus`."""
    if name == "auto":
        if logical_cpus is not None:
            name = "mirrored"
        elif cluster is not None:
            name = "multiworker"
        else:
            name = "mirrored" if gpus > 1 else "one"
    if logical_cpus is not None and name != "mirrored":
        cure = "Leave it out, or take name='mirrored'."
        raise argument_error("strategy", "logical_cpus", logical_cpus, f"None with name={name!r}", cure)
    if name == "multiworker":
        if cluster is None:
            raise InputError(
                "strategy: name='multiworker' needs to know the workers, and neither TF_CONFIG nor SLURM's variables "
                "name any. Start the script with `keras-opt launch`, with srun, or set TF_CONFIG."
            )
        return Choice("multiworker", cluster=cluster)
    if name == "one":
        return Choice("one", ("GPU:0" if gpus else "CPU:0",))
    if logical_cpus is not None:
        return Choice("mirrored", tuple(f"CPU:{number}" for number in range(logical_cpus)))
    if gpus < 2:
        raise InputError(
            f"strategy: name='mirrored' needs several devices, and there are {gpus} GPUs. Take 'auto'; or, to try it "
            "out, split the CPU first: keras_opt.distribute.strategy(logical_cpus=2)."
        )
    return Choice("mirrored", tuple(f"GPU:{number}" for number in range(gpus)))
