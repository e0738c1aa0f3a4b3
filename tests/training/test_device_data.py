import jax
import jax.numpy as jnp
import numpy as np

from lkdn_jax.data import samples
from lkdn_jax.data.tiles import Tiles, join_tiles
from lkdn_jax.training.device_data import cut_samples


def test_cuts_on_the_device_what_the_host_cuts():
    rng = np.random.default_rng(0)
    sources = []
    for n in (3, 2):
        lr = rng.integers(0, 256, (n, 12, 12, 3), np.uint8)
        hr = rng.integers(0, 256, (n, 36, 36, 3), np.uint8)
        sources.append(Tiles(lr, hr))
    drawn = samples.draw_samples(0, 7, 64, (3, 2), None, 12 - 5)
    assert len({tuple(row) for row in drawn[:, 3:]}) == 8
    expected = samples.cut_samples(sources, drawn, 5)
    tiles = join_tiles(sources)
    dataset = jnp.asarray(tiles.lr), jnp.asarray(tiles.hr)
    cut = jax.jit(cut_samples, static_argnums=2)(dataset, jnp.asarray(drawn), 5)
    for ours, theirs in zip(cut, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
