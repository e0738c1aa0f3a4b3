"""16-bit PNG and TIFF, which Pillow reads as 8 bits: pixels, profile and EXIF."""

import io
import struct
import zlib
from typing import IO, Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from lkdn_jax.errors import InputError

_SIGNATURE_AND_HEADER = 8 + 25  # bytes of a PNG before other chunks may come
# TIFF 6.0: type of a field, photometric interpretations, kinds of alpha.
_ASCII = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_MULTIPLIED, _PLAIN = 1, 2


def read_deep(content: bytes, file_format: str) -> np.ndarray:
    """Decode an image of 16 bits a channel.

    Args:
        content: The file.
        file_format: Its format as Pillow names it.

    Returns:
        Pixels [h, w, c], uint16, as they lie in the file, not turned: grey, grey and
        alpha, RGB, or RGB and alpha; alpha is not multiplied into the colours.

    Raises:
        InputError: Several pages, another depth, or another colour space.
        ValueError, RuntimeError: A damaged file.
    """
    if file_format == "PNG":
        array = imagecodecs.png_decode(content)
    elif file_format == "TIFF":
        array = _read_tiff(content)
    else:
        raise InputError(f"{file_format} of more than 8 bits: convert it to PNG")
    if array.dtype != np.uint16:
        raise InputError(
            f"more than 8 bits a channel, but {array.dtype}: convert it to 16 bits"
        )
    return array.reshape(*array.shape[:2], -1)


def _read_tiff(content: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        if len(tiff.pages) > 1:
            raise InputError(
                f"{len(tiff.pages)} pages: only still images are upscaled; split it"
            )
        page: Any = tiff.pages[0]
        extra = [int(samples) for samples in page.extrasamples]
        kind = int(page.photometric)
        colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}.get(kind)
        if (
            colours is None
            or page.axes not in ("YX", "YXS", "SYX")
            or page.samplesperpixel != colours + len(extra)
            or extra not in ([], [_MULTIPLIED], [_PLAIN])
            or (page.bitspersample, page.dtype) != (16, np.uint16)
        ):
            raise InputError(
                f"a TIFF of {page.samplesperpixel} channels of {page.bitspersample} "
                "bits: only grey and RGB, with or without alpha, of 8 or 16 unsigned "
                "bits are upscaled; convert it first"
            )
        if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
            raise InputError(f"{page.imagewidth}×{page.imagelength}: split it first")
        array = page.asarray()
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        array = array.reshape(*array.shape[:2], -1)
    if kind == _WHITE_IS_ZERO:
        array[..., 0] = 65535 - array[..., 0]
    if extra == [_MULTIPLIED]:
        alpha = np.maximum(array[..., colours:], 1).astype(np.float32)
        plain = np.rint(array[..., :colours] / alpha * 65535).clip(0, 65535)
        array[..., :colours] = plain.astype(np.uint16)
    return array


def tiff_tags(content: bytes) -> tuple[int, bytes | None]:
    """Return the orientation (EXIF's, 1 to 8) and the ICC profile of a TIFF."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page: Any = tiff.pages[0]
        orientation = page.tags.valueof("Orientation", default=1)
        return int(orientation), page.iccprofile


def write_deep_png(
    file: IO[bytes], array: np.ndarray, icc: bytes | None, exif: bytes | None
) -> None:
    """Encode [h, w] or [h, w, 2 to 4], uint16, with its profile and EXIF."""
    encoded = imagecodecs.png_encode(array, level=1)
    file.write(encoded[:_SIGNATURE_AND_HEADER])
    if icc:
        file.write(_png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(icc)))
    if exif:
        file.write(_png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    file.write(memoryview(encoded)[_SIGNATURE_AND_HEADER:])


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def write_deep_tiff(
    file: IO[bytes], array: np.ndarray, icc: bytes | None, exif: bytes | None
) -> tuple[str, ...]:
    """Encode [h, w] or [h, w, 2 to 4], uint16; return what of the EXIF is lost."""
    tags, notes = [], ()
    block = Image.Exif()
    block.load(exif or b"")
    for tag, value in block.items():
        if isinstance(value, str):
            tags.append((tag, _ASCII, None, value.encode("latin-1"), True))
        else:
            notes = ("a 16-bit TIFF keeps only plain texts of EXIF",)
    channels = array.shape[2] if array.ndim == 3 else 1
    tifffile.imwrite(
        file,
        array,
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if array.ndim == 3 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        iccprofile=icc,
        compression="zlib",
        metadata=None,
        software=False,
        extratags=tags,
    )
    return notes
