"""Evaluate a network on benchmark images: PSNR and SSIM as the paper reports them.

An image enters as a file, becomes LR and HR arrays (`data.pairs`), is upscaled in
float32, clipped and rounded to uint8, and compared on Y with the border cropped.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lkdn_jax.data.bicubic import downscale, upscale
from lkdn_jax.data.images import read_rgb, write_image
from lkdn_jax.data.pairs import Dataset, LrMode, Pair, find_pairs, load_pair
from lkdn_jax.data.provenance import PAPER, name_interpolation
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.bucketing import BucketedUpscaler
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y, ssim
from lkdn_jax.weights.files import load

Progress = Callable[[str, int, int], None]
Report = dict[str, Any]
Upscale = Callable[[np.ndarray], np.ndarray]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        lr_mode: `auto` takes the LR files, or `matlab` where there are none; `matlab`
            and `basicsr` make the LR from the HR images (`data.bicubic`).
        rgb: Also report PSNR and SSIM over RGB.
        save_images: Folder for the upscaled images, None to keep none.
    """

    lr_mode: LrMode = "auto"
    rgb: bool = False
    save_images: Path | None = None


def evaluate_file(
    weights: str | Path,
    folders: Sequence[str | Path],
    *,
    scale: int | None = None,
    options: Options = Options(),  # frozen
    progress: Progress = _ignore,
) -> Report:
    """Evaluate a file of weights on folders of benchmark images.

    Args:
        weights: A file for `lkdn_jax.load`.
        folders: Datasets, in one of the layouts of `data.pairs.find_pairs`.
        scale: The scale the network must have; None takes the network's.
        options: How to evaluate.
        progress: Called with a stage, the steps done and their total.

    Returns:
        {"weights", "scale", "lr_mode", "datasets": {name: {"mean": {metric: value},
        "images": {file: {metric: value}}, "notes": [line]}}}. The metrics are
        `psnr_y` (dB), `ssim_y`, `bicubic_psnr_y` (dB), `seconds_per_megapixel` of
        output, and with `rgb` also `psnr_rgb`, `ssim_rgb`.

    Raises:
        InputError: Unusable weights, folders, or images; weights of another scale; two
            datasets of one name.
    """
    model, params = load(weights)
    if scale not in (None, model.scale):
        raise InputError(
            f"{weights}: weights for scale {model.scale}, but --scale is {scale}; give "
            "weights of that scale or leave --scale out"
        )
    datasets = [find_pairs(folder, model.scale) for folder in folders]
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise InputError(
            f"datasets {', '.join(names)}: two have one name; rename a folder"
        )
    pairs = [pair for dataset in datasets for pair in dataset.pairs]
    progress("compiling", 0, len(pairs))
    # Decoding every image once more than needed finds a broken one before the work.
    shapes = [read_rgb(pair.hr).shape for pair in pairs]
    sizes = [(h // model.scale, w // model.scale) for h, w, _ in shapes]
    upscaler = BucketedUpscaler(model, params, sizes)
    report = {
        "weights": str(weights),
        "scale": model.scale,
        "lr_mode": options.lr_mode,
        "datasets": {},
    }
    done = 0
    for dataset in datasets:
        start = done

        def advance(name: str, images: int, start: int = start) -> None:
            progress(name, start + images, len(pairs))

        report["datasets"][dataset.name] = evaluate_dataset(
            upscaler, dataset, model.scale, options, advance
        )
        done += len(dataset.pairs)
    return report


def evaluate_dataset(
    upscaler: Upscale,
    dataset: Dataset,
    scale: int,
    options: Options,
    advance: Callable[[str, int], None] = _ignore,
) -> Report:
    """Evaluate on one dataset.

    Args:
        upscaler: Maps an LR image [h, w, 3], uint8, to SR [h·s, w·s, 3], float in
            about [0, 1].
        dataset: The images.
        scale: The factor s.
        options: How to evaluate.
        advance: Called with the dataset's name and the number of images done.

    Returns:
        {"mean", "images", "notes"}, see `evaluate_file`.

    Raises:
        InputError: An image that cannot be used, or an output that is not finite.
    """
    images: dict[str, dict[str, float]] = {}
    foreign: dict[str, list[float]] = {}
    for done, pair in enumerate(dataset.pairs):
        advance(dataset.name, done)
        lr, hr = load_pair(pair, scale, options.lr_mode)
        start = time.perf_counter()
        sr = quantize(upscaler(lr), pair)
        seconds = time.perf_counter() - start
        images[pair.name] = measure(sr, hr, scale, rgb=options.rgb) | {
            "bicubic_psnr_y": _psnr_y(upscale(lr, scale), hr, scale),
            "seconds_per_megapixel": seconds / (sr.shape[0] * sr.shape[1] / 1e6),
        }
        if options.save_images is not None:
            folder = options.save_images / dataset.name
            write_image(folder / f"{Path(pair.name).stem}.png", sr)
        if pair.lr is not None and options.lr_mode == "auto":
            interpolation = name_interpolation(lr, hr, scale)
            if interpolation is not None:
                paper = quantize(upscaler(downscale(hr, scale)), pair)
                cost = _psnr_y(paper, hr, scale) - images[pair.name]["psnr_y"]
                foreign.setdefault(interpolation, []).append(cost)
    advance(dataset.name, len(dataset.pairs))
    notes = [
        f"{len(costs)} of {len(images)} LR files were not made with {PAPER} but look "
        f"like {interpolation}; that costs {np.mean(costs):.4f} dB on them"
        for interpolation, costs in foreign.items()
    ]
    mean = {
        metric: float(np.mean([row[metric] for row in images.values()]))
        for metric in next(iter(images.values()))
    }
    return {"mean": mean, "images": images, "notes": notes}


def quantize(sr: np.ndarray, pair: Pair) -> np.ndarray:
    """Clip to [0, 1] and round to uint8.

    Args:
        sr: Image [h, w, 3], float, about [0, 1].
        pair: Where it came from, for the error.

    Returns:
        Image [h, w, 3], uint8.

    Raises:
        InputError: The image is not finite.
    """
    if not np.isfinite(sr).all():
        raise InputError(
            f"{pair.name}: the network's output is not finite; the weights are damaged "
            "or their training diverged"
        )
    return np.rint(np.clip(sr, 0, 1) * 255).astype(np.uint8)


def measure(
    sr: np.ndarray, hr: np.ndarray, scale: int, *, rgb: bool = False
) -> dict[str, float]:
    """Compare two images as the paper does.

    Args:
        sr: Image [h, w, 3], uint8.
        hr: Image [h, w, 3], uint8.
        scale: The factor, which is also the width of the border cropped.
        rgb: Also compare over RGB.

    Returns:
        `psnr_y` (dB), `ssim_y`, and with `rgb` also `psnr_rgb`, `ssim_rgb`.
    """
    spaces: Mapping[Literal["y", "rgb"], Any] = {"y": (rgb_to_y(sr), rgb_to_y(hr))}
    if rgb:
        spaces = {**spaces, "rgb": (sr, hr)}
    return {
        f"{name}_{space}": metric(x, y, scale)
        for space, (x, y) in spaces.items()
        for name, metric in (("psnr", psnr), ("ssim", ssim))
    }


def _psnr_y(sr: np.ndarray, hr: np.ndarray, scale: int) -> float:
    return psnr(rgb_to_y(sr), rgb_to_y(hr), scale)
