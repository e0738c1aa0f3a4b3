"""LKDN and LKDN-S: large kernel distillation networks for super-resolution. NHWC.

Source: Xie et al., "Large Kernel Distillation Network for Efficient Single Image
Super-Resolution", CVPRW 2023.
"""

import functools
from numbers import Integral
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from lkdn_jax.models.frames import frame, unframe
from lkdn_jax.models.layers import (
    BSRB,
    RBSB,
    BSConv,
    Conv,
    LargeKernelAttention,
    PairConv,
    PartConv,
    PixelNorm,
)
from lkdn_jax.models.upsamplers import DirectUpsampler, RepUpsampler
from lkdn_jax.ops import depthwise, gelu
from lkdn_jax.ops.dtypes import at_least_float32
from lkdn_jax.ops.order import add_now, after, store
from lkdn_jax.ops.pair import join

ShallowBlock = Literal["BSB", "BSRB", "RBSB"]
Upsampler = Literal["direct", "rep"]

# Numbers in a vector of AVX, half of one of AVX-512: channels that fill none are slow.
VECTOR = 8
INPUT_COPIES = 4  # the image enters four times along channels (paper, section 3.1)
_IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)  # parameters fit any
_SHALLOW_BLOCKS = {"BSB": BSConv, "BSRB": BSRB, "RBSB": RBSB}
_UPSAMPLERS = {"direct": DirectUpsampler, "rep": RepUpsampler}


