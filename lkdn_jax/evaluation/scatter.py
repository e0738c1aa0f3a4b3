"""A plot of PSNR against multiply-adds, as SVG."""

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
    dots, above = [], 0.0
    for point in sorted(points, key=lambda point: -point.psnr):
        x = (point.multiply_adds - left) / (right - left)
        y = (point.psnr - low) / (high - low)
        px = _MARGIN + x * (_WIDTH - 2 * _MARGIN)
        py = _HEIGHT - _MARGIN - y * (_HEIGHT - 2 * _MARGIN)
        kind = "ours" if point.ours else "theirs"
        anchor = "end" if px > _WIDTH * 0.6 else "start"
        dx = -9 if anchor == "end" else 9
        above = max(py + 4, above + _LINE)  # labels of equal points do not overlap
        dots.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>'
            f'<text x="{px + dx:.1f}" y="{above:.1f}" text-anchor="{anchor}">'
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
