"""Reports of an evaluation: a table on the terminal, JSON, Markdown and CSV files."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.dataset import Report
from lkdn_jax.files import atomic_write, check_folder

# Metric, heading, format; a report has those it has.
_COLUMNS = (
    ("psnr_y", "PSNR-Y", ".4f"),
    ("ssim_y", "SSIM-Y", ".5f"),
    ("psnr_rgb", "PSNR RGB", ".4f"),
    ("ssim_rgb", "SSIM RGB", ".5f"),
    ("bicubic_psnr_y", "bicubic PSNR-Y", ".4f"),
    ("seconds_per_megapixel", "s/MP", ".2f"),
)


def print_report(report: Report, console: Console) -> None:
    """Print the means of each dataset as a table, and what is worth a word.

    Args:
        report: As made by `benchmark.evaluate_file`.
        console: Where to print.
    """
    # Text, not strings: a bracket in a file's name is no markup.
    table = Table(title=Text(f"{Path(report['weights']).name}, ×{report['scale']}"))
    columns = _columns(report)
    table.add_column("dataset", overflow="fold")
    for heading in ("images", *(heading for _, heading, _ in columns)):
        table.add_column(heading, justify="right")
    for name, dataset in report["datasets"].items():
        values = (format(dataset["mean"][metric], spec) for metric, _, spec in columns)
        table.add_row(Text(name), str(len(dataset["images"])), *values)
    console.print(table)
    for name, dataset in report["datasets"].items():
        for note in dataset["notes"]:
            console.print(Text(f"note: {name}: {note}"), soft_wrap=True)


def check_output(path: str | Path, networks: int = 1) -> None:
    """Check, before the work, that a report can be written under this name.

    Args:
        path: The file to write later.
        networks: How many it is to compare; more than one go into HTML alone.

    Raises:
        InputError: A suffix that names no format for it, a folder, or a folder that
            cannot be written to.
    """
    path = Path(path)
    check_folder(path.absolute().parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; choose a file in it")
    formats = (".html", *_WRITERS) if networks == 1 else (".html",)
    if path.suffix.lower() not in formats:
        of = "a report" if networks == 1 else f"a comparison of {networks} networks"
        raise InputError(f"{path}: {of} is written as {', '.join(formats)}; rename it")


def write_report(path: str | Path, report: Report) -> None:
    """Write a report, whole or not at all.

    Args:
        path: A `.json`, `.md` or `.csv` file.
        report: As made by `benchmark.evaluate_file`. In JSON, the infinite PSNR of
            equal images is null.

    Raises:
        InputError: Another suffix, or a file that cannot be written.
    """
    writer = _WRITERS.get(Path(path).suffix.lower())
    if writer is None:
        raise InputError(f"{path}: is written as {', '.join(_WRITERS)}; rename it")
    text = writer(report)
    with atomic_write(path) as file:
        # A file name need not be valid UTF-8.
        file.write(text.encode(errors="backslashreplace"))


def _columns(report: Report) -> list[tuple[str, str, str]]:
    mean = next(iter(report["datasets"].values()))["mean"]
    return [column for column in _COLUMNS if column[0] in mean]


def _rows(report: Report) -> list[list[str]]:
    """Return a row an image and one for the mean, of each dataset."""
    columns = _columns(report)
    return [
        [name, image, *(format(values[metric], spec) for metric, _, spec in columns)]
        for name, dataset in report["datasets"].items()
        for image, values in (*dataset["images"].items(), ("mean", dataset["mean"]))
    ]


def _json(report: Report) -> str:
    def finite(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: finite(value) for key, value in node.items()}
        return None if isinstance(node, float) and not math.isfinite(node) else node

    return json.dumps(finite(report), indent=2, ensure_ascii=False, allow_nan=False)


def _markdown(report: Report) -> str:
    headings = ["dataset", "image", *(heading for _, heading, _ in _columns(report))]
    rows = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2), *_rows(report)]
    title = f"# {Path(report['weights']).name}, ×{report['scale']}"
    escaped = ([" ".join(c.split()).replace("|", "\\|") for c in row] for row in rows)
    lines = [title, "", *(f"| {' | '.join(row)} |" for row in escaped)]
    for name, dataset in report["datasets"].items():
        lines += [
            line for note in dataset["notes"] for line in ("", f"{name}: {note}.")
        ]
    return "\n".join(lines) + "\n"


def _csv(report: Report) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["dataset", "image", *(metric for metric, _, _ in _columns(report))]
    )
    writer.writerows(_rows(report))
    return text.getvalue()


_WRITERS: dict[str, Callable[[Report], str]] = {
    ".json": _json,
    ".md": _markdown,
    ".csv": _csv,
}
