import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.ops.gelu import gelu

X = np.linspace(-12, 12, 100_001, dtype=np.float32)
CDF = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in X.astype(np.float64)])
DENSITY = np.exp(-0.5 * X.astype(np.float64) ** 2) / math.sqrt(2 * math.pi)


def test_values_are_exact_to_rounding():
    error = np.abs(np.asarray(jax.jit(gelu)(X)) - X * CDF)
    assert error.max() < 6e-7
    assert (error / np.maximum(1, np.abs(X))).max() < 2e-7


def test_far_values_are_zero_or_the_input():
    far = jnp.array([-1e30, -50.0, 50.0, 1e30])
    np.testing.assert_allclose(gelu(far), [0, 0, 50, 1e30], rtol=1e-6, atol=5e-7)
    assert np.isnan(gelu(jnp.array([jnp.nan]))).all()


def test_gradient_keeps_its_digits_where_it_is_tiny():
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(gelu)))(X)
    np.testing.assert_allclose(values, X * CDF, rtol=2e-5, atol=1e-30)
    np.testing.assert_allclose(slopes, CDF + X * DENSITY, rtol=3e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_the_dtype(dtype):
    x = jnp.asarray(X, dtype)
    assert gelu(x).dtype == jax.grad(lambda x: gelu(x).sum())(x).dtype == dtype


def test_float64_is_exact():
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        np.testing.assert_allclose(gelu(x), X * CDF, rtol=1e-12, atol=1e-15)
