import itertools
import multiprocessing
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from lkdn_jax.data.pipeline import host_batches
from lkdn_jax.data.samples import Sampling, cut_samples, draw_samples
from lkdn_jax.data.tiles import Tiles, load_tiles, write_tiles
from lkdn_jax.errors import InputError


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    rng = np.random.default_rng(0)
    made = []
    for n in (3, 5):
        folder = tmp_path_factory.mktemp("tiles")
        lr = rng.integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
        write_tiles(folder, [Tiles(lr, lr.repeat(2, axis=1).repeat(2, axis=2))])
        made.append(load_tiles(folder))
    return made


SAMPLING = Sampling(seed=11, batch_size=4, lr_patch=4, weights=(1, 3))


def take(sources, number=6, sampling=SAMPLING, **options):
    with closing(host_batches(sources, sampling, **options)) as batches:
        return list(itertools.islice(batches, number))


def assert_same(got, expected):
    assert len(got) == len(expected)
    for batch, other in zip(got, expected, strict=True):
        for image, image_of_other in zip(batch, other, strict=True):
            np.testing.assert_array_equal(image, image_of_other, strict=True)


def test_batches_are_those_of_the_steps(sources):
    expected = []
    for step in range(6):
        samples = draw_samples(11, step, 4, [3, 5], [1, 3], 5)
        expected.append(cut_samples(sources, samples, 4))
    assert_same(take(sources), expected)
    assert_same(take(sources, 2, start_step=4), expected[4:])


@pytest.mark.parametrize("options", [{"num_threads": 1}, {"num_threads": 7}])
def test_threads_change_nothing(sources, options):
    assert_same(take(sources, **options), take(sources))


def test_workers_change_nothing_and_are_missed_when_killed(sources):
    before = set(multiprocessing.active_children())
    with closing(
        host_batches(sources, SAMPLING, num_workers=2, start_step=3)
    ) as batches:
        found = list(itertools.islice(batches, 6))
        assert_same(found, take(sources, start_step=3))
        workers = set(multiprocessing.active_children()) - before
        assert len(workers) == 2
        for worker in workers:
            worker.kill()
        with pytest.raises(InputError, match=r"data worker was killed.*fewer data\.w"):
            list(itertools.islice(batches, 100))  # some are made already


def test_the_hosts_together_make_the_batch(sources):
    parts = [take(sources, shard=(host, 2)) for host in range(2)]
    together = [
        tuple(np.concatenate(images) for images in zip(*batches, strict=True))
        for batches in zip(*parts, strict=True)
    ]
    assert parts[0][0][0].shape == (2, 4, 4, 3)
    assert_same(together, take(sources))


def test_far_steps_are_reached_at_once(sources):
    (lr, _), *_ = take(sources, 1, start_step=10**9)
    samples = draw_samples(11, 10**9, 4, [3, 5], [1, 3], 5)
    np.testing.assert_array_equal(lr, cut_samples(sources, samples, 4)[0])


def test_a_closed_iterator_is_over(sources):
    batches = host_batches(sources, Sampling(seed=0, batch_size=4, lr_patch=4))
    next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (0, 3)}, "batch size 4 must be .* 3 hosts: use 3"),
        (
            {"sampling": replace(SAMPLING, lr_patch=10)},
            "1 LR pixels larger than the tiles",
        ),
        ({"sampling": replace(SAMPLING, weights=(1,))}, "do not fit 2 sources"),
    ],
)
def test_bad_arguments_are_told_at_once(sources, options, message):
    with pytest.raises(InputError, match=message):
        take(sources, 0, **options)


def test_sources_must_be_alike(sources):
    other = Tiles(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(InputError, match="HR tiles of 18, 18, 16"):
        take([*sources, other])
    with pytest.raises(InputError, match="no sources"):
        take([])
