"""EXIF: which way up a photograph is, and what of it stays true of other pixels."""

from collections.abc import Collection

import numpy as np
from PIL import Image

from lkdn_jax.data.images import DECODE_ERRORS

_ORIENTATION = 0x0112
_CAMERA, _PLACE = 0x8769, 0x8825  # EXIF blocks within EXIF
# What tells of the photograph; other tags tell how the file that was read is laid out.
_KEPT_TAGS = {
    *(0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298),  # texts
    *(0x4746, 0x4749, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),  # rating, Windows' texts
}
# In the camera's block, but of the file that was read: width, height, where a block is.
_OF_THE_FILE = (0xA002, 0xA003, 0xA005)
# What EXIF that breaks its rules makes Pillow raise, found by trying.
_EXIF_ERRORS = (*DECODE_ERRORS, AttributeError, RuntimeError)


def read_exif(image: Image.Image) -> tuple[int, bytes | None, tuple[str, ...]]:
    """Read what a file says of its photograph.

    Args:
        image: The file, loaded if Pillow is to turn it: it turns a TIFF when it loads,
            and forgets the orientation then.

    Returns:
        The orientation, 1 to 8; the EXIF block with what stays true of other pixels,
        or None; and notes on what was dropped, in words.
    """
    orientation = 1
    try:
        exif = image.getexif()
        found = exif.get(_ORIENTATION, 1)
        orientation = int(found) if found in range(1, 9) else 1
        kept = Image.Exif()
        for tag in _KEPT_TAGS & set(exif):
            # Pillow reads texts as Latin-1, whatever they are, and writes ASCII.
            value = exif[tag]
            if str(value).startswith('{"shape"'):
                continue  # tifffile's note of the shape it had
            kept[tag] = value.encode("latin-1") if isinstance(value, str) else value
        for block in {_CAMERA, _PLACE} & set(exif):
            kept.get_ifd(block).update(exif.get_ifd(block))
            for tag in _OF_THE_FILE:
                kept.get_ifd(block).pop(tag, None)
        content = kept.tobytes() if kept.tobytes() != Image.Exif().tobytes() else None
    except _EXIF_ERRORS:
        return orientation, None, ("its EXIF is damaged and was dropped",)
    return orientation, content, ()


def tiff_exif(content: bytes) -> Image.Exif:
    """Make what Pillow writes into a TIFF of an EXIF block.

    It writes the tags anew; texts as bytes stay what they are.
    """
    exif = Image.Exif()
    exif.load(content)
    for tag, value in exif.items():
        exif[tag] = value.encode("latin-1") if isinstance(value, str) else value
    return exif


def nested(exif: Collection[int]) -> bool:
    """Say whether EXIF has blocks within it, as those of a camera or a place."""
    return bool({_CAMERA, _PLACE} & set(exif))


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels upright.

    Args:
        array: Pixels [h, w, …] as they lie in the file.
        orientation: Where their row 0 and column 0 belong, 1 to 8; EXIF 2.32, tag
            0x0112.

    Returns:
        A view [h, w, …] or [w, h, …].
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
