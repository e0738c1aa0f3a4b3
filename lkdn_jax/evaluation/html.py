"""A report to look at: one HTML file that needs nothing else."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lkdn_jax.data.images import write_image
from lkdn_jax.data.provenance import PAPER
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.figures import enlarge, side_by_side
from lkdn_jax.evaluation.gallery import MISTAKES, Picture
from lkdn_jax.evaluation.report import check_output, write_report
from lkdn_jax.files import atomic_write, check_folder

# Urban100 ×4: multiply-adds in G at 1280×720, PSNR-Y in dB, parameters, as in figure 1
# of the LKDN paper.
PUBLISHED_URBAN100 = {
    "BSRN": (19.4, 26.27, 352_000),
    "VapSR": (19.5, 26.35, 342_000),
    "LKDN": (18.3, 26.42, 322_000),
}
# PSNR-Y and SSIM-Y of the authors' network and weights, by parameters when folded,
# scale and dataset, as their own code scores them on MATLAB's LR images.
PUBLISHED = {
    (303_812, 2): {"Set5": (38.11502, 0.96098), "Set14": (33.85494, 0.92022)},
    (311_387, 3): {"Set5": (34.53158, 0.92832), "Set14": (30.50946, 0.84559)},
    (321_992, 4): {"Set5": (32.39486, 0.89795), "Set14": (28.79881, 0.786)},
    (129_177, 4): {"Set5": (32.1058, 0.89383), "Set14": (28.62316, 0.78212)},
}
_FAR = 0.05  # dB from the published figure that ask for an explanation


def render(entries: Sequence[Entry]) -> str:
    """Write the report.

    Args:
        entries: The networks, all evaluated on the same datasets.

    Returns:
        The HTML, self-contained.
    """
    title = ", ".join(entry.name for entry in entries)
    sections = [_summary(entries), _costs(entries), _figures(entries)]
    sections += [_dataset(name, entries) for name in entries[0].report["datasets"]]
    body = "\n".join(sections)
    return _PAGE.format(title=_text(title), style=_STYLE, body=body, script=_SCRIPT)


def check_outputs(output: Path | None, figures: Path | None, networks: int) -> bool:
    """Check, before the work, that the outputs can be written.

    Args:
        output: The report, or None.
        figures: The folder of the figures, or None.
        networks: How many networks are compared.

    Returns:
        Whether pictures are needed.

    Raises:
        InputError: An output that cannot be written.
    """
    if output is not None:
        check_output(output, networks)
    if figures is not None:
        check_folder(figures)
    return figures is not None or _is_html(output)


def write_outputs(
    output: Path | None, figures: Path | None, entries: Sequence[Entry]
) -> list[Path]:
    """Write the report, in the format of its suffix, and the figures.

    Args:
        output: The report, or None.
        figures: The folder of the figures, or None.
        entries: As for `render`; one, unless the report is HTML.

    Returns:
        What was written.
    """
    if figures is not None:
        write_figures(figures, entries)
    if output is not None and _is_html(output):
        write_html(output, entries)
    elif output is not None:
        write_report(output, entries[0].report)
    return [path for path in (output, figures) if path is not None]


def _is_html(path: Path | None) -> bool:
    return path is not None and path.suffix.lower() == ".html"


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
                file = f"{entry.name}_{dataset}_{why}_{Path(name).stem}.png"
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
            mean, published = result["mean"], _published(entry, dataset)
            known = (
                f"{published[0]:.2f} / {published[1]:.4f}"
                if published is not None
                else "—"
            )
            rows.append(
                (
                    entry.name,
                    f"×{entry.report['scale']}",
                    dataset,
                    f"{mean['bicubic_psnr_y']:.2f}",
                    f"{mean['psnr_y']:.2f} / {mean['ssim_y']:.4f}",
                    known,
                )
            )
    headings = (
        "network",
        "scale",
        "dataset",
        "bicubic",
        "PSNR-Y / SSIM-Y",
        "published",
    )
    return f"<section><h2>Result</h2>{_table(headings, rows)}</section>"


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
        (name, cost, psnr, False)
        for name, (cost, psnr, _) in PUBLISHED_URBAN100.items()
    ]
    for entry in entries:
        for dataset, result in entry.report["datasets"].items():
            if "urban100" in dataset.lower() and entry.report["scale"] == 4:
                cost = entry.cost["multiply_adds"] / 1e9
                points.append((entry.name, cost, result["mean"]["psnr_y"], True))
    figures = [_scatter("Urban100 ×4, published", points)]
    first = next(iter(entries[0].report["datasets"]))
    same_scale = len({entry.report["scale"] for entry in entries}) == 1
    if len(entries) > 1 and same_scale:
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
        cards = [
            _card(entry, name, image, why)
            for image, why in entry.gallery.chosen(name).items()
        ]
        parts.append(f'<div class="cards">{"".join(cards)}</div>')
    images = entries[0].report["datasets"][name]["images"]
    headings = ["image", "bicubic"]
    headings += [f"{e.name} PSNR-Y / SSIM-Y" for e in entries]
    rows = [
        [image, f"{row['bicubic_psnr_y']:.2f}"]
        + [
            "{psnr_y:.2f} / {ssim_y:.4f}".format(
                **e.report["datasets"][name]["images"][image]
            )
            for e in entries
        ]
        for image, row in images.items()
    ]
    parts.append(
        f"<details><summary>All {len(rows)} images</summary>"
        f"{_table(headings, rows)}</details></section>"
    )
    return "".join(parts)


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
    made = {
        "auto": f"the files beside the HR images, or {PAPER} where there are none",
        "matlab": f"made from the HR images by {PAPER}",
        "basicsr": "made from the HR images by BasicSR's bicubic",
    }[report["lr_mode"]]
    lines = [
        f"LR images: {made}. The output is clipped and rounded to 8 bits and turned "
        f"into Y (BT.601, studio range, not rounded); {scale} pixels are cropped on "
        "every side."
    ]
    lines += [f"{note}." for note in result["notes"]]
    mistakes = {
        key: float(np.mean(values))
        for key, values in entry.gallery.mistakes[dataset].items()
    }
    published = _published(entry, dataset)
    if published is not None and abs(ours - published[0]) > _FAR:
        lines.append(
            f"{ours:.2f} dB is {ours - published[0]:+.2f} dB from the published "
            f"{published[0]:.2f} dB."
        )
        near = [
            MISTAKES[key]
            for key, score in mistakes.items()
            if abs(score - published[0]) <= _FAR
        ]
        if near:
            lines.append(
                f"The published figure is reached by a mistake: {'; '.join(near)}."
            )
    told = "; ".join(f"{MISTAKES[key]}: {v:.2f} dB" for key, v in mistakes.items())
    lines.append(f"What the usual mistakes would give: {told}.")
    return lines


def _published(entry: Entry, dataset: str) -> tuple[float, float] | None:
    key = (entry.cost["parameters"], entry.report["scale"])
    return PUBLISHED.get(key, {}).get(dataset)


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
        f'<figure class="card"><figcaption>{_text(why)}: {_text(image)}, '
        f"{picture.psnr:.2f} dB</figcaption>"
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
        f'<text x="{margin - 36}" y="16">PSNR-Y, dB</text>{"".join(dots)}'
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

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d21; --paper: #fff; --soft: #f1f2f4;
  --line: #c9ccd2; --accent: #0a5bd3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9ec; --paper: #16181c; --soft: #22252b; --line: #444952;
    --accent: #7fb2ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line);
  text-align: left; white-space: nowrap; }
.cards, .figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--soft); border-radius: .5rem; }
figcaption { margin-bottom: .5rem; }
.compare { position: relative; aspect-ratio: 1; --x: 50%; overflow: hidden; }
.compare img { position: absolute; inset: 0; width: 100%; height: 100%;
  image-rendering: pixelated; }
.compare .before { clip-path: inset(0 calc(100% - var(--x)) 0 0); }
.compare[data-left="bicubic"] .hr, .compare[data-left="hr"] .bicubic { display: none; }
.compare .line { position: absolute; top: 0; bottom: 0; left: var(--x); width: 2px;
  background: #fff; box-shadow: 0 0 3px #000; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  opacity: 0; cursor: ew-resize; }
.compare:focus-within { outline: 3px solid var(--accent); outline-offset: 2px; }
fieldset { border: 0; margin: .5rem 0 0; padding: 0; display: flex; gap: 1rem;
  flex-wrap: wrap; align-items: center; }
legend { float: left; margin-right: 1rem; }
.error { width: 100%; image-rendering: pixelated; }
summary { cursor: pointer; padding: .35rem 0; }
svg { width: 100%; } svg path { fill: none; stroke: var(--ink); }
svg text { fill: var(--ink); font-size: 12px; }
.theirs { fill: #8a9099; } .ours { fill: var(--accent); }
"""

_SCRIPT = """
for (const card of document.querySelectorAll('.card')) {
  const compare = card.querySelector('.compare');
  const range = compare.querySelector('input');
  const show = () => compare.style.setProperty('--x', range.value + '%');
  range.addEventListener('input', show);
  for (const radio of card.querySelectorAll('input[type=radio]'))
    radio.addEventListener('change', () => { compare.dataset.left = radio.value; });
  show();
}
"""
