"""What turns features into images, at the end of LKDN. Arrays are NHWC."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from lkdn_jax.models.frames import mask
from lkdn_jax.models.layers import Conv, refuse_unfolded


def pixel_shuffle(x: Array, scale: int) -> Array:
    """Turn channels into pixels.

    Args:
        x: Features [n, h, w, c·s²], channels in PyTorch's order (c, s, s).
        scale: The factor s.

    Returns:
        Features [n, h·s, w·s, c].
    """
    n, h, w, channels = x.shape
    c = channels // scale**2
    x = x.reshape(n, h, w, c, scale, scale)
    # In two steps: of explicit axes jax reshapes but one at a time.
    x = x.transpose(0, 1, 4, 2, 5, 3).reshape(n, h * scale, w, scale, c)
    return x.reshape(n, h * scale, w * scale, c)


class DirectUpsampler(nn.Module):
    """A 3×3 convolution to 3·s² channels, then pixel shuffle.

    Attributes:
        scale: The factor s.
        dtype: Dtype of the computation.
    """

    scale: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Array | None = None) -> Array:
        """Map features [n, h, w, c] to images [n, h·s, w·s, 3]."""
        refuse_unfolded(self, "conv1x1")
        conv = Conv(3 * self.scale**2, 3, dtype=self.dtype, name="conv3")
        return pixel_shuffle(conv(mask(x, valid)), self.scale)


class RepUpsampler(nn.Module):
    """The sum of a 1×1, a 3×3 and a 1×1-3×3 branch, then pixel shuffle.

    The third branch widens to 2c and is padded by one pixel of its own bias, so that
    the sum is one 3×3 convolution (`lkdn_jax.fold`).

    Attributes:
        scale: The factor s.
        dtype: Dtype of the computation.
    """

    scale: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Array | None = None) -> Array:
        """Map features [n, h, w, c] to images [n, h·s, w·s, 3]."""
        out, widened = 3 * self.scale**2, 2 * x.shape[-1]
        dtype = self.dtype
        x = mask(x, valid)
        y = Conv(out, dtype=dtype, name="conv1")(x)
        y += Conv(out, 3, dtype=dtype, name="conv3")(x)
        # A 1×1 convolution of zeros is its bias: pad first, and the border is right.
        z = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        z = Conv(widened, dtype=dtype, name="conv1x1")(z)
        y += Conv(out, 3, padding="VALID", dtype=dtype, name="conv3x3")(z)
        return pixel_shuffle(y, self.scale)
