"""Run a network on images of many sizes with few compiled programs.

Each image is padded to one of a few shapes, and the network masks what lies outside
(`lkdn_jax.models.frames`): the result is the same as without padding.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from lkdn_jax.models.lkdn import LKDN, expected_params
from lkdn_jax.models.memory import check_memory, memory_advice
from lkdn_jax.models.optimize import compiler_options

Size = tuple[int, int]


def cover_sizes(sizes: Iterable[Size], max_shapes: int) -> list[Size]:
    """Choose a few shapes that all sizes fit into, wasting little area.

    Greedy: while there are too many shapes, the two whose union costs the fewest
    additional pixels, over all images, become one.

    Args:
        sizes: Heights and widths, one pair an image.
        max_shapes: Largest number of shapes, at least 1.

    Returns:
        At most `max_shapes` shapes, smallest area first.
    """
    counts: dict[Size, int] = {}
    for size in sizes:
        counts[size] = counts.get(size, 0) + 1
    while len(counts) > max_shapes:
        shapes, images = np.array([*counts]), np.array([*counts.values()])
        h, w = (np.maximum.outer(side, side) for side in shapes.T)
        added = images * (h * w - shapes.prod(1))  # [i, j]: to j, by a union with i
        pairs = np.tri(len(images), k=-1, dtype=bool)
        least = np.where(pairs, added + added.T, np.iinfo(added.dtype).max).argmin()
        i, j = np.unravel_index(least, h.shape)
        joined = sum(counts.pop((*shapes[k].tolist(),)) for k in (i, j))
        shape = int(h[i, j]), int(w[i, j])
        counts[shape] = counts.get(shape, 0) + joined
    return sorted(counts, key=lambda size: size[0] * size[1])


class BucketedUpscaler:
    """A network compiled for a given set of image sizes, for any parameters.

    Unlike `lkdn_jax.Upscaler` it takes other parameters at every call, as a validation
    in training does, compiles all it needs before the first, and cuts no tiles.

    Attributes:
        shapes: The LR shapes [h, w] that programs were compiled for.
    """

    def __init__(
        self,
        model: LKDN,
        sizes: Iterable[Size],
        *,
        max_programs: int = 4,
    ) -> None:
        """Compile the programs, at the highest matrix precision.

        Args:
            model: The network.
            sizes: Heights and widths of the LR images to come.
            max_programs: Largest number of programs to compile.

        Raises:
            InputError: A program does not fit into memory.
        """
        self.shapes = cover_sizes(sizes, max_programs)
        self._model = model
        self._programs = {}
        params = expected_params(model)
        forward = jax.jit(
            lambda params, lr, valid: model.apply({"params": params}, lr, valid),
            compiler_options=compiler_options(model),
        )
        for h, w in self.shapes:
            lr = jax.ShapeDtypeStruct((1, h, w, 3), np.float32)
            valid = jax.ShapeDtypeStruct((1, h, w, 1), np.bool_)
            with jax.default_matmul_precision("highest"), _fitting(h, w):
                self._programs[h, w] = forward.lower(params, lr, valid).compile()

    def __call__(self, params: Mapping[str, Any], lr: np.ndarray) -> np.ndarray:
        """Upscale one image.

        Args:
            params: Parameters of the network, float32.
            lr: Image [h, w, 3], uint8, of one of the sizes given (or one that fits).

        Returns:
            Image [h·s, w·s, 3], float32, about [0, 1], not clipped.

        Raises:
            ValueError: The image fits into none of the shapes.
            InputError: It does not fit into memory.
        """
        h, w, _ = lr.shape
        shape = next((s for s in self.shapes if h <= s[0] and w <= s[1]), None)
        if shape is None:
            raise ValueError(f"image of {h}×{w}: larger than all of {self.shapes}")
        with _fitting(h, w):
            padded = np.zeros((1, *shape, 3), np.float32)
            padded[0, :h, :w] = lr / np.float32(255)
            valid = np.zeros((1, *shape, 1), np.bool_)
            valid[0, :h, :w] = True
            check_memory(self._model, *shape)
            sr = np.asarray(self._programs[shape](params, padded, valid))
        s = self._model.scale
        return sr[0, : h * s, : w * s]


def _fitting(h: int, w: int) -> AbstractContextManager[None]:
    return memory_advice(
        f"image of {h}×{w} LR pixels: out of memory; use smaller images or a machine "
        "with more memory"
    )
