"""Photographs with everything that comes with them, and Pillow's images of them."""

import dataclasses
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from scipy.ndimage import distance_transform_edt

from lkdn_jax.data.exif import read_exif, turn
from lkdn_jax.data.images import frames, is_deep, mend_transparency
from lkdn_jax.errors import InputError


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

    def joined(self) -> np.ndarray:
        """Return the pixels with alpha as last channel; one channel alone is [h, w]."""
        array = self.pixels
        if self.alpha is not None:
            array = np.concatenate([array, self.alpha[..., None]], axis=-1)
        return array[..., 0] if array.shape[-1] == 1 else array

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
    """Convert a PIL image of at most 8 bits a channel, or of mode `I;16`.

    A palette becomes RGB, 1-bit becomes grey, CMYK becomes sRGB by its profile.

    Raises:
        InputError: A colour mode none of these, more bits, or several frames.
    """
    check_still(image)
    if is_deep(image) and not image.mode.startswith("I;16"):
        raise InputError(
            f"more than 8 bits a channel in mode {image.mode}: Pillow does not keep "
            "them; give the pixels as an array of uint16"
        )
    mend_transparency(image)
    # Loaded first: Pillow turns a TIFF when it does, and forgets the orientation then.
    image.load()
    orientation, exif, notes = read_exif(image)
    icc = image.info.get("icc_profile")
    if image.mode == "CMYK":
        image, icc = _cmyk_to_rgb(image, icc), None
        notes += ("CMYK became sRGB",)
    if image.mode == "1":
        notes += ("1 bit became 8 bits of grey",)
    if image.mode in ("P", "PA"):
        notes += ("the palette became RGB",)
    array = _to_array(image)
    array = turn(array.reshape(*array.shape[:2], -1), orientation)
    return Photo(*split_alpha(array), icc, exif, notes)


def check_still(image: Image.Image) -> None:
    """Raise InputError if an image is animated or has several pages."""
    if (count := frames(image)) > 1:
        raise InputError(
            f"animated or of several pages ({count}): only still images are upscaled; "
            "split it first"
        )


def _to_array(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey, clear = np.array(image, np.uint16), image.info.get("transparency")
        if clear is None:
            return grey
        return np.stack([grey, np.uint16(65_535) * (grey != clear)], -1)
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
    return np.array(image.convert(mode))


def split_alpha(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Split [h, w, 1 to 4] into colour and alpha, None of 1 or 3 channels."""
    if array.shape[-1] in (2, 4):
        return array[..., :-1], array[..., -1]
    return array, None


def to_pil(photo: Photo) -> Image.Image:
    """Convert to a PIL image of mode L, LA, RGB, RGBA, or for 16-bit grey I;16."""
    image = Image.fromarray(photo.joined())
    if photo.icc:
        image.info["icc_profile"] = photo.icc
    if photo.exif:
        image.info["exif"] = photo.exif
    return image


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
