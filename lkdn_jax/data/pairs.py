"""Find the HR images of a benchmark and the LR images that belong to them."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from lkdn_jax.data.bicubic import check_scale, downscale
from lkdn_jax.data.images import list_images, read_rgb
from lkdn_jax.errors import InputError

LrMode = Literal["auto", "matlab", "basicsr"]

# Folders in a dataset's that hold images.
_INNERMOST = r"image_SRF_\d+|(?i:HR)|GTmod\d+"
_LAYOUTS = (
    "*_HR.png beside *_LR.png, here or in image_SRF_{0}; HR with LR_bicubic/X{0}, "
    "LR/X{0} or LR; one *_HR with its *_LR_bicubic/X{0}, *_LR/X{0} or *_LR; GTmod{0} "
    "or a multiple with LRbicx{0}; or HR images alone, here or in HR or GTmod*"
)


@dataclass(frozen=True)
class Pair:
    """One benchmark image.

    Attributes:
        name: The HR file's name, such as `img_001_SRF_4_HR.png`.
        hr: The HR file.
        lr: The LR file, or None where it must be made from the HR file.
    """

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class Dataset:
    """A benchmark at one scale.

    Attributes:
        name: Such as `Set5`.
        folder: Where it was found, without links.
        pairs: Its images, sorted by name, at least one.
    """

    name: str
    folder: Path
    pairs: tuple[Pair, ...]


def _stated_scale(path: Path) -> int | None:
    # The file's own name wins over its folder's.
    stated = re.findall(r"_SRF_(\d+)", f"{path.parent.name}/{path.name}")
    return int(stated[-1]) if stated else None


def _ending(images: Iterable[Path], ending: str, scale: int) -> list[Path]:
    return [
        image
        for image in images
        if image.stem.upper().endswith(ending) and _stated_scale(image) in (None, scale)
    ]


def _hr_images(folder: Path, scale: int) -> list[Path]:
    images = list_images(folder)
    # Benchmark folders also hold the results of other methods (*_bicubic.png), which
    # an _LR file gives away; without one, every image is an HR image.
    if any(image.stem.upper().endswith("_LR") for image in images):
        return _ending(images, "_HR", scale)
    return [image for image in images if _stated_scale(image) in (None, scale)]


def _inside(folder: Path, *names: str) -> Path | None:
    """Return the folder reached by these names, in any case, if it is there."""
    for name in names:
        found = folder / name
        if not found.is_dir():
            others = sorted(folder.glob("*"))  # none where it may not be listed
            same = (c for c in others if c.name.lower() == name.lower() and c.is_dir())
            found = next(same, None)
        if found is None:
            return None
        folder = found
    return folder


def _lr_folder(hr_folder: Path, scale: int) -> Path | None:
    name, parent = hr_folder.name, hr_folder.parent
    if re.fullmatch(r"GTmod\d+", name) and int(name[5:]) % scale == 0:
        return _inside(parent, f"LRbicx{scale}")
    if name.upper() != "HR" and not name.upper().endswith("_HR"):
        return None
    lr = f"{name[:-2]}LR"
    return (
        _inside(parent, f"{lr}_bicubic", f"X{scale}")
        or _inside(parent, lr, f"X{scale}")
        or _inside(parent, lr)
    )


def _lr_images(hr_folder: Path, scale: int) -> dict[str, Path]:
    lrs = _ending(list_images(hr_folder), "_LR", scale)
    if not lrs and (lr_folder := _lr_folder(hr_folder, scale)) is not None:
        lrs = list_images(lr_folder)
    return {lr.stem: lr for lr in lrs}


def lr_names(stem: str, scale: int) -> tuple[str, ...]:
    """Return the names, without suffix, that the LR image of an HR image may have."""
    name = stem[:-3] if stem.upper().endswith("_HR") else stem
    return f"{name}_LR", f"{name}_lr", f"{stem}X{scale}", f"{stem}x{scale}", stem


def _match(hr_folder: Path, scale: int) -> tuple[Pair, ...]:
    lrs = _lr_images(hr_folder, scale)
    pairs = []
    for hr in _hr_images(hr_folder, scale) if lrs else ():
        names = lr_names(hr.stem, scale)
        lr = next((lrs[name] for name in names if name in lrs), None)
        if lr is None:
            raise InputError(
                f"{hr} has no LR image of scale {scale} though others do: every HR "
                "image needs one; add it or take all LR images away"
            )
        pairs.append(Pair(hr.name, hr, lr))
    return tuple(pairs)


def _inner_folders(folder: Path, scale: int) -> list[Path]:
    children = [child for child in sorted(folder.glob("*")) if child.is_dir()]
    div2k = [
        child
        for child in children
        if child.name.upper().endswith("_HR") and _lr_folder(child, scale)
    ]
    if len(div2k) > 1:
        raise InputError(
            f"{folder} holds several HR folders ({', '.join(d.name for d in div2k)}): "
            "a dataset has one; give one of them instead"
        )
    gtmod = [child for child in children if re.fullmatch(r"GTmod\d+", child.name)]
    # Cropped to this scale first, then to a multiple of it, then to anything.
    gtmod.sort(key=lambda d: (int(d.name[5:]) % scale, int(d.name[5:])))
    named = [folder / f"image_SRF_{scale}", _inside(folder, "HR")]
    return [child for child in named if child and child.is_dir()] + div2k + gtmod


def _dataset_name(folder: Path, scale: int) -> str:
    if re.fullmatch(_INNERMOST, folder.name):
        return folder.parent.name or folder.name
    return folder.name[:-3] if _lr_folder(folder, scale) else folder.name


def _why_none(folder: Path, scale: int) -> str:
    images = list_images(folder)
    for child in sorted(folder.glob("image_SRF_*")):
        images += list_images(child) if child.is_dir() else []
    if _ending(images, "_LR", scale):
        return "only *_LR files are there, and each needs its *_HR; add those"
    others = sorted({_stated_scale(image) or scale for image in images} - {scale})
    if others:
        stated = ", ".join(map(str, others))
        return f"its files are for scale {stated}; ask for that or add the missing ones"
    return f"it must hold one of: {_LAYOUTS.format(scale)}; check the path"


def find_pairs(folder: str | os.PathLike[str], scale: int) -> Dataset:
    """Find a benchmark's images in any of the layouts in circulation.

    Pairs are looked for first, in this order; then HR images alone, in `HR`, `GTmod*`
    and the folder itself:

    - `*_HR.png` beside `*_LR.png` (or `_hr`, `_lr`), in the folder or in
      `image_SRF_{scale}`;
    - `HR` with `LR_bicubic/X{scale}`, `LR/X{scale}` or `LR`, or the one `*_HR` with
      its `*_LR_bicubic/X{scale}`, `*_LR/X{scale}` or `*_LR`, in any case, whose LR
      files are named `nameX4`, `namex4` or `name`;
    - `GTmod{m}`, m a multiple of scale, with `LRbicx{scale}`, equally named.

    Args:
        folder: The dataset's folder, or the innermost one that holds the HR images.
        scale: The factor, an integer >= 1.

    Returns:
        The dataset, named after its folder or the link to it: for an innermost one as
        `image_SRF_4`, `HR` or `GTmod12` after the parent, for `DIV2K_valid_HR` with
        its LR folder `DIV2K_valid`.

    Raises:
        InputError: No such folder, no images of that scale, an HR image without LR
            while others have one, or several candidates.
    """
    check_scale(scale)
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100  a link is a name
    folder = Path(os.path.realpath(folder))
    if not name or name.upper().endswith("_HR") or re.fullmatch(_INNERMOST, name):
        name = _dataset_name(folder, scale)
    if not os.path.isdir(folder):  # unlike is_dir, it takes any name
        raise InputError(
            f"{folder} is no folder: it must hold a dataset's images; check the path"
        )
    inner = _inner_folders(folder, scale)
    for hr_folder in (folder, *inner):
        if pairs := _match(hr_folder, scale):
            return Dataset(name, folder, pairs)
    for hr_folder in (*inner, folder):
        if hrs := _hr_images(hr_folder, scale):
            pairs = tuple(Pair(hr.name, hr, None) for hr in hrs)
            return Dataset(name, folder, pairs)
    raise InputError(
        f"{folder} has no images for scale {scale}: {_why_none(folder, scale)}"
    )


def load_pair(
    pair: Pair, scale: int, lr_mode: LrMode = "auto"
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read a pair, or make its LR image.

    The HR image loses the rows at the bottom and the columns at the right that do not
    fill an LR pixel, as in EDSR's and BasicSR's benchmarks.

    Args:
        pair: The files.
        scale: The factor, an integer >= 1.
        lr_mode: `auto` takes the LR file, or makes one as `matlab` where there is
            none; `matlab` and `basicsr` always make it, as `bicubic.resize` says.

    Returns:
        lr [h, w, 3] and hr [h * scale, w * scale, 3], both uint8 in [0, 255], RGB.

    Raises:
        InputError: An unreadable file, an HR image smaller than scale, an LR image
            whose size is not that of the HR image over scale, or an unknown mode.
    """
    check_scale(scale)
    if lr_mode not in get_args(LrMode):
        raise InputError(
            f"LR mode {lr_mode!r} is unknown: choose one of "
            f"{', '.join(get_args(LrMode))}"
        )
    hr = read_rgb(pair.hr)
    h, w = hr.shape[0] // scale, hr.shape[1] // scale
    if h == 0 or w == 0:
        raise InputError(
            f"{pair.hr} is {hr.shape[0]}x{hr.shape[1]} (height x width): an HR image "
            f"must be at least as large as scale {scale}; leave it out"
        )
    cropped = np.ascontiguousarray(hr[: h * scale, : w * scale])
    if pair.lr is None or lr_mode != "auto":
        mode = "matlab" if lr_mode == "auto" else lr_mode
        return downscale(cropped, scale, mode), cropped
    lr = read_rgb(pair.lr)
    if lr.shape[:2] != (h, w):
        raise InputError(
            f"{pair.lr} is {lr.shape[0]}x{lr.shape[1]} (height x width) but its HR "
            f"image is {hr.shape[0]}x{hr.shape[1]}: at scale {scale} the LR must be "
            f"{h}x{w}; check that both files belong together and to this scale"
        )
    return lr, cropped
