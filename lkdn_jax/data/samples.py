"""Which patches make a batch, and how they are cut out.

Sampling is with replacement: a batch then depends on the seed and its step alone, so
any host, worker or resumed run can make any batch. Over a million steps of 64 patches
every tile is drawn nearly equally often anyway, each time at another position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lkdn_jax.data.bicubic import Image
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.errors import InputError

Samples = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sampling:
    """Which patches a run sees; the batch of a step follows from this and the step.

    Attributes:
        seed: Seed of the samples, any integer >= 0.
        batch_size: Patches of a step, over all hosts.
        lr_patch: Side of a patch, in LR pixels.
        weights: How often to draw from each source, of any sum; None for every tile
            equally often.
    """

    seed: int
    batch_size: int
    lr_patch: int
    weights: Sequence[float] | None = None

    def draw(
        self, step: int, sources: Sequence[Tiles], shard: tuple[int, int] = (0, 1)
    ) -> Samples:
        """Draw one host's patches of a step.

        Args:
            step: Number of the batch, >= 0.
            sources: Tiles of one size and scale, at least one.
            shard: Index of the host, and the number of hosts.

        Returns:
            Rows of `draw_samples`, batch_size over the number of hosts.

        Raises:
            InputError: Weights that do not fit the sources, patches larger than the
                tiles, or a batch that does not divide by the hosts.
        """
        (index, hosts), size = shard, self.batch_size
        if size < 1 or size % hosts:
            raise InputError(
                f"batch size {size} must be a positive multiple of the {hosts} hosts: "
                f"use {max(size // hosts, 1) * hosts}"
            )
        counts = [len(source) for source in sources]
        free = sources[0].lr.shape[1] - self.lr_patch
        drawn = draw_samples(self.seed, step, size, counts, self.weights, free)
        part = size // hosts
        return drawn[index * part : (index + 1) * part]


def _shares(
    counts: Sequence[int], weights: Sequence[float] | None
) -> npt.NDArray[np.float64]:
    share = np.asarray(counts if weights is None else weights, np.float64)
    if share.shape != (len(counts),) or not (share.min() >= 0 and share.sum() > 0):
        raise InputError(
            f"weights {weights} do not fit {len(counts)} sources: give one number "
            ">= 0 for each, not all 0"
        )
    return share / share.sum()


def draw_samples(
    seed: int,
    step: int,
    batch_size: int,
    counts: Sequence[int],
    weights: Sequence[float] | None,
    free: int,
) -> Samples:
    """Draw the patches of one batch: a pure function of its arguments.

    The bits are those of the Philox generator, key `seed`, counter `step`; numpy
    promises never to change them, unlike its distributions.

    Args:
        seed: Any integer >= 0.
        step: Number of the batch, >= 0.
        batch_size: Patches in the batch.
        counts: Number of tiles of each source.
        weights: Shares of the sources, of any sum; None for every tile equally often.
        free: Tile size minus patch size, in LR pixels.

    Returns:
        [batch_size, 6], int32: tile, counted through all sources; top and left, in
        [0, free]; flip of the rows, flip of the columns, transposition, in [0, 1].

    Raises:
        InputError: Weights that do not fit the sources, or negative `free`.
    """
    share = _shares(counts, weights)
    if free < 0:
        raise InputError(
            f"patches are {-free} LR pixels larger than the tiles: use larger tiles"
        )
    bits = np.random.Philox(key=seed % 2**64, counter=step << 192)
    raw = bits.random_raw(5 * batch_size).reshape(batch_size, 5)
    # The upper 32 bits as a fraction of n; n is far below 2^32, so the bias is too.
    fraction = raw >> np.uint64(32)

    def below(n: int | npt.NDArray[np.int64], column: int) -> npt.NDArray[np.uint64]:
        return (fraction[:, column] * np.asarray(n, np.uint64)) >> np.uint64(32)

    edges = np.cumsum(share)
    source = np.searchsorted(edges[:-1], fraction[:, 0] / 2**32, side="right")
    sizes = np.asarray(counts, np.int64)
    tile = below(sizes[source], 1) + (np.cumsum(sizes) - sizes)[source].astype(
        np.uint64
    )
    flips = [(raw[:, 4] >> np.uint64(63 - i)) & np.uint64(1) for i in range(3)]
    corner = below(free + 1, 2), below(free + 1, 3)
    return np.stack([tile, *corner, *flips], axis=1).astype(np.int32)


def cut_samples(
    sources: Sequence[Tiles], samples: Samples, lr_patch: int
) -> tuple[Image, Image]:
    """Cut patches out of tiles, flip and transpose them.

    First the rows are flipped, then the columns, then both are exchanged.

    Args:
        sources: Tiles of one scale.
        samples: [b, 6], int32, as `draw_samples` returns them.
        lr_patch: Side p of an LR patch, in pixels.

    Returns:
        lr [b, p, p, 3] and hr [b, p * scale, p * scale, 3], uint8 in [0, 255].
    """
    scale, b = sources[0].scale, len(samples)
    lr = np.empty((b, lr_patch, lr_patch, 3), np.uint8)
    hr = np.empty((b, lr_patch * scale, lr_patch * scale, 3), np.uint8)
    stops = np.cumsum([len(source) for source in sources])
    owner = np.searchsorted(stops, samples[:, 0], side="right")
    for i, (tile, top, left, *flips) in enumerate(samples.tolist()):
        source = sources[owner[i]]
        tile -= int(stops[owner[i]]) - len(source)
        for out, tiles, factor in ((lr, source.lr, 1), (hr, source.hr, scale)):
            y, x, size = top * factor, left * factor, lr_patch * factor
            _copy(tiles[tile, y : y + size, x : x + size], out[i], flips)
    return lr, hr


def _copy(patch: Image, out: Image, flips: Sequence[int]) -> None:
    rows, columns, transposed = flips
    patch = patch[:: -1 if rows else 1, :: -1 if columns else 1]
    if not (columns or transposed):
        out[...] = patch
        return
    if transposed:
        out = out.transpose(1, 0, 2)
    # Channel by channel is six times faster: numpy's inner loop runs over the last
    # axis, and three bytes are too few for it.
    for channel in range(3):
        out[..., channel] = patch[..., channel]
