"""Evaluate a network on the datasets of a benchmark, in one report."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lkdn_jax.data.pairs import Dataset, LrMode, Pair, find_pairs, load_pair
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.bucketing import BucketedUpscaler
from lkdn_jax.evaluation.dataset import (
    DEFAULTS,
    Options,
    Report,
    evaluate_dataset,
    save_path,
)
from lkdn_jax.evaluation.metrics import WINDOW
from lkdn_jax.files import check_folder
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.models.optimize import optimize_for_inference, optimized_model
from lkdn_jax.progress import Progress, ignore
from lkdn_jax.weights.files import load


def evaluate_file(
    weights: str | Path,
    folders: str | Path | Sequence[str | Path],
    *,
    options: Options = DEFAULTS,
    progress: Progress = ignore,
) -> Report:
    """Evaluate a file of weights on folders of benchmark images.

    Args:
        weights: A file for `lkdn_jax.load`.
        folders: Datasets (or one), in a layout of `data.pairs.find_pairs`.
        options: How to evaluate.
        progress: Called with a stage, the steps done and their total.

    Returns:
        As `evaluate_network`.

    Raises:
        InputError: Unusable weights, or as `evaluate_network`.
    """
    return evaluate_network(
        str(weights), *load(weights), folders, options=options, progress=progress
    )


def evaluate_network(
    weights: str,
    model: LKDN,
    params: Mapping[str, Any],
    folders: str | Path | Sequence[str | Path],
    *,
    name: str | None = None,
    scale: int | None = None,
    options: Options = DEFAULTS,
    progress: Progress = ignore,
) -> Report:
    """Evaluate a network on folders of benchmark images.

    Args:
        weights: The file of its weights, or what stands for it.
        model: The network.
        params: Its parameters, as trained or folded.
        folders: Datasets (or one), in a layout of `data.pairs.find_pairs`.
        name: What to call it; None takes the file's name.
        scale: The scale the network must have; None takes the network's.
        options: How to evaluate.
        progress: Called with a stage, the steps done and their total.

    Returns:
        {"name", "weights", "scale", "lr_mode", "datasets": {name: {"mean": {metric:
        value}, "images": {file: {metric: value}}, "lr_files": how many LR images came
        in files, "foreign_lr_files": how many of them are not the paper's, "notes":
        [line]}}}. The metrics are `psnr_y` (dB), `ssim_y`, `bicubic_psnr_y` (dB),
        `seconds_per_megapixel` of output, and with `rgb` also `psnr_rgb`, `ssim_rgb`.

    Raises:
        InputError: Unusable folders or images; weights of another scale; two datasets
            of one name; images to save over or among the inputs.
    """
    if scale not in (None, model.scale):
        raise InputError(
            f"{weights}: weights for scale {model.scale} where scale {scale} is asked "
            "for; give weights of that scale"
        )
    if isinstance(folders, str | Path):
        folders = [folders]
    datasets = [find_pairs(folder, model.scale) for folder in folders]
    check_names(datasets, options.save_images)
    pairs = [pair for dataset in datasets for pair in dataset.pairs]
    progress("reading", 0, len(pairs))
    sizes = lr_sizes(pairs, model.scale, options.lr_mode)
    progress("compiling", 0, len(pairs))
    upscaler = partial(
        BucketedUpscaler(optimized_model(model), sizes), optimize_for_inference(params)
    )
    done = itertools.count(1)
    return {
        "name": Path(weights).name if name is None else name,
        "weights": weights,
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


def check_names(
    datasets: Sequence[Dataset],
    save_images: str | Path | None,
    who: str = "--save_images",
) -> None:
    """Check that datasets can be told apart, and images saved beside them.

    Args:
        datasets: What will be evaluated.
        save_images: As in `Options`.
        who: What wants to save them, in messages.

    Raises:
        InputError: Two datasets of one name, or images to save over or among the
            inputs, where the next evaluation would take them for inputs.
    """
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise InputError(
            f"datasets {', '.join(names)}: two have one name; rename a folder"
        )
    if save_images is None:
        return
    check_folder(Path(save_images))
    pairs = [(dataset, pair) for dataset in datasets for pair in dataset.pairs]
    files = [file for _, pair in pairs for file in (pair.hr, pair.lr) if file]
    folders = {file.parent.resolve() for file in files}
    folders |= {dataset.folder for dataset in datasets}
    taken = {file.resolve() for file in files}
    for dataset, pair in pairs:
        path = save_path(save_images, dataset, pair)
        if path.resolve() in taken:
            raise InputError(
                f"{who} would write {path} twice or over an input; choose another "
                "folder or rename the image"
            )
        taken.add(path.resolve())
        if path.parent.resolve() in folders:
            raise InputError(
                f"{who} would write into {path.parent}, among the inputs; choose "
                "another folder"
            )
