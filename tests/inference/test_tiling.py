import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax import LKDN, lkdn_s
from lkdn_jax.inference.tiling import receptive_radius, window_shape, windows


@pytest.mark.parametrize("h", [1, 40, 41, 97, 200])
@pytest.mark.parametrize("w", [7, 83, 333])
@pytest.mark.parametrize(("tile", "context"), [(32, 0), (33, 4), (40, 99)])
def test_windows_cover_without_overlap_and_have_their_context(h, w, tile, context):
    covered = np.zeros((h, w), int)
    height, width = window_shape(h, w, tile, context)
    for window in windows(h, w, tile, context):
        (top, bottom), (left, right) = window.rows, window.columns
        covered[top:bottom, left:right] += 1
        for start, size, length, first, last in (
            (window.top, height, h, top, bottom),
            (window.left, width, w, left, right),
        ):
            assert 0 <= start <= start + size <= length
            assert first - start >= context or start == first == 0
            assert start + size - last >= context or start + size == last == length
    assert (covered == 1).all()


@pytest.mark.parametrize(
    "model", [LKDN(features=4, num_blocks=1), lkdn_s(2, features=4, num_blocks=2)]
)
def test_the_receptive_field_is_as_large_as_stated(init, model):
    radius = receptive_radius(model)
    size = 2 * radius + 3
    params = init(model)
    lr = np.random.default_rng(0).random((1, size, size, 3), np.float32)
    s, middle = model.scale, radius + 1

    def centre(lr):
        sr = model.apply(params, lr)
        return jnp.square(sr[0, middle * s : (middle + 1) * s, middle * s]).sum()

    reached = np.abs(jax.jit(jax.grad(centre))(lr)[0]).max((1, 2)) > 0
    assert reached.nonzero()[0][[0, -1]].tolist() == [1, size - 2]


def test_radius_of_the_published_networks():
    assert receptive_radius(LKDN()) == 99
    assert receptive_radius(lkdn_s()) == 63
