"""A training step beside PyTorch's, on whatever device there is, all in one run.

    python benchmarks/training_step.py [--batch 64] [--output results.json]

The ×4 recipe: LR patches of 48×48, L1 loss, Adan and the average of the parameters;
PyTorch does the same with Adam, which costs it less. The loss of the first batch must
agree before anything is timed.
"""

# Peers need not be installed.
# pyright: reportMissingImports=false

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# PyTorch needs memory of the same card.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import timing  # noqa: E402
from benchmarks.roofline import describe, roofline  # noqa: E402
from lkdn_jax.cli import ArgumentParser, run  # noqa: E402
from lkdn_jax.errors import InputError  # noqa: E402
from lkdn_jax.models.lkdn import LKDN, draw_params  # noqa: E402
from lkdn_jax.ops.depthwise import Implementation  # noqa: E402
from lkdn_jax.optim.adan import adan  # noqa: E402
from lkdn_jax.training.packing import Packing  # noqa: E402
from lkdn_jax.training.state import create_state  # noqa: E402
from lkdn_jax.training.step import make_train_step  # noqa: E402
from lkdn_jax.weights.published import to_published  # noqa: E402

STEPS = 1_000_000  # of the paper's ×4 recipe
LEARNING_RATE = 5e-3
Step = Callable[[], Any]  # one step; returns the loss once it is known


def our_ways(
    params: Any,
    lr: np.ndarray,
    hr: np.ndarray,
    precisions: Sequence[str],
    implementations: Sequence[Implementation | None],
) -> dict[str, Step]:
    """Compile ours, by dtype and by implementation of the depthwise convolution."""
    tx, ways = adan(LEARNING_RATE), {}
    # As train.py, which takes several steps in one program on accelerators alone.
    packing = None if jax.default_backend() == "cpu" else Packing(params)
    batch = jax.device_put((lr, hr))
    for precision in precisions:
        dtype, products = timing.PRECISIONS[precision]
        for implementation in implementations if precision == precisions[0] else [None]:
            name = f"ours {precision} {implementation or ''}".rstrip()
            step = make_train_step(LKDN(dtype=dtype), tx, packing=packing)
            state = create_state(params, tx)
            if packing is not None:
                state = packing.pack(state)
            start = time.perf_counter()
            program = jax.jit(step, donate_argnums=0)
            try:
                with (
                    jax.default_matmul_precision(products),
                    timing.depthwise(implementation),
                ):
                    compiled = program.lower(state, *batch).compile()
            except Exception as error:  # noqa: BLE001  the others are timed
                print(f"{name} does not compile: {str(error)[:300]}")
                continue
            print(f"{name} compiled in {time.perf_counter() - start:.1f} s")
            ways[name] = _ours(compiled, state, batch)
    return ways


def _ours(compiled: Any, state: Any, batch: Any) -> Step:
    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, *batch)
        return float(metrics["loss"])

    return step


def torch_ways(
    params: Any, lr: np.ndarray, hr: np.ndarray, precisions: Sequence[str]
) -> dict[str, Step]:
    """PyTorch, eager, channels_last and compiled, in the precisions of the device."""
    import torch

    from benchmarks.torch_peer import compile_network, torch_network

    cuda = torch.cuda.is_available() and jax.default_backend() == "gpu"
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True  # XLA chooses the fastest, too

    def way(
        layout: Any, precision: str, *, compiled: bool = False, graphs: bool = False
    ) -> Step:
        network: Any = torch_network(LKDN(), to_published(LKDN(), params))
        network = network.train().to(device, memory_format=layout)
        forward = compile_network(network, graphs=graphs) if compiled else network
        weights = list(network.parameters())
        average = [weight.detach().clone() for weight in weights]
        kind = {"fused": True} if cuda else {"foreach": True}
        optimizer = torch.optim.Adam(weights, LEARNING_RATE, **kind)
        x, y = (
            torch.tensor(a.transpose(0, 3, 1, 2))
            .to(device)
            .contiguous(memory_format=layout)
            for a in (lr, hr)
        )

        def step() -> Any:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            optimizer.zero_grad(set_to_none=True)
            half = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
            with half:
                loss = (forward(x) - y).abs().mean()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1e-3)
            return float(loss.detach())

        return step

    ways, plain, last = {}, torch.contiguous_format, torch.channels_last
    for precision in precisions if cuda else ["float32"]:
        name = f"torch {precision}"
        ways[name] = way(plain, precision)
        ways[f"{name} channels_last"] = way(last, precision)
        ways[f"{name} compiled"] = way(plain, precision, compiled=True)
        if cuda:
            name += " compiled channels_last"
            ways[name] = way(last, precision, compiled=True)
            ways[f"{name} graph"] = way(last, precision, compiled=True, graphs=True)
    return ways


def check(ways: dict[str, Step]) -> dict[str, Step]:
    """Compare the first step's losses with ours in float32; returns ways that run."""
    reference = ways["ours float32"]()
    working = {}
    for name, step in ways.items():
        # Ours has made its first step.
        loss = reference if name == "ours float32" else timing.first_run(name, step)
        if loss is None:
            continue
        tolerance = 1e-2 if timing.is_reduced(name) else 1e-4
        if abs(loss / reference - 1) < tolerance:
            working[name] = step
        elif timing.is_needed(name):
            raise InputError(f"{name}: loss {loss}, ours {reference}; nothing is timed")
        else:
            print(f"{name} is not timed: its loss is {loss}, ours {reference}")
    return working


def main() -> None:
    """Run the benchmark."""
    cpu = jax.default_backend() == "cpu"
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--batch", type=int, default=4 if cpu else 64)
    add(
        "--precisions",
        nargs="+",
        choices=timing.PRECISIONS,
        help="(default: all there are)",
    )
    add("--rounds", type=int, default=10)
    timing.add_output(parser)
    flags = parser.parse_args()
    rng = np.random.default_rng(0)
    lr = rng.random((flags.batch, 48, 48, 3), np.float32)
    hr = rng.random((flags.batch, 192, 192, 3), np.float32)
    params = jax.tree.map(np.asarray, draw_params(LKDN()))
    # Pallas is what a GPU takes by itself; `lax` may search for minutes there.
    others: list[Implementation] = ["lax"] if cpu else ["shift"]
    precisions = timing.precisions(flags.precisions)
    ways = our_ways(params, lr, hr, precisions, [None, *others])
    for needed in {precisions[0], "float32"}:
        if f"ours {needed}" not in ways:
            raise InputError(f"ours {needed} does not compile; nothing is timed")
    absent = timing.missing(("torch",))
    if not absent:
        ways |= torch_ways(params, lr, hr, precisions)
    ways = check(ways)
    result = timing.interleave(ways, flags.rounds)
    timing.print_table(f"×4 training step, batch {flags.batch} of 48×48", result)
    pixels = flags.batch * 48 * 48
    best = precisions[0]
    bound = roofline(LKDN(), timing.device_rates(best), pixels, best, training=True)
    seconds = result[f"ours {best}"]["seconds"]
    print(f"ours {best}", describe(bound, seconds))
    print(f"{STEPS:,} steps in {STEPS * seconds / 3600:.1f} hours")
    record = {"batch": flags.batch, "missing": absent, "ways": result}
    timing.write(flags.output, record | {"roofline": bound})


if __name__ == "__main__":
    sys.exit(run(main))
