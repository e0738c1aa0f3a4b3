"""Parameters, multiply-adds and activations of a network, from its parameters.

Multiply-adds are those of the convolutions, activations the elements of their outputs:
the definitions of the NTIRE efficient super-resolution challenges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax.traverse_util import flatten_dict

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
        model: The network, of which only the scale is used.
        params: Its parameters, or their shapes; those optimized for inference count
            with the channels that were added to fill vectors.
        hr_size: Width and height of the output image, in pixels; the LR size is this
            divided by the scale, rounded down.

    Returns:
        The counts for one image.
    """
    width, height = (length // model.scale for length in hr_size)
    leaves: dict[Any, Any] = flatten_dict(params)
    # Each works once, at the size of the LR image; frames of zeros are not counted.
    kernels = [leaf for path, leaf in leaves.items() if path[-1] == "kernel"]
    parameters = sum(leaf.size for leaf in leaves.values())
    multiply_adds = height * width * sum(kernel.size for kernel in kernels)
    activations = height * width * sum(kernel.shape[-1] for kernel in kernels)
    return Complexity(parameters, multiply_adds, activations, hr_size)
