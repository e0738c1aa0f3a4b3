"""What a network must compute and move at least, and how long that takes a device.

Bytes: every depthwise convolution reads its map and writes its map once, and everything
between two of them is fused; the image is read and the result written once. A training
step does this three times: forward, gradient by the input, gradient by the kernel.
"""

from collections.abc import Mapping

from lkdn_jax.models.complexity import complexity
from lkdn_jax.models.lkdn import LKDN, expected_params


def roofline(
    model: LKDN,
    rates: Mapping[str, float],
    pixels: int,
    precision: str,
    *,
    training: bool = False,
) -> dict[str, float]:
    """Bound the time from below.

    Args:
        model: The network.
        rates: As `benchmarks.timing.device_rates` returns them for `precision`.
        pixels: LR pixels of the whole batch.
        precision: One of `benchmarks.timing.PRECISIONS`; says how large a number is.
        training: Count a training step and not inference.

    Returns:
        `operations`, `bytes`, and `seconds`, the longer of the two times.
    """
    size = 2 if precision == "bf16" else 4
    cost = complexity(model, expected_params(model), (model.scale, model.scale))
    width, (distilled, attention) = model.features, model.inner_features()
    maps = model.num_blocks * (3 * width + distilled + 2 * attention) + 2 * width
    passes = 3 if training else 1
    operations = 2.0 * cost.multiply_adds * pixels * passes
    moved = size * 2.0 * maps * pixels * passes
    moved += 4.0 * (3 + 3 * model.scale**2) * pixels
    seconds = max(operations / rates["product"], moved / rates["copy"])
    return {"operations": operations, "bytes": moved, "seconds": seconds}


def describe(bound: Mapping[str, float], seconds: float) -> str:
    """Say in one line how far a measured time is from the bound."""
    return (
        f"roofline: {bound['operations'] / 1e9:.1f} G operations, "
        f"{bound['bytes'] / 1e6:.0f} MB, {bound['seconds'] * 1e3:.2f} ms; "
        f"we take {seconds / bound['seconds']:.2f} × that"
    )
