"""Where a tf.data set spends its time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_opt.core.axes import plot_axes
from keras_opt.core.errors import InputError, check_positive, kind_error
from keras_opt.data.dataset_graph import AUGMENTATION, function_of, inputs_of, is_augmentation, kind_of

_SILENT = ("options", "variant")
_MAPS = ("map", "parallel map", "map and batch", "parallel map and batch")


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline."""

    name: str
    """Its number from the source on, what it does, and with which function: `"3 parallel map (decode)"`."""
    kind: str
    """What it does, in words: `"parallel map"`; `"augment"` for all that `keras_opt.data.augment` does."""
    cpu_seconds: float
    """Of this stage alone, for one image, over all cores."""


@dataclass(frozen=True)
class DatasetProfile:
    """What `profile_dataset` found; print it for a table."""

    images_per_second: float
    images_per_cpu_second: float
    stages: tuple[Stage, ...]
    """From the source on."""
    advice: tuple[str, ...]
    """What to change, one sentence each; the most promising first."""

    @property
    def slowest(self) -> Stage:
        """The stage that takes the most CPU time."""
        return max(self.stages, key=lambda stage: stage.cpu_seconds)

    def __str__(self) -> str:
        total = sum(stage.cpu_seconds for stage in self.stages) or 1.0
        width = max(len(stage.name) for stage in self.stages)
        rows = [
            f"{stage.name:<{width}}  {stage.cpu_seconds * 1e3:>13.3f}  {stage.cpu_seconds / total:>5.0%}"
            for stage in self.stages
        ]
        cores = self.images_per_second / self.images_per_cpu_second
        return "\n".join(
            [
                f"{self.images_per_second:.0f} images/s, {self.images_per_cpu_second:.0f} per CPU-second: {cores:.1f} "
                "cores at work",
                "",
                f"{'stage':<{width}}  CPU ms an image  share",
                *rows,
                "",
                f"Slowest: {self.slowest.name}.",
                *self.advice,
            ]
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the CPU milliseconds an image of each stage as bars; returns the matplotlib axes."""
        ax = plot_axes(ax, title="Where the data pipeline spends its time", xlabel="CPU ms an image")
        ax.barh([stage.name for stage in self.stages], [stage.cpu_seconds * 1e3 for stage in self.stages])
        ax.invert_yaxis()
        return ax


def profile_dataset(dataset: tf.data.Dataset, max_seconds: float = 10.0) -> DatasetProfile:
    """Measure how fast a dataset gives its images, what each of its stages costs, and say what to change.

    Use it when the processor waits for data: it works for any pipeline of tf.data and needs no profiler. Every part of
    the chain, from the source to each stage, is run for a while by itself; a stage costs what its part costs more than
    the parts before it. Caches are filled first, as far as the time goes. It does not tell the wall time of each stage:
    stages run at once.

    An image is a row of the first axis, whatever it is. A `filter` or `flat_map` is taken to give as many elements as
    it reads.

    Args:
        dataset: The pipeline, finite or infinite. If it has a `fresh_copy()`, that is measured, and the dataset keeps
            its place; otherwise its counter of epochs moves on.
        max_seconds: About how long to measure.

    Returns:
        A `DatasetProfile`.

    Raises:
        InputError: `max_seconds` is no positive number, or the dataset is empty.
        TypeError: `dataset` is no `tf.data.Dataset`.

    Cost: `max_seconds`, and once what the pipeline takes to start.

    Example:
        >>> profile = profile_dataset(tf.data.Dataset.range(100).map(lambda x: x**2).batch(10), max_seconds=1)
        >>> print(profile)
    """
    if not isinstance(dataset, tf.data.Dataset):
        cure = "Make one, for example by keras_opt.data.arrays."
        raise kind_error("profile_dataset", "dataset", type(dataset), "a tf.data.Dataset", cure)
    check_positive("profile_dataset", "max_seconds", max_seconds)
    if hasattr(dataset, "fresh_copy"):
        dataset = dataset.fresh_copy()
    chain = list(_chain(dataset))
    rows = _Rows()
    whole_rows = rows.of(dataset)
    budget = max_seconds / (len(chain) + 3)
    _cpu_and_wall(dataset, 1, budget)  # fills caches
    options = dataset.options().merge(_step_by_step())
    counting = _cpu_and_wall(tf.data.Dataset.range(2**62).with_options(options), 32, budget)[0] / 32
    costs = {}
    for part in chain:
        pull = max(1, round(whole_rows / rows.of(part)))
        cpu, _ = _cpu_and_wall(part.with_options(options), pull, budget)
        costs[id(part)] = max(0.0, cpu / pull - counting) / rows.of(part)
    stages = tuple(
        Stage(
            f"{number} {_described(part)}",
            "augment" if is_augmentation(part) else kind_of(part),
            max(0.0, costs[id(part)] - sum(costs[id(before)] for before in _read_by(part))),
        )
        for number, part in enumerate(chain, start=1)
    )
    cpu, wall = _cpu_and_wall(dataset, 1, budget)
    return DatasetProfile(whole_rows / wall, whole_rows / cpu, stages, _advice(stages))


def _described(dataset: tf.data.Dataset) -> str:
    function = function_of(dataset)
    if is_augmentation(dataset):
        return f"augment: {function.removeprefix(AUGMENTATION + '_').replace('_', ', ')}"
    return f"{kind_of(dataset)} ({function})" if function else kind_of(dataset)


def _step_by_step() -> tf.data.Options:
    """Lets each stage stay what it is, and work ahead no further than it was told."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _chain(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """The datasets that do something, each after those that it reads."""
    for before in _inputs_of(dataset):
        yield from _chain(before)
    if kind_of(dataset) not in _SILENT:
        yield dataset


def _read_by(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    for before in _inputs_of(dataset):
        if kind_of(before) in _SILENT:
            yield from _read_by(before)
        else:
            yield before


def _inputs_of(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """As `inputs_of`; but the keys that `augment` zips to its source are part of its own stage."""
    if is_augmentation(dataset):
        (zipped,) = inputs_of(dataset)
        return inputs_of(zipped)[:1]
    return inputs_of(dataset)


class _Rows:
    """How many images an element of each part of a chain holds."""

    def __init__(self):
        self._known: dict[int, float] = {}

    def of(self, dataset: tf.data.Dataset) -> float:
        if id(dataset) not in self._known:
            self._known[id(dataset)] = self._count(dataset) if self._is_batched(dataset) else 1.0
        return self._known[id(dataset)]

    def _is_batched(self, dataset):
        kind = kind_of(dataset)
        if "batch" in kind:
            return "unbatch" not in kind
        return any(map(self._is_batched, inputs_of(dataset)[:1]))

    def _count(self, dataset):
        for element in dataset.take(1):
            first = tf.nest.flatten(element, expand_composites=True)[0]
            return float(first.shape[0]) if first.shape.rank else 1.0
        raise InputError("profile_dataset: the dataset is empty. Give one that holds images.")


def _cpu_and_wall(dataset: tf.data.Dataset, pull: int, seconds: float) -> tuple[float, float]:
    """CPU and wall seconds to draw `pull` elements, once the pipeline runs."""
    draws = iter(dataset.repeat().map(lambda *element: True).batch(pull))
    for _ in range(2):
        if next(draws, None) is None:
            raise InputError("profile_dataset: the dataset is empty. Give one that holds images.")
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        next(draws)
        count += 1
    return (time.process_time() - cpu) / count, (time.perf_counter() - began) / count


def _advice(stages: tuple[Stage, ...]) -> tuple[str, ...]:
    slowest = max(stages, key=lambda stage: stage.cpu_seconds)
    kinds = [stage.kind for stage in stages]
    advice = []
    if slowest.kind == "map":
        advice.append(f"Give stage {slowest.name} num_parallel_calls=tf.data.AUTOTUNE: it runs on one core.")
    if slowest.kind in _MAPS and "cache" not in kinds[stages.index(slowest) :]:
        advice.append(
            f"If stage {slowest.name} gives the same in every epoch, put cache() behind it, and what is random behind "
            "that; for files of images, image_folder(cache=...) does so."
        )
    if slowest.kind == "flat map" and "flat_map_fn" in slowest.name:
        advice.append("A Python generator runs on one core: give arrays to keras_opt.data.arrays, or files to map().")
    if slowest.kind == "shuffle":
        advice.append("Shuffle names or positions, before what reads the images: the buffer copies what it holds.")
    if "batch" in slowest.kind and slowest.kind not in _MAPS:
        advice.append("Copying into batches costs most: batch uint8 images, and cast or augment after that.")
    if kinds[-1] != "prefetch":
        advice.append("End the pipeline with prefetch(tf.data.AUTOTUNE), so that it works while the model does.")
    return tuple(advice)
