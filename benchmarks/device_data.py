"""Steps a second with the data in device memory, beside one batch that never changes.

    python benchmarks/device_data.py [--config configs/x4.py] [--rounds 20]

The peer is the same compiled step on the same devices, fed one fixed batch: what the
step could do if data cost nothing. Both run in turn in one process; medians.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import optax

from benchmarks import timing
from lkdn_jax.cli import ArgumentParser, run
from lkdn_jax.data.photographs import photograph_tiles
from lkdn_jax.data.samples import Sampling
from lkdn_jax.models.lkdn import draw_params
from lkdn_jax.training.config import load_config
from lkdn_jax.training.feed import device_feed
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.setup import create_model, create_tx, steps_per_dispatch
from lkdn_jax.training.sharding import make_mesh, replicate, shard_batch
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step, make_train_steps


def measure(config: Any, rounds: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Time both ways in turn; returns that and the steps in one call."""
    model, mesh = create_model(config.model), make_mesh()
    schedule = optax.constant_schedule(config.optimizer.learning_rate)
    tx = create_tx(config.optimizer, schedule)
    scale, data = config.model.scale, config.data
    sampling = Sampling(config.seed, data.batch_size, data.hr_patch // scale)
    feed = device_feed(mesh, [photograph_tiles(scale, data.tile)], sampling)
    length = steps_per_dispatch(config)
    params = draw_params(model)
    state, packing = create_state(params, tx), None
    if length > 1:  # as train.py
        packing = Packing(params)
        state = packing.pack(state)
    state = replicate(mesh, state)
    step = make_train_step(model, tx, loss=config.loss, packing=packing)

    rng, p = np.random.default_rng(0), data.hr_patch
    shapes = [(data.batch_size, n, n, 3) for n in (p // scale, p)]
    fixed = tuple(rng.integers(0, 256, (1, *shape), np.uint8) for shape in shapes)
    fixed = shard_batch(mesh, tuple(np.repeat(x, length, 0) for x in fixed))
    # Each way runs twice to warm up and twice a round.
    samples = feed.samples(0, [length] * 2 * (rounds + 1))

    def way(load: Any, dataset: Any, batch: Any) -> Any:
        steps = jax.jit(make_train_steps(step, load))
        return lambda: jax.block_until_ready(steps(state, dataset, batch()))

    ways = {
        "fixed batch": way(lambda _, batch: batch, (), lambda: fixed),
        "device cache": way(feed.load, feed.dataset, partial(next, samples)),
    }
    return timing.interleave(ways, rounds), length


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--config", default="configs/x4.py")
    parser.add_argument("--rounds", type=int, default=20)
    timing.add_output(parser)
    flags, overrides = parser.parse_known_args()
    result, steps = measure(load_config(flags.config, overrides), flags.rounds)
    title = f"{flags.config} {' '.join(overrides)}, steps in a call: {steps}"
    timing.print_table(title, result)
    timing.write(flags.output, {"steps": steps, "ways": result})


if __name__ == "__main__":
    sys.exit(run(main))
