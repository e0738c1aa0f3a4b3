"""Several networks on the same images, with what is worth looking at."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.benchmark import evaluate_network
from lkdn_jax.evaluation.cost import measure_costs
from lkdn_jax.evaluation.dataset import Options, Report
from lkdn_jax.evaluation.gallery import Gallery
from lkdn_jax.progress import Progress
from lkdn_jax.weights.files import load


@dataclass
class Entry:
    """One network of a comparison.

    Attributes:
        report: As `benchmark.evaluate_network` returns it.
        gallery: What was seen.
        cost: As `cost.measure_costs` returns it.
    """

    report: Report
    gallery: Gallery
    cost: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What to call it: its name in the report, without the file's suffix."""
        return _without_suffix(self.report["name"])


def compare_files(
    weights: Sequence[str],
    folders: Sequence[str],
    *,
    scale: int | None,
    options: Options,
    progress: Progress,
    pictures: bool = True,
) -> list[Entry]:
    """Evaluate files of weights, one after another.

    Args:
        weights: Files for `lkdn_jax.load`; what two of one name are called begins with
            the folders that tell them apart.
        folders: As for `benchmark.evaluate_network`, like the other arguments.
        scale: The scale all must have; None takes each network's.
        options: How to evaluate; of several networks, the images are saved in a
            folder each.
        progress: Called with a stage, the steps done and their total.
        pictures: Collect the gallery and measure the cost; without, both stay empty.

    Returns:
        An entry a file.

    Raises:
        InputError: A file given twice, or two that differ in their suffix alone;
            networks of several scales; or as for `evaluate_file`.
    """
    names = _names(weights)
    networks = [load(file) for file in weights]
    scales = {model.scale for model, _ in networks}
    if len(scales) > 1:
        raise InputError(
            f"--weights for scales {', '.join(map(str, sorted(scales)))}: only "
            "networks of one scale are compared; run once a scale"
        )
    reports, galleries, folder = [], [], options.save_images
    for file, name, (model, params) in zip(weights, names, networks, strict=True):
        galleries.append(Gallery(model.scale))
        if pictures:
            options = replace(options, observe=galleries[-1].add)
        if folder is not None and len(weights) > 1:
            options = replace(options, save_images=Path(folder) / _without_suffix(name))
        report = evaluate_network(
            file,
            model,
            params,
            folders,
            name=name,
            scale=scale,
            options=options,
            progress=progress,
        )
        reports.append(report)
    costs: list[dict[str, Any]] = [{} for _ in networks]
    if pictures:
        progress("timing", 0, 1)
        costs = measure_costs(networks)
    return list(map(Entry, reports, galleries, costs))


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  of an empty name, too


def _names(files: Sequence[str]) -> list[str]:
    """Name each file by as much of its path's end as tells it from the others."""
    paths = [PurePath(os.path.abspath(file)).parts[1:] for file in files]  # noqa: PTH100
    for length in range(1, max(map(len, paths), default=0) + 2):
        names = ["/".join(path[-length:]) for path in paths]
        if len({_without_suffix(name) for name in names}) == len(names):
            return names
    raise InputError(
        f"--weights {', '.join(files)}: one is given twice, or two differ in their "
        "suffix alone; leave one out or rename it"
    )
