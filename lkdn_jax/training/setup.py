"""From a configuration to the parts of a run; what does not fit is refused here."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lkdn_jax.data.datasets import open_tiles
from lkdn_jax.errors import InputError
from lkdn_jax.files import atomic_write
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.optim.optimizers import create_optimizer
from lkdn_jax.training.config import Config
from lkdn_jax.training.feed import Feed, Sampling, device_feed, host_feed
from lkdn_jax.training.sharding import check_batch_size
from lkdn_jax.weights.files import load


def create_model(config: Config) -> LKDN:
    """Create the network of a configuration's `model` section."""
    fields: Config = dict(config) | {"dtype": jnp.dtype(config.dtype)}
    return LKDN(**fields)


def create_tx(config: Config, schedule: optax.Schedule) -> Any:
    """Create the optimizer of a configuration's `optimizer` section."""
    fields = dict(config)
    del fields["accumulate"]
    fields |= {"learning_rate": schedule, "betas": config.betas or None}
    return create_optimizer(**fields)


def create_feed(config: Config, mesh: Any, progress: Any) -> Feed:
    """Open the data of a configuration."""
    data, scale = config.data, config.model.scale
    sources = [
        open_tiles(name, scale, data.tile, progress, data_dir=data.data_dir or None)
        for name in data.sources
    ]
    sampling = Sampling(
        config.seed, data.batch_size, data.hr_patch // scale, data.weights or None
    )
    if data.cache == "device":
        return device_feed(mesh, sources, sampling)
    return host_feed(mesh, sources, sampling, workers=data.workers)


def initial_params(config: Config) -> Any:
    """Load the parameters of `init_from`, if it names a file."""
    if not config.init_from:
        return None
    model, params = load(config.init_from)
    wanted = create_model(config.model)
    same = ("scale", "features", "num_blocks", "shallow_block", "upsampler")
    for name in same:
        if getattr(model, name) != getattr(wanted, name):
            raise InputError(
                f"init_from {config.init_from} has {name} {getattr(model, name)}, the "
                f"config has {getattr(wanted, name)}; set --model.{name}"
            )
    return params


def check_config(config: Config) -> None:
    """Check what no single part can check.

    Args:
        config: As in configs/default.py.

    Raises:
        InputError: A field that does not fit another.
    """
    data = config.data
    check_batch_size(data.batch_size, config.optimizer.accumulate)
    if data.hr_patch % config.model.scale or data.hr_patch > data.tile:
        raise InputError(
            f"data.hr_patch {data.hr_patch} must be a multiple of the scale "
            f"{config.model.scale} and at most data.tile {data.tile}"
        )
    if data.cache not in ("device", "host"):
        raise InputError(f"data.cache {data.cache!r} must be 'device' or 'host'")
    if config.loss not in ("l1", "l2"):
        raise InputError(f"loss {config.loss!r} must be 'l1' or 'l2'")
    if data.weights and len(data.weights) != len(data.sources):
        raise InputError(
            f"data.weights {data.weights} must have one number for each of "
            f"data.sources {data.sources}"
        )
    length = steps_per_dispatch(config)
    for name, every in (
        ("log_every", config.log_every),
        ("validation.every", config.validation.every),
        ("checkpoint.every", config.checkpoint.every),
    ):
        if every < 1 or every % length:
            raise InputError(
                f"{name} {every} must be a multiple of data.steps_per_dispatch {length}"
            )


def steps_per_dispatch(config: Config) -> int:
    """Return the number of steps in one compiled program."""
    if config.data.steps_per_dispatch is not None:
        return config.data.steps_per_dispatch
    return 1 if jax.default_backend() == "cpu" else 10


def check_workdir(config: Config, workdir: Path) -> None:
    """Check that a folder is new or holds a run of this network, and note the config.

    Args:
        config: As in configs/default.py.
        workdir: The folder.

    Raises:
        InputError: It holds a run of another network.
    """
    path = workdir / "config.json"
    new = json.loads(config.to_json())
    if path.is_file():
        old = json.loads(path.read_text())
        for name, value in new["model"].items():
            if name not in ("dtype", "remat") and old["model"].get(name) != value:
                raise InputError(
                    f"{workdir} holds a run whose model.{name} is "
                    f"{old['model'].get(name)}, not {value}; choose another --workdir"
                )
    with atomic_write(path) as file:
        file.write((json.dumps(new, indent=2) + "\n").encode())