def round_up(channels: int, multiple: int = VECTOR) -> int:
    """Return the smallest multiple of `multiple` that is at least `channels`."""
    return -(-channels // multiple) * multiple


class LKDB(nn.Module):
    """Large kernel distillation block.

    Attributes:
        features: Channels in and out.
        distilled: Channels of each of the four distilled parts.
        attention_features: Channels the attention works on.
        shallow_block: The block of the refinement path, see `LKDN`.
        optimized_from: For optimized parameters, see `LKDN`: the number of features
            over which the output of `c6` has mean zero (the others are zero). Distilled
            parts are then computed in whole vectors and cut to `distilled` channels.
        dtype: Dtype of the computation inside; the input and the output are wider.
    """

    features: int
    distilled: int
    attention_features: int
    shallow_block: ShallowBlock
    optimized_from: int | None = None
    dtype: Dtype | None = None

    @nn.compact
    def __call__(
        self, x: Array, valid: Array | None = None, trunk: Array | None = None
    ) -> Array:
        """Map framed features [n, h + 2, w + 2, features] to the same, framed.

        Args:
            x: Framed features (`lkdn_jax.models.frames.frame`).
            valid: Mask of the image, see there too.
            trunk: What is to be computed before the block ends, so that the memory of
                its terms is free, or None.
        """
        dtype = self.dtype
        shallow = _SHALLOW_BLOCKS[self.shallow_block]
        parts, refined = [], x
        wide = self.distilled
        if self.optimized_from is not None:
            wide = round_up(wide)
        for i in (1, 2, 3):
            distill = Conv(wide, dtype=dtype, name=f"c{i}_d")
            refine = shallow(self.features, dtype=dtype, name=f"c{i}_r")
            parts.append(unframe(distill(refined)))
            if self.shallow_block == "BSB" and valid is None:
                refined = refine(refined, activated=True)
            else:
                refined = store(frame(gelu.gelu(refine(refined)), valid))
        # Stored: XLA would sum the taps for both halves of the channels below.
        parts.append(store(BSConv(wide, dtype=dtype, name="c4")(refined)))
        first = join(parts[0], parts[1], self.distilled)
        second = join(parts[2], parts[3], self.distilled)
        y = PairConv(self.attention_features, dtype=dtype, name="c5")(first, second)
        if trunk is not None:
            y = after(y, trunk)
        y = LargeKernelAttention(dtype=dtype, name="atten")(y, valid)
        y = Conv(self.features, dtype=dtype, name="c6")(y)
        y = PixelNorm(centred_features=self.optimized_from, name="pixel_norm")(y)
        return add_now(frame(y, valid), x)


# Traced and lowered once, however many equal blocks a network has; a profile gives them
# all the name of one. Not for drawing parameters: those would come out different, and
# the drawing would be compiled block by block. Not for intermediates: the first filter
# would stay.
@functools.cache
def _traced_lkdb() -> type[LKDB]:
    return nn.jit(LKDB)


class LKDN(nn.Module):
    """Large kernel distillation network; the defaults are the paper's LKDN ×4.

    Equal blocks are traced once, and jax keeps the trace (`nn.jit`). So call
    `jax.clear_caches()` before an `apply` under `nn.intercept_methods`: a kept trace
    shows the interceptor nothing of what is inside the blocks. And again after it.
    Blocks pass features on with a frame of zeros, one pixel wide;
    `capture_intermediates` shows it, too.

    Attributes:
        scale: Upscaling factor s, at least 1.
        features: Channels C of the trunk.
        num_blocks: Number of LKDBs.
        distilled: Channels of each distilled part; None means C/2.
        attention_features: Channels of the attention; None means C.
        shallow_block: `BSB` (BSConv), `BSRB` (with a residual) or `RBSB`
            (re-parameterizable, LKDN-S).
        upsampler: `direct` (3×3 convolution) or `rep` (re-parameterizable, LKDN-S).
        optimized_from: For the parameters of `lkdn_jax.optimize_for_inference`, the
            number of features they had before: one copy of the image instead of four,
            a `c6` whose LayerNorm needs no mean, and channels in whole vectors. None
            for all others.
        dtype: Dtype of the computation, None for that of the input but at least
            float32. Parameters, the trunk that the blocks add to, LayerNorm and the
            upsampler stay float32 at least.
        remat: Compute the blocks again for the gradient rather than keep what is in
            them: less memory for more time on accelerators, little less on CPU.
    """

    scale: int = 4
    features: int = 56
    num_blocks: int = 8
    distilled: int | None = None
    attention_features: int | None = None
    shallow_block: ShallowBlock = "BSB"
    upsampler: Upsampler = "direct"
    optimized_from: int | None = None
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, lr: Array, valid: Array | None = None) -> Array:
        """Upscale images.

        Args:
            lr: Images [n, h, w, 3], RGB, floating point in [0, 1].
            valid: Mask [n, h, w, 1] (or broadcastable to it), bool, true inside the
                images, for images padded to a common size; None if all pixels are
                valid. The output is exact inside and arbitrary outside.

        Returns:
            Images [n, h·s, w·s, 3], RGB, float32 (float64 for a float64 computation),
            about [0, 1], not clipped.

        Raises:
            ValueError: `lr` is not [n, h, w, 3], or an argument of the network is
                unknown, too small or no integer.
            TypeError: `lr` is not floating point.
        """
        self._check(lr)
        dtype = self.dtype or at_least_float32(lr.dtype)
        wide = at_least_float32(dtype)
        copies = INPUT_COPIES if self.optimized_from is None else 1
        x = jnp.concatenate([lr.astype(wide)] * copies, axis=-1)
        x = BSConv(self.features, dtype=wide, name="fea_conv")(frame(x, valid))
        fea = x = store(frame(x, valid))
        c1 = PartConv(self.features, self.num_blocks, dtype=wide, name="c1")
        trunk: Any = None
        drawing = self.is_initializing()
        plain = drawing or self.is_mutable_collection("intermediates")
        lkdb = LKDB if plain else _traced_lkdb()
        lkdb = nn.remat(lkdb) if self.remat and not drawing else lkdb
        distilled, attention = self.inner_features()
        for i in range(self.num_blocks):
            block = lkdb(
                self.features,
                distilled,
                attention,
                self.shallow_block,
                optimized_from=self.optimized_from,
                dtype=dtype,
                name=f"B{i + 1}",
            )
            x = block(x, valid, trunk)
            share = c1(x, i)
            trunk = share if trunk is None else add_now(trunk, share)
        x = store(frame(gelu.gelu(unframe(trunk)), valid))
        x = BSConv(self.features, dtype=wide, name="c2")(x) + unframe(fea)
        upsampler = _UPSAMPLERS[self.upsampler]
        sr = upsampler(self.scale, dtype=wide, name="upsampler")(x, valid)
        return sr.astype(at_least_float32(sr.dtype))

    def _check(self, lr: Array) -> None:
        if lr.ndim != 4 or lr.shape[-1] != 3:
            raise ValueError(f"images of shape {lr.shape}: LKDN takes [n, h, w, 3]")
        if not jnp.issubdtype(lr.dtype, jnp.floating):
            raise TypeError(
                f"images of dtype {lr.dtype}: LKDN takes floating point in [0, 1]; "
                "divide 8-bit images by 255"
            )
        for value, known in (
            (self.shallow_block, get_args(ShallowBlock)),
            (self.upsampler, get_args(Upsampler)),
        ):
            if value not in known:
                raise ValueError(f"unknown {value!r}: use one of {', '.join(known)}")
        distilled, attention = self.inner_features()
        sizes = {
            "scale": self.scale,
            "features": self.features,
            "num_blocks": self.num_blocks,
            "distilled": distilled,
            "attention_features": attention,
        }
        for name, size in sizes.items():
            if not isinstance(size, Integral):
                raise ValueError(f"{name} {size}: must be a whole number")
            if size < 1:
                raise ValueError(f"{name} {size}: must be at least 1")

    def inner_features(self) -> tuple[int, int]:
        """Return the channels of a distilled part, and those of the attention."""
        distilled, attention = self.distilled, self.attention_features
        return (
            self.features // 2 if distilled is None else distilled,
            self.features if attention is None else attention,
        )


