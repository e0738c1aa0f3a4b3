"""Training images, cut into tiles of one size and laid out for copying.

Decoding a photograph takes a thousand times as long as copying a patch out of it. So
every image is decoded once, into two `.npy` files that are mapped into memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lkdn_jax.data.bicubic import Image, check_scale
from lkdn_jax.errors import InputError

TILE = 480  # HR pixels, unless another size is asked for


@dataclass(frozen=True)
class Tiles:
    """Aligned pairs of tiles.

    Attributes:
        lr: Tiles [n, t, t, 3], uint8 in [0, 255], RGB.
        hr: Tiles [n, t * scale, t * scale, 3], the same.
        folder: Where both are stored, or None if they are in memory only.
    """

    lr: Image
    hr: Image
    folder: Path | None = None

    @property
    def scale(self) -> int:
        """The factor between LR and HR."""
        return self.hr.shape[1] // self.lr.shape[1]

    def __len__(self) -> int:
        return len(self.lr)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the same files instead of getting gigabytes sent.
        if self.folder is not None:
            return load_tiles, (self.folder,)
        return Tiles, (self.lr, self.hr)


def check_tile(tile: int, scale: int) -> None:
    """Refuse a tile size that is no positive multiple of the scale.

    Args:
        tile: Side of an HR tile, in pixels.
        scale: The factor.

    Raises:
        InputError: Any other number, or a bad scale.
    """
    check_scale(scale)
    if tile < scale or tile % scale:
        nearest = (tile if tile >= scale else TILE) // scale * scale
        raise InputError(
            f"tile {tile} must be a positive multiple of scale {scale}: use {nearest}"
        )


def tile_starts(length: int, tile: int) -> list[int]:
    """Place tiles along one axis.

    Below one and a half tiles, one tile in the middle; else just as many as cover the
    axis, evenly spread from the first pixel to the last. Counted in LR pixels, every
    position has its exact counterpart in HR.

    Args:
        length: Size of the image, at least `tile`, in LR pixels.
        tile: Size of a tile, in LR pixels.

    Returns:
        First pixel of each tile, ascending, in [0, length - tile].
    """
    if 2 * length < 3 * tile:
        return [(length - tile) // 2]
    count = -(-length // tile)
    return [i * (length - tile) // (count - 1) for i in range(count)]


def cut_tiles(
    lr: Image, hr: Image, scale: int, tile: int, name: str = "the image"
) -> Tiles:
    """Cut a pair of images into tiles.

    Args:
        lr: Image [h, w, 3], uint8.
        hr: Image [h * scale, w * scale, 3], uint8.
        scale: The factor, an integer >= 1.
        tile: Side of an HR tile, in pixels, a multiple of scale.
        name: What to call the image in an error.

    Returns:
        At least one tile, row by row.

    Raises:
        InputError: An image smaller than a tile, or a bad tile or scale.
    """
    check_tile(tile, scale)
    h, w = lr.shape[:2]
    if tile > min(h, w) * scale:
        raise InputError(
            f"{name} is {hr.shape[0]}x{hr.shape[1]} (height x width): it must hold a "
            f"tile of {tile}x{tile}; leave it out or use --tile of at most "
            f"{min(h, w) * scale}"
        )
    t = tile // scale
    corners = [(y, x) for y in tile_starts(h, t) for x in tile_starts(w, t)]
    return Tiles(
        np.stack([lr[y : y + t, x : x + t] for y, x in corners]),
        np.stack(
            [
                hr[y : y + tile, x : x + tile]
                for y, x in ((y * scale, x * scale) for y, x in corners)
            ]
        ),
    )


def join_tiles(parts: Iterable[Tiles]) -> Tiles:
    """Join tiles of one size in memory.

    Args:
        parts: Tiles, at least one part.

    Returns:
        All of them, in order; one part is not copied.
    """
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    return Tiles(
        np.concatenate([part.lr for part in parts]),
        np.concatenate([part.hr for part in parts]),
    )


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def write_tiles(folder: Path, parts: Iterable[Tiles]) -> None:
    """Write tiles to `lr.npy` and `hr.npy`, part by part.

    Args:
        folder: An existing folder.
        parts: Tiles of one size, at least one part; no more than one is held.

    Raises:
        OSError: The operating system refuses.
    """
    n, sizes = 0, (0, 0)
    with (folder / "lr.npy").open("wb") as lr, (folder / "hr.npy").open("wb") as hr:
        for part in parts:
            if n == 0:
                sizes = part.lr.shape[1], part.hr.shape[1]
                _write_header(lr, (0, sizes[0], sizes[0], 3))
                _write_header(hr, (0, sizes[1], sizes[1], 3))
            lr.write(np.ascontiguousarray(part.lr).data)
            hr.write(np.ascontiguousarray(part.hr).data)
            n += len(part)
        for file, size in zip((lr, hr), sizes, strict=True):
            # numpy reserves room in the header for the first axis to grow.
            file.seek(0)
            _write_header(file, (n, size, size, 3))


def load_tiles(folder: Path) -> Tiles:
    """Map the tiles that `write_tiles` wrote into memory.

    Args:
        folder: The folder.

    Returns:
        The tiles; reading one reads it from the disk, the first time.
    """
    # As plain arrays: a memmap makes every slice a hundred times as expensive.
    arrays = [
        np.load(folder / name, mmap_mode="r").view(np.ndarray)
        for name in ("lr.npy", "hr.npy")
    ]
    return Tiles(arrays[0], arrays[1], folder)
