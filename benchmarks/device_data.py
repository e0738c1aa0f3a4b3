"""Steps a second with the data in device memory, beside one batch that never changes.

    python -m benchmarks.device_data [--config configs/x4.py] [--rounds 20]

The peer is the same compiled step on the same devices, fed one fixed batch: what the
step could do if data cost nothing. Both run in turn in one process; medians.
"""

import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from lkdn_jax.cli import ArgumentParser, run
from lkdn_jax.data.photographs import photograph_tiles
from lkdn_jax.files import atomic_write
from lkdn_jax.models.lkdn import draw_params
from lkdn_jax.training.config import load_config
from lkdn_jax.training.feed import Sampling, device_feed
from lkdn_jax.training.setup import create_model, create_tx, steps_per_dispatch
from lkdn_jax.training.sharding import make_mesh, replicate, shard_batch
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step, make_train_steps


def measure(config: Any, rounds: int) -> dict[str, float]:
    """Time both ways in turn; returns median seconds a step and their ratio."""
    model, mesh = create_model(config.model), make_mesh()
    schedule = optax.constant_schedule(config.optimizer.learning_rate)
    tx = create_tx(config.optimizer, schedule)
    scale, data = config.model.scale, config.data
    sampling = Sampling(config.seed, data.batch_size, data.hr_patch // scale)
    feed = device_feed(mesh, [photograph_tiles(scale, data.tile)], sampling)
    length = steps_per_dispatch(config)
    step = make_train_step(model, tx, loss=config.loss)
    state = replicate(mesh, create_state(draw_params(model), tx))

    rng, p = np.random.default_rng(0), data.hr_patch
    shapes = [(data.batch_size, n, n, 3) for n in (p // scale, p)]
    fixed = tuple(rng.integers(0, 256, (1, *shape), np.uint8) for shape in shapes)
    fixed = shard_batch(mesh, tuple(np.repeat(x, length, 0) for x in fixed))
    with feed.samples(0, [length] * (rounds + 1)) as samples:
        ways = {
            "device": (feed.dataset, samples.__next__, feed.load),
            "fixed": ((), lambda: fixed, lambda _, batch: batch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        compiled = {
            name: jax.jit(make_train_steps(step, load))
            for name, (_, _, load) in ways.items()
        }
        for _ in range(rounds + 1):
            for name, (dataset, batch, _) in ways.items():
                start = time.perf_counter()
                out = compiled[name](state, dataset, batch())
                jax.block_until_ready(out)
                seconds[name].append((time.perf_counter() - start) / length)
    # The first round compiles.
    medians = {name: float(np.median(s[1:])) for name, s in seconds.items()}
    return medians | {"speed": medians["fixed"] / medians["device"]}


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--config", default="configs/x4.py")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    flags, overrides = parser.parse_known_args()
    result = measure(load_config(flags.config, overrides), flags.rounds)
    device = jax.devices()[0]
    print(f"{jax.device_count()} × {device.device_kind}, {flags.config} {overrides}")
    print(f"device cache  {result['device'] * 1e3:9.2f} ms a step")
    print(f"fixed batch   {result['fixed'] * 1e3:9.2f} ms a step")
    print(f"speed with device cache: {result['speed']:.3f} × the fixed batch's")
    if flags.output:
        record = result | {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "device": device.device_kind,
            "jax": jax.__version__,
            "command": " ".join(sys.argv),
        }
        with atomic_write(flags.output) as file:
            file.write(json.dumps(record, indent=2).encode())


if __name__ == "__main__":
    sys.exit(run(main))
