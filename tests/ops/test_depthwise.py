import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate

from lkdn_jax.ops.depthwise import depthwise_conv


def oracle(x: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    k, c = kernel.shape[0], x.shape[-1]
    size = dilation * (k - 1) + 1
    stuffed = np.zeros((size, size, c))
    stuffed[::dilation, ::dilation] = kernel[:, :, 0]
    planes = [
        [correlate(plane[..., i], stuffed[..., i], mode="constant") for i in range(c)]
        for plane in x.astype(np.float64)
    ]
    return np.array(planes).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("implementation", ["lax", "shift", "pallas", None])
@pytest.mark.parametrize("size", [(1, 1), (13, 35)])
@pytest.mark.parametrize(("k", "dilation"), [(3, 1), (5, 1), (5, 3), (3, 4)])
def test_equals_correlation(implementation, size, k, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 6)).astype(np.float32)
    kernel = rng.normal(size=(k, k, 1, 6)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    conv = partial(depthwise_conv, dilation=dilation, implementation=implementation)
    y = conv(x, kernel, bias)
    expected = oracle(x, kernel, dilation) + bias
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(conv(x, kernel), expected - bias, atol=1e-5)
    edge = dilation * (k // 2)
    if min(size) > 2 * edge:
        inner = expected[:, edge:-edge, edge:-edge]
        valid = conv(x, kernel, bias, padding="VALID")
        np.testing.assert_allclose(valid, inner, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "channels", "k", "dilation", "padding"),
    [
        ((1, 1), 4, 5, 3, "SAME"),
        ((9, 7), 70, 5, 3, "SAME"),
        ((17, 18), 4, 5, 1, "SAME"),
        ((48, 6), 4, 5, 1, "SAME"),
        ((9, 7), 4, 3, 1, "VALID"),
        ((9, 7), 4, 3, 2, "VALID"),
    ],
)
def test_gradients_agree(size, channels, k, dilation, padding):
    rng = np.random.default_rng(0)
    out = size if padding == "SAME" else [n - dilation * (k - 1) for n in size]
    shapes = (2, *size, channels), (k, k, 1, channels), (channels,), (2, *out, channels)
    x, kernel, bias, weight = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes
    )

    def loss(x, kernel, bias, implementation):
        y = depthwise_conv(
            x,
            kernel,
            bias,
            dilation=dilation,
            padding=padding,
            implementation=implementation,
        )
        return (y * weight).sum() / y.size**0.5

    grad = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    expected = grad(x, kernel, bias, "lax")
    for implementation in ("shift", "pallas"):
        got = grad(x, kernel, bias, implementation)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=implementation)


