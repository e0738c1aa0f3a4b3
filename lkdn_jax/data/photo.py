"""Photographs with everything that comes with them, read and written without loss.

8-bit files go through Pillow. Pillow reads 16-bit RGB as 8 bits, so those go through
OpenCV (reading, PNG) and tifffile (TIFF), and their profile and EXIF are carried here.
"""

import dataclasses
import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps
from scipy.ndimage import distance_transform_edt

from lkdn_jax.data.images import (
    DECODE_ERRORS,
    FORMATS,
    READ_FORMATS,
    SAVE_OPTIONS,
    is_deep,
)
from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write

_ORIENTATION = 0x0112
# Sizes and places of the pixels in the file that was read, not of the one written.
_STALE_TAGS = (0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117)
# PNG at its default level takes a third of the time the network takes on two cores.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = SAVE_OPTIONS | {"PNG": {"compress_level": 1}}
_DEEP_FORMATS = ("PNG", "TIFF")
_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")


@dataclass(frozen=True)
class Photo:
    """A still image.

    Attributes:
        pixels: Colour [h, w, 1] (grey) or [h, w, 3] (RGB), upright; uint8, uint16, or
            floating point in [0, 1].
        alpha: Opacity [h, w] of the same dtype, or None.
        icc: ICC profile, or None.
        exif: EXIF block with its orientation taken out, or None.
        notes: What reading changed, in words.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    def replace(self, pixels: np.ndarray, alpha: np.ndarray | None) -> "Photo":
        """Return the photograph with other pixels."""
        return dataclasses.replace(self, pixels=pixels, alpha=alpha)

    def opaque(self) -> "Photo":
        """Fill what is fully transparent with the nearest visible colour.

        What lies there is arbitrary, often black, and would darken the edge of the
        visible part when the image is resized.
        """
        if self.alpha is None or self.alpha.all() or not self.alpha.any():
            return self
        nearest: Any = distance_transform_edt(
            self.alpha == 0, return_distances=False, return_indices=True
        )
        return dataclasses.replace(self, pixels=self.pixels[tuple(nearest)])


def from_pil(image: Image.Image) -> Photo:
    """Convert a PIL image of at most 8 bits a channel (or mode `I;16`).

    A palette becomes RGB, 1-bit becomes grey, CMYK becomes sRGB by its profile.

    Raises:
        InputError: A colour mode none of these, or several frames.
    """
    frames = getattr(image, "n_frames", 1)
    # Phones store photographs as MPO: a JPEG followed by previews and depth maps.
    if frames > 1 and image.format != "MPO":
        raise InputError(
            f"animated or of several pages ({frames}): only still images are upscaled; "
            "split it first"
        )
    icc, notes = image.info.get("icc_profile"), []
    exif = _upright_exif(image.getexif())
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        image, icc = _cmyk_to_rgb(image, icc), None
        notes.append("CMYK became sRGB")
    if image.mode.startswith("I;16"):
        return Photo(np.array(image, np.uint16)[..., None], None, icc, exif)
    if image.mode in ("P", "PA"):
        notes.append("the palette became RGB")
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    if mode not in ("L", "LA", "RGB", "RGBA"):
        mode = "RGB"
        if image.mode not in ("P", "PA", "YCbCr", "HSV", "RGBX"):
            raise InputError(
                f"colour mode {image.mode}: only grey, RGB, palette and CMYK images "
                "are upscaled; convert it to RGB first"
            )
    if image.has_transparency_data:
        mode = "LA" if mode in ("L", "LA") else "RGBA"
    array = np.array(image.convert(mode))
    array = array.reshape(*array.shape[:2], -1)
    alpha = array[..., -1] if mode in ("LA", "RGBA") else None
    pixels = array if alpha is None else array[..., :-1]
    return Photo(pixels, alpha, icc, exif, tuple(notes))


def to_pil(photo: Photo) -> Image.Image:
    """Convert to a PIL image of mode L, LA, RGB, RGBA, or for 16-bit grey I;16."""
    array = _joined(photo)
    if array.dtype == np.uint16 and array.ndim == 3:
        array = (array // 257).astype(np.uint8)
    image = Image.fromarray(array)
    if photo.icc:
        image.info["icc_profile"] = photo.icc
    if photo.exif:
        image.info["exif"] = photo.exif
    return image


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
        content = Path(path).read_bytes()
        with Image.open(io.BytesIO(content), formats=READ_FORMATS) as i:
            photo = _read_deep(content, i) if is_deep(i) else from_pil(i)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: too large ({error}); split it first") from error
    except DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path} cannot be read ({' '.join(reason.split())}): it must be a "
            "complete PNG, JPEG, WebP, TIFF or BMP image; get a fresh copy"
        ) from error
    return photo


def write_photo(path: str | os.PathLike[str], photo: Photo) -> tuple[str, ...]:
    """Write a photograph in the format its suffix names, atomically.

    Args:
        path: The file; PNG, TIFF and WebP are written without loss, JPEG at quality 95.
        photo: The photograph, uint8 or uint16.

    Returns:
        What the format could not keep, in words.

    Raises:
        InputError: An unknown suffix, an image too large for the format, or a file that
            cannot be written.
    """
    file_format = FORMATS.get(Path(path).suffix.lower())
    if file_format is None:
        raise InputError(
            f"{path} has suffix {Path(path).suffix!r}: it names the format and must be "
            f"one of {', '.join(FORMATS)}; rename the output"
        )
    notes = []
    if photo.alpha is not None and file_format not in _ALPHA_FORMATS:
        photo = photo.replace(photo.opaque().pixels, None)
        notes.append(f"{file_format} has no alpha: it was dropped")
    if photo.pixels.dtype == np.uint16 and file_format not in _DEEP_FORMATS:
        photo = _to_8_bits(photo)
        notes.append(f"{file_format} has 8 bits: the 16 were rounded")
    deep = photo.pixels.dtype == np.uint16
    if deep and photo.alpha is not None and photo.pixels.shape[-1] == 1:
        # OpenCV writes no 16-bit grey with alpha, and Pillow reads none.
        photo = photo.replace(np.repeat(photo.pixels, 3, axis=-1), photo.alpha)
    with atomic_write(path) as file:
        try:
            if deep and file_format == "PNG":
                file.write(_deep_png(photo))
            elif deep:
                _write_deep_tiff(file, photo)
            else:
                options = _SAVE_OPTIONS.get(file_format, {})
                blocks = {"icc_profile": photo.icc, "exif": photo.exif}
                options = options | {
                    name: block for name, block in blocks.items() if block
                }
                Image.fromarray(_joined(photo)).save(file, file_format, **options)
        except (ValueError, struct.error) as error:
            h, w = photo.pixels.shape[:2]
            raise InputError(
                f"cannot write {path}: {' '.join(str(error).split())} ({w}×{h}); "
                "choose PNG"
            ) from error
    return tuple(notes)


def _joined(photo: Photo) -> np.ndarray:
    array = photo.pixels
    if photo.alpha is not None:
        array = np.concatenate([array, photo.alpha[..., None]], axis=-1)
    return array[..., 0] if array.shape[-1] == 1 else array


def _to_8_bits(photo: Photo) -> Photo:
    def rounded(array: np.ndarray) -> np.ndarray:
        return np.rint(array / np.float32(257)).astype(np.uint8)

    alpha = None if photo.alpha is None else rounded(photo.alpha)
    return photo.replace(rounded(photo.pixels), alpha)


def _upright_exif(exif: Image.Exif) -> bytes | None:
    if not len(exif):
        return None
    kept = Image.Exif()  # the image's own is still to turn it
    kept.load(exif.tobytes())
    for tag in (_ORIENTATION, *_STALE_TAGS):
        kept.pop(tag, None)
    return kept.tobytes() if len(kept) else None


def _cmyk_to_rgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def _read_deep(content: bytes, image: Image.Image) -> Photo:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{frames} pages: only still images are upscaled; split it")
    array = cv2.imdecode(
        np.frombuffer(content, np.uint8),
        cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION,
    )
    if array is None or array.dtype != np.uint16:
        raise InputError(
            "more than 8 bits a channel, but not 16-bit integers: convert it to 16 bits"
        )
    array = array.reshape(*array.shape[:2], -1)
    if array.shape[-1] >= 3:  # OpenCV's order is BGR
        array = array[..., [2, 1, 0, *range(3, array.shape[-1])]]
    exif = image.getexif()
    array = _turn(array, exif.get(_ORIENTATION, 1))
    alpha = array[..., -1] if array.shape[-1] in (2, 4) else None
    pixels = array if alpha is None else array[..., :-1]
    icc = image.info.get("icc_profile")
    return Photo(np.ascontiguousarray(pixels), alpha, icc, _upright_exif(exif))


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    # EXIF 2.32, tag 0x0112: where row 0 and column 0 of the file belong.
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _deep_png(photo: Photo) -> bytes:
    array = _joined(photo)
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[-1])]]
    encoded, content = cv2.imencode(".png", array)
    if not encoded:
        raise ValueError("OpenCV does not encode it")
    blocks = b""
    if photo.icc:
        blocks += _png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(photo.icc))
    if photo.exif:
        blocks += _png_chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    data = content.tobytes()
    after_header = 8 + 25  # signature, IHDR
    return data[:after_header] + blocks + data[after_header:]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def _write_deep_tiff(file: Any, photo: Photo) -> None:
    tifffile.imwrite(
        file,
        _joined(photo),
        photometric="rgb" if photo.pixels.shape[-1] == 3 else "minisblack",
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        iccprofile=photo.icc,
        compression="zlib",
        metadata=None,
    )
