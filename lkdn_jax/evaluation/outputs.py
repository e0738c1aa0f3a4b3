"""Which files an evaluation writes: a report in some format, and figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lkdn_jax.data.images import write_image
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.figures import enlarge, side_by_side
from lkdn_jax.evaluation.gallery import Picture
from lkdn_jax.evaluation.html import write_html
from lkdn_jax.evaluation.report import check_output, write_report
from lkdn_jax.files import check_folder


def check_outputs(
    outputs: Sequence[Path], figures: Path | None, datasets: Sequence[str] = ()
) -> bool:
    """Check, before the work, that the outputs can be written.

    Args:
        outputs: The reports.
        figures: The folder of the figures, or None.
        datasets: Folders of images, among which no figure must come.

    Returns:
        Whether pictures are needed.

    Raises:
        InputError: An output that cannot be written.
    """
    for output in outputs:
        check_output(output)
    if figures is not None:
        check_folder(figures)
        there = figures.resolve()
        if not {there, *there.parents}.isdisjoint(Path(d).resolve() for d in datasets):
            raise InputError(
                f"{figures}: in a dataset's folder, and figures there would be taken "
                "for its images; choose another"
            )
    return figures is not None or any(map(_is_html, outputs))


def write_outputs(
    outputs: Sequence[Path], figures: Path | None, entries: Sequence[Entry]
) -> list[Path]:
    """Write the reports, each in the format of its suffix, and the figures.

    Args:
        outputs: The reports.
        figures: The folder of the figures, or None.
        entries: As for `html.render`.

    Returns:
        What was written.
    """
    for output in outputs:
        if _is_html(output):
            write_html(output, entries)
        else:
            write_report(output, *(entry.report for entry in entries))
    if figures is None:
        return [*outputs]
    write_figures(figures, entries)
    return [*outputs, figures]


def write_figures(folder: str | Path, entries: Sequence[Entry]) -> None:
    """Write the report's pictures as PNG files, for papers.

    Args:
        folder: Where to; one file a network, dataset and chosen image.
        entries: As for `html.render`.
    """
    for entry in entries:
        for dataset, pictures in entry.gallery.pictures.items():
            for name, why in entry.gallery.chosen(dataset).items():
                panels = {
                    title: enlarge(image, 3)
                    for title, image in _panels(pictures[name]).items()
                }
                stem = Path(name).stem[:50]  # most systems take no long names
                file = f"{entry.name}_{dataset}_{why}_{stem}.png"
                write_image(Path(folder) / file, side_by_side(panels))


def _panels(picture: Picture) -> dict[str, np.ndarray]:
    return {
        "LR, bicubic": picture.bicubic,
        "ours": picture.ours,
        "HR": picture.hr,
        "error on Y, 16 times": picture.error,
    }


def _is_html(path: Path) -> bool:
    return path.suffix.lower() == ".html"
