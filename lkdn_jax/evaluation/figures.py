"""Pictures of results: the same crop of several images, side by side."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lkdn_jax.data.bicubic import upscale

_GAP, _LABEL_HEIGHT, _FONT_SIZE = 8, 32, 20


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel, so that it is seen as it is.

    Args:
        image: Image [h, w, 3].
        factor: How often, in each direction.

    Returns:
        Image [h·factor, w·factor, 3].
    """
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def comparison_picture(
    lr: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    hr: np.ndarray,
    scale: int,
    crop: tuple[slice, slice],
) -> np.ndarray:
    """Show part of an image as LR, bicubic, outputs of networks and HR, side by side.

    Args:
        lr: Image [h, w, 3], uint8.
        outputs: Images [h·s, w·s, 3], uint8, by title.
        hr: Image [h·s, w·s, 3], uint8.
        scale: The factor s.
        crop: Rows and columns to show, in HR pixels.

    Returns:
        The picture [h', w', 3], uint8, pixels doubled.
    """
    panels = {"LR": enlarge(lr, scale), "bicubic": upscale(lr, scale)}
    panels |= {**outputs, "HR": hr}
    return side_by_side({t: enlarge(image[crop], 2) for t, image in panels.items()})


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Set images beside each other under their titles.

    Args:
        panels: Images [h, w, 3], uint8, all of one height, by title.

    Returns:
        One image [h', w', 3], uint8, dark text on white.
    """
    height = next(iter(panels.values())).shape[0]
    width = sum(panel.shape[1] + _GAP for panel in panels.values()) - _GAP
    canvas = Image.new("RGB", (width, height + _LABEL_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    left = 0
    for title, panel in panels.items():
        draw.text((left + 4, 4), title, fill="black", font=font)
        canvas.paste(Image.fromarray(panel), (left, _LABEL_HEIGHT))
        left += panel.shape[1] + _GAP
    return np.asarray(canvas)
