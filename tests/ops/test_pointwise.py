import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.ops.pointwise import (
    kernel_gradient,
    kernel_gradient_in_groups,
    pointwise,
)


def plain(x, kernel):
    return jnp.einsum("nhwc,cd->nhwd", x, kernel)


def test_values_and_gradients_are_those_of_a_product():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 7, 6)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)

    def loss(multiply):
        return lambda x, kernel: jnp.tanh(multiply(x, kernel)).sum()

    def penalty(multiply):
        gradient = jax.grad(loss(multiply), (0, 1))
        return lambda *args: sum(jnp.square(g).sum() for g in gradient(*args))

    for function in (loss, penalty):
        ours, reference = (
            jax.value_and_grad(function(multiply), (0, 1))(x, kernel)
            for multiply in (pointwise, plain)
        )
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 5, 6), (2, 16, 24)])
@pytest.mark.parametrize("sums", [kernel_gradient, kernel_gradient_in_groups])
def test_gradient_by_the_kernel(shape, sums):
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(*shape, c)).astype(np.float32) for c in (6, 4))
    expected = np.einsum("nhwc,nhwd->cd", *(a.astype(np.float64) for a in (x, dy)))
    got = sums(jnp.asarray(x), jnp.asarray(dy))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_groups_are_summed_in_float32():
    # Each of 256 groups sums to 257 or −257, or to −256 where a pixel is zero: in
    # bfloat16 257 would be 256, and the sum of all zero.
    x = np.ones((256, 1, 257, 1))
    x[128:] = -1
    x[128:, 0, 0] = 0
    x, ones = jnp.asarray(x, jnp.bfloat16), jnp.ones((256, 1, 257, 1), jnp.bfloat16)
    got = kernel_gradient_in_groups(x, ones)
    assert got.dtype == jnp.bfloat16
    assert got.astype(jnp.float32) == 128


SIX_DEVICES = """
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lkdn_jax.ops.pointwise import kernel_gradient, kernel_gradient_in_groups

jax.config.update("jax_num_cpu_devices", 6)
mesh = jax.make_mesh((6,), ("batch",), (AxisType.Auto,))
x, dy = np.random.default_rng(0).normal(size=(2, 12, 10, 10, 6)).astype(np.float32)
split = jax.device_put((x, dy), NamedSharding(mesh, PartitionSpec("batch")))
sums = jax.jit(kernel_gradient_in_groups).lower(*split).compile()
np.testing.assert_allclose(sums(*split), kernel_gradient(x, dy), atol=1e-4)
program = sums.as_text()
print(*(program.count(f" all-{name}(") for name in ("reduce", "gather", "to-all")))
"""


def test_of_images_on_several_devices_only_sums_travel():
    command = [sys.executable, "-c", SIX_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0", "0"], done.stderr
