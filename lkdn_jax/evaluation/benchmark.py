"""Evaluate a network on benchmark images: PSNR and SSIM as the paper reports them.

An image enters as a file, becomes LR and HR arrays (`data.pairs`), is upscaled in
float32, clipped and rounded to uint8, and compared on Y with the border cropped.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lkdn_jax.data.bicubic import downscale, upscale
from lkdn_jax.data.images import to_uint8, write_image
from lkdn_jax.data.pairs import Dataset, LrMode, Pair, find_pairs, load_pair
from lkdn_jax.data.provenance import PAPER, name_interpolation
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.bucketing import BucketedUpscaler
from lkdn_jax.evaluation.metrics import WINDOW, psnr, rgb_to_y, ssim
from lkdn_jax.files import check_folder
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.models.optimize import optimize_for_inference, optimized_model
from lkdn_jax.weights.files import load

Report = dict[str, Any]
Upscale = Callable[[np.ndarray], np.ndarray]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Sample:
    """One image of a benchmark, as it was seen.

    Attributes:
        lr: Image [h, w, 3], uint8.
        sr: The network's output [h·s, w·s, 3], uint8.
        hr: The original, of the same shape.
        bicubic: `lr` enlarged without a network, of the same shape.
        metrics: The metrics of `sr`, see `evaluate_network`.
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
    observe: Callable[[str, str, Sample], None] = _ignore


def evaluate_file(
    weights: str | Path,
    folders: str | Path | Sequence[str | Path],
    *,
    scale: int | None = None,
    options: Options = Options(),  # frozen
    progress: Callable[[str, int, int], None] = _ignore,
) -> Report:
    """Evaluate a file of weights on folders of benchmark images.

    Args:
        weights: A file for `lkdn_jax.load`.
        folders: Datasets (or one), in a layout of `data.pairs.find_pairs`.
        scale: The scale the network must have; None takes the network's.
        options: How to evaluate.
        progress: Called with a stage, the steps done and their total.

    Returns:
        As `evaluate_network`.

    Raises:
        InputError: Unusable weights, or as `evaluate_network`.
    """
    return evaluate_network(
        str(weights),
        *load(weights),
        folders,
        scale=scale,
        options=options,
        progress=progress,
    )


def evaluate_network(
    name: str,
    model: LKDN,
    params: Mapping[str, Any],
    folders: str | Path | Sequence[str | Path],
    *,
    scale: int | None = None,
    options: Options = Options(),  # frozen
    progress: Callable[[str, int, int], None] = _ignore,
) -> Report:
    """Evaluate a network on folders of benchmark images.

    Args:
        name: What to call it; the file of its weights.
        model: The network.
        params: Its parameters, as trained or folded.
        folders: Datasets (or one), in a layout of `data.pairs.find_pairs`.
        scale: The scale the network must have; None takes the network's.
        options: How to evaluate.
        progress: Called with a stage, the steps done and their total.

    Returns:
        {"weights", "scale", "lr_mode", "datasets": {name: {"mean": {metric: value},
        "images": {file: {metric: value}}, "lr_files": how many LR images came in
        files, "foreign_lr_files": how many of them are not the paper's, "notes":
        [line]}}}. The metrics are `psnr_y` (dB), `ssim_y`, `bicubic_psnr_y` (dB),
        `seconds_per_megapixel` of output, and with `rgb` also `psnr_rgb`, `ssim_rgb`.

    Raises:
        InputError: Unusable folders or images; weights of another scale; two datasets
            of one name; images to save over the inputs.
    """
    if scale not in (None, model.scale):
        raise InputError(
            f"{name}: weights for scale {model.scale} where scale {scale} is asked "
            "for; give weights of that scale"
        )
    if isinstance(folders, str | Path):
        folders = [folders]
    datasets = [find_pairs(folder, model.scale) for folder in folders]
    _check_names(datasets, options.save_images)
    pairs = [pair for dataset in datasets for pair in dataset.pairs]
    progress("reading", 0, len(pairs))
    sizes = lr_sizes(pairs, model.scale, options.lr_mode)
    progress("compiling", 0, len(pairs))
    upscaler = partial(
        BucketedUpscaler(optimized_model(model), sizes), optimize_for_inference(params)
    )
    done = itertools.count(1)
    return {
        "weights": name,
        "scale": model.scale,
        "lr_mode": options.lr_mode,
        "datasets": {
            dataset.name: evaluate_dataset(
                upscaler,
                dataset,
                model.scale,
                options,
                lambda name: progress(name, next(done), len(pairs)),
            )
            for dataset in datasets
        },
    }


def evaluate_dataset(
    upscaler: Upscale,
    dataset: Dataset,
    scale: int,
    options: Options = Options(),  # frozen
    image_done: Callable[[str], None] = _ignore,
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
        `evaluate_network`.

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


def lr_sizes(
    pairs: Sequence[Pair], scale: int, lr_mode: LrMode = "auto"
) -> list[tuple[int, int]]:
    """Return the heights and widths of the LR images, and find the unusable ones.

    Args:
        pairs: The images; each is decoded, so that a broken one is found before work.
        scale: The factor s.
        lr_mode: See `Options`.

    Returns:
        A height and a width in pixels, one pair an image.

    Raises:
        InputError: An image that cannot be used.
    """
    sizes = []
    for pair in pairs:
        h, w, _ = load_pair(pair, scale, lr_mode)[0].shape
        if min(h, w) * scale - 2 * scale < WINDOW:
            raise InputError(
                f"{pair.hr}: {h * scale}×{w * scale} pixels; {WINDOW}×{WINDOW} must be "
                f"left for SSIM when a border of {scale} is cropped; leave it out"
            )
        sizes.append((h, w))
    return sizes


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
    save = _save_path(dataset, pair, options)
    if save is not None:
        write_image(save, sr)
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
    if interpolation is not None or options.lr_mode == "basicsr":
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


def _save_path(dataset: Dataset, pair: Pair, options: Options) -> Path | None:
    if options.save_images is None:
        return None
    name = f"{Path(pair.name).stem}.png"
    return Path(options.save_images) / dataset.name / name


def _check_names(datasets: Sequence[Dataset], save_images: str | Path | None) -> None:
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise InputError(
            f"datasets {', '.join(names)}: two have one name; rename a folder"
        )
    if save_images is not None:
        check_folder(Path(save_images))
    options, taken = Options(save_images=save_images), set()
    for dataset in datasets:
        taken |= {file for pair in dataset.pairs for file in (pair.hr, pair.lr)}
    for dataset in datasets if save_images else ():
        for pair in dataset.pairs:
            path = _save_path(dataset, pair, options)
            if path is None or path.resolve() in taken:
                raise InputError(
                    f"--save_images would write {path} twice or over an input; choose "
                    "another folder or rename the image"
                )
            taken.add(path.resolve())
