import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.ops.pair import activated_product, as_one, as_two, join


def arrays(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    sizes = (2, 5, 7, 6), (2, 5, 7, 6), (12, 3), (3,)
    return [jnp.asarray(rng.normal(size=size), dtype) for size in sizes]


def plain(x, y, kernel, bias):
    both = jnp.concatenate((x, y), axis=-1)
    return jnp.einsum("nhwc,cd->nhwd", jax.nn.gelu(both, approximate=False), kernel) + (
        bias.reshape(1, 1, 1, -1)
    )


def test_joins_the_first_channels():
    x, y, *_ = arrays()
    expected = np.concatenate((x[..., :4], y[..., :4]), axis=-1)
    np.testing.assert_array_equal(join(x, y, 4), expected)


@pytest.mark.parametrize("way", [as_one, as_two, activated_product])
def test_values_and_gradients_are_those_of_a_product(way):
    def loss(function):
        return lambda *args: jnp.tanh(function(*args)).sum()

    def penalty(function):
        gradient = jax.grad(loss(function), (0, 1, 2, 3))
        return lambda *args: sum(jnp.square(g).sum() for g in gradient(*args))

    for function in (loss, penalty):
        ours, reference = (
            jax.jit(jax.value_and_grad(function(f), (0, 1, 2, 3)))(*arrays())
            for f in (way, plain)
        )
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("way", [as_one, as_two])
def test_in_bfloat16(way):
    got = way(*arrays(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    wide = (x.astype(jnp.float32) for x in arrays(jnp.bfloat16))
    np.testing.assert_allclose(got.astype(jnp.float32), plain(*wide), atol=0.1)


@pytest.mark.parametrize(("platform", "products"), [("cuda", 1), ("cpu", 2)])
def test_one_product_on_cuda(platform, products):
    def count(function):
        traced = jax.jit(function).trace(*arrays())
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        return program.count("stablehlo.dot_general")

    assert count(activated_product) == products
    gradient = jax.grad(lambda *args: activated_product(*args).sum(), (0, 1, 2))
    assert count(gradient) == 2 * products
