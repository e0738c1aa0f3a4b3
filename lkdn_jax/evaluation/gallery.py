"""Crops worth looking at, and what the usual mistakes would have scored."""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from lkdn_jax.data.provenance import PAPER, sample_cubic
from lkdn_jax.evaluation.dataset import Sample
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y

CROP = 128  # height and width of a crop, in HR pixels
_STEP = 16  # between the places where a crop may lie

# By key: what one does wrong, in words; when the output is scored …
METRIC_MISTAKES = {
    "rgb": "PSNR over RGB, not over Y",
    "no_crop": "no border cropped",
    "rounded_y": "Y rounded to 8 bits",
    "jpeg_range": "Y of full range (0.299, 0.587, 0.114), as in JPEG",
}
# … and before the network.
INPUT_MISTAKES = {
    "opencv": "LR images by OpenCV's INTER_CUBIC, which does not antialias",
    "jpeg": "LR images kept as JPEG (quality 95)",
    "swapped": "red and blue swapped throughout, as OpenCV reads them",
}
NO_MISTAKE = {"none": f"none of these, LR images by {PAPER}"}


@dataclass
class Picture:
    """One image of a dataset, as much of it as is shown.

    Attributes:
        psnr: PSNR-Y in dB.
        bicubic: Crop of the LR image enlarged, [c, c, 3], uint8, like the others.
        ours: Crop of the network's output.
        hr: Crop of the original.
        error: Map of |ours − hr| on Y, [c, c, 3], 16 times as bright.
    """

    psnr: float
    bicubic: np.ndarray
    ours: np.ndarray
    hr: np.ndarray
    error: np.ndarray


@dataclass
class Gallery:
    """What `evaluate_dataset` lets one see, collected.

    Attributes:
        scale: The factor s.
        pictures: By dataset and image.
        mistakes: By dataset and key of `METRIC_MISTAKES`, `INPUT_MISTAKES` or
            `NO_MISTAKE`, the PSNR of every image, dB.
    """

    scale: int
    pictures: dict[str, dict[str, Picture]] = field(default_factory=dict)
    mistakes: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, dataset: str, name: str, seen: Sample) -> None:
        """Look at one image.

        Args:
            dataset: Name of the dataset.
            name: Name of the image.
            seen: The image and what the network made of it.
        """
        border, sr, hr = self.scale, seen.sr, seen.hr
        sr_y, hr_y = rgb_to_y(sr), rgb_to_y(hr)
        difference = np.abs(sr_y - hr_y)
        top, left = busiest_crop(hr_y)
        box = np.s_[top : top + CROP, left : left + CROP]
        error = np.rint((16 * difference[box]).clip(0, 255)).astype(np.uint8)
        self.pictures.setdefault(dataset, {})[name] = Picture(
            seen.metrics["psnr_y"],
            # Copies: a view would keep the whole image.
            seen.bicubic[box].copy(),
            sr[box].copy(),
            hr[box].copy(),
            error[..., None].repeat(3, axis=-1),
        )
        luma = np.array([0.299, 0.587, 0.114])

        def psnr_y(image: np.ndarray, original: np.ndarray = hr) -> float:
            return psnr(rgb_to_y(image), rgb_to_y(original), border)

        scores = {
            "rgb": psnr(sr, hr, border),
            "no_crop": psnr(sr_y, hr_y, 0),
            "rounded_y": psnr(np.rint(sr_y), np.rint(hr_y), border),
            "jpeg_range": psnr(sr @ luma, hr @ luma, border),
            "none": seen.paper_psnr_y,
            "opencv": psnr_y(seen.resolve(sample_cubic(hr, border))),
            "jpeg": psnr_y(seen.resolve(_as_jpeg(seen.lr))),
            "swapped": psnr_y(seen.resolve(seen.lr[..., ::-1]), hr[..., ::-1]),
        }
        of_dataset = self.mistakes.setdefault(dataset, {})
        for key, score in scores.items():
            of_dataset.setdefault(key, []).append(score)

    def chosen(self, dataset: str) -> dict[str, str]:
        """Return the images to show: why by name, worst, median and best, or only."""
        names = sorted(
            self.pictures[dataset], key=lambda n: self.pictures[dataset][n].psnr
        )
        if len(names) == 1:
            return {names[0]: "only"}
        picks = {names[len(names) // 2]: "median"}
        picks |= {names[-1]: "best", names[0]: "worst"}
        return dict(sorted(picks.items(), key=lambda pick: names.index(pick[0])))


def busiest_crop(y: np.ndarray) -> tuple[int, int]:
    """Find the crop with the most detail.

    Args:
        y: Y of an image [h, w], float.

    Returns:
        Top and left of a crop of at most `CROP` × `CROP`, in pixels.
    """
    detail = np.zeros(y.shape)
    detail[:-1] += np.abs(np.diff(y, axis=0))
    detail[:, :-1] += np.abs(np.diff(y, axis=1))
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    h, w = (min(CROP, length) for length in y.shape)
    tops = np.arange(0, y.shape[0] - h + 1, _STEP)
    lefts = np.arange(0, y.shape[1] - w + 1, _STEP)
    i, j = np.ix_(tops, lefts)
    totals = sums[i + h, j + w] - sums[i, j + w] - sums[i + h, j] + sums[i, j]
    row, column = np.unravel_index(totals.argmax(), totals.shape)
    return int(tops[row]), int(lefts[column])


def _as_jpeg(image: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95)
    return np.asarray(Image.open(stream))
