"""Training data in device memory: patches are cut and turned inside the step."""

import jax
import jax.numpy as jnp
from jax import Array, lax

Dataset = tuple[Array, Array]


def cut_samples(dataset: Dataset, samples: Array, lr_patch: int) -> Dataset:
    """Cut and turn the patches of a batch; the twin of `data.samples.cut_samples`.

    Args:
        dataset: Tiles, lr [n, t, t, 3] and hr [n, t·s, t·s, 3], uint8.
        samples: [b, 6], int32: tile, top and left in LR pixels, flip of the rows, flip
            of the columns, transposition (0 or 1).
        lr_patch: Side p of a patch, in LR pixels.

    Returns:
        lr [b, p, p, 3] and hr [b, p·s, p·s, 3], uint8.
    """
    lr, hr = dataset
    scale = hr.shape[1] // lr.shape[1]

    def cut(sample: Array) -> Dataset:
        tile, top, left, *turns = (sample[i] for i in range(6))
        patches = []
        for images, factor in ((lr, 1), (hr, scale)):
            side = lr_patch * factor
            start = (tile, top * factor, left * factor, jnp.zeros_like(tile))
            patch = lax.dynamic_slice(images, start, (1, side, side, 3))[0]
            patches.append(_turn(patch, *turns))
        return patches[0], patches[1]

    return jax.vmap(cut)(samples)


def _turn(patch: Array, rows: Array, columns: Array, transpose: Array) -> Array:
    patch = jnp.where(rows == 1, patch[::-1], patch)
    patch = jnp.where(columns == 1, patch[:, ::-1], patch)
    return jnp.where(transpose == 1, patch.swapaxes(0, 1), patch)
