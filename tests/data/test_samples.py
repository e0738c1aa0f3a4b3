import numpy as np
import pytest

from lkdn_jax.data.samples import cut_samples, draw_samples
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.errors import InputError


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(0)
    made = []
    for n in (3, 5):
        lr = rng.integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
        made.append(Tiles(lr, lr.repeat(2, axis=1).repeat(2, axis=2)))
    return made


def test_the_draw_never_changes():
    # Recorded once: a changed draw would break every run resumed from a checkpoint.
    drawn = draw_samples(7, 123_456, 3, [10, 90], [1, 2], 72)
    assert drawn.dtype == np.int32
    assert drawn.tolist() == [
        [4, 27, 31, 1, 1, 0],
        [35, 35, 11, 1, 0, 0],
        [45, 13, 6, 1, 1, 0],
    ]


def test_the_draw_is_a_function_of_its_arguments():
    first = draw_samples(0, 5, 8, [10], None, 4)
    np.testing.assert_array_equal(first, draw_samples(0, 5, 8, [10], None, 4))
    np.testing.assert_array_equal(first[:3], draw_samples(0, 5, 3, [10], None, 4))
    assert (first != draw_samples(0, 6, 8, [10], None, 4)).any()
    assert (first != draw_samples(1, 5, 8, [10], None, 4)).any()


def test_every_value_is_drawn_equally_often():
    n = 60_000
    drawn = draw_samples(3, 0, n, [2, 4], None, 2)
    for column, size in enumerate((6, 3, 3, 2, 2, 2)):
        counts = np.bincount(drawn[:, column], minlength=size)
        assert len(counts) == size
        # Five standard deviations of a binomial count.
        assert np.abs(counts - n / size).max() < 5 * (n / size) ** 0.5
    # The flips are independent of each other: eight equal groups.
    groups = np.bincount(drawn[:, 3:] @ [4, 2, 1], minlength=8)
    assert np.abs(groups - n / 8).max() < 5 * (n / 8) ** 0.5


def test_weights_are_shares_of_the_sources():
    n = 60_000
    tile = draw_samples(3, 0, n, [2, 4, 3], [3, 1, 0], 2)[:, 0]
    assert abs((tile < 2).sum() - 0.75 * n) < 5 * (n * 0.75 * 0.25) ** 0.5
    assert tile.max() == 5
    assert draw_samples(3, 0, 100, [2, 4], [0, 1], 2)[:, 0].min() >= 2


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [1, -1], [1, np.nan]])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(InputError, match="do not fit 2 sources"):
        draw_samples(0, 0, 4, [5, 5], weights, 0)


def test_a_patch_larger_than_the_tiles():
    with pytest.raises(InputError, match="3 LR pixels larger than the tiles"):
        draw_samples(0, 0, 4, [5], None, -3)


@pytest.mark.parametrize("flips", list(np.ndindex(2, 2, 2)))
def test_cut_flips_rows_then_columns_then_transposes(sources, flips):
    lr, hr = cut_samples(sources, np.array([[4, 2, 5, *flips]], np.int32), 4)
    for got, tiles, scale in ((lr, sources[1].lr, 1), (hr, sources[1].hr, 2)):
        y, x, p = 2 * scale, 5 * scale, 4 * scale
        expected = tiles[1, y : y + p, x : x + p]
        if flips[0]:
            expected = expected[::-1]
        if flips[1]:
            expected = expected[:, ::-1]
        if flips[2]:
            expected = expected.transpose(1, 0, 2)
        np.testing.assert_array_equal(got, expected[None])


def test_lr_and_hr_stay_aligned(sources):
    samples = draw_samples(0, 0, 200, [3, 5], None, 5)
    lr, hr = cut_samples(sources, samples, 4)
    assert lr.shape == (200, 4, 4, 3)
    np.testing.assert_array_equal(hr, lr.repeat(2, axis=1).repeat(2, axis=2))


def test_the_corners_are_within_reach(sources):
    samples = np.array([[0, 0, 0, 0, 0, 0], [7, 5, 5, 0, 0, 0]], np.int32)
    lr, _ = cut_samples(sources, samples, 4)
    np.testing.assert_array_equal(lr[0], sources[0].lr[0, :4, :4])
    np.testing.assert_array_equal(lr[1], sources[1].lr[4, -4:, -4:])
