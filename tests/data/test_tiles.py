import pickle

import numpy as np
import pytest

from lkdn_jax.data.photographs import (
    PHOTOGRAPHS_HELD_OUT,
    PHOTOGRAPHS_TRAIN,
    load_photograph,
    photograph_tiles,
)
from lkdn_jax.data.tiles import (
    Tiles,
    cut_tiles,
    load_tiles,
    tile_starts,
    write_tiles,
)
from lkdn_jax.errors import InputError


def pair(h, w, scale):
    """Make LR pixels that tell their place, each repeated in its HR block."""
    y, x = np.mgrid[:h, :w]
    lr = np.stack([y, x, y ^ x], axis=-1).astype(np.uint8)
    return lr, lr.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize(
    ("length", "tile", "starts"),
    [
        (10, 10, [0]),
        (13, 10, [1]),
        (14, 10, [2]),
        (15, 10, [0, 5]),
        (20, 10, [0, 10]),
        (21, 10, [0, 5, 11]),
        (510, 120, [0, 97, 195, 292, 390]),
        (1, 1, [0]),
    ],
)
def test_tile_starts(length, tile, starts):
    assert tile_starts(length, tile) == starts


@pytest.mark.parametrize("length", range(15, 60))
def test_tiles_cover_the_axis(length):
    starts = tile_starts(length, 10)
    covered = {i for start in starts for i in range(start, start + 10)}
    assert covered == set(range(length))
    assert len(starts) == -(-length // 10)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_and_hr_tiles_show_the_same(scale):
    lr, hr = pair(23, 37, scale)
    tiles = cut_tiles(lr, hr, scale, 12 * scale)
    assert tiles.lr.shape == (2 * 4, 12, 12, 3)
    assert tiles.scale == scale
    repeated = tiles.lr.repeat(scale, axis=1).repeat(scale, axis=2)
    np.testing.assert_array_equal(tiles.hr, repeated)
    # Row by row, and the last tile ends with the image.
    assert tiles.lr[0, 0, 0, :2].tolist() == [0, 0]
    assert tiles.lr[1, 0, 0, :2].tolist() == [0, 8]
    assert tiles.lr[-1, -1, -1, :2].tolist() == [22, 36]


def test_an_image_smaller_than_a_tile_is_named_with_the_largest_tile():
    lr, hr = pair(10, 7, 3)
    message = r"sea\.png is 30x21 .* tile of 24x24.* at most 21$"
    with pytest.raises(InputError, match=message):
        cut_tiles(lr, hr, 3, 24, "sea.png")
    assert len(cut_tiles(lr, hr, 3, 21)) == 1


def test_a_tile_must_be_a_multiple_of_the_scale():
    with pytest.raises(InputError, match=r"tile 10 must be .* scale 4: use 8"):
        cut_tiles(*pair(9, 9, 4), 4, 10)


def test_written_tiles_are_mapped_and_pickled_by_name(tmp_path):
    parts = [cut_tiles(*pair(h, 13, 2), 2, 16) for h in (9, 15, 24)]
    write_tiles(tmp_path, parts)
    tiles = load_tiles(tmp_path)
    assert tiles.lr.shape == (12, 8, 8, 3)
    assert tiles.hr.shape == (12, 16, 16, 3)
    np.testing.assert_array_equal(tiles.lr, np.concatenate([p.lr for p in parts]))
    np.testing.assert_array_equal(tiles.hr, np.concatenate([p.hr for p in parts]))
    sent = pickle.dumps(tiles)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent).hr, tiles.hr)


def test_tiles_in_memory_are_pickled_whole():
    tiles = Tiles(*(np.ones((2, n, n, 3), np.uint8) for n in (4, 8)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tiles)).hr, tiles.hr)


def test_photographs_are_held_out():
    assert not set(PHOTOGRAPHS_TRAIN) & set(PHOTOGRAPHS_HELD_OUT)
    assert {"chelsea", "coffee"} <= set(PHOTOGRAPHS_HELD_OUT)
    for name in PHOTOGRAPHS_TRAIN + PHOTOGRAPHS_HELD_OUT:
        image = load_photograph(name)
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8
    tiles = photograph_tiles(4, 192)
    assert tiles.lr.shape == (66, 48, 48, 3)
    assert tiles.hr.shape == (66, 192, 192, 3)
    # The LR tile lies where the HR tile does: one pixel off fits far worse.
    means = tiles.hr.reshape(66, 48, 4, 48, 4, 3).mean((2, 4))
    error = np.abs(means - tiles.lr).mean()
    shifted = np.abs(means[:, :, 1:] - tiles.lr[:, :, :-1]).mean()
    assert error < shifted / 3


def test_a_photograph_smaller_than_a_tile_is_named():
    with pytest.raises(InputError, match="photograph stereo_motorcycle is 500x740"):
        photograph_tiles(4, 504)
    with pytest.raises(InputError, match=r"use data\.tile of at most 498"):
        photograph_tiles(3, 504)
    for scale, tile in ((0, 256), (4, 255)):
        with pytest.raises(InputError, match=r"must be"):
            photograph_tiles(scale, tile)
