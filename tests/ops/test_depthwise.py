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


@pytest.mark.parametrize("implementation", ["lax", "shift", None])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (13, 10)])
@pytest.mark.parametrize(("k", "dilation"), [(3, 1), (5, 1), (5, 3), (3, 4)])
def test_equals_correlation(implementation, size, k, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 6)).astype(np.float32)
    kernel = rng.normal(size=(k, k, 1, 6)).astype(np.float32)
    y = depthwise_conv(
        jnp.asarray(x),
        jnp.asarray(kernel),
        dilation=dilation,
        implementation=implementation,
    )
    np.testing.assert_allclose(y, oracle(x, kernel, dilation), atol=1e-5)


def test_gradients_agree():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 9, 7, 4))
    kernel = jax.random.normal(keys[1], (5, 5, 1, 4))
    weight = jax.random.normal(keys[2], x.shape)

    def loss(x, kernel, implementation):
        y = depthwise_conv(x, kernel, dilation=3, implementation=implementation)
        return (y * weight).sum()

    grads = [
        jax.grad(loss, (0, 1))(x, kernel, implementation)
        for implementation in ("lax", "shift")
    ]
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 1, 3), (3, 5, 1, 3), (3, 3, 1, 2)])
def test_refuses_other_kernels(shape):
    with pytest.raises(ValueError, match="a depthwise kernel for 3 channels"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))
