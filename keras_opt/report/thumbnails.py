"""Mistakes as thumbnails inside the page."""

import base64
import io

from PIL import Image

from keras_opt.report.inputs import Mistake
from keras_opt.report.markup import Html, element

LONGEST_SIDE = 192
PIXELATED_BELOW = 96


def draw_mistake(mistake: Mistake) -> Html:
    """Draw one mistake: the image, the right class, the given class and its probability."""
    image = Image.fromarray(mistake.image[:, :, 0] if mistake.image.shape[2] == 1 else mistake.image)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    certainty = f"{100 * mistake.probability:.0f} %"
    return element(
        "figure",
        element(
            "img",
            src=f"data:image/png;base64,{_png(image)}",
            alt=f"{mistake.true_class}, taken for {mistake.predicted_class} with {certainty}",
            width=image.width,
            height=image.height,
            title=mistake.source or None,
            class_="pixelated" if max(image.size) < PIXELATED_BELOW else None,
        ),
        element(
            "figcaption",
            element("b", mistake.true_class),
            element("span", f"taken for {mistake.predicted_class}", class_="wrong-class"),
            " ",
            element("span", certainty, class_="value"),
        ),
    )


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