def lkdn_s(scale: int = 4, **overrides: Any) -> LKDN:
    """Return the paper's LKDN-S in its training form.

    Args:
        scale: Upscaling factor; the published network is ×4.
        **overrides: Other arguments of `LKDN`.

    Returns:
        An LKDN of 42 features and 5 blocks with RBSB and the `rep` upsampler.
    """
    small: dict[str, Any] = {
        "features": 42,
        "num_blocks": 5,
        "shallow_block": "RBSB",
        "upsampler": "rep",
    }
    return LKDN(scale=scale, **(small | overrides))


def expected_params(model: LKDN) -> dict[str, Any]:
    """Return the names and shapes of the parameters; nothing is computed.

    Args:
        model: The network.

    Returns:
        The parameter tree, with a `jax.ShapeDtypeStruct` for each array.

    Raises:
        ValueError: An argument of the network is unknown or too small.
    """
    # Neither dtype nor remat changes a parameter.
    return _undrawn.eval_shape(model.clone(dtype=None, remat=False), _IMAGE)


def draw_params(model: LKDN, seed: int = 0) -> dict[str, Any]:
    """Draw the parameters to start a training from: those of `model.init`, sooner.

    Args:
        model: The network.
        seed: Seed of all of them.

    Returns:
        The parameter tree, float32.
    """
    params: dict[str, Any] = {}

    def forward(lr: Array) -> None:
        # What does not depend on the image is computed at once, and nothing else is.
        with jax.ensure_compile_time_eval():
            params.update(model.init(jax.random.key(seed), lr)["params"])

    jax.eval_shape(forward, _IMAGE)
    return params


# Traced once for equal networks; and not by `init`, which traces every block. Only for
# shapes: the numbers would not be those of `init`.
@jax.jit(static_argnames="model")
def _undrawn(model: LKDN, lr: Array) -> dict[str, Any]:
    rngs = {"params": jax.random.key(0)}
    variables: Any = model.apply({}, lr, rngs=rngs, mutable="params")[1]
    return variables["params"]


def forget_traces() -> None:
    """Forget the sizes that were traced, of which jax keeps some MB each, for ever.

    Programs that are compiled stay. A size that comes again is traced again.
    """
    _traced_lkdb.cache_clear()
    depthwise.forget_traces()
    gelu.forget_traces()
