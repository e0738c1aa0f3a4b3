"""Read and write 8-bit RGB images; refuse whatever would silently lose something."""

import io
import os
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
READ_FORMATS = sorted({*FORMATS.values()})
IMAGE_SUFFIXES = tuple(FORMATS)
# WebP is lossy unless told otherwise, JPEG at its default 75 visibly so.
SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},  # also where alpha is 0
    "TIFF": {"compression": "tiff_lzw"},
}
_TIFF_BITS_PER_SAMPLE = 258
_STRETCHED = {"L;2": 85, "L;4": 17}  # what Pillow multiplies such pixels by
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # of libjpeg and libwebp
# Found by feeding Pillow broken files: its decoders do not keep to OSError.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
)


def is_deep(image: Image.Image) -> bool:
    """Say whether an image just opened has more than 8 bits a channel."""
    # Must be asked before the pixels are loaded: Pillow opens 16-bit RGB as mode
    # "RGB", keeps the high bytes, and forgets that there were others.
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        bits = image.getexif().get(_TIFF_BITS_PER_SAMPLE, 1)
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    # BMP's raw mode "BGR;16" means 16 bits a pixel, hence PNG alone.
    return image.format == "PNG" and any(
        ";16" in str(tile.args) for tile in getattr(image, "tile", ())
    )


def frames(image: Image.Image) -> int:
    """Return how many images or pages a file holds; of an MPO only the first counts.

    Phones store photographs so: a JPEG followed by previews and depth maps.
    """
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def mend_transparency(image: Image.Image) -> None:
    """Have an image just opened state its transparent grey as its pixels will have it.

    Pillow stretches grey of 2 and 4 bits to 8, but not the value that a PNG states.
    """
    grey, tiles = image.info.get("transparency"), getattr(image, "tile", ())
    if isinstance(grey, int) and tiles:  # none once it is loaded
        image.info["transparency"] = grey * _STRETCHED.get(tiles[0].args, 1)


def _check_kind(image: Image.Image, path: str | os.PathLike[str]) -> None:
    if is_deep(image):
        raise InputError(
            f"{path} has more than 8 bits per channel: only 8-bit images are read; "
            "convert it to 8 bits first"
        )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise InputError(
            f"{path} has colour mode {image.mode}: only RGB, grayscale and palette "
            "images are read; convert it to RGB first"
        )
    if (count := frames(image)) > 1:
        raise InputError(
            f"{path} holds {count} frames or pages: only single images are read; "
            "split it first"
        )


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise InputError(
                f"{path} is partly transparent: only opaque images are read; flatten "
                "it onto a background first"
            )
    return np.array(image.convert("RGB"))


def read_rgb(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode a PNG, JPEG, WebP, TIFF or BMP file, whatever its suffix.

    Grayscale becomes three equal channels, a palette its colours, an alpha channel
    without effect is dropped. An EXIF orientation is applied.

    Args:
        path: The image file.

    Returns:
        [h, w, 3], uint8 in [0, 255], RGB.

    Raises:
        InputError: No such file, not an image, truncated or corrupt, more than 8 bits
            per channel, partly transparent, CMYK or another colour mode, or several
            frames.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            _check_kind(image, path)
            mend_transparency(image)
            return _to_rgb(ImageOps.exif_transpose(image), path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path} cannot be identified: it must be an 8-bit PNG, JPEG, WebP, TIFF "
            "or BMP image; check the file or convert it"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} is too large or its header is broken ({error}): check the file "
            "or split it into parts"
        ) from error
    except DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path} cannot be read ({' '.join(reason.split())}): it must be a "
            "complete image file; get a fresh copy"
        ) from error


def to_uint8(image: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Clip an image to [0, 1] and round it to 8 bits.

    Args:
        image: [...], float, finite, about [0, 1].

    Returns:
        [...], uint8 in [0, 255].
    """
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def check_size(path: str | os.PathLike[str], file_format: str, h: int, w: int) -> None:
    """Check that a format can hold an image, where Pillow does not say it clearly.

    Args:
        path: The file to write.
        file_format: One of the values of `FORMATS`.
        h: Height in pixels.
        w: Width in pixels.

    Raises:
        InputError: It cannot.
    """
    longest = _LONGEST_SIDE.get(file_format, max(h, w))
    if max(h, w) > longest:
        raise InputError(
            f"cannot write {path}: {h}x{w} (height x width), but {file_format} holds "
            f"at most {longest} pixels a side; choose PNG"
        )


def write_image(path: str | os.PathLike[str], image: npt.NDArray[np.uint8]) -> None:
    """Encode an image in the format its suffix names, atomically.

    PNG, TIFF, BMP and WebP are written without loss, JPEG at quality 95 with full
    colour resolution.

    Args:
        path: The file to write, with one of `IMAGE_SUFFIXES` in any case.
        image: [h, w, 3] RGB or [h, w] grayscale, uint8 in [0, 255].

    Raises:
        InputError: An unknown suffix, an image of another shape or dtype, an image too
            large for the format, or a file that cannot be written.
    """
    file_format = FORMATS.get(Path(path).suffix.lower())
    if file_format is None:
        raise InputError(
            f"{path} has suffix {Path(path).suffix!r}: it names the format and must be "
            f"one of {', '.join(IMAGE_SUFFIXES)}; rename the output"
        )
    image = np.asarray(image)
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not is_image or image.size == 0:
        raise InputError(
            f"cannot write {path}: the image is {image.dtype} {list(image.shape)} but "
            "must be non-empty uint8 [h, w, 3] or [h, w]; convert it first"
        )
    check_size(path, file_format, *image.shape[:2])
    with atomic_write(path) as file:
        try:
            options = SAVE_OPTIONS.get(file_format, {})
            encode(file, image, file_format, **options)
        except (ValueError, struct.error) as error:
            raise InputError(
                f"cannot write {path}: {' '.join(str(error).split())} "
                f"(image {image.shape[0]}x{image.shape[1]}); choose PNG"
            ) from error


def encode(
    file: IO[bytes], array: npt.NDArray[np.uint8], file_format: str, **options: Any
) -> None:
    """Write an image to an open file, in a format of Pillow's, with its options."""
    # Given the file itself, libtiff would print what the disk refuses.
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, file_format, **options)
    file.write(encoded.getbuffer())


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images lying directly in a folder, by suffix.

    Args:
        folder: The folder; subfolders are not entered.

    Returns:
        Paths of files with one of `IMAGE_SUFFIXES` in any case, hidden ones left out,
        sorted by name.

    Raises:
        InputError: No such folder, or no permission to list it.
    """
    folder = Path(folder)
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}): it must be a folder of "
            "images; check the path"
        ) from error
    return [
        file
        for file in files
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and file.is_file()
    ]
