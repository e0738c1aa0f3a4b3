import jax
import numpy as np
import pytest

from lkdn_jax.data.samples import Sampling
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.errors import InputError
from lkdn_jax.training.feed import device_feed, host_feed
from lkdn_jax.training.run import dispatches
from lkdn_jax.training.sharding import make_mesh


def test_both_feeds_give_the_same_batches():
    rng = np.random.default_rng(0)
    sources = [
        Tiles(
            rng.integers(0, 256, (n, 10, 10, 3), np.uint8),
            rng.integers(0, 256, (n, 20, 20, 3), np.uint8),
        )
        for n in (3, 2)
    ]
    mesh = make_mesh()
    sampling = Sampling(seed=5, batch_size=4, lr_patch=6, weights=(1, 4))
    batches = []
    for feed in (
        device_feed(mesh, sources, sampling),
        host_feed(mesh, sources, sampling),
    ):
        load = jax.jit(jax.vmap(feed.load, (None, 0)))
        samples = feed.samples(7, [3, 2])
        batches.append([load(feed.dataset, sample) for sample in samples])
    device, host = batches
    assert [x.shape[0] for x, _ in device] == [3, 2]
    for ours, theirs in zip(device, host, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dispatches_end_at_multiples():
    assert list(dispatches(0, 10, 4)) == [4, 4, 2]
    assert list(dispatches(3, 10, 4)) == [1, 4, 2]
    assert list(dispatches(8, 8, 4)) == []


def test_the_host_feed_cuts_what_is_of_its_host(monkeypatch):
    asked = {}

    def observed(*_, **options):
        asked.update(options)
        raise InputError("seen")

    monkeypatch.setattr("lkdn_jax.training.feed.host_batches", observed)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="seen"):
        next(host_feed(make_mesh(), [], Sampling(0, 4, 8)).samples(5, [1]))
    assert (asked["shard"], asked["start_step"]) == ((1, 2), 5)
