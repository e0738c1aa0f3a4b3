"""Inference beside its peers, on whatever device there is, all in one run.

    python benchmarks/inference.py [--network LKDN] [--output results.json]

Peers: PyTorch (eager, channels_last, torch.compile; on a GPU also as a CUDA graph, and
each also with TF32 and in bf16, by autocast or with weights in bf16), and on CPU ONNX
Runtime and OpenVINO. Those not installed and those that do not run are listed. All
compute the same function of the same random parameters, which is checked before
anything is timed.
"""

# Peers need not be installed.
# pyright: reportMissingImports=false

import os
import re
import sys
import tempfile
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# PyTorch needs memory of the same card.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import timing  # noqa: E402
from benchmarks.roofline import describe, roofline  # noqa: E402
from lkdn_jax.cli import ArgumentParser, run  # noqa: E402
from lkdn_jax.errors import InputError  # noqa: E402
from lkdn_jax.models.lkdn import LKDN, draw_params, lkdn_s  # noqa: E402
from lkdn_jax.models.optimize import (  # noqa: E402
    compiler_options,
    optimize_for_inference,
    optimized_model,
)
from lkdn_jax.models.reparam import fold, folded_model  # noqa: E402
from lkdn_jax.weights.published import to_published  # noqa: E402

NETWORKS = {"LKDN": LKDN(), "LKDN-S": lkdn_s()}
Upscale = Callable[[], Any]
_GROUP = 4  # images of 48×48: their maps stay in the caches of two cores


def our_ways(
    model: LKDN,
    params: Any,
    lr: np.ndarray,
    precisions: Sequence[str],
    options: Callable[[LKDN], dict[str, str]] = compiler_options,
    group: int | None = None,
) -> dict[str, Upscale]:
    """Compile ours; each way returns the images on the host's side of a barrier.

    With `group`, so many images go through the network at a time.
    """
    x, ways = jnp.asarray(lr), {}
    for precision in precisions:
        dtype, products = timing.PRECISIONS[precision]
        optimized = optimize_for_inference(params, dtype)
        network = optimized_model(model).clone(dtype=dtype)
        start = time.perf_counter()

        def upscale(params: Any, lr: Any, network: LKDN = network) -> Any:
            def apply(lr: Any) -> Any:
                return network.apply({"params": params}, lr)

            if group is None:
                return apply(lr)
            return jax.lax.map(lambda one: apply(one[None])[0], lr, batch_size=group)

        program = jax.jit(upscale, compiler_options=options(network))
        with jax.default_matmul_precision(products):
            compiled = program.lower(optimized, x).compile()
        print(f"ours {precision} compiled in {time.perf_counter() - start:.1f} s")
        ways[f"ours {precision}"] = lambda f=compiled, p=optimized: (
            jax.block_until_ready(f(p, x))
        )
    return ways


def our_ways_and_plain(
    model: LKDN, params: Any, lr: np.ndarray, precisions: Sequence[str]
) -> dict[str, Upscale]:
    """Compile ours; on CPU also without options and in groups, on GPU by `shift`."""
    ways = our_ways(model, params, lr, precisions)
    if jax.default_backend() == "gpu":
        with timing.depthwise("shift"):
            plain = our_ways(model, params, lr, precisions)
        ways |= {f"{name} shift": way for name, way in plain.items()}
    if compiler_options(model):
        plain = our_ways(model, params, lr, ["float32"], lambda _: {})
        ways["ours float32, no options"] = plain["ours float32"]
    if jax.default_backend() == "cpu" and len(lr) > _GROUP:
        groups = our_ways(model, params, lr, ["float32"], group=_GROUP)
        ways[f"ours float32, {_GROUP} at a time"] = groups["ours float32"]
    return ways


def torch_ways(
    model: LKDN, params: Any, lr: np.ndarray, precisions: Sequence[str]
) -> dict[str, Upscale]:
    """PyTorch, eager, channels_last and compiled, in the precisions of the device."""
    import torch

    from benchmarks.torch_peer import compile_network, torch_network

    cuda = torch.cuda.is_available() and jax.default_backend() == "gpu"
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True  # XLA chooses the fastest, too
    layout = {"memory_format": torch.channels_last}
    nchw = torch.tensor(lr.transpose(0, 3, 1, 2)).to(device)
    last = nchw.contiguous(**layout)

    def way(module: Any, x: Any, precision: str, *, autocast: bool = True) -> Upscale:
        half = autocast and precision == "bf16"

        def upscale() -> Any:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            casts = torch.autocast(device, torch.bfloat16, enabled=half)
            with torch.inference_mode(), casts:
                y = module(x)
            if cuda:
                torch.cuda.synchronize()
            return y

        return upscale

    def network(**options: Any) -> Any:
        return torch_network(model, to_published(model, params)).to(device, **options)

    ways = {}
    for precision in precisions if cuda else ["float32"]:
        name = f"torch {precision}"
        ways[name] = way(network(), nchw, precision)
        ways[f"{name} channels_last"] = way(network(**layout), last, precision)
        ways[f"{name} compiled"] = way(compile_network(network()), nchw, precision)
        if not cuda:
            continue
        variants = {f"{name} compiled channels_last": ({}, last)}
        if precision == "bf16":  # without the casts that autocast makes at every call
            variants[f"{name} weights"] = ({"dtype": torch.bfloat16}, last.bfloat16())
        for variant, (dtype, x) in variants.items():
            for suffix, graphs in (("", False), (" graph", True)):
                compiled = compile_network(network(**dtype, **layout), graphs=graphs)
                ways[variant + suffix] = way(compiled, x, precision, autocast=not dtype)
    return ways


