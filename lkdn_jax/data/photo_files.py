"""Photographs in files, read and written without loss, but for JPEG."""

import dataclasses
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lkdn_jax.data.deep import (
    read_deep,
    tiff_tags,
    write_deep_png,
    write_deep_tiff,
)
from lkdn_jax.data.exif import nested, read_exif, tiff_exif, turn
from lkdn_jax.data.images import (
    DECODE_ERRORS,
    FORMATS,
    READ_FORMATS,
    SAVE_OPTIONS,
    check_size,
    encode,
    is_deep,
)
from lkdn_jax.data.photo import Photo, check_still, from_pil, split_alpha
from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write

_DEEP_ERRORS = (ArithmeticError, AttributeError, RuntimeError)
# PNG at its default level takes a third of the time the network takes on two cores.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = SAVE_OPTIONS | {"PNG": {"compress_level": 1}}
_DEEP_FORMATS = ("PNG", "TIFF")
_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")
_LONGEST_JPEG_EXIF = 65_533  # bytes
_STRIP = 256  # rows


def read_photo(path: str | os.PathLike[str]) -> Photo:
    """Read a PNG, JPEG, WebP, TIFF or BMP file, 8 or 16 bits a channel.

    Args:
        path: The file, whatever its suffix.

    Returns:
        The photograph, upright.

    Raises:
        InputError: No such file, not an image, damaged, animated, or of a colour mode
            that is not read.
    """
    try:
        photo = _decode(Path(path).read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder: give an image in it") from error
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror}; change its permissions") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path} cannot be read: it must be a PNG, JPEG, WebP, TIFF or BMP image; "
            "convert it, or get a fresh copy"
        ) from error
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = str(error) or "no memory for it"
        raise InputError(f"{path}: too large ({reason}); split it first") from error
    except (*DECODE_ERRORS, *_DEEP_ERRORS) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path} cannot be read ({' '.join(reason.split())}): it must be a "
            "complete PNG, JPEG, WebP, TIFF or BMP image; get a fresh copy"
        ) from error
    return photo


def _decode(content: bytes) -> Photo:
    exif, notes = None, ()
    try:
        with Image.open(io.BytesIO(content), formats=READ_FORMATS) as image:
            if not is_deep(image):
                return from_pil(image)
            check_still(image)
            kind, icc = image.format or "", image.info.get("icc_profile")
            orientation, exif, notes = read_exif(image)
    except Image.UnidentifiedImageError:
        # Pillow opens no 16-bit TIFF of grey with alpha.
        if content[:4] not in (b"II*\0", b"MM\0*"):
            raise
        kind, (orientation, icc) = "TIFF", tiff_tags(content)
        notes = ("its EXIF is not read",)
    array = np.ascontiguousarray(turn(read_deep(content, kind), orientation))
    return Photo(*split_alpha(array), icc, exif, notes)


def write_photo(path: str | os.PathLike[str], photo: Photo) -> tuple[str, ...]:
    """Write a photograph in the format its suffix names, atomically.

    Args:
        path: The file; PNG, TIFF and WebP are written without loss, JPEG at quality 95.
        photo: The photograph, uint8 or uint16.

    Returns:
        What the format could not keep, in words.

    Raises:
        InputError: An unknown suffix, another dtype, an image too large for the format,
            or a file that cannot be written.
    """
    file_format = FORMATS.get(Path(path).suffix.lower())
    if file_format is None:
        raise InputError(
            f"{path} has suffix {Path(path).suffix!r}: it names the format and must be "
            f"one of {', '.join(FORMATS)}; rename the output"
        )
    if photo.pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: pixels of dtype {photo.pixels.dtype}; give uint8 or uint16"
        )
    notes: tuple[str, ...] = ()
    if photo.alpha is not None and file_format not in _ALPHA_FORMATS:
        if photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
            notes += (f"{file_format} has no alpha: what shows through became white",)
        photo = _on_white(photo, photo.alpha)
    if photo.pixels.dtype == np.uint16 and file_format not in _DEEP_FORMATS:
        photo = _to_8_bits(photo)
        notes += (f"{file_format} has 8 bits: the 16 were rounded",)
    if file_format == "BMP" and (photo.icc or photo.exif):
        notes += ("BMP has no profile and no EXIF: they were dropped",)
    if file_format == "JPEG" and len(photo.exif or b"") > _LONGEST_JPEG_EXIF:
        photo = dataclasses.replace(photo, exif=None)
        notes += ("JPEG holds 64 KB of EXIF, and this is more: it was dropped",)
    if file_format == "WEBP" and (photo.icc or b"")[16:20] == b"GRAY":
        photo = dataclasses.replace(photo, icc=None)
        notes += ("WEBP has no grey: its profile of grey was dropped",)
    array = photo.joined()
    check_size(path, file_format, *array.shape[:2])
    with atomic_write(path) as file:
        try:
            if array.dtype == np.uint8:
                options = _save_options(file_format, photo)
                encode(file, array, file_format, **options)
            elif file_format == "PNG":
                write_deep_png(file, array, photo.icc, photo.exif)
            else:
                notes += write_deep_tiff(file, array, photo.icc, photo.exif)
        except (ValueError, RuntimeError, struct.error) as error:
            h, w = array.shape[:2]
            raise InputError(
                f"cannot write {path}: {' '.join(str(error).split())} ({w}×{h}); "
                "choose PNG"
            ) from error
    return notes


def _save_options(file_format: str, photo: Photo) -> dict[str, Any]:
    options = dict(_SAVE_OPTIONS.get(file_format, {}))
    if photo.icc:
        options["icc_profile"] = photo.icc
    if photo.exif:
        options["exif"] = photo.exif
    if photo.exif and file_format == "TIFF":
        options["exif"] = exif = tiff_exif(photo.exif)
        if nested(exif):
            # Pillow's libtiff, which compresses, cannot write EXIF blocks in EXIF.
            options.pop("compression", None)
    return options


def _on_white(photo: Photo, alpha: np.ndarray) -> Photo:
    white, pixels = np.iinfo(alpha.dtype).max, np.empty_like(photo.pixels)
    for top in range(0, len(alpha), _STRIP):  # float32 takes four times the memory
        rows = slice(top, top + _STRIP)
        opacity = alpha[rows, :, None] / np.float32(white)
        mixed = photo.pixels[rows] * opacity + white * (1 - opacity)
        pixels[rows] = np.rint(mixed).astype(alpha.dtype)
    return photo.replace(pixels, None)


def _to_8_bits(photo: Photo) -> Photo:
    def rounded(array: np.ndarray) -> np.ndarray:
        return np.rint(array / np.float32(257)).astype(np.uint8)

    alpha = None if photo.alpha is None else rounded(photo.alpha)
    return photo.replace(rounded(photo.pixels), alpha)
