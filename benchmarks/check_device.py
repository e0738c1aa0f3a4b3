"""Correctness on an accelerator: everything beside the same on the host's CPU.

    python benchmarks/check_device.py [--reference ../shared/reference]

Depthwise convolutions in every implementation, the whole network's output (1e-4 at the
highest precision) and gradient (1e-3 relative), and the authors' outputs if they are
there. Exit status 1 if anything is further off.
"""

import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if "cpu" not in os.environ.get("JAX_PLATFORMS", "cpu"):
    os.environ["JAX_PLATFORMS"] += ",cpu"  # the other side

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from lkdn_jax.cli import ArgumentParser, run
from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import LKDN, draw_params
from lkdn_jax.models.optimize import optimize_for_inference, optimized_model
from lkdn_jax.ops.depthwise import depthwise_conv
from lkdn_jax.ops.fused import framed_gelu, gated
from lkdn_jax.weights.files import load

Row = tuple[str, float, float]  # what is checked, its error, and the bound


def on(device: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Run a function on a device; returns arrays of the host."""
    args = jax.device_put(args, device)
    return jax.device_get(jax.jit(function)(*args))


def difference(a: Any, b: Any, relative: bool = False) -> float:
    """Return the largest difference, absolute or relative to a tensor's maximum."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    errors = [
        np.abs(x - y).max() / (np.abs(y).max() if relative else 1) for x, y in pairs
    ]
    return float(np.max(errors))  # NaN if any is


def check_run(
    name: str,
    bound: float,
    run: Callable[[], Any],
    expected: Any,
    relative: bool = True,
) -> Row:
    """Compare what a run gives with what is expected; what does not run is far off."""
    try:
        return name, difference(run(), expected, relative), bound
    except Exception as error:  # noqa: BLE001  the others are checked
        print(f"{name} does not run: {' '.join(str(error).split())[:300]}")
        return name, math.inf, bound


def check_depthwise(cpu: Any, device: Any) -> list[Row]:
    """Compare value and gradients of all implementations with `lax` on the CPU."""
    rng, rows = np.random.default_rng(), []
    for h, w, c, k, dilation in (
        (1, 1, 3, 5, 3),
        (48, 48, 56, 5, 3),
        (37, 50, 28, 3, 1),
        (20, 33, 70, 5, 1),
    ):
        x, weight = rng.normal(size=(2, 4, h, w, c)).astype(np.float32)
        kernel = rng.normal(size=(k, k, 1, c)).astype(np.float32)
        bias = rng.normal(size=c).astype(np.float32)

        def loss(
            arrays: Any, weight: Any, which: Any, dtype: Any, d: int = dilation
        ) -> Any:
            x, kernel, bias = (array.astype(dtype) for array in arrays)
            y = depthwise_conv(x, kernel, bias, dilation=d, implementation=which)
            y = y.astype(jnp.float32)
            return (y * weight).sum() / y.size, y

        def run(where: Any, which: Any, dtype: Any, loss: Any = loss) -> Any:
            # Not the loss itself: it may be near 0, and any error then large beside it.
            grad = jax.grad(loss, has_aux=True)
            function = partial(grad, which=which, dtype=dtype)
            return on(where, function, (x, kernel, bias), weight)  # noqa: B023

        expected = run(cpu, "lax", jnp.float32)
        for dtype, bound in ((jnp.float32, 1e-4), (jnp.bfloat16, 4e-2)):
            for which in (None, "lax", "shift", "pallas"):
                if which == "lax" and dtype == jnp.bfloat16:
                    continue  # the bias's gradient is then summed in bfloat16
                name = f"depthwise {which or 'as chosen'} {h}×{w}×{c}, "
                name += f"{k}×{k}, dilation {dilation}, {jnp.dtype(dtype)}"
                again = partial(run, device, which, dtype)
                rows.append(check_run(name, bound, again, expected))
    return rows


