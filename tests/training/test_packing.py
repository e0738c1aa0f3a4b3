import jax
import numpy as np
import pytest

from lkdn_jax import LKDN
from lkdn_jax.models.lkdn import draw_params
from lkdn_jax.optim.adan import adan
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step

MODEL = LKDN(scale=2, features=6, num_blocks=1)


@pytest.fixture(scope="module")
def params():
    return draw_params(MODEL, seed=1)


def test_a_packed_state_is_a_few_vectors_and_comes_back_whole(params):
    state = create_state(params, adan(5e-3))
    packing = Packing(params)
    packed = packing.pack(state)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    # Parameters, average, and what Adan remembers: three means and a gradient.
    vectors = [leaf for leaf in jax.tree.leaves(packed) if leaf.shape == (count,)]
    assert len(vectors) == 6
    assert all(leaf.shape in ((count,), ()) for leaf in jax.tree.leaves(packed))
    back = packing.unpack(packed)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_gradient_by_the_vector_is_that_by_the_tree(params, init):
    packing = Packing(params)
    slopes = init(MODEL)["params"]
    (vector,) = jax.vjp(packing.params, packing.pack(params))[1](slopes)
    np.testing.assert_array_equal(vector, packing.pack(slopes))


def test_packed_steps_are_the_same_steps(params):
    tx, packing = adan(5e-3), Packing(params)
    rng = np.random.default_rng(0)
    lr = rng.random((3, 4, 8, 8, 3), np.float32)
    hr = lr.repeat(2, 2).repeat(2, 3)
    trees = create_state(params, tx)
    packed = packing.pack(trees)
    by_tree = jax.jit(make_train_step(MODEL, tx))
    by_vector = jax.jit(make_train_step(MODEL, tx, packing=packing))
    for batch in zip(lr, hr, strict=True):
        trees, expected = by_tree(trees, *batch)
        packed, metrics = by_vector(packed, *batch)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    found = packing.unpack(packed)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(trees), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