def onnx_ways(
    model: LKDN, params: Any, lr: np.ndarray, absent: list[str]
) -> dict[str, Upscale]:
    """ONNX Runtime and OpenVINO, from PyTorch's export."""
    import torch

    from benchmarks.torch_peer import torch_network

    nchw = np.ascontiguousarray(lr.transpose(0, 3, 1, 2))
    module = torch_network(model, to_published(model, params))
    ways: dict[str, Upscale] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "lkdn.onnx")
        torch.onnx.export(
            module, (torch.tensor(nchw),), path, dynamo=True, verbose=False
        )
        if "onnxruntime" not in absent:
            import onnxruntime

            providers = ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(path, providers=providers)
            name = session.get_inputs()[0].name
            ways["ONNX Runtime"] = lambda: session.run(None, {name: nchw})[0]
        if "openvino" not in absent:
            import openvino

            hint = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = openvino.Core().compile_model(path, "CPU", hint)
            ways["OpenVINO"] = lambda: compiled(nchw)[0]
    return ways


def check(ways: dict[str, Upscale]) -> dict[str, Upscale]:
    """Compare what the ways compute with ours in float32; returns those that run."""
    reference = _image(ways["ours float32"]())
    working = {}
    for name, upscale in ways.items():
        sr = timing.first_run(name, upscale)
        if sr is None:
            continue
        difference = np.abs(_image(sr) - reference).max()
        print(f"{name:44}differs from ours by {difference:.1e} at most")
        if not difference <= (3e-2 if timing.is_reduced(name) else 2e-5):
            if timing.is_needed(name):
                raise InputError(f"{name}: another function; nothing is timed")
            print(f"{name} is another function and is not timed")
        else:
            working[name] = upscale
    return working


def _image(y: Any) -> np.ndarray:
    y = np.asarray(y.float().cpu() if hasattr(y, "cpu") else y)
    return y if y.shape[-1] == 3 else y.transpose(0, 2, 3, 1)


def random_params(model: LKDN) -> Any:
    """Make parameters, folded."""
    return fold(draw_params(model))


def measure(model: LKDN, size: tuple[int, int, int], flags: Any) -> dict[str, Any]:
    """Time one size [n, h, w]."""
    rng = np.random.default_rng(0)
    lr = rng.random((*size, 3), np.float32)
    params = random_params(model)
    precisions = timing.precisions(flags.precisions)
    compile_ours = our_ways_and_plain if flags.others else our_ways
    ways = compile_ours(folded_model(model), params, lr, precisions)
    absent = timing.missing(("torch", "onnxscript", "onnxruntime", "openvino"))
    if "torch" not in absent:
        ways |= torch_ways(folded_model(model), params, lr, precisions)
        if jax.default_backend() == "cpu" and "onnxscript" not in absent:
            ways |= onnx_ways(folded_model(model), params, lr, absent)
    ways = check(ways)
    for name, other in NETWORKS.items() if flags.others else ():
        if name != flags.network:
            other = folded_model(other)
            found = compile_ours(other, random_params(other), lr, precisions)
            ways |= {f"{way}, {name}": upscale for way, upscale in found.items()}
    result = timing.interleave(ways, flags.rounds)
    n, h, w = size
    timing.print_table(f"{flags.network} ×4, {n} × {w}×{h} LR pixels", result)
    best = precisions[0]
    bound = roofline(folded_model(model), timing.device_rates(best), n * h * w, best)
    print(f"ours {best}", describe(bound, result[f"ours {best}"]["seconds"]))
    return {"size": size, "missing": absent, "ways": result, "roofline": bound}


def batch_of_images(text: str) -> tuple[int, int, int]:
    """Parse batch, height and width."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise ArgumentTypeError(f"{text!r}: give batch, height and width: 1x180x320")
    return int(found[1]), int(found[2]), int(found[3])


def main() -> None:
    """Run the benchmark."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--network", choices=NETWORKS, default="LKDN", help="LKDN-S is folded")
    add(
        "--sizes",
        nargs="+",
        type=batch_of_images,
        default=[(1, 180, 320), (1, 270, 480), (16, 48, 48)],
        help="batch x height x width in LR pixels",
    )
    add(
        "--precisions",
        nargs="+",
        choices=timing.PRECISIONS,
        help="(default: all there are)",
    )
    add("--rounds", type=int, default=12)
    add(
        "--others",
        action="store_true",
        help="also our other network, on CPU no options, on GPU `shift`",
    )
    timing.add_output(parser)
    flags = parser.parse_args()
    results = []
    for size in flags.sizes:
        results.append(measure(NETWORKS[flags.network], size, flags))
        timing.write(flags.output, {"network": flags.network, "results": results})


if __name__ == "__main__":
    sys.exit(run(main))
