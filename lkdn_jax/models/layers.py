"""The layers LKDN is built of. Arrays are NHWC, spatial padding is zero and keeps size.

A layer that looks at neighbouring pixels takes features with a frame, one pixel of
zeros on every side (`frames.frame`), or pads them itself and then takes `valid`, a mask
of what is image (`frames.mask`).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype, promote_dtype
from flax.typing import Dtype
from jax import Array, lax

from lkdn_jax.errors import InputError
from lkdn_jax.models.frames import mask, unframe
from lkdn_jax.models.initializers import uniform_fan_in
from lkdn_jax.ops.depthwise import Padding, depthwise_conv
from lkdn_jax.ops.dtypes import at_least_float32
from lkdn_jax.ops.fused import framed_gelu, gated
from lkdn_jax.ops.order import store
from lkdn_jax.ops.pair import activated_product
from lkdn_jax.ops.pointwise import pointwise


class Conv(nn.Module):
    """A dense k×k convolution, zero padding, same size; k = 1 is a matrix product.

    Attributes:
        features: Output channels.
        kernel_size: k, odd.
        use_bias: Whether a bias is added.
        padding: `SAME`, or `VALID` for no padding, which shrinks the image by k − 1.
        dtype: Dtype of the computation (None: that of the input and parameters).
    """

    features: int
    kernel_size: int = 1
    use_bias: bool = True
    padding: str = "SAME"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [n, h, w, c] to [n, h, w, features], less k − 1 if `VALID`."""
        k, c = self.kernel_size, x.shape[-1]
        init = uniform_fan_in(k * k * c)
        kernel = self.param("kernel", init, (k, k, c, self.features))
        bias = self.param("bias", init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if k == 1:
            y = pointwise(x, kernel[0, 0])
        else:
            y = lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(1, 1),
                padding=self.padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class PartConv(nn.Module):
    """A 1×1 convolution of a concatenation, taken part by part.

    Attributes:
        features: Output channels.
        parts: Number of parts, each of as many channels.
        dtype: Dtype of the computation.
    """

    features: int
    parts: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, part: int) -> Array:
        """Map part number `part` [n, h, w, c] to its share [n, h, w, features].

        The sum of the shares of all parts is the convolution; the first has the bias.
        """
        c = x.shape[-1]
        init = uniform_fan_in(c * self.parts)
        kernel = self.param("kernel", init, (1, 1, c * self.parts, self.features))
        bias = self.param("bias", init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = pointwise(x, kernel[0, 0, part * c : (part + 1) * c])
        return y if part else y + bias.reshape(1, 1, 1, -1)


class PairConv(nn.Module):
    """A 1×1 convolution of GELU of two maps side by side.

    Attributes:
        features: Output channels.
        dtype: Dtype of the computation.
    """

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        """Map two [n, h, w, c] to [n, h, w, features]."""
        c = 2 * x.shape[-1]
        init = uniform_fan_in(c)
        kernel = self.param("kernel", init, (1, 1, c, self.features))
        bias = self.param("bias", init, (self.features,))
        x, y, kernel, bias = promote_dtype(x, y, kernel, bias, dtype=self.dtype)
        return activated_product(x, y, kernel[0, 0], bias)


class DepthwiseConv(nn.Module):
    """A depthwise k×k convolution with bias, zero padding.

    Attributes:
        kernel_size: k, odd.
        dilation: Distance between neighbouring taps, in pixels.
        padding: `SAME`, or `VALID` for an input that has its frame of zeros already.
        dtype: Dtype of the computation (None: that of the input and parameters).
    """

    kernel_size: int
    dilation: int = 1
    padding: Padding = "SAME"
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        valid: Array | None = None,
        *,
        gate: Array | None = None,
        activated: bool = False,
    ) -> Array:
        """Map [n, h, w, c] to [n, h, w, c], less dilation·(k − 1) if `VALID`.

        Args:
            x: Features.
            valid: Mask of the image, see `frames.mask`.
            gate: Features of the same shape to multiply the output by; if `SAME`.
            activated: Whether GELU and a frame follow, so that the size stays; if k is
                3 and `VALID`.
        """
        k, c = self.kernel_size, x.shape[-1]
        init = uniform_fan_in(k * k)
        kernel = self.param("kernel", init, (k, k, 1, c))
        bias = self.param("bias", init, (c,))
        x = x.astype(canonicalize_dtype(x, kernel, dtype=self.dtype))
        if k == 1:
            kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
            return x * kernel.reshape(1, 1, 1, c) + bias.reshape(1, 1, 1, c)
        x = mask(x, valid)
        # Where parameters are made nobody reads the output: the way soonest traced.
        made = self.is_mutable_collection("params")
        way: dict[str, Any] = {"implementation": "shift"} if made else {}
        if activated:
            return framed_gelu(x, kernel, bias, **way)
        if gate is not None:
            gate = gate.astype(x.dtype)
            return gated(gate, x, kernel, bias, dilation=self.dilation, **way)
        return depthwise_conv(
            x, kernel, bias, dilation=self.dilation, padding=self.padding, **way
        )