@pytest.mark.parametrize("implementation", ["pallas", None])
def test_differentiates_twice_and_by_example(implementation):
    rng = np.random.default_rng(0)
    x, y, *weights = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((2, 9, 7, 6), (2, 9, 7, 6), (3, 3, 1, 6), (6,))
    )

    def loss(weights, x, implementation):
        out = depthwise_conv(x, *weights, dilation=3, implementation=implementation)
        return (out * out * y[: len(x)]).mean()

    def penalty(weights, x, implementation):
        slopes = jax.grad(loss)(weights, x, implementation)
        return sum(jnp.square(slope).sum() for slope in slopes)

    twice = jax.jit(jax.grad(penalty, (0, 1)), static_argnums=2)
    ours, reference = (twice(weights, x, which) for which in (implementation, "lax"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    def of_one(image, implementation):
        return jax.grad(loss)(weights, image[None], implementation)[0]

    each = jax.vmap(lambda image: of_one(image, implementation))(x)
    for image, got in zip(x, each, strict=True):
        np.testing.assert_allclose(got, of_one(image, "lax"), rtol=1e-4, atol=1e-6)


TWO_DEVICES = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lkdn_jax.ops.depthwise import depthwise_conv

jax.config.update("jax_num_cpu_devices", 2)
mesh = jax.make_mesh((2,), ("batch",), (AxisType.Auto,))
by_image = NamedSharding(mesh, PartitionSpec("batch"))
rng = np.random.default_rng(0)
x = jnp.asarray(rng.normal(size=(5, 9, 7, 6)), jnp.float32)
weights = jnp.asarray(rng.normal(size=(3, 3, 1, 6)), jnp.float32), jnp.ones(6)

def plain(weights, x, implementation):
    y = depthwise_conv(x, *weights, dilation=3, implementation=implementation)
    return jnp.square(y).mean()

def loss(weights, x, implementation):
    x = jax.lax.with_sharding_constraint(x, by_image)
    return plain(weights, x, implementation)

def check(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

grad = jax.jit(jax.grad(loss), static_argnums=2)
expected, uneven = (grad(weights, images, "lax") for images in (x[:4], x))
split = jax.device_put(x[:4], by_image)
for implementation in (None, "shift", "pallas"):
    compiled = grad.lower(weights, split, implementation).compile()
    check(compiled(weights, split), expected)
    program = compiled.as_text()
    print(program.count(" all-reduce("), program.count(" all-gather("))
    check(grad(weights, x, implementation), uneven)
    of_one = lambda image: jax.grad(plain)(weights, image[None], implementation)
    check([slope.mean(0) for slope in jax.vmap(of_one)(x[:4])], expected)
"""


def test_images_stay_on_their_device():
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0"] * 3, done.stderr


def test_float32_where_float64_is_the_default():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 5, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 3)), jnp.float32)

    def loss(kernel, implementation):
        y = depthwise_conv(x, kernel, implementation=implementation)
        return jnp.square(y).sum()

    expected = jax.grad(loss)(kernel, "lax")
    with jax.enable_x64(True):
        for implementation in (None, "pallas"):
            got = jax.grad(loss)(kernel, implementation)
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["shift", "pallas"])
def test_bfloat16_is_summed_in_float32(implementation):
    rng = np.random.default_rng(0)
    x, dy, kernel = (
        jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
        for shape in ((1, 20, 20, 70), (1, 20, 20, 70), (5, 5, 1, 70))
    )
    bias = jnp.ones(70, jnp.bfloat16)

    def check(got, exact, of_sums=1e-5):
        assert got.dtype == jnp.bfloat16
        # One rounding, to 8 bits.
        error = np.abs(np.asarray(got, np.float64) - exact)
        assert (error <= 2**-8 * np.abs(exact) + of_sums).all()

    conv = jax.jit(partial(depthwise_conv, implementation=implementation))
    y, gradients = jax.vjp(conv, x, kernel, bias)
    wide, slope, taps = (np.asarray(a, np.float64) for a in (x, dy, kernel))
    check(y, oracle(wide, taps, 1) + 1)
    dx, dkernel, dbias = gradients(dy)
    check(dx, oracle(slope, taps[::-1, ::-1], 1))
    check(dbias, slope.sum((0, 1, 2)), 1e-4)
    padded = np.pad(wide, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for i, j in np.ndindex(5, 5):
        part = padded[:, i : i + 20, j : j + 20]
        check(dkernel[i, j, 0], (part * slope).sum((0, 1, 2)), 1e-4)


@pytest.mark.parametrize("shape", [(4, 4, 1, 3), (3, 5, 1, 3), (3, 3, 1, 2), ()])
def test_refuses_other_kernels(shape):
    with pytest.raises(ValueError, match="a depthwise kernel for 3 channels"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


def test_refuses_other_arguments():
    x, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 1, 3))
    with pytest.raises(ValueError, match="'winograd': use one of lax, shift, pallas"):
        depthwise_conv(x, kernel, implementation="winograd")
    with pytest.raises(ValueError, match="'FULL': use one of SAME, VALID"):
        depthwise_conv(x, kernel, padding="FULL")
    with pytest.raises(ValueError, match="'': use one of lax"):
        depthwise_conv(x, kernel, implementation="")
    for shape in ((1,), (3, 1), ()):
        with pytest.raises(ValueError, match=r"bias of shape .*: give \[3\], or None"):
            depthwise_conv(x, kernel, jnp.zeros(shape))
    with pytest.raises(ValueError, match=r"x of shape \(8, 8, 3\): give features"):
        depthwise_conv(x[0], kernel)
    for dilation in (0, -1, 1.5, 2.0):
        with pytest.raises(ValueError, match=f"dilation {dilation}: use 1 or more"):
            depthwise_conv(x, kernel, dilation=dilation)


def test_without_padding_the_taps_must_fit():
    kernel = jnp.ones((3, 3, 1, 2))
    fits = depthwise_conv(jnp.ones((1, 5, 6, 2)), kernel, dilation=2, padding="VALID")
    assert fits.shape == (1, 1, 2, 2)
    assert (fits == 9).all()
    for shape in [(1, 4, 6, 2), (1, 5, 4, 2)]:
        with pytest.raises(ValueError, match="map of 5×5 pixels is the least"):
            depthwise_conv(jnp.ones(shape), kernel, dilation=2, padding="VALID")
