"""What an H200 would run, found out on a machine that has none.

    pip install jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX  # JAX: the version of jax
    python benchmarks/gpu_programs.py [--output results.json]

XLA compiles inference and the training step for the card, down to machine code, in each
implementation of the depthwise convolution. Counted are the kernels of a program, its
loops (not what is in them), and the bytes its kernels read and write, as if none were
in a cache. Nothing is timed: `bound` is those bytes at the card's bandwidth plus 2 µs
for a kernel.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["JAX_PLATFORMS"] = "cpu"  # or the plugin asks for a driver and cuDNN

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    use_abstract_mesh,
)

from benchmarks import timing
from lkdn_jax.cli import ArgumentParser, run
from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import LKDN, expected_params
from lkdn_jax.models.optimize import optimize_for_inference, optimized_model
from lkdn_jax.optim.adan import adan
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step

# From NVIDIA's data sheet of the H200 and the limits of compute capability 9.0.
H200 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 device_memory_size: 149000000000
  l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
"""
BANDWIDTH = 4.8e12
LAUNCH = 2e-6
NO_KERNEL = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element")
_NUMBER = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")
_INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%(?P<name>\S+) = (?P<type>\(.*?\)|\S+) "
    r"(?P<op>[\w-]+)\((?P<args>.*?)\)"
)


def compile_for_h200(function: Callable[..., Any], *shapes: Any) -> Any:
    """Compile a function of arrays of the given shapes; all of them on one card."""
    try:
        card = topologies.get_topology_desc(
            "1x1x1", "cuda", topology="1x1x1", target_config=H200
        )
    except Exception as error:  # noqa: BLE001  the plugin's, of any kind
        raise InputError(
            "jax cannot compile for CUDA here: install jax-cuda13-plugin and "
            f"jax-cuda13-pjrt {jax.__version__} ({str(error).splitlines()[0]})"
        ) from None
    there = NamedSharding(Mesh(np.array(card.devices), ("card",)), PartitionSpec())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), shapes
    )
    # Choosing the fastest of several kernels would need the card.
    options: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}
    # Triton's kernels ask which card they are for; later jax looks for one.
    kind = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1,), ("card",), (AxisType.Auto,), abstract_device=kind)
    with use_abstract_mesh(mesh):
        return jax.jit(function).lower(*shapes).compile(options)


def count(program: str) -> dict[str, float]:
    """Count what the entry of an optimized HLO module does; without its loops."""
    sizes, kernels, loops, moved = {}, 0, 0, 0
    for line in program[program.index("\nENTRY") :].splitlines():
        if (found := _INSTRUCTION.match(line)) is None:
            continue
        sizes[found["name"]] = _bytes(found["type"])
        if found["op"] in NO_KERNEL:
            continue
        if found["op"] == "while":
            loops += 1
            continue
        kernels += 1
        arguments = re.findall(r"%([^\s,]+)", found["args"])
        moved += sizes[found["name"]] + sum(sizes.get(name, 0) for name in arguments)
    bound = moved / BANDWIDTH + kernels * LAUNCH
    return {"kernels": kernels, "loops": loops, "bytes": moved, "bound": bound}


def _bytes(kind: str) -> int:
    total = 0
    for _, bits, shape in _NUMBER.findall(kind):
        lengths = [int(length) for length in shape.split(",") if length]
        total += int(np.prod(lengths, dtype=np.int64)) * max(1, int(bits or 8) // 8)
    return total


def inference(dtype: Any) -> Any:
    """Compile ×4 of an image of 320×180."""
    model = optimized_model(LKDN(dtype=dtype), "gpu")
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), expected_params(LKDN()))
    params = optimize_for_inference(zeros, dtype, "gpu")
    lr = jax.ShapeDtypeStruct((1, 180, 320, 3), jnp.float32)
    return compile_for_h200(
        lambda params, lr: model.apply({"params": params}, lr),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params),
        lr,
    )


def training_step(dtype: Any) -> Any:
    """Compile a step of the ×4 recipe, 64 patches of 48×48."""
    tx, params = adan(5e-3), expected_params(LKDN())
    packing = Packing(params)
    state = jax.eval_shape(packing.pack, create_state.eval_shape(params, tx))
    lr, hr = (jax.ShapeDtypeStruct((64, n, n, 3), jnp.float32) for n in (48, 192))
    step = make_train_step(LKDN(dtype=dtype), tx, packing=packing)
    return compile_for_h200(step, state, lr, hr)


def main() -> None:
    """Compile, count and print."""
    parser = ArgumentParser(__doc__)
    timing.add_output(parser)
    flags = parser.parse_args()
    rows = []
    for what in (inference, training_step):
        for dtype in (jnp.float32, jnp.bfloat16):
            for which in (None, "shift", "pallas"):
                start = time.perf_counter()
                with timing.depthwise(which):
                    program = what(dtype).as_text()
                seconds = time.perf_counter() - start
                name = f"{what.__name__} {jnp.dtype(dtype)} {which or 'as chosen'}"
                row = {"program": name, "compile_seconds": seconds} | count(program)
                rows.append(row)
                print(
                    f"{name:36}{row['kernels']:6.0f} kernels, {row['loops']:3.0f} "
                    f"loops, {row['bytes'] / 1e9:5.1f} GB, "
                    f"bound {row['bound'] * 1e3:5.2f} ms"
                )
    timing.write(flags.output, {"card": "NVIDIA H200, not there", "programs": rows})


if __name__ == "__main__":
    sys.exit(run(main))
