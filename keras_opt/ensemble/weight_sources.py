"""The weights of several models or files of one network, one after another."""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError, argument_error, kind_error
from keras_opt.core.set_weights import set_weights
from keras_opt.ensemble.class_names import class_names_of, common_class_names
from keras_opt.ensemble.copies import copy_of
from keras_opt.ensemble.weight_files import SUFFIXES, checkpoint_files, weights_file, weights_in_file
from keras_opt.loading import load_model
from keras_opt.models.labelled_file import read_class_names

# What Keras, h5py and the zip reader raise for a file that is damaged or is no such file.
_READ_ERRORS = (ValueError, KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class WeightSources:
    """Models and files, of which one at a time is read.

    Args:
        owner: The public function that received them.
        name: The name of that argument.
        sources: Built models and paths of `.keras` or `.weights.h5` files; or the path of a folder in which
            `keras_opt.callbacks.ModelCheckpoint` has saved.
        model: The network of `.weights.h5` files; `None` where the others tell.
        compile: Whether `network` must be compiled.

    Attributes:
        network: `model`, else the first of the models, else the first file, loaded.
        scratch: A model of the same network that is not compiled and nobody else's. Reading a file changes its weights.
        class_names: Those of all that have some.
    """

    def __init__(self, owner: str, name: str, sources: Any, model: keras.Model | None, compile: bool):
        self._owner = owner
        self._name = name
        self._sources = self._listed(sources)
        if model is not None and not isinstance(model, keras.Model):
            raise kind_error(owner, "model", model, "a Keras model or None", "Give the network of the files.")
        models = [each for each in [model, *self._sources] if isinstance(each, keras.Model)]
        files = [each for each in self._sources if isinstance(each, Path)]
        full_files = [each for each in files if each.suffix == ".keras"]
        if not models and not full_files:
            cure = "Files of weights do not tell their network: give a model of it."
            raise argument_error(owner, "model", None, "the network of the files", cure)
        self.network = models[0] if models else load_model(full_files[0], compile=compile)
        if not self.network.built:
            raise argument_error(owner, name, self.network, "built models", "Start them with keras.Input(shape).")
        if compile and not self.network.compiled:
            cure = "Compile it with the metric of `monitor`."
            raise argument_error(owner, name, self.network, "compiled models, or files of such", cure)
        self._check_models(models)
        self.scratch = copy_of(self.network, owner) if models or compile else self.network
        self._check_files(files, has_model=bool(models))
        named = [(self._label(each), class_names_of(each)) for each in models]
        named += [(self._label(each), read_class_names(each)) for each in full_files]
        self.class_names = common_class_names(owner, name, named)

    def __len__(self) -> int:
        return len(self._sources)

    def mixed(self, mean: list[np.ndarray] | None, place: int, share: float) -> list[np.ndarray]:
        """`mean + share * (weights - mean)` with the weights of one source; a copy of these if `mean` is `None`.

        Floating weights are mixed in the arrays of `mean`, in float32 at least.

        Raises:
            ValueError: The source cannot be read, or integers in it are not equal to those of `mean`.
        """
        arrays = self._arrays(place)
        if mean is None:
            return [_wide_copy(array) for array in arrays]
        for number, (mixed, array) in enumerate(zip(mean, arrays, strict=True)):
            if _is_floating(array):
                change = array.astype(mixed.dtype, copy=False) - mixed
                change *= mixed.dtype.type(share)
                mixed += change
            elif not np.array_equal(mixed, array):
                raise InputError(
                    f"{self._owner}: integers cannot be averaged, and `{self.scratch.weights[number].path}` in "
                    f"{self._label(self._sources[place])} is not what it is in the others. Give models that were "
                    "adapted to the same data."
                )
        return mean

    def _arrays(self, place: int) -> Iterator[np.ndarray]:
        source = self._sources[place]
        if isinstance(source, Path):
            try:
                with weights_file(source) as own:
                    self.scratch.load_weights(own)
            except _READ_ERRORS as error:
                raise self._unreadable(source, error) from error
            source = self.scratch
        for weight in source.weights:
            yield keras.ops.convert_to_numpy(weight)

    def _listed(self, sources: Any) -> list[keras.Model | Path]:
        cure = "Give a list of built models and files, or the folder of a ModelCheckpoint."
        if isinstance(sources, str | Path):
            if not Path(sources).is_dir():
                raise argument_error(self._owner, self._name, sources, "a list, or a folder that is there", cure)
            return checkpoint_files(self._owner, Path(sources))
        if not isinstance(sources, Sequence):
            raise kind_error(self._owner, self._name, sources, "a list of models and files, or a folder", cure)
        if not sources:
            raise argument_error(self._owner, self._name, sources, "at least one model or file", cure)
        return [self._model_or_file(place, each) for place, each in enumerate(sources)]

    def _model_or_file(self, place: int, source: Any) -> keras.Model | Path:
        if isinstance(source, keras.Model):
            return source
        name = f"{self._name}[{place}]"
        if not isinstance(source, str | Path):
            raise kind_error(self._owner, name, source, "a built model or a path", "Give a model, or a file of one.")
        if not str(source).endswith(SUFFIXES):
            cure = "Save it with model.save or model.save_weights."
            raise argument_error(self._owner, name, str(source), "a .keras or .weights.h5 file", cure)
        if not Path(source).is_file():
            raise argument_error(self._owner, name, str(source), "a file that is there", "Look at the path.")
        return Path(source)

    def _check_models(self, models: list[keras.Model]) -> None:
        wanted = _weights_of(models[0]) if models else []
        for model in models[1:]:
            if not model.built:
                raise argument_error(self._owner, self._name, model, "built models", "Call each on a batch first.")
            self._compare(models[0], wanted, model, _weights_of(model))

    def _check_files(self, files: list[Path], has_model: bool) -> None:
        if not files:
            return
        first, rest = self.network, files
        if has_model:
            with tempfile.TemporaryDirectory() as folder:
                written = Path(folder) / "network.weights.h5"
                self.scratch.save_weights(written)
                wanted = self._weights_in(written)
        else:
            first, *rest = sorted(files, key=lambda each: each.suffix != ".keras")
            wanted = self._weights_in(first)
        for each in rest:
            self._compare(first, wanted, each, self._weights_in(each))

    def _weights_in(self, path: Path) -> list[tuple[str, Any]]:
        try:
            return sorted(weights_in_file(path).items())
        except _READ_ERRORS as error:
            raise self._unreadable(path, error) from error

    def _compare(self, first: Any, wanted: list[tuple[str, Any]], other: Any, found: list[tuple[str, Any]]) -> None:
        if wanted == found:
            return
        longest = max(len(wanted), len(found))
        padded = [[*each, *[("nothing", None)] * (longest - len(each))] for each in (wanted, found)]
        ours, theirs = next((ours, theirs) for ours, theirs in zip(*padded, strict=True) if ours != theirs)
        raise InputError(
            f"{self._owner}: argument `{self._name}` must have the same weights throughout: names, shapes, dtypes. "
            f"Received: {self._label(first)} has {_text(ours)} where {self._label(other)} has {_text(theirs)}. Give "
            "models of one network."
        )

    def _label(self, source: keras.Model | Path) -> str:
        return repr(str(source)) if isinstance(source, Path) else f"model {source.name!r}"

    def _unreadable(self, path: Path, error: Exception) -> InputError:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return InputError(
            f"{self._owner}: the weights in {str(path)!r} cannot be read ({reason}). If the file was damaged, leave it "
            "out or save it again."
        )


def put_in(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    """Give `model` these weights, in its own dtypes."""
    cast = [array.astype(weight.dtype, copy=False) for array, weight in zip(arrays, model.weights, strict=True)]
    set_weights(model, cast)


def _wide_copy(array: np.ndarray) -> np.ndarray:
    is_narrow = _is_floating(array) and array.dtype.itemsize < 4
    return array.astype(np.float32) if is_narrow else np.array(array)


def _is_floating(array: np.ndarray) -> bool:
    """NumPy does not know of bfloat16 that it is."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(array.dtype))


def _weights_of(model: keras.Model) -> list[tuple[str, Any]]:
    """Each weight of `model`: its path, in which names that Keras has numbered have lost their number; shape, dtype."""
    words = {layer.name: word for layer in all_layers(model) if (word := _word_of_class(layer)) is not None}
    return [
        ("/".join(words.get(part, part) for part in weight.path.split("/")), (tuple(weight.shape), weight.dtype))
        for weight in model.weights
    ]


def _word_of_class(layer: keras.Layer) -> str | None:
    """The word that Keras numbers to name a layer of this class, in Bidirectional too, if `layer` was named so."""
    word = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
    named_so = re.fullmatch(rf"((forward_|backward_)?{word})(_\d+)?", layer.name)
    return named_so and named_so[1]


def _text(weight: tuple[str, Any]) -> str:
    place, facts = weight
    return place if facts is None else f"`{place}` {' '.join(str(each) for each in facts if each != '')}"
