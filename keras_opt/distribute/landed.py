"""Where TensorFlow in fact computes the operations of a compiled function."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

_OF_THE_RUNTIME = {"Const", "Enter", "Exit", "Identity", "LoopCond", "Merge", "NextIteration", "NoOp", "Switch"}
_OF_THE_RUNTIME |= {"_Arg", "_HostRecv", "_HostSend", "_Recv", "_Retval", "_Send", "_SwitchN"}


@contextlib.contextmanager
def recorded_nodes() -> Iterator[list[Any]]:
    """While it lasts, the functions that run for the first time are recorded: then the yielded list has their nodes.

    They are those that TensorFlow's runtime has optimised, each on its device (`NodeDef`s).
    """
    nodes: list[Any] = []
    tf.summary.trace_on(graph=True, profiler=False)
    try:
        yield nodes
    except BaseException:
        tf.summary.trace_off()
        raise
    with tempfile.TemporaryDirectory() as folder:
        writer = tf.summary.create_file_writer(folder)
        with writer.as_default(), tf.summary.record_if(True):
            tf.summary.trace_export("step", step=0)
        writer.close()
        events = tf.data.TFRecordDataset([str(path) for path in Path(folder).iterdir()])
        for event in map(tf.compat.v1.Event.FromString, events.as_numpy_iterator()):
            for value in event.summary.value:
                run = tf.compat.v1.RunMetadata.FromString(value.tensor.string_val[0])
                nodes += [
                    node for graphs in run.function_graphs for graph in graphs.partition_graphs for node in graph.node
                ]


def check_landed(nodes: Iterable[Any], scopes: Mapping[str, str]) -> None:
    """Raise if a forward operation of a placed layer is computed elsewhere.

    Copies between devices, control flow, and reading a variable, which takes place where the variable is, do not count.

    Args:
        nodes: Of `recorded_nodes`.
        scopes: From the name scope of each placed layer to its device.

    Raises:
        RuntimeError: With each operation that landed elsewhere, and where it did.
    """
    strays = []
    for node in nodes:
        if node.op in _OF_THE_RUNTIME or node.op.startswith("Resource") or "Variable" in node.op:
            continue
        path = f"/{node.name}"
        found = [scope for scope in scopes if f"/{scope}/" in path and "/gradient_tape/" not in path]
        landed = node.device.rpartition("device:")[2]
        if found and landed != (device := scopes[max(found, key=len)]):
            strays.append(f"{node.name} ({node.op}) on {landed} and not on {device}")
    if strays:
        raise RuntimeError(
            f"place: {len(strays)} operations of placed layers are computed elsewhere: {'; '.join(strays[:5])}. "
            "TensorFlow may have no kernel for them there: give the layer that has them the device it can have, by its "
            "own name, after the pattern that fits it now."
        )
