"""Reports of an evaluation: a table on the terminal, JSON, Markdown and CSV files."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lkdn_jax.data.provenance import PAPER
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
    table = Table(title=Text(_title(report)))
    columns = _columns(report)
    table.add_column("dataset", overflow="fold")
    for heading in ("images", *(heading for _, heading, _ in columns)):
        table.add_column(heading, justify="right")
    for name, dataset in report["datasets"].items():
        values = (format(dataset["mean"][metric], spec) for metric, _, spec in columns)
        table.add_row(Text(name), str(len(dataset["images"])), *values)
    console.print(table)
    for name, note in _notes(report):
        console.print(Text(f"note: {name}: {note}"), soft_wrap=True)


def check_output(path: str | Path) -> None:
    """Check, before the work, that a report can be written under this name.

    Args:
        path: The file to write later.

    Raises:
        InputError: A suffix that names no format, a folder, or a folder that cannot be
            written to.
    """
    path = Path(path)
    check_folder(path.absolute().parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; choose a file in it")
    formats = (".html", *_WRITERS)
    if path.suffix.lower() not in formats:
        raise InputError(
            f"{path}: a report is written as {', '.join(formats)}; rename it"
        )


def write_report(path: str | Path, *reports: Report) -> None:
    """Write a report of one network or several, whole or not at all.

    Args:
        path: A `.json`, `.md` or `.csv` file.
        *reports: As made by `benchmark.evaluate_file`, one a network, with the same
            options. In JSON, several are a list, and the infinite PSNR of equal images
            is null; in CSV, several have a first column `weights`.

    Raises:
        InputError: Another suffix, or a file that cannot be written.
    """
    writer = _WRITERS.get(Path(path).suffix.lower())
    if writer is None:
        raise InputError(f"{path}: is written as {', '.join(_WRITERS)}; rename it")
    text = writer(reports)
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


def _notes(report: Report) -> Iterator[tuple[str, str]]:
    for name, dataset in report["datasets"].items():
        if not dataset["lr_files"] and report["lr_mode"] == "auto":
            yield name, f"no LR images there: made from the HR images by {PAPER}"
        for note in dataset["notes"]:
            yield name, note


def _title(report: Report) -> str:
    return f"{report['name']}, ×{report['scale']}"


def _json(reports: Sequence[Report]) -> str:
    def finite(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: finite(value) for key, value in node.items()}
        return None if isinstance(node, float) and not math.isfinite(node) else node

    content = finite(reports[0]) if len(reports) == 1 else [finite(r) for r in reports]
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _markdown(reports: Sequence[Report]) -> str:
    return "\n".join(_markdown_section(report) for report in reports)


def _markdown_section(report: Report) -> str:
    headings = ["dataset", "image", *(heading for _, heading, _ in _columns(report))]
    rows = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2), *_rows(report)]
    escaped = ([" ".join(c.split()).replace("|", "\\|") for c in row] for row in rows)
    lines = [f"# {_title(report)}", "", *(f"| {' | '.join(row)} |" for row in escaped)]
    for name, note in _notes(report):
        lines += ["", f"{name}: {note}."]
    return "\n".join(lines) + "\n"


def _csv(reports: Sequence[Report]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = ["dataset", "image", *(metric for metric, _, _ in _columns(reports[0]))]
    rows = [(report["name"], _rows(report)) for report in reports]
    if len(reports) == 1:
        writer.writerows([headings, *rows[0][1]])
    else:
        writer.writerow(["weights", *headings])
        writer.writerows([name, *row] for name, part in rows for row in part)
    return text.getvalue()


_WRITERS: dict[str, Callable[[Sequence[Report]], str]] = {
    ".json": _json,
    ".md": _markdown,
    ".csv": _csv,
}
