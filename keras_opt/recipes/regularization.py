"""How a run is regularised: by the number and size of its training images, where its recipe leaves that open.

The rule is that of `benchmarks/results/regularizers.json` (gains in points of test accuracy of a small ResNet on
Fashion-MNIST, three seeds), tried again on the networks of a run, mostly for its 30 epochs:

- Few small images: `CutMix` gains 2.1 at 500 and 1.9 at 5,000; in the network of a run (28 pixels, two seeds) 1.5 and
  0.6, more than all else. A mild `RandomAffine` beside it takes 0.6 of that at 500, where the ResNet, trained for
  longer, gains 1.5 by it; label smoothing takes 0.4. Dropout of 0.5 in its place gains 0.5 and 0.4.
- Few larger ones (500, one seed): at 96 pixels the mild `RandomAffine` gains 0.4 and `CutMix` loses 0.6. At 72 pixels,
  where the network is smallest, everything loses: that 1.5, dropout of 0.5 3.6. Photos were not measured.
- Many: at 55,000 and four epochs all augmentation and dropout lose 0.3 to 0.9; in the network of a run and
  three epochs `CutMix` loses 1.2 (one seed). L2 gains 0.5, but 0.2 in the network of a run: no recipe has it.
- A pretrained network: the turns, shifts and flips, and the dropout of 0.2, of Keras's guide to transfer learning. No
  figure of ours is behind it.
"""

import dataclasses
from typing import Any

import keras

from keras_opt.core.progress import Progress
from keras_opt.layers.cut_mix import CutMix
from keras_opt.layers.random_affine import RandomAffine
from keras_opt.recipes.recipe import CHOSEN_FIELDS, Recipe

# The table has 5,000 images, where augmentation gains, and 55,000, where it loses: between them in ratio.
MANY = 20_000
# The largest images, in pixels a side, whose map the network of a run flattens; that of larger ones it averages.
SMALL = 64
# The strength that the table's validation images chose at 500.
MILD = {"rotation_degrees": 5, "width_shift": 0.05, "height_shift": 0.05, "horizontal_flip": True}

_NAMES = {
    "none": "images as they are",
    "affine": "mild RandomAffine",
    "cut_mix": "CutMix",
    "affine+cut_mix": "mild RandomAffine and CutMix",
}


def regularization(images: int, image_size: int, *, pretrained: bool) -> dict[str, Any]:
    """`augment`, `dropout` and `label_smoothing` for so many training images of this height and width."""
    few = "affine" if pretrained or image_size > SMALL else "cut_mix"
    return {
        "augment": few if images < MANY else "none",
        "dropout": 0.2 if pretrained else 0.0,
        "label_smoothing": 0.0,
    }


def chosen(recipe: Recipe, images: int) -> Recipe:
    """`recipe`, with what it leaves open chosen for so many training images."""
    choice = regularization(images, recipe.image_size, pretrained=recipe.is_pretrained)
    return dataclasses.replace(recipe, **{name: choice[name] for name in _left_open(recipe)})


def settled(recipe: Recipe, images: int, progress: Progress) -> Recipe:
    """As `chosen`; says in one line what was chosen, if anything was."""
    found = chosen(recipe, images)
    said = {
        "augment": _NAMES[found.augment],
        "dropout": f"dropout {found.dropout:g}",
        "label_smoothing": f"label smoothing {found.label_smoothing:g}",
    }
    if names := _left_open(recipe):
        progress.say(f"{images:,} training images: {', '.join(said[name] for name in names)}")
    return found


def augmentation(recipe: Recipe) -> list[keras.layers.Layer]:
    """The layers for the training batches of a run, which `keras_opt.data.augment` takes."""
    strength = recipe.augment_strength
    layers = []
    if "affine" in recipe.augment and strength:
        layers.append(RandomAffine(**{name: _scaled(value, strength) for name, value in MILD.items()}))
    if "cut_mix" in recipe.augment and strength:
        layers.append(CutMix(min(1.0, strength), dtype="uint8"))
    return layers


def _scaled(value: float | bool, strength: float) -> float | bool:
    return value if isinstance(value, bool) else value * strength


def _left_open(recipe: Recipe) -> list[str]:
    return [name for name in CHOSEN_FIELDS if getattr(recipe, name) is None]
