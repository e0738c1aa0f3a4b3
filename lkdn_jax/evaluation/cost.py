"""What a network costs on this device, in the manner of the NTIRE challenges."""

import time
from collections.abc import Mapping
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


def measure_cost(model: LKDN, params: Mapping[str, Any]) -> dict[str, Any]:
    """Count and time a network at 1280×720 output pixels.

    Args:
        model: The network.
        params: Its parameters; what is counted is the folded network.

    Returns:
        `parameters`, `multiply_adds`, `activations`; `peak_memory` in bytes of input,
        output and work memory; `seconds`, the median of ten runs after three to warm
        up, with `quartiles`; and the `device`.

    Raises:
        InputError: It does not fit into memory.
    """
    counted = complexity(folded_model(model), fold(params), _HR_SIZE)
    network, optimized = optimized_model(model), optimize_for_inference(params)
    width, height = (length // model.scale for length in _HR_SIZE)
    rng = np.random.default_rng(0)
    lr = jnp.asarray(rng.random((1, height, width, 3), np.float32))
    program = jax.jit(
        lambda params, lr: network.apply({"params": params}, lr),
        compiler_options=compiler_options(network),
    )
    seconds = []
    with memory_advice(f"out of memory to time {width}×{height}: give a .json report"):
        compiled = program.lower(optimized, lr).compile()
        check_memory(network, height, width)
        for _ in range(_WARM_UP + _RUNS):
            start = time.perf_counter()
            jax.block_until_ready(compiled(optimized, lr))
            seconds.append(time.perf_counter() - start)
    memory: Any = compiled.memory_analysis()
    low, median, high = np.quantile(seconds[_WARM_UP:], (0.25, 0.5, 0.75))
    return {
        "parameters": counted.parameters,
        "multiply_adds": counted.multiply_adds,
        "activations": counted.activations,
        "peak_memory": memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes,
        "seconds": float(median),
        "quartiles": [float(low), float(high)],
        "device": jax.devices()[0].device_kind,
    }
