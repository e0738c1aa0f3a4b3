"""A report to look at: one HTML file that needs nothing else."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from lkdn_jax.data.images import write_image
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.explanation import (
    PUBLISHED_URBAN100,
    explain,
    mistakes,
    published,
)
from lkdn_jax.evaluation.figures import enlarge, side_by_side
from lkdn_jax.evaluation.gallery import Picture
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
    return _PAGE.format(title=_text(title), style=style, body=body, script=script)


def write_html(path: str | Path, entries: Sequence[Entry]) -> None:
    """Write the report, whole or not at all; arguments as for `render`."""
    with atomic_write(path) as file:
        file.write(render(entries).encode())


def write_figures(folder: str | Path, entries: Sequence[Entry]) -> None:
    """Write the report's pictures as PNG files, for papers.

    Args:
        folder: Where to; one file a network, dataset and chosen image.
        entries: As for `render`.
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
    return f"<section><h2>Result, ×{scale}</h2>{_table(headings, rows)}</section>"


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
    device = _text(str(entries[0].cost["device"]))
    note = f"For one image of 1280×720, on {device}; median of ten runs after three."
    return f"<section><h2>Cost</h2>{_table(headings, rows)}<p>{note}</p></section>"


def _figures(entries: Sequence[Entry]) -> str:
    points = [
        (name, cost, psnr, False) for name, (cost, psnr) in PUBLISHED_URBAN100.items()
    ]
    for entry in entries:
        for dataset, result in entry.report["datasets"].items():
            if "urban100" in dataset.lower() and entry.report["scale"] == 4:
                cost = entry.cost["multiply_adds"] / 1e9
                points.append((entry.name, cost, result["mean"]["psnr_y"], True))
    if len(entries) == 1 and not any(ours for *_, ours in points):
        return ""  # nothing to compare
    figures = [_scatter("Urban100 ×4, published", points)]
    first = next(iter(entries[0].report["datasets"]))
    if len(entries) > 1:
        ours = [
            (
                entry.name,
                entry.cost["multiply_adds"] / 1e9,
                entry.report["datasets"][first]["mean"]["psnr_y"],
                True,
            )
            for entry in entries
        ]
        figures.append(_scatter(f"{first} ×{entries[0].report['scale']}", ours))
    content = "".join(figures)
    return (
        "<section><h2>PSNR against multiply-adds</h2>"
        f'<div class="figures">{content}</div></section>'
    )


def _dataset(name: str, entries: Sequence[Entry]) -> str:
    parts = [f"<section><h2>{_text(name)}</h2>"]
    for entry in entries:
        if len(entries) > 1:
            parts.append(f"<h3>{_text(entry.name)}</h3>")
        parts += [f"<p>{_text(line)}</p>" for line in explain(entry, name)]
        parts.append("<p>Right of the line is the network's output.</p>")
        usual = [(text, f"{p:.2f}") for text, p in mistakes(entry, name).items()]
        parts.append(
            "<details><summary>What the usual mistakes would give</summary>"
            f"{_table(('mistake', 'PSNR, dB'), usual)}</details>"
        )
        cards = [
            _card(entry, name, image, why)
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
        f"{_table(headings, rows)}</details></section>"
    )
    return "".join(parts)


def _card(entry: Entry, dataset: str, image: str, why: str) -> str:
    picture = entry.gallery.pictures[dataset][image]
    layers = "".join(
        f'<img class="{kind}" alt="{alt}" src="{_png(array)}">'
        for kind, alt, array in (
            ("after", "the network's output", picture.ours),
            ("before bicubic", "the LR image, enlarged", picture.bicubic),
            ("before hr", "the original", picture.hr),
        )
    )
    label = _text(f"{image}: share of the left picture")
    group = _text(f"{entry.name}/{dataset}/{image}")
    choices = "".join(
        f'<label><input type="radio" name="{group}" value="{kind}"{checked}> '
        f"{text}</label>"
        for kind, text, checked in (
            ("bicubic", "LR bicubic", " checked"),
            ("hr", "HR", ""),
        )
    )
    return (
        f'<figure class="card"><figcaption>{_text(why)}, {picture.psnr:.2f} dB<br>'
        f"{_text(image)}</figcaption>"
        f'<div class="compare" data-left="bicubic">{layers}<div class="line"></div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}"></div>'
        f"<fieldset><legend>left of the line</legend>{choices}</fieldset>"
        f'<details><summary>error on Y, 16 times as bright</summary><img class="error" '
        f'alt="error map" src="{_png(picture.error)}"></details></figure>'
    )


def _scatter(title: str, points: Sequence[tuple[str, float, float, bool]]) -> str:
    width, height, margin = 360, 260, 48
    xs, ys = [p[1] for p in points], [p[2] for p in points]

    def scale(values: Sequence[float], least: float) -> tuple[float, float]:
        spread = max(max(values) - min(values), least)
        return min(values) - 0.25 * spread, max(values) + 0.25 * spread

    (x0, x1), (y0, y1) = scale(xs, 0.5), scale(ys, 0.05)
    dots = []
    for name, x, y, ours in points:
        px = margin + (x - x0) / (x1 - x0) * (width - 2 * margin)
        py = height - margin - (y - y0) / (y1 - y0) * (height - 2 * margin)
        kind = "ours" if ours else "theirs"
        anchor = "end" if px > width * 0.6 else "start"
        dx = -9 if anchor == "end" else 9
        dots.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>'
            f'<text x="{px + dx:.1f}" y="{py + 4:.1f}" text-anchor="{anchor}">'
            f"{_text(name)} {y:.2f}</text>"
        )
    bottom, right = height - margin, width - margin
    return (
        f'<figure><figcaption>{_text(title)}</figcaption><svg role="img" '
        f'aria-label="{_text(title)}" viewBox="0 0 {width} {height}">'
        f'<path d="M{margin} {margin / 2}V{bottom}H{right + margin / 2}"/>'
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">multiply-adds, G '
        f"({min(xs):.1f} … {max(xs):.1f})</text>"
        f'<text x="{margin - 36}" y="16">PSNR-Y, dB ({min(ys):.2f} … {max(ys):.2f})'
        f"</text>{''.join(dots)}"
        "</svg></figure>"
    )


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(h)}</th>' for h in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        '<div class="wide" tabindex="0"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _text(text: str) -> str:
    # A file name need not be valid UTF-8.
    return html.escape(text.encode(errors="replace").decode())


def _png(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


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
