"""From a configuration to the parts of a run; what does not fit is refused here."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lkdn_jax.data.datasets import open_tiles
from lkdn_jax.data.samples import Sampling
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import LKDN, draw_params, expected_params
from lkdn_jax.optim.optimizers import create_optimizer
from lkdn_jax.training.config import Config, field_value
from lkdn_jax.training.feed import Feed, device_feed, host_feed
from lkdn_jax.training.processes import on_first_process
from lkdn_jax.training.run import Plan
from lkdn_jax.weights.files import load
from lkdn_jax.weights.published import (
    check_finite,
    check_params,
    deduce_architecture,
)

_DTYPES = ("float32", "bfloat16")
_DEVICE_SHARE = 0.4  # of a device's memory, for the tiles, when the cache is "auto"
_HOST_BYTES = 2 << 30  # the same for CPU, where the memory is the host's


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
    """Open the data of a configuration, on process 0 first: it prepares them."""
    data, scale = config.data, config.model.scale

    def open_sources() -> list[Tiles]:
        return [
            open_tiles(
                name,
                scale,
                data.tile,
                progress,
                data_dir=data.data_dir or None,
                decoded_dir=data.decoded_dir or None,
            )
            for name in data.sources
        ]

    sources = on_first_process(open_sources) or open_sources()
    sampling = Sampling(
        config.seed, data.batch_size, data.hr_patch // scale, data.weights or None
    )
    if data.cache == "device" or (data.cache == "auto" and _fit_device(sources)):
        return device_feed(mesh, sources, sampling)
    return host_feed(mesh, sources, sampling, workers=data.workers)


def _fit_device(sources: Sequence[Tiles]) -> bool:
    size = sum(source.lr.nbytes + source.hr.nbytes for source in sources)
    if jax.default_backend() == "cpu":
        return size * jax.local_device_count() <= _HOST_BYTES
    stats = jax.local_devices()[0].memory_stats() or {}
    return size <= _DEVICE_SHARE * stats.get("bytes_limit", 0)


def create_plan(config: Config) -> Plan:
    """Create the plan of a run."""
    return Plan(
        steps=config.steps,
        dispatch=steps_per_dispatch(config),
        log_every=config.log_every,
        validate_every=config.validation.every,
        save_every=config.checkpoint.every,
        validated=bool(config.validation.folders),
        seed=config.seed,
        batch_size=config.data.batch_size,
    )


def steps_per_dispatch(config: Config) -> int:
    """Return the number of steps in one compiled program."""
    if config.data.steps_per_dispatch is not None:
        return config.data.steps_per_dispatch
    return 1 if jax.default_backend() == "cpu" else 10


def initial_params(model: LKDN, config: Config) -> Any:
    """Load the parameters of `init_from`, if it names a file, or draw them.

    Args:
        model: The network.
        config: As in configs/default.py.

    Returns:
        The parameter tree, float32.

    Raises:
        InputError: A file that cannot be read, is of another network, or holds
            parameters that are not finite.
    """
    if not config.init_from:
        return draw_params(model, config.seed)
    saved, params = load(config.init_from)
    check_finite(params, f"init_from {config.init_from}: ")
    if saved.scale != model.scale:
        raise InputError(
            f"init_from {config.init_from} is for scale {saved.scale}, the config for "
            f"{model.scale}; give weights of that scale"
        )
    expected = expected_params(model)
    try:
        check_params(params, expected)
    except InputError as error:
        ours, theirs = deduce_architecture(expected), deduce_architecture(params)
        differences = ", ".join(
            f"{name} {theirs[name]}, not {ours[name]}"
            for name in ours
            if theirs[name] != ours[name]
        )
        raise InputError(
            f"init_from {config.init_from} is of another network than the config's "
            f"({differences or error}); give weights of that network, not folded"
        ) from error
    return params


def check_config(config: Config) -> None:
    """Check what no single part can check.

    Args:
        config: As in configs/default.py.

    Raises:
        InputError: A field that is out of range, or does not fit another.
    """
    _check_ranges(config)
    data = config.data
    _check_batch_size(data.batch_size, config.optimizer.accumulate)
    if data.hr_patch % config.model.scale or data.hr_patch > data.tile:
        raise InputError(
            f"data.hr_patch {data.hr_patch} must be a multiple of the scale "
            f"{config.model.scale} and at most data.tile {data.tile}"
        )
    spelling = "a folder 2023 is written ./2023"
    if not data.sources or not _are_names(data.sources):
        raise InputError(
            f"data.sources {data.sources} must be names, at least one; {spelling}"
        )
    if not _are_names(config.validation.folders):
        folders = config.validation.folders
        raise InputError(f"validation.folders {folders} must be names; {spelling}")
    numbers = all(isinstance(weight, int | float) for weight in data.weights)
    if data.weights and not (
        numbers
        and len(data.weights) == len(data.sources)
        and min(data.weights) >= 0
        and 0 < sum(data.weights) < math.inf
    ):
        raise InputError(
            f"data.weights {data.weights} must have one number for each of "
            f"data.sources {data.sources}, none below 0, not all 0"
        )
    length = steps_per_dispatch(config)
    for name in ("log_every", "validation.every", "checkpoint.every"):
        if (every := field_value(config, name)) % length:
            raise InputError(
                f"{name} {every} must be a multiple of data.steps_per_dispatch {length}"
            )


def _check_ranges(config: Config) -> None:
    for name in (
        "steps", "log_every", "optimizer.accumulate", "data.tile", "data.hr_patch",
        "data.batch_size", "data.steps_per_dispatch", "validation.every",
        "checkpoint.every", "checkpoint.keep",
    ):  # fmt: skip
        value = field_value(config, name)
        if value is not None and value < 1:
            raise InputError(f"{name} {value} must be at least 1")
    if config.data.workers < 0:
        raise InputError(f"data.workers {config.data.workers} must be at least 0")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"seed {config.seed} must be at least 0 and below 2³²")
    if not 0 <= config.ema_decay < 1:
        raise InputError(f"ema_decay {config.ema_decay} must be at least 0 and below 1")
    for name, known in (
        ("data.cache", ("auto", "device", "host")),
        ("loss", ("l1", "l2")),
        ("model.dtype", _DTYPES),
    ):
        if (value := field_value(config, name)) not in known:
            raise InputError(f"{name} {value!r} must be one of {', '.join(known)}")
    try:
        expected_params(create_model(config.model))
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def _are_names(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_batch_size(batch_size: int, accumulate: int) -> None:
    parts = jax.device_count() * accumulate
    if batch_size % parts:
        raise InputError(
            f"data.batch_size {batch_size} must be a multiple of {parts} ("
            f"{jax.device_count()} devices × optimizer.accumulate {accumulate}); "
            f"try {max(1, round(batch_size / parts)) * parts}"
        )
