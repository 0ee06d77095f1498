"""What the words in the schedule of GradualUnfreezing stand for."""

import difflib
from fnmatch import fnmatchcase

import keras

from keras_opt.core.all_layers import all_layers
from keras_opt.core.errors import InputError
from keras_opt.core.trainable_flags import flags_put_back, let_train
from keras_opt.models.output_layers import output_layers

_MOST_NAMES = 10  # in a message


def layers_by_entry(model: keras.Model, schedule: dict[int, list[str]]) -> list[list[keras.Layer]]:
    """For each entry the layers that it adds to those before."""
    seen: set[int] = set()
    entries = []
    for words in schedule.values():
        named = [layer for word in words for layer in _layers_named(model, word)]
        entries.append([layer for layer in named if id(layer) not in seen])
        seen.update(id(layer) for layer in named)
    return entries


def _layers_named(model: keras.Model, word: str) -> list[keras.Layer]:
    """The layers that a word in the schedule means, and those in them."""
    if word == "all":
        return all_layers(model)
    layers = all_layers(model)[1:]
    named = [layer for layer in layers if fnmatchcase(layer.name, word) or fnmatchcase(layer.path or "", word)]
    named = named or [layer for layer in layers if layer.name.startswith(f"{word}_")]
    if not named and word == "head":
        named = output_layers(model)
    if not named:
        names = [layer.name for layer in layers if layer.weights]
        closest = difflib.get_close_matches(word, names, n=_MOST_NAMES, cutoff=0)
        raise InputError(
            f"GradualUnfreezing: argument `schedule` must name layers of the model. Received: {word!r}, which none of "
            f"them fits. Of the {len(names)} with weights the closest are {', '.join(closest)}."
        )
    return [each for layer in named for each in all_layers(layer)]


def variables_by_entry(
    model: keras.Model, layers: list[list[keras.Layer]], schedule: dict[int, list[str]]
) -> list[list[keras.Variable]]:
    """For each entry the variables that train from it on, and did not before."""
    seen: set[int] = set()
    entries = []
    with flags_put_back(model):
        for place, (epoch, words) in enumerate(schedule.items()):
            let_train(model, [layer for group in layers[: place + 1] for layer in group])
            entries.append([each for each in model.trainable_variables if id(each) not in seen])
            seen.update(id(each) for each in entries[-1])
            if not entries[-1]:
                raise InputError(
                    f"GradualUnfreezing: argument `schedule` must add weights at each of its epochs. Received: {words} "
                    f"at epoch {epoch}, whose weights, if there are any, train before already. Leave that epoch out."
                )
    return entries
