"""What was published, how a PSNR comes about, and which mistake may explain another."""

import numpy as np

from lkdn_jax.data.provenance import PAPER
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.dataset import Report
from lkdn_jax.evaluation.gallery import INPUT_MISTAKES, METRIC_MISTAKES, NO_MISTAKE

# Urban100 ×4: multiply-adds in G at 1280×720 and PSNR-Y in dB, as in figure 1 of the
# LKDN paper.
PUBLISHED_URBAN100 = {
    "BSRN": (19.4, 26.27),
    "VapSR": (19.5, 26.35),
    "LKDN": (18.3, 26.42),
}
# PSNR-Y and SSIM-Y of the authors' network and weights, by parameters when folded,
# scale and dataset: Set5 and Set14 as their own code scores them on MATLAB's LR
# images (the paper rounds these), Urban100 from its figure 1.
_PUBLISHED: dict[tuple[int, int], dict[str, tuple[float, float | None]]] = {
    (303_812, 2): {"Set5": (38.11502, 0.96098), "Set14": (33.85494, 0.92022)},
    (311_387, 3): {"Set5": (34.53158, 0.92832), "Set14": (30.50946, 0.84559)},
    (321_992, 4): {
        "Set5": (32.39486, 0.89795),
        "Set14": (28.79881, 0.786),
        "Urban100": (PUBLISHED_URBAN100["LKDN"][1], None),
    },
    (129_177, 4): {"Set5": (32.1058, 0.89383), "Set14": (28.62316, 0.78212)},
}
_IMAGES = {"Set5": 5, "Set14": 14, "Urban100": 100}
_FAR = 0.05  # dB from the published figure that ask for an explanation


def published(entry: Entry, dataset: str) -> tuple[float, float | None] | None:
    """Return the published PSNR-Y (dB) and SSIM-Y of a network, as far as known.

    Args:
        entry: The network; known by its number of parameters and its scale.
        dataset: Name of the dataset.

    Returns:
        PSNR and SSIM (None if only the PSNR is published), or None.
    """
    key = (entry.cost["parameters"], entry.report["scale"])
    if len(entry.report["datasets"][dataset]["images"]) != _IMAGES.get(dataset):
        return None
    return _PUBLISHED.get(key, {}).get(dataset)


def explain(entry: Entry, dataset: str) -> list[str]:
    """Say how a PSNR came about and, if far from the published, what may be wrong.

    Args:
        entry: The network.
        dataset: Name of the dataset.

    Returns:
        Sentences.
    """
    report, scale = entry.report, entry.report["scale"]
    result = report["datasets"][dataset]
    ours = result["mean"]["psnr_y"]
    lines = [
        f"LR images: {_origin(report, dataset)}. The output is clipped and rounded to "
        "8 bits and turned into Y (BT.601, studio range, not rounded); "
        f"{scale} pixels are cropped on every side."
    ]
    lines += [f"{note}." for note in result["notes"]]
    scores = mistakes(entry, dataset)
    clean = scores.get(NO_MISTAKE["none"])
    known = published(entry, dataset)
    if known is not None and abs(ours - known[0]) > _FAR:
        lines.append(
            f"{ours:.2f} dB is {ours - known[0]:+.2f} dB from the published "
            f"{known[0]:.2f} dB."
        )
        for told, kinds, score, without in (
            (
                "What is measured here is what this gives",
                # Only if without it the published figure is reached.
                INPUT_MISTAKES if _near(clean, known[0]) else {},
                ours,
                known[0],
            ),
            (
                "These outputs reach the published figure by",
                METRIC_MISTAKES,
                known[0],
                ours,
            ),
        ):
            near = [
                text
                for text in kinds.values()
                if _near(scores.get(text), score)
                and not _near(scores.get(text), without)
            ]
            lines += [f"{told}: {'; '.join(near)}."] if near else []
    return lines


def _origin(report: Report, dataset: str) -> str:
    result = report["datasets"][dataset]
    files, images = result["lr_files"], len(result["images"])
    bicubic = "BasicSR's bicubic" if report["lr_mode"] == "basicsr" else PAPER
    if not files:
        return f"made from the HR images by {bicubic}"
    others = "" if files == images else f", the other {images - files} made by {PAPER}"
    # Those of another interpolation are a note of their own.
    same = "" if result["foreign_lr_files"] else f", as {PAPER} makes them"
    return f"{files} of {images} are files beside the HR images{same}{others}"


def mistakes(entry: Entry, dataset: str) -> dict[str, float]:
    """Return what the usual mistakes would give: PSNR in dB by the mistake, in words.

    Args:
        entry: The network.
        dataset: Name of the dataset.
    """
    scores = entry.gallery.mistakes[dataset]
    names = NO_MISTAKE | METRIC_MISTAKES | INPUT_MISTAKES
    return {names[key]: float(np.mean(values)) for key, values in scores.items()}


def _near(score: float | None, other: float) -> bool:
    return score is not None and abs(score - other) <= _FAR
