"""Feeds: what the compiled steps read, and how it becomes batches.

`device` keeps all tiles in device memory and sends six numbers a patch; `host` cuts
the patches in threads or processes and sends pixels. Both give the same batches.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lkdn_jax.data.pipeline import host_batches
from lkdn_jax.data.samples import Sampling
from lkdn_jax.data.tiles import Tiles, join_tiles
from lkdn_jax.training.device_data import cut_samples
from lkdn_jax.training.sharding import replicate, shard_batch


@dataclass(frozen=True)
class Feed:
    """Where batches come from.

    Attributes:
        dataset: What the compiled steps read beside the samples.
        load: Makes a batch of the dataset and a sample, inside the compiled steps.
        samples: From the first step and the number of steps of each dispatch to trees
            with a leading axis of steps. To be closed: it may hold threads, processes.
    """

    dataset: Any
    load: Callable[[Any, Any], Any]
    samples: Callable[[int, Sequence[int]], Generator[Any]]


def device_feed(mesh: Mesh, sources: Sequence[Tiles], sampling: Sampling) -> Feed:
    """Make a feed that keeps the tiles on every device.

    Args:
        mesh: All devices.
        sources: Tiles, all of one size.
        sampling: Which patches to take.

    Returns:
        The feed.
    """
    tiles = join_tiles(sources)
    dataset = replicate(mesh, (np.asarray(tiles.lr), np.asarray(tiles.hr)))
    shard = jax.process_index(), jax.process_count()

    def samples(start: int, lengths: Sequence[int]) -> Generator[Any]:
        for length in lengths:
            steps = range(start, start + length)
            drawn = [sampling.draw(step, sources, shard) for step in steps]
            yield shard_batch(mesh, np.stack(drawn))
            start += length

    return Feed(dataset, partial(cut_samples, lr_patch=sampling.lr_patch), samples)


def host_feed(
    mesh: Mesh, sources: Sequence[Tiles], sampling: Sampling, *, workers: int = 0
) -> Feed:
    """Make a feed that cuts the patches on the host.

    Args:
        mesh: All devices.
        sources: Tiles, all of one size.
        sampling: Which patches to take.
        workers: Worker processes; 0 cuts in threads.

    Returns:
        The feed.
    """

    def samples(start: int, lengths: Sequence[int]) -> Generator[Any]:
        shard = jax.process_index(), jax.process_count()
        batches = host_batches(
            sources, sampling, start_step=start, shard=shard, num_workers=workers
        )
        with closing(batches):
            for length in lengths:
                parts = [next(batches) for _ in range(length)]
                stacked = tuple(np.stack(part) for part in zip(*parts, strict=True))
                yield shard_batch(mesh, stacked)

    return Feed((), lambda _, batch: batch, samples)
