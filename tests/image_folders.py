"""Small folders of images with one sub-folder a class, for the tests of recipes and commands."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}


def noisy(colour, size=32, seed=0, spread=60):
    """An RGB image of one colour under noise."""
    noise = np.random.default_rng(seed).normal(0, spread, (size, size, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def write_images(folder, count=20, size=32, classes=COLOURS, first_seed=0):
    """Write `count` PNG files a class and return the folder."""
    seed = first_seed
    for name in classes:
        place = Path(folder) / name
        place.mkdir(parents=True)
        for number in range(count):
            noisy(COLOURS[name], size, seed).save(place / f"{number:03d}.png")
            seed += 1
    return Path(folder)


def write_noise(folder, count=20, size=32):
    """Write images that look alike in every class, and return the folder."""
    grey = (120, 120, 120)
    for place, name in enumerate(COLOURS):
        (Path(folder) / name).mkdir(parents=True)
        for number in range(count):
            noisy(grey, size, place * count + number).save(Path(folder) / name / f"{number:03d}.png")
    return Path(folder)


def damage(path, kind):
    """Spoil one file in one of the ways that files get spoiled."""
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image at all"}[kind])
