"""A plot of PSNR against multiply-adds, as SVG."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lkdn_jax.evaluation.markup import escape

_WIDTH, _HEIGHT, _MARGIN = 360, 260, 48
_LINE = 14  # from one label to the next below it, at least


@dataclass(frozen=True)
class Point:
    """A network in the plot.

    Attributes:
        name: What to call it.
        multiply_adds: In G.
        psnr: In dB.
        ours: Measured here, not published.
    """

    name: str
    multiply_adds: float
    psnr: float
    ours: bool


def scatter(title: str, points: Sequence[Point]) -> str:
    """Plot networks.

    Args:
        title: What is plotted.
        points: The networks, at least one.

    Returns:
        A figure, as HTML.
    """
    xs, ys = [p.multiply_adds for p in points], [p.psnr for p in points]
    left, right = _range(xs, 0.5)
    low, high = _range(ys, 0.05)
    places = [
        (
            _MARGIN + (x - left) / (right - left) * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (y - low) / (high - low) * (_HEIGHT - 2 * _MARGIN),
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    ends = [px > _WIDTH * 0.6 for px, _ in places]  # the label is left of its dot
    heights = [py + 4 for _, py in places]
    for side in (False, True):
        column = [i for i, end in enumerate(ends) if end == side]
        for i, height in zip(column, _apart([heights[i] for i in column]), strict=True):
            heights[i] = height
    dots = []
    for point, (px, py), end, height in zip(points, places, ends, heights, strict=True):
        kind = "ours" if point.ours else "theirs"
        at, anchor = (px - 9, "end") if end else (px + 9, "start")
        dots.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>'
            f'<text x="{at:.1f}" y="{height:.1f}" text-anchor="{anchor}">'
            f"{escape(point.name)} {point.psnr:.2f}</text>"
        )
    bottom = _HEIGHT - _MARGIN
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" '
        f'aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f'<path d="M{_MARGIN} {_MARGIN / 2}V{bottom}H{_WIDTH - _MARGIN / 2}"/>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">multiply-adds, '
        f"G ({min(xs):.1f} … {max(xs):.1f})</text>"
        f'<text x="{_MARGIN - 36}" y="16">PSNR-Y, dB ({min(ys):.2f} … {max(ys):.2f})'
        f"</text>{''.join(dots)}</svg></figure>"
    )


def _range(values: Sequence[float], least: float) -> tuple[float, float]:
    spread = max(max(values) - min(values), least)
    return min(values) - 0.25 * spread, max(values) + 0.25 * spread


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels that would overlap down, and up again where the plot ends."""
    order, apart = sorted(range(len(heights)), key=heights.__getitem__), list(heights)
    for above, i in itertools.pairwise(order):
        apart[i] = max(apart[i], apart[above] + _LINE)
    lowest = _HEIGHT - _MARGIN - 4.0
    for i in reversed(order):
        apart[i] = min(apart[i], lowest)
        lowest = apart[i] - _LINE
    return apart
