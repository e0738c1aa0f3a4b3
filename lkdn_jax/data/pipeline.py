"""Batches on the host, read ahead by Grain."""

import signal
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
from absl import flags

from lkdn_jax.data.bicubic import Image
from lkdn_jax.data.samples import Sampling, cut_samples
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.errors import InputError

Batch = tuple[Image, Image]


@dataclass(frozen=True)
class _MakeBatch:
    """Makes this host's rows of the batch of a step; picklable, for the workers."""

    sources: tuple[Tiles, ...]
    sampling: Sampling
    shard: tuple[int, int]

    def __call__(self, step: int) -> Batch:
        samples = self.sampling.draw(step, self.sources, self.shard)
        return cut_samples(self.sources, samples, self.sampling.lr_patch)


def _check_alike(sources: Sequence[Tiles]) -> None:
    if not sources:
        raise InputError("there are no sources: name at least one")
    sizes = {(source.lr.shape[1:], source.hr.shape[1:]) for source in sources}
    if len(sizes) > 1:
        tiles = ", ".join(str(source.hr.shape[1]) for source in sources)
        raise InputError(
            f"the sources have HR tiles of {tiles}: all must have the same size and "
            "scale; open them with one tile size"
        )


def _ignore_interrupts(worker: int, workers: int) -> None:
    # Ctrl-C reaches every process of a terminal; the parent decides when to stop.
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_ahead(
    make: _MakeBatch, start_step: int, num_workers: int, num_threads: int
) -> grain.IterDataset:
    threads = max(num_threads, 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    dataset = steps.map(make).to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain reads absl's flags, which only `absl.app.run` would parse.
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(workers, _ignore_interrupts)
    return dataset


def host_batches(
    sources: Sequence[Tiles],
    sampling: Sampling,
    *,
    start_step: int = 0,
    shard: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    num_threads: int = 2,
) -> Generator[Batch]:
    """Iterate without end over this host's part of every batch.

    A batch is the same for any number of workers and threads, and in a resumed run.
    Close the iterator, or wrap it in `contextlib.closing`: that ends its threads and
    workers.

    Args:
        sources: Tiles of one size and scale, at least one.
        sampling: Which patches to take.
        start_step: Number of the first batch.
        shard: Index of this host, and the number of hosts, which divides the batch.
        num_workers: Processes that make batches; 0 for none beside this one.
        num_threads: Threads that make batches, in this process or in each worker.

    Returns:
        An iterator over lr [b, p, p, 3] and hr [b, p * scale, p * scale, 3], uint8 in
        [0, 255], b being the batch size over the number of hosts.

    Raises:
        InputError: Sources that differ in size, weights that do not fit them, patches
            larger than the tiles, or a batch that does not divide by the hosts.
    """
    _check_alike(sources)
    make = _MakeBatch(tuple(sources), sampling, shard)
    make(start_step)  # Bad arguments are told here, not by a worker.
    return _iterate(_read_ahead(make, start_step, num_workers, num_threads))


def _iterate(dataset: Any) -> Generator[Batch]:
    iterator = iter(dataset)
    try:
        yield from iterator
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise InputError(
            "a data worker was killed, most often for want of memory: run the same "
            "again with fewer data.workers"
        ) from error
    finally:
        iterator.close()
