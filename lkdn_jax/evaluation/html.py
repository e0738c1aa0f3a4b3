"""A report to look at: one HTML file that needs nothing else."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from lkdn_jax.evaluation.card import card
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.explanation import (
    PUBLISHED_URBAN100,
    explain,
    mistakes,
    published,
)
from lkdn_jax.evaluation.markup import escape, table
from lkdn_jax.evaluation.scatter import Point, scatter
from lkdn_jax.files import atomic_write


def render(entries: Sequence[Entry]) -> str:
    """Write the report.

    Args:
        entries: The networks, of one scale, all evaluated on the same datasets.

    Returns:
        The HTML, self-contained.
    """
    title = ", ".join(entry.name for entry in entries)
    sections = [_summary(entries), _costs(entries), _figures(entries)]
    sections += [_dataset(name, entries) for name in entries[0].report["datasets"]]
    body = "\n".join(sections)
    here = resources.files("lkdn_jax.evaluation")
    style, script = (
        (here / f"report.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    return _PAGE.format(title=escape(title), style=style, body=body, script=script)


def write_html(path: str | Path, entries: Sequence[Entry]) -> None:
    """Write the report, whole or not at all; arguments as for `render`."""
    with atomic_write(path) as file:
        file.write(render(entries).encode())


def _summary(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        for dataset, result in entry.report["datasets"].items():
            mean, known = result["mean"], published(entry, dataset)
            text = "—" if known is None else f"{known[0]:.2f}"
            text += f" / {known[1]:.4f}" if known and known[1] is not None else ""
            row = [
                entry.name,
                dataset,
                f"{mean['psnr_y']:.2f} / {mean['ssim_y']:.4f}",
                text,
                f"{mean['bicubic_psnr_y']:.2f}",
            ]
            if "psnr_rgb" in mean:
                row.append(f"{mean['psnr_rgb']:.2f} / {mean['ssim_rgb']:.4f}")
            rows.append(row)
    headings = ["network", "dataset", "PSNR-Y / SSIM-Y", "published", "bicubic"]
    if len(rows[0]) > len(headings):
        headings.append("PSNR / SSIM RGB")
    scale = entries[0].report["scale"]
    return f"<section><h2>Result, ×{scale}</h2>{table(headings, rows)}</section>"


def _costs(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        cost = entry.cost
        low, high = cost["quartiles"]
        rows.append(
            (
                entry.name,
                f"{cost['parameters']:,}",
                f"{cost['multiply_adds'] / 1e9:.2f} G",
                f"{cost['activations'] / 1e6:.1f} M",
                f"{cost['peak_memory'] / 1e6:.0f} MB",
                f"{cost['seconds'] * 1e3:.1f} ms ({low * 1e3:.1f} … {high * 1e3:.1f})",
            )
        )
    headings = (
        "network, folded",
        "parameters",
        "multiply-adds",
        "activations",
        "peak memory",
        "time (quartiles)",
    )
    device = escape(str(entries[0].cost["device"]))
    turns = ", in turns" if len(entries) > 1 else ""
    runs = f"median of ten runs after three{turns}"
    note = f"For one image of 1280×720, on {device}; {runs}."
    return f"<section><h2>Cost</h2>{table(headings, rows)}<p>{note}</p></section>"


def _figures(entries: Sequence[Entry]) -> str:
    def measured(entry: Entry, dataset: str) -> Point:
        mean = entry.report["datasets"][dataset]["mean"]
        return Point(
            entry.name, entry.cost["multiply_adds"] / 1e9, mean["psnr_y"], True
        )

    points = [Point(name, *at, False) for name, at in PUBLISHED_URBAN100.items()]
    points += [
        measured(entry, dataset)
        for entry in entries
        for dataset in entry.report["datasets"]
        if "urban100" in dataset.lower() and entry.report["scale"] == 4
    ]
    if len(entries) == 1 and not any(point.ours for point in points):
        return ""  # nothing to compare
    figures = [scatter("Urban100 ×4, published", points)]
    if len(entries) > 1:
        first = next(iter(entries[0].report["datasets"]))
        ours = [measured(entry, first) for entry in entries]
        figures.append(scatter(f"{first} ×{entries[0].report['scale']}", ours))
    return (
        "<section><h2>PSNR against multiply-adds</h2>"
        f'<div class="figures">{"".join(figures)}</div></section>'
    )


def _dataset(name: str, entries: Sequence[Entry]) -> str:
    parts = [f"<section><h2>{escape(name)}</h2>"]
    for entry in entries:
        if len(entries) > 1:
            parts.append(f"<h3>{escape(entry.name)}</h3>")
        parts += [f"<p>{escape(line)}</p>" for line in explain(entry, name)]
        parts.append(f"<p>Right of the line is the output of {escape(entry.name)}.</p>")
        usual = [(text, f"{p:.2f}") for text, p in mistakes(entry, name).items()]
        parts.append(
            "<details><summary>What the usual mistakes would give</summary>"
            f"{table(('mistake', 'PSNR, dB'), usual)}</details>"
        )
        others = [other for other in entries if other is not entry]
        cards = [
            card(entry, others, name, image, why)
            for image, why in entry.gallery.chosen(name).items()
        ]
        parts.append(f'<div class="cards">{"".join(cards)}</div>')
    images = entries[0].report["datasets"][name]["images"]
    headings = ["image", *(f"{e.name} PSNR-Y / SSIM-Y" for e in entries), "bicubic"]
    rows = [
        [
            image,
            *(
                "{psnr_y:.2f} / {ssim_y:.4f}".format(
                    **e.report["datasets"][name]["images"][image]
                )
                for e in entries
            ),
            f"{row['bicubic_psnr_y']:.2f}",
        ]
        for image, row in images.items()
    ]
    parts.append(
        f"<details><summary>All {len(rows)} images</summary>"
        f"{table(headings, rows)}</details></section>"
    )
    return "".join(parts)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>{script}</script>
</body>
</html>
"""
