"""Photographs that come with scikit-image: data without a download."""

import numpy as np
import numpy.typing as npt
import skimage.data

from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.tiles import Tiles, check_tile, cut_tiles, join_tiles
from lkdn_jax.errors import InputError

# Only what lies inside the package: `skimage.data` would download the others.
PHOTOGRAPHS_TRAIN = (
    "astronaut",
    "brick",
    "camera",
    "grass",
    "gravel",
    "moon",
    "stereo_motorcycle",
)
PHOTOGRAPHS_HELD_OUT = ("chelsea", "coffee", "rocket")


def load_photograph(name: str) -> npt.NDArray[np.uint8]:
    """Load one of the embedded photographs.

    Args:
        name: One of `PHOTOGRAPHS_TRAIN` or `PHOTOGRAPHS_HELD_OUT`.

    Returns:
        [h, w, 3], uint8 in [0, 255], RGB; grayscale as three equal channels.
    """
    loaded = getattr(skimage.data, name)()
    # Of the stereo pair, the left view; the right one shows the same.
    image = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def photograph_tiles(scale: int, tile: int) -> Tiles:
    """Cut the photographs for training into tiles, the LR made by MATLAB's bicubic.

    Args:
        scale: The factor, an integer >= 1.
        tile: Side of an HR tile, in pixels, a multiple of scale.

    Returns:
        The tiles, in memory.

    Raises:
        InputError: A bad scale or tile, or a tile larger than a photograph.
    """
    check_tile(tile, scale)
    hrs = {}
    for name in PHOTOGRAPHS_TRAIN:
        image = load_photograph(name)
        h, w = (size // scale * scale for size in image.shape[:2])
        hrs[name] = image[:h, :w]
    smallest = min(hrs, key=lambda name: min(hrs[name].shape[:2]))
    h, w, _ = hrs[smallest].shape
    if tile > min(h, w):
        raise InputError(
            f"photograph {smallest} is {h}x{w} (height x width): use data.tile of at "
            f"most {min(h, w)}"
        )
    parts = []
    for name, hr in hrs.items():
        lr = downscale(hr, scale, "matlab")
        parts.append(cut_tiles(lr, hr, scale, tile, f"photograph {name}"))
    return join_tiles(parts)
