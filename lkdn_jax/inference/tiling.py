"""Windows of one shape that cover an image, each with the context its middle needs.

A pixel of the output depends on the LR pixels within the receptive field alone, so the
middle of a window is what the whole image would give there. Windows never reach beyond
the image: at its border the network pads with zeros, as it does for the whole.
"""

from dataclasses import dataclass

from lkdn_jax.models.lkdn import LKDN

Interval = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Part of an image, in LR pixels.

    Attributes:
        top: First row.
        left: First column.
        rows: First row and row after the last that are kept, counted in the image.
        columns: The same for columns.
    """

    top: int
    left: int
    rows: Interval
    columns: Interval


def receptive_radius(model: LKDN) -> int:
    """Return how far, in LR pixels, an input pixel can change the output.

    Args:
        model: The network.

    Returns:
        The radius: 99 for LKDN, 63 for LKDN-S.
    """
    # A block: four depthwise 3×3 one after another, then 5×5, and 5×5 with dilation 3.
    block = 4 * 1 + 2 + 3 * 2
    return 1 + model.num_blocks * block + 1 + 1  # fea_conv, blocks, c2, upsampler


def window_shape(h: int, w: int, tile: int, context: int) -> tuple[int, int]:
    """Return the shape of the windows of an image [h, w]: at most tile + 2·context."""
    return min(h, tile + 2 * context), min(w, tile + 2 * context)


def windows(h: int, w: int, tile: int, context: int) -> list[Window]:
    """Cover an image.

    Args:
        h: Height, in LR pixels.
        w: Width, in LR pixels.
        tile: Largest height and width kept of a window within the image, at least 1.
        context: Pixels around what is kept, at least 0; `receptive_radius` is exact.

    Returns:
        Windows of shape `window_shape(…)`, row by row. What they keep covers the image
        without overlap.
    """
    shape = window_shape(h, w, tile, context)
    return [
        Window(top, left, rows, columns)
        for top, rows in _cover(h, shape[0], context)
        for left, columns in _cover(w, shape[1], context)
    ]


def _cover(length: int, window: int, context: int) -> list[tuple[int, Interval]]:
    step = window - 2 * context
    count = 1 if window == length else -(-(length - 2 * context) // step)
    gaps = max(1, count - 1)
    starts = [(length - window) * i // gaps for i in range(count)]
    cuts = [0, *(start + context for start in starts[1:]), length]
    return [(start, (cuts[i], cuts[i + 1])) for i, start in enumerate(starts)]
