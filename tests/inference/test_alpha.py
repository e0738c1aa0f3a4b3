"""Opacity: what is all one value stays so, and an edge leaves no ghosts."""

import numpy as np
import pytest
from PIL import Image

from lkdn_jax import LKDN, Upscaler
from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import read_photo
from lkdn_jax.inference.folder import upscale_files, upscale_inputs
from lkdn_jax.inference.jobs import find_jobs


@pytest.fixture
def weights(save_weights):
    return save_weights(LKDN(scale=2, features=4, num_blocks=1))


def rgba(alpha):
    colours = np.random.default_rng(0).random((*alpha.shape, 3))
    if alpha.dtype != np.float32:
        colours = np.rint(colours * np.iinfo(alpha.dtype).max)
    return np.concatenate([colours.astype(alpha.dtype), alpha[..., None]], axis=-1)


@pytest.mark.parametrize(
    "value", [np.uint8(255), np.uint8(0), np.uint16(65_535), np.float32(0.3)]
)
def test_one_value_stays(weights, value):
    upscaler, alpha = Upscaler(weights), np.full((12, 9), value)
    assert np.ptp(upscaler(alpha)) > 0  # the network keeps no constant
    sr = upscaler(rgba(alpha))[..., 3]
    assert sr.shape == (24, 18)
    assert sr.dtype == alpha.dtype
    assert (sr == value).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_edge_changes_only_what_touches_it(weights, dtype):
    alpha = np.zeros((12, 20), dtype)
    alpha[:, 10:] = high = 255 if dtype == np.uint8 else 1
    alpha[5, 3] = high
    upscaler = Upscaler(weights)
    sr, plain = upscaler(rgba(alpha))[..., 3], upscaler(alpha)
    flat = np.zeros((24, 40), bool)
    flat[:, :18] = flat[:, 22:] = True  # columns 9 and 10 touch the edge
    flat[8:14, 4:10] = False  # and rows 4 to 6 of columns 2 to 4 a dot
    expected = np.where(flat, alpha.repeat(2, 0).repeat(2, 1), plain.clip(0, high))
    np.testing.assert_allclose(sr, expected, atol=1e-6)
    assert (plain != expected)[flat].any()


def test_ticks_are_as_many_for_one_value_as_for_many(weights):
    upscaler, ticks = Upscaler(weights, tile=32, context=0), []
    pixels = np.zeros((40, 70, 3), np.uint8)
    for alpha in (pixels[..., 0], np.arange(2800, dtype=np.uint8).reshape(40, 70)):
        upscaler.photo(Photo(pixels, alpha), lambda: ticks.append(1))
    assert len(ticks) == 2 * 2 * upscaler.count_tiles(40, 70)
    assert upscaler.count_tiles(40, 70) > 1


def test_what_is_opaque_loses_nothing_in_any_format(tmp_path, weights):
    Image.fromarray(rgba(np.full((10, 14), 255, np.uint8))).save(tmp_path / "a.png")
    summary = upscale_inputs(
        [str(tmp_path / "a.png")], tmp_path / "out", weights, format="jpg"
    )
    assert (summary.done, summary.notes, summary.failures) == (1, [], [])
    jobs = find_jobs([str(tmp_path / "a.png")], tmp_path / "out")
    resized = upscale_files(Upscaler(weights), jobs, resize=lambda _: (21, 15))
    assert resized.done == 1
    photo = read_photo(tmp_path / "out" / "a.png")
    assert photo.pixels.shape == (15, 21, 3)
    assert photo.alpha is not None
    assert (photo.alpha == 255).all()