def check_inference(cpu: Any, device: Any) -> list[Row]:
    """Compare what takes no gradient, of float32 weights, with `lax` on the CPU."""
    rng, rows = np.random.default_rng(), []
    for h, w, c in ((3, 3, 3), (182, 322, 56), (22, 35, 70)):
        x, gate = rng.normal(size=(2, 1, h, w, c)).astype(np.float32)
        small, large = (
            rng.normal(size=(k, k, 1, c)).astype(np.float32) for k in (3, 5)
        )
        bias = rng.normal(size=c).astype(np.float32)
        functions = {
            "GELU": partial(lambda k, b, x, _, **i: framed_gelu(x, k, b, **i), small),
            "gate": partial(
                lambda k, b, x, g, **i: gated(g, x, k, b, dilation=3, **i), large
            ),
            "alone": partial(
                lambda k, b, x, _, **i: depthwise_conv(x, k, b, **i), large
            ),
        }
        for what, function in functions.items():
            expected = on(cpu, partial(function, bias, implementation="lax"), x, gate)
            for dtype, bound in ((jnp.float32, 1e-4), (jnp.bfloat16, 2e-2)):

                def run(x: Any, gate: Any, f: Any = function, t: Any = dtype) -> Any:
                    y = f(bias, x.astype(t), gate.astype(t))  # noqa: B023
                    return y.astype(jnp.float32)

                name = f"{what} {h}×{w}×{c}, {jnp.dtype(dtype)}"
                again = partial(on, device, run, x, gate)
                rows.append(check_run(name, bound, again, expected))
    return rows


def check_network(cpu: Any, device: Any) -> list[Row]:
    """Compare output and gradient of the whole network, and what inference takes."""
    model = LKDN()
    params = draw_params(model)
    lr = np.random.default_rng().random((2, 48, 48, 3), np.float32)

    def forward(params: Any, lr: Any) -> Any:
        return model.apply({"params": params}, lr)

    def loss(params: Any, lr: Any) -> Any:
        return jnp.square(forward(params, lr)).mean()

    fast, folded = optimized_model(model), optimize_for_inference(params)

    def optimized(params: Any, lr: Any) -> Any:
        return fast.apply({"params": params}, lr)

    def masked(params: Any, lr: Any) -> Any:
        around = (0, 0), (0, 8), (0, 12), (0, 0)
        valid = jnp.pad(jnp.ones_like(lr[..., :1], bool), around)
        lr = jnp.pad(lr, around, constant_values=1)
        sr: Any = fast.apply({"params": params}, lr, valid)
        return sr[:, :192, :192]

    sr, gradient = (on(cpu, f, params, lr) for f in (forward, jax.grad(loss)))
    rows = []
    for name, f, tree, expected, bound in (
        ("output", forward, params, sr, 1e-4),
        ("gradient", jax.grad(loss), params, gradient, 1e-3),
        ("output, optimized", optimized, folded, sr, 1e-4),
        ("output, optimized and masked", masked, folded, sr, 1e-4),
    ):
        again = partial(on, device, f, tree, lr)
        relative = expected is gradient
        rows.append(check_run(f"LKDN ×4, {name}", bound, again, expected, relative))
    return rows


def check_reference(device: Any, folder: Path) -> list[Row]:
    """Compare with the authors' outputs."""
    rows, files = [], sorted((folder / "forward").glob("LKDN*.npz"))
    print(f"{len(files)} outputs of the authors' in {folder}")
    for file in files:
        model, params = load(folder / "weights" / f"{file.stem}.pth")
        expected = np.load(file)
        for image in ("noise", "crop"):
            lr = expected[f"{image}_lr"][None]

            def forward(params: Any, lr: Any, model: Any = model) -> Any:
                return model.apply({"params": params}, lr)[0]

            again = partial(on, device, forward, params, lr)
            sr, name = expected[f"{image}_sr"], f"{file.stem}, {image}"
            rows.append(check_run(name, 1e-4, again, sr, relative=False))
    return rows


def main() -> None:
    """Run the checks."""
    parser = ArgumentParser(__doc__)
    reference = Path(os.environ.get("LKDN_REFERENCE", "../shared/reference"))
    parser.add_argument("--reference", type=Path, default=reference)
    timing.add_output(parser)
    flags = parser.parse_args()
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    print(f"{device.device_kind} beside {cpu.device_kind}")
    with jax.default_matmul_precision("highest"):
        rows = check_depthwise(cpu, device) + check_inference(cpu, device)
        rows += check_network(cpu, device)
        rows += check_reference(device, flags.reference)
    wrong = [name for name, error, bound in rows if not error <= bound]
    for name, error, bound in rows:
        print(f"{name:58} {error:.1e} (at most {bound:.0e})")
    record = [
        {"name": n, "error": e if math.isfinite(e) else None, "at_most": b}
        for n, e, b in rows
    ]
    output = flags.output
    if wrong and output is not None:
        output = output.with_stem(f"{output.stem}-failed")
    timing.write(output, {"checks": record})
    if wrong:
        raise InputError(f"{len(wrong)} of {len(rows)} are further off: {wrong[0]}, …")


if __name__ == "__main__":
    sys.exit(run(main))
