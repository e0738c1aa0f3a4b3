"""Parameters, multiply-adds and activations of a network, counted while it is traced.

Multiply-adds are those of the convolutions, activations the elements of their outputs:
the definitions of the NTIRE efficient super-resolution challenges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lkdn_jax.models.layers import Conv, DepthwiseConv, PartConv
from lkdn_jax.models.lkdn import LKDN


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        parameters: Number of parameters.
        multiply_adds: Multiply-adds of the convolutions for one image.
        activations: Elements of the outputs of the convolutions for one image.
        hr_size: Width and height of the output image, in pixels.
    """

    parameters: int
    multiply_adds: int
    activations: int
    hr_size: tuple[int, int]

    def __str__(self) -> str:
        """Return a small table, three lines."""
        width, height = self.hr_size
        size = f"at {width}×{height}"
        return (
            f"parameters     {self.parameters:>14,}\n"
            f"multiply-adds  {self.multiply_adds / 1e9:>12.2f} G  {size}\n"
            f"activations    {self.activations / 1e6:>12.2f} M  {size}"
        )


def complexity(
    model: LKDN, params: Mapping[str, Any], hr_size: tuple[int, int] = (1280, 720)
) -> Complexity:
    """Count parameters, multiply-adds and activations; nothing is computed.

    Args:
        model: The network.
        params: Its parameters.
        hr_size: Width and height of the output image, in pixels; the LR size is this
            divided by the scale, rounded down.

    Returns:
        The counts for one image.
    """
    width, height = (length // model.scale for length in hr_size)
    lr = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    multiply_adds = activations = 0

    def count(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal multiply_adds, activations
        out = run(*args, **kwargs)
        first_part = not isinstance(context.module, PartConv) or args[1] == 0
        if isinstance(context.module, Conv | DepthwiseConv | PartConv) and first_part:
            # All work at the size of the LR image; frames of zeros are not counted.
            kernel = context.module.get_variable("params", "kernel")
            multiply_adds += kernel.size * height * width
            activations += out.shape[-1] * height * width
        return out

    with nn.intercept_methods(count):
        # Where intermediates can be captured, every block is traced by itself.
        apply = partial(model.apply, mutable="intermediates")
        jax.eval_shape(apply, {"params": params}, lr)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Complexity(parameters, multiply_adds, activations, hr_size)
