"""The one `tf.distribute` strategy of the process."""

import os

import tensorflow as tf

from keras_opt.core.errors import check_at_least, check_choice
from keras_opt.distribute import keras_repairs
from keras_opt.distribute.begin import begin
from keras_opt.distribute.choice import NAMES, Choice, choose
from keras_opt.distribute.cluster import find_cluster
from keras_opt.distribute.refusals import check_keras_distribution, check_name

_NO_GRPC_PROXY, _NO_PROXY = "no_grpc_proxy", "no_proxy"  # gRPC reads the second only where the first is not set

_made: tuple[Choice, tf.distribute.Strategy] | None = None


def strategy(name: str = "auto", logical_cpus: int | None = None) -> tf.distribute.Strategy:
    """Gives the process's one `tf.distribute` strategy, under which stock `fit` trains the model of one device.

    Make, compile or load the model in its scope; then `fit`, `evaluate` and `predict` as ever, with the batch size of
    the whole: each of n replicas gets a share of 1/n. The engine is TensorFlow's own; what Keras does wrong under it is
    repaired for models made in this scope (`keras_opt.distribute.keras_repairs`), and what cannot work is refused when
    training begins.

    | name | strategy |
    |---|---|
    | `"one"` | `OneDeviceStrategy`: the first GPU, else the CPU |
    | `"mirrored"` | `MirroredStrategy`: all GPUs, or `logical_cpus` |
    | `"multiworker"` | `MultiWorkerMirroredStrategy`: the workers of TF_CONFIG, else of SLURM's variables |
    | `"auto"` | the process's, if it has one; else the last of these for which there is what it needs |

    Workers, on several machines: `keras_opt.distribute.cluster` shows TF_CONFIG and a batch file for SLURM. On one
    machine `keras-opt launch` starts them. Each mirrors on all GPUs that it sees, which must be as many in each, and no
    other worker's. They talk past a proxy of `http_proxy`, for which `no_grpc_proxy` gets their names.

    Where a dataset reads as many files as there are workers, or more, TensorFlow lets each worker read files of its own
    in `fit` and `evaluate`: each row counts once, in other batches than on one device. `AutoShardPolicy.DATA` gives the
    batches of one device; each worker then reads all. `train_on_batch` gives each replica the whole batch.

    How near to one device: in 38 trainings of 100 steps (dense, convolutions, synchronised BatchNorm, clipping,
    accumulation, averaging, embeddings, all of these at once), under two replicas of one process and under 1, 2 and 4
    worker processes, weights, outputs and logs differ by at most 3.6e-14 (relative) in float64, 7.4e-6 in float32 with
    SGD, 3.7e-6 with Adam, 1.4e-3 in mixed_float16, 2.1e-2 in mixed_bfloat16; all workers end with the same bits.
    `pytest -s --full tests/oracle/test_oracle_distribute.py` prints the table.

    When not: several replicas on CPUs of one machine compete for the same cores, so `logical_cpus` is for trying out.
    Collectives cost tens of milliseconds a step between processes: workers pay where a step takes half a second.

    Every worker runs the whole script. Callbacks leave their files to the chief, whose are also those that the script
    writes by itself: `if strategy.cluster_resolver.task_id == 0: model.save("model.keras")`. What draws at random, or
    makes the workers communicate, such as `fit`, `evaluate`, `predict` or making a variable, all of them must do.

    TensorFlow breaks every later collective when a process makes a second such object, so this function makes one, and
    gives it again to whoever asks for the same: after `logical_cpus=2`, `"mirrored"` means those. Under several workers
    seed all of them alike, with `keras.utils.set_random_seed`: each takes its share of the same shuffled order.

    Args:
        name: See the table. Default `"auto"`.
        logical_cpus: Int of at least 2: split the CPU into so many devices and mirror on them. It must be called before
            anything has run on TensorFlow. Default `None`.

    Returns:
        The strategy; use `with strategy(...).scope():`.

    Raises:
        ValueError: An argument is wrong, there are no devices or workers for `name`, or the variables that name the
            workers contradict one another.
        RuntimeError: The process has another strategy already, or TensorFlow has started, so that its CPU cannot be
            split or its workers cannot meet any more.

    Example:
        >>> import keras, keras_opt, numpy as np
        >>> with keras_opt.distribute.strategy("one").scope():
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
    """
    global _made
    check_name(name)
    check_choice("strategy", "name", name, NAMES)
    if logical_cpus is not None:
        check_at_least("strategy", "logical_cpus", logical_cpus, 2)
    check_keras_distribution()
    if _made is not None and logical_cpus is None and name in ("auto", _made[0].kind):
        return _made[1]
    gpus = len(tf.config.get_visible_devices("GPU"))
    cluster = find_cluster() if name in ("auto", "multiworker") and logical_cpus is None else None
    choice = choose(name, logical_cpus, gpus, cluster)
    if _made is None:
        _made = choice, _make(choice, gpus)
        keras_repairs.apply(_made[1], begin)
    elif choice != _made[0]:
        raise RuntimeError(
            f"strategy: this process has a strategy already ({_made[0]}), and a second one ({choice}) would break it. "
            "Ask for the same one, or train with the other one in a process of its own."
        )
    return _made[1]


def _make(choice: Choice, gpus: int) -> tf.distribute.Strategy:
    if choice.kind == "one":
        return tf.distribute.OneDeviceStrategy(choice.devices[0])
    if choice.kind == "mirrored":
        if choice.devices[0].startswith("CPU"):
            _split_cpu(len(choice.devices))
        return tf.distribute.MirroredStrategy(list(choice.devices))
    workers = tf.train.ClusterSpec({"worker": list(choice.cluster.workers)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        workers,
        task_type="worker",
        task_id=choice.cluster.index,
        num_accelerators={"GPU": gpus},  # else TensorFlow takes the CPUs
        rpc_layer="grpc",
    )
    _pass_by_proxy(choice.cluster.workers)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise RuntimeError(
            "strategy: TensorFlow has started already, so the workers cannot meet. Call strategy() before anything "
            "that makes a tensor, a dataset or a model."
        ) from error


def _pass_by_proxy(workers: tuple[str, ...]) -> None:
    """Let workers talk to one another past the proxy of `http_proxy`, by which gRPC finds none of them."""
    hosts = dict.fromkeys(address.rpartition(":")[0].strip("[]") for address in workers)
    before = os.environ.get(_NO_GRPC_PROXY, os.environ.get(_NO_PROXY))
    os.environ[_NO_GRPC_PROXY] = ",".join([before, *hosts] if before else hosts)


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise RuntimeError(
            f"strategy: TensorFlow has started already, so the CPU cannot be split into {count} any more. Call "
            f"strategy(logical_cpus={count}) before anything that makes a tensor, a dataset or a model."
        ) from error
