import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.models.frames import frame
from lkdn_jax.models.layers import (
    BSRB,
    RBSB,
    BSConv,
    Conv,
    LargeKernelAttention,
    PartConv,
)
from lkdn_jax.models.upsamplers import DirectUpsampler, RepUpsampler, pixel_shuffle


def test_pixel_shuffle_has_pytorch_channel_order():
    n, h, w, c, s = 1, 2, 3, 3, 2
    x = np.arange(n * h * w * c * s * s, dtype=np.float32).reshape(n, h, w, -1)
    y = np.asarray(pixel_shuffle(jnp.asarray(x), s))
    assert y.shape == (1, 4, 6, 3)
    for row in range(4):
        for column in range(6):
            for channel in range(3):
                source = channel * 4 + (row % 2) * 2 + column % 2
                assert y[0, row, column, channel] == x[0, row // 2, column // 2, source]


@pytest.mark.parametrize(
    ("path", "fan_in"),
    [
        (("pw", "kernel"), 48),
        (("dw", "kernel"), 9),
        (("dw", "bias"), 9),
    ],
)
def test_bsconv_starts_with_pytorch_distributions(path, fan_in):
    params = BSConv(2048).init(jax.random.key(1), jnp.zeros((1, 8, 8, 48)))["params"]
    values = np.asarray(params[path[0]][path[1]])
    bound = fan_in**-0.5
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.99 * bound
    assert values.mean() == pytest.approx(0, abs=0.05 * bound)
    assert values.std() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_dense_bias_has_the_kernels_bound():
    variables = Conv(4096, 3).init(jax.random.key(1), jnp.zeros((1, 8, 8, 7)))
    assert np.abs(variables["params"]["bias"]).max() == pytest.approx(
        (7 * 9) ** -0.5, rel=0.01
    )


def test_bsconv_has_no_pointwise_bias(init):
    assert set(init(BSConv(8), (1, 8, 8, 4))["params"]["pw"]) == {"kernel"}


def test_rbsb_and_bsrb_are_what_they_say(init):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 6, 7, 4)), jnp.float32)
    params = init(RBSB(4), x.shape)["params"]

    def depthwise(y):
        return BSConv(4).apply(
            {"params": {"pw": {"kernel": jnp.eye(4)[None, None]}, "dw": params["dw"]}},
            frame(y),
        )

    pw = x @ params["pw"]["kernel"][0, 0]
    y = pw + x
    rep = y * params["rep1x1"]["kernel"] + params["rep1x1"]["bias"].reshape(1, 1, 1, 4)
    np.testing.assert_allclose(
        RBSB(4).apply({"params": params}, frame(x)), depthwise(y) + y + rep, atol=1e-6
    )
    plain = {name: params[name] for name in ("pw", "dw")}
    np.testing.assert_allclose(
        BSRB(4).apply({"params": plain}, frame(x)), depthwise(pw) + x, atol=1e-6
    )


@pytest.mark.parametrize(
    "module",
    [
        LargeKernelAttention(),
        DirectUpsampler(2),
        RepUpsampler(3),
    ],
    ids=lambda module: type(module).__name__,
)
def test_masked_padding_changes_nothing(init, module):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 5, 9, 6)), jnp.float32)
    params = init(module, x.shape)
    alone = jax.jit(module.apply)(params, x)
    # Whatever lies outside must not matter, so it is not zero here.
    padding = ((0, 0), (3, 8), (1, 4), (0, 0))
    padded = jnp.pad(x, padding, constant_values=jnp.nan)
    valid = jnp.pad(jnp.ones((1, 5, 9, 1), bool), padding)
    out = jax.jit(module.apply)(params, padded, valid)
    scale = alone.shape[1] // x.shape[1]
    inside = out[:, 3 * scale : 8 * scale, scale : 10 * scale]
    np.testing.assert_allclose(inside, alone, rtol=1e-5, atol=1e-5)


def test_part_convolutions_start_as_the_whole_would():
    # 8 parts of 16 channels each: PyTorch's bound of a kernel that sees 128.
    layer, x = PartConv(512, 8), jnp.zeros((1, 4, 4, 16))
    bound = 128**-0.5
    for leaf in jax.tree.leaves(layer.init(jax.random.key(0), x, 0)["params"]):
        assert 0.95 * bound < np.abs(leaf).max() <= bound