def refuse_unfolded(module: nn.Module, name: str) -> None:
    """Refuse parameters of the form that folds, which Flax would leave out.

    Args:
        module: A module of another form.
        name: A submodule that only the form that folds has.

    Raises:
        InputError: The module was given parameters of that name.
    """
    if module.has_variable("params", name):
        raise InputError(
            f"{'/'.join(module.path) or 'it'} was given {name}, which another form of "
            "the network has: fold its parameters (lkdn_jax.fold), or take that network"
        )


class BSConv(nn.Module):
    """Blueprint separable convolution: 1×1 without bias, then depthwise 3×3.

    Source: Haase and Amthor, CVPR 2020, "unconstrained" (BSConv-U). As the shallow
    block of an LKDB it is the paper's BSB.

    Attributes:
        features: Channels out.
        dtype: Dtype of the computation.
    """

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, activated: bool = False) -> Array:
        """Map framed features [n, h + 2, w + 2, c] to [n, h, w, features].

        If `activated`, GELU follows, and the output is framed, too, and stored.
        """
        refuse_unfolded(self, "rep1x1")
        x = Conv(self.features, use_bias=False, dtype=self.dtype, name="pw")(x)
        dw = DepthwiseConv(3, padding="VALID", dtype=self.dtype, name="dw")
        return dw(x, activated=activated)


class BSRB(nn.Module):
    """Blueprint shallow residual block: a BSConv plus its input.

    Attributes:
        features: Channels out and in.
        dtype: Dtype of the computation.
    """

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map framed features [n, h + 2, w + 2, features] to [n, h, w, features]."""
        refuse_unfolded(self, "rep1x1")
        y = Conv(self.features, use_bias=False, dtype=self.dtype, name="pw")(x)
        y = DepthwiseConv(3, padding="VALID", dtype=self.dtype, name="dw")(y)
        return y + unframe(x).astype(y.dtype)


class RBSB(nn.Module):
    """Re-parameterizable blueprint shallow block, in the form that is trained.

    An identity beside the 1×1 convolution, an identity and a depthwise 1×1 beside the
    depthwise one; `lkdn_jax.fold` turns it into a BSConv.

    Attributes:
        features: Channels out and in.
        dtype: Dtype of the computation.
    """

    features: int
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map framed features [n, h + 2, w + 2, features] to [n, h, w, features]."""
        y = Conv(self.features, use_bias=False, dtype=self.dtype, name="pw")(x)
        y += x.astype(y.dtype)
        dw = DepthwiseConv(3, padding="VALID", dtype=self.dtype, name="dw")
        rep1x1 = DepthwiseConv(1, dtype=self.dtype, name="rep1x1")
        inner = unframe(y)
        return dw(y) + inner + rep1x1(inner)


class LargeKernelAttention(nn.Module):
    """Large kernel attention: the input times a 17×17 view of itself.

    The kernel is decomposed into 1×1, depthwise 5×5, and depthwise 5×5 with dilation 3
    (Guo et al., Visual Attention Network, 2022; in LKDN the 1×1 comes first).

    Attributes:
        dtype: Dtype of the computation.
    """

    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Array | None = None) -> Array:
        """Map [n, h, w, c] to [n, h, w, c]."""
        dtype = self.dtype
        y = Conv(x.shape[-1], dtype=dtype, name="pointwise")(x)
        y = DepthwiseConv(5, dtype=dtype, name="depthwise")(y, valid)
        dilated = DepthwiseConv(5, 3, dtype=dtype, name="depthwise_dilated")
        return dilated(y, valid, gate=x)


class PixelNorm(nn.Module):
    """Layer normalization of every pixel over its channels, ε = 1e-5.

    In float32 at least, and not by the fast variance E[y²] − E[y]², which loses digits.

    Attributes:
        centred_features: Number of channels over which the input's mean is zero already
            and is not taken; further channels are zero. None to take the mean over all.
    """

    centred_features: int | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [n, h, w, c] to [n, h, w, c], float32 (float64 if `x` is)."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        wide = at_least_float32(x.dtype)
        x, scale, bias = promote_dtype(x, scale, bias, dtype=wide)
        if self.centred_features is None:
            x = x - store(x.mean(-1, keepdims=True))
        variance = jnp.square(x).sum(-1, keepdims=True) / (self.centred_features or c)
        inverse = store(lax.rsqrt(variance + 1e-5))
        return x * inverse * scale.reshape(1, 1, 1, c) + bias.reshape(1, 1, 1, c)
