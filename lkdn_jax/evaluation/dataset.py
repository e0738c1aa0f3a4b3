"""Evaluate a network on the images of one dataset: PSNR and SSIM as the paper does.

An image enters as a file, becomes LR and HR arrays (`data.pairs`), is upscaled in
float32, clipped and rounded to uint8, and compared on Y with the border cropped.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lkdn_jax.data.bicubic import downscale, upscale
from lkdn_jax.data.images import to_uint8, write_image
from lkdn_jax.data.pairs import Dataset, LrMode, Pair, load_pair
from lkdn_jax.data.provenance import PAPER, name_interpolation
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y, ssim
from lkdn_jax.progress import ignore

Report = dict[str, Any]
Upscale = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One image of a benchmark, as it was seen.

    Attributes:
        lr: Image [h, w, 3], uint8.
        sr: The network's output [h·s, w·s, 3], uint8.
        hr: The original, of the same shape.
        bicubic: `lr` enlarged without a network, of the same shape.
        metrics: The metrics of `sr`, see `benchmark.evaluate_network`.
        paper_psnr_y: PSNR-Y, in dB, of the network on the LR image as the paper makes
            it: that of `sr`, unless `lr` is another image.
        resolve: The network: from an LR image of the shape of `lr` to its output.
    """

    lr: np.ndarray
    sr: np.ndarray
    hr: np.ndarray
    bicubic: np.ndarray
    metrics: dict[str, float]
    paper_psnr_y: float
    resolve: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        lr_mode: `auto` takes the LR files, or `matlab` where there are none; `matlab`
            and `basicsr` make the LR from the HR images (`data.bicubic`).
        rgb: Also report PSNR and SSIM over RGB.
        save_images: Folder for the upscaled images, None to keep none.
        observe: Called for each image with the names of its dataset and file, and what
            was seen.
    """

    lr_mode: LrMode = "auto"
    rgb: bool = False
    save_images: str | Path | None = None
    observe: Callable[[str, str, Sample], None] = ignore


DEFAULTS = Options()


def evaluate_dataset(
    upscaler: Upscale,
    dataset: Dataset,
    scale: int,
    options: Options = DEFAULTS,
    image_done: Callable[[str], None] = ignore,
) -> Report:
    """Evaluate on one dataset.

    Args:
        upscaler: Maps an LR image [h, w, 3], uint8, to SR [h·s, w·s, 3], float in
            about [0, 1].
        dataset: The images.
        scale: The factor s.
        options: How to evaluate.
        image_done: Called with the dataset's name after each image.

    Returns:
        {"mean", "images", "lr_files", "foreign_lr_files", "notes"}, see
        `benchmark.evaluate_network`.

    Raises:
        InputError: An image that cannot be used, or an output that is not finite.
    """
    images, foreign = {}, []
    for pair in dataset.pairs:
        row, interpolation = _evaluate_pair(upscaler, dataset, pair, scale, options)
        images[pair.name] = row
        if interpolation is not None:
            foreign.append(interpolation)
        image_done(dataset.name)
    mean = {
        metric: float(np.mean([row[metric] for row in images.values()]))
        for metric in next(iter(images.values()))
    }
    lr_files = [pair.lr for pair in dataset.pairs if pair.lr is not None]
    if options.lr_mode != "auto":
        lr_files = []
    notes = [_note(foreign, len(lr_files))] if foreign else []
    files = [pair.hr for pair in dataset.pairs] + lr_files
    lossy = sum(file.suffix.lower() in (".jpg", ".jpeg") for file in files)
    if lossy:
        notes.append(
            f"{lossy} of {len(files)} files are JPEG: what that lost is missing in the "
            "reference or in what the network sees; benchmarks are PNG"
        )
    return {
        "mean": mean,
        "images": images,
        "lr_files": len(lr_files),
        "foreign_lr_files": len(foreign),
        "notes": notes,
    }


def super_resolve(upscaler: Upscale, lr: np.ndarray, name: str) -> np.ndarray:
    """Upscale an image to 8 bits.

    Args:
        upscaler: See `evaluate_dataset`.
        lr: Image [h, w, 3], uint8.
        name: What to call it in an error.

    Returns:
        Image [h·s, w·s, 3], uint8.

    Raises:
        InputError: The output is not finite.
    """
    sr = upscaler(lr)
    if not np.isfinite(sr).all():
        raise InputError(
            f"{name}: the network's output is not finite; the weights are damaged or "
            "their training diverged"
        )
    return to_uint8(sr)


def save_path(folder: str | Path, dataset: Dataset, pair: Pair) -> Path:
    """Return the file for the upscaled image of a pair, in `Options.save_images`."""
    return Path(folder) / dataset.name / f"{Path(pair.name).stem}.png"


def _evaluate_pair(
    upscaler: Upscale, dataset: Dataset, pair: Pair, scale: int, options: Options
) -> tuple[dict[str, float], tuple[str, float] | None]:
    """Return the metrics, and the name and cost of an interpolation not the paper's."""
    lr, hr = load_pair(pair, scale, options.lr_mode)
    hr_y = rgb_to_y(hr)

    def psnr_y(image: np.ndarray) -> float:
        return psnr(rgb_to_y(image), hr_y, scale)

    start = time.perf_counter()
    sr = super_resolve(upscaler, lr, pair.name)
    seconds = time.perf_counter() - start
    if options.save_images is not None:
        write_image(save_path(options.save_images, dataset, pair), sr)
    row = {"psnr_y": psnr_y(sr), "ssim_y": ssim(rgb_to_y(sr), hr_y, scale)}
    if options.rgb:
        row |= {"psnr_rgb": psnr(sr, hr, scale), "ssim_rgb": ssim(sr, hr, scale)}
    bicubic = upscale(lr, scale)
    row["bicubic_psnr_y"] = psnr_y(bicubic)
    row["seconds_per_megapixel"] = seconds / (hr_y.size / 1e6)
    resolve = partial(super_resolve, upscaler, name=pair.name)
    paper, interpolation = row["psnr_y"], None
    if pair.lr is not None and options.lr_mode == "auto":
        interpolation = name_interpolation(lr, hr, scale)
    seen_by_someone = options.observe is not ignore
    if interpolation is not None or (options.lr_mode == "basicsr" and seen_by_someone):
        paper = psnr_y(resolve(downscale(hr, scale)))
    seen = Sample(lr, sr, hr, bicubic, row, paper, resolve)
    options.observe(dataset.name, pair.name, seen)
    return row, None if interpolation is None else (
        interpolation,
        paper - row["psnr_y"],
    )


def _note(foreign: list[tuple[str, float]], files: int) -> str:
    names = Counter(name for name, _ in foreign)
    found = ", ".join(f"{count} with {name}" for name, count in names.items())
    cost = np.mean([cost for _, cost in foreign])
    return (
        f"{len(foreign)} of {files} LR files were not made with {PAPER} but, as it "
        f"seems, {found}; on them that costs {cost:.4f} dB"
    )
