"""What networks cost on this device, in the manner of the NTIRE challenges."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lkdn_jax.models.complexity import complexity
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.models.memory import check_memory, memory_advice
from lkdn_jax.models.optimize import (
    compiler_options,
    optimize_for_inference,
    optimized_model,
)
from lkdn_jax.models.reparam import fold, folded_model

_HR_SIZE = (1280, 720)
_WARM_UP, _RUNS = 3, 10


def measure_costs(
    networks: Sequence[tuple[LKDN, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Count and time networks at 1280×720 output pixels, in turns.

    Args:
        networks: Each network and its parameters; what is counted is the folded one.

    Returns:
        Of each: `parameters`, `multiply_adds`, `activations`; `peak_memory` in bytes of
        input, output and work memory; `seconds`, the median of ten runs after three to
        warm up, with `quartiles`; and the `device`.

    Raises:
        InputError: One does not fit into memory.
    """
    costs, runs = [], []
    for model, params in networks:
        cost, run = _counted(model, params)
        costs.append(cost)
        runs.append(run)
    with memory_advice("out of memory to time the networks: give a .json report"):
        seconds = time_in_turns(runs)
    for cost, column in zip(costs, seconds.T, strict=True):
        low, median, high = np.quantile(column, (0.25, 0.5, 0.75)).tolist()
        cost |= {"seconds": median, "quartiles": [low, high]}
    return costs


def time_in_turns(runs: Sequence[Callable[[], Any]]) -> np.ndarray:
    """Time functions of arrays in turns: what slows the device slows them all.

    Args:
        runs: Functions that each start a computation and return its arrays.

    Returns:
        Seconds [10, function], after three rounds to warm up.
    """

    def seconds(run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - start

    rounds = [[seconds(run) for run in runs] for _ in range(_WARM_UP + _RUNS)]
    return np.array(rounds[_WARM_UP:])


def _counted(
    model: LKDN, params: Mapping[str, Any]
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Return what can be counted, and a function that runs the network once."""
    counted = complexity(folded_model(model), fold(params), _HR_SIZE)
    network, optimized = optimized_model(model), optimize_for_inference(params)
    width, height = (length // model.scale for length in _HR_SIZE)
    rng = np.random.default_rng(0)
    lr = jnp.asarray(rng.random((1, height, width, 3), np.float32))
    program = jax.jit(
        lambda params, lr: network.apply({"params": params}, lr),
        compiler_options=compiler_options(network),
    )
    with memory_advice(f"out of memory to time {width}×{height}: give a .json report"):
        compiled = program.lower(optimized, lr).compile()
        check_memory(network, height, width)
    memory: Any = compiled.memory_analysis()
    cost = {
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        "activations": counted.activations,
        "peak_memory": memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes,
        "device": jax.devices()[0].device_kind,
    }
    return cost, partial(compiled, optimized, lr)
