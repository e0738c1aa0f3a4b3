"""Validation while training: the metrics of `evaluate.py`, on the average."""

import contextlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lkdn_jax.data.datasets import PHOTOGRAPHS
from lkdn_jax.data.images import write_image
from lkdn_jax.data.pairs import find_pairs, load_pair
from lkdn_jax.data.photographs import PHOTOGRAPHS_HELD_OUT, load_photograph
from lkdn_jax.evaluation.benchmark import check_names, lr_sizes
from lkdn_jax.evaluation.bucketing import BucketedUpscaler
from lkdn_jax.evaluation.dataset import evaluate_dataset, super_resolve
from lkdn_jax.evaluation.figures import comparison_picture
from lkdn_jax.files import atomic_write
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.training.finish import UPSCALED
from lkdn_jax.weights.files import save

_BEST = "validation/best.json"  # PSNR-Y of `model_best.msgpack`, and on what images
_CROP = 160  # side of the crop in pictures, in HR pixels


class Validation:
    """The validation images of a run, and the programs compiled for them.

    Attributes:
        folders: Folders of images, with `photographs` replaced by one.
    """

    def __init__(self, model: LKDN, names: Sequence[str], workdir: Path) -> None:
        """Find and decode the images; nothing is compiled before the first run.

        Args:
            model: The network.
            names: Folders as for `evaluate.py`, or `photographs`: those of
                scikit-image that are held out of training.
            workdir: Folder where `photographs` are written, below `validation/`, and
                the best network, as `model_best.msgpack`.

        Raises:
            InputError: An image that cannot be used, two folders of one name, or one
                where the run will write.
        """
        self._model = model
        self.folders = [_folder(name, workdir / "validation") for name in names]
        self._datasets = [find_pairs(folder, model.scale) for folder in self.folders]
        check_names(self._datasets, workdir / UPSCALED, "the run's end")
        pairs = [pair for dataset in self._datasets for pair in dataset.pairs]
        self._sizes = lr_sizes(pairs, model.scale)
        self._upscaler: BucketedUpscaler | None = None
        self._workdir = workdir
        self._images, self._best = list(names), -math.inf
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            best = json.loads((workdir / _BEST).read_text())
            same = best["images"] == self._images  # on others, another PSNR is the best
            if same and math.isfinite(best["psnr_y"]):
                self._best = float(best["psnr_y"])

    def run(self, params: Any) -> tuple[dict[str, float], np.ndarray]:
        """Evaluate parameters, and write the network if it is the best so far.

        Args:
            params: Parameters of the network, on any device.

        Returns:
            The means of the metrics over the datasets, and a picture [h, w, 3], uint8,
            of the middle of the first image: LR, bicubic, ours, HR.
        """
        params = jax.tree.map(np.asarray, params)
        if self._upscaler is None:
            model = self._model.clone(dtype=None, remat=False)
            self._upscaler = BucketedUpscaler(model, self._sizes)
        upscaler = partial(self._upscaler, params)
        scale = self._model.scale
        means = [
            evaluate_dataset(upscaler, dataset, scale)["mean"]
            for dataset in self._datasets
        ]
        row = {
            name: float(np.mean([mean[name] for mean in means])) for name in means[0]
        }
        if self._best < row["psnr_y"] < math.inf:
            self._best = row["psnr_y"]
            save(self._workdir / "model_best.msgpack", self._model, params)
            best = {"images": self._images, "psnr_y": self._best}
            with atomic_write(self._workdir / _BEST) as file:
                file.write(json.dumps(best).encode())
        pair = self._datasets[0].pairs[0]
        lr, hr = load_pair(pair, scale)
        outputs = {"ours": super_resolve(upscaler, lr, pair.name)}
        return row, comparison_picture(lr, outputs, hr, scale, _middle(*hr.shape[:2]))


def _middle(h: int, w: int) -> tuple[slice, slice]:
    starts = (max(0, h - _CROP) // 2, max(0, w - _CROP) // 2)
    return slice(starts[0], starts[0] + _CROP), slice(starts[1], starts[1] + _CROP)


def _folder(name: str, scratch: Path) -> Path:
    if name != PHOTOGRAPHS:
        return Path(name)
    folder = scratch / "photographs"
    for held_out in PHOTOGRAPHS_HELD_OUT:
        write_image(folder / f"{held_out}.png", load_photograph(held_out))
    return folder
