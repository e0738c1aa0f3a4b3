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
from lkdn_jax.data.samples import draw_samples
from lkdn_jax.data.tiles import Tiles, join_tiles
from lkdn_jax.training.device_data import cut_samples
from lkdn_jax.training.sharding import replicate, shard_batch


@dataclass(frozen=True)
class Sampling:
    """Which patches a run sees; the batch of a step follows from this and the step.

    Attributes:
        seed: Seed of the samples.
        batch_size: Patches of a step, over all hosts.
        lr_patch: Side of a patch, in LR pixels.
        weights: Probability of each source, up to a factor; None: by size.
    """

    seed: int
    batch_size: int
    lr_patch: int
    weights: Sequence[float] | None = None


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
    counts = [len(source.lr) for source in sources]
    free = sources[0].lr.shape[1] - sampling.lr_patch
    rows = _host_rows(sampling.batch_size)

    def samples(start: int, lengths: Sequence[int]) -> Generator[Any]:
        for length in lengths:
            drawn = [
                draw_samples(
                    sampling.seed, step, sampling.batch_size, counts,
                    sampling.weights, free,
                )[rows]
                for step in range(start, start + length)
            ]  # fmt: skip
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
        batches = host_batches(
            sources,
            seed=sampling.seed,
            batch_size=sampling.batch_size,
            lr_patch=sampling.lr_patch,
            weights=sampling.weights,
            start_step=start,
            shard=(jax.process_index(), jax.process_count()),
            num_workers=workers,
        )
        with closing(batches):
            for length in lengths:
                parts = [next(batches) for _ in range(length)]
                stacked = tuple(np.stack(part) for part in zip(*parts, strict=True))
                yield shard_batch(mesh, stacked)

    return Feed((), lambda _, batch: batch, samples)


def _host_rows(batch_size: int) -> slice:
    size = batch_size // jax.process_count()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)
