import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lkdn_jax.errors import InputError
from lkdn_jax.optim import adan, create_optimizer, create_schedule

GRADIENTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def run(tx, gradients=GRADIENTS):
    params = jnp.array([1.0, -2.0, 3.0, 0.5])
    state = tx.init(params)
    for g in gradients:
        updates, state = jax.jit(tx.update)(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


def test_adan_is_ours():
    ours = run(create_optimizer("adan", 5e-3, weight_decay=0.02))
    np.testing.assert_array_equal(ours, run(adan(5e-3, weight_decay=0.02)))
    ours = run(create_optimizer("adan", 5e-3, betas=(0.9, 0.8, 0.95), eps=1e-3))
    np.testing.assert_array_equal(ours, run(adan(5e-3, 0.9, 0.8, 0.95, 1e-3)))
    before = run(create_optimizer("adan", 0.1, weight_decay=0.5, no_prox=True))
    np.testing.assert_array_equal(
        before, run(adan(0.1, weight_decay=0.5, no_prox=True))
    )


@pytest.mark.parametrize("betas", [None, (0.8, 0.9)])
@pytest.mark.parametrize(("weight_decay", "eps"), [(0.0, 1e-8), (0.5, 1e-8), (0.5, 1)])
def test_adam_equals_its_equations(betas, weight_decay, eps):
    b1, b2 = betas or (0.9, 0.99)
    p, m, v = np.array([1.0, -2.0, 3.0, 0.5]), np.zeros(4), np.zeros(4)
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - 0.01 * (step + weight_decay * p)
    options = {"betas": betas, "weight_decay": weight_decay, "eps": eps}
    tx = create_optimizer("adam", 0.01, **options)
    np.testing.assert_allclose(run(tx), p, rtol=2e-6)


@pytest.mark.parametrize("name", ["adan", "adam"])
def test_clips_the_global_norm(name):
    norms = np.linalg.norm(GRADIENTS, axis=1, keepdims=True)
    assert norms.max() > 1.5 > norms.min()
    shortened = GRADIENTS * np.minimum(1, 1.5 / norms)
    clipped = run(create_optimizer(name, 0.1, max_grad_norm=1.5))
    np.testing.assert_allclose(
        clipped, run(create_optimizer(name, 0.1), shortened), rtol=1e-5
    )
    assert np.abs(clipped - run(create_optimizer(name, 0.1))).max() > 1e-3


@pytest.mark.parametrize("name", ["adan", "adam"])
def test_a_run_may_begin_to_clip(name):
    params = jnp.zeros(4)
    clipping, other = (
        create_optimizer(name, 0.1, max_grad_norm=1.0),
        (create_optimizer(name, 0.1)),
    )
    states = (clipping.init(params), other.init(params))
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    clipping.update(jnp.ones(4), states[1], params)


@pytest.mark.parametrize("name", ["adan", "adam"])
def test_takes_schedules_and_masks(name):
    schedule = create_schedule("step", 0.1, steps=6, boundaries=[1], decay=1e-6)
    tx = create_optimizer(
        name, schedule, weight_decay=1.0, mask=lambda p: jax.tree.map(jnp.ndim, p)
    )
    params = {"kernel": jnp.ones((1, 1)), "scalar": jnp.ones(())}
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(zeros, state, params)
        params = optax.apply_updates(params, updates)
    once = 1 / 1.1 if name == "adan" else 0.9
    np.testing.assert_allclose(params["kernel"], [[once]], rtol=1e-6)
    assert params["scalar"] == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adam2", "'adam'"), ("Adan", "'adan'"), ("sgd", "use adan, adam")],
)
def test_unknown_name(name, hint):
    with pytest.raises(InputError, match=f"unknown optimizer '{name}'") as error:
        create_optimizer(name, 0.1)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"betas": (0.9, 0.99)}, r"betas \(0.9, 0.99\): adan takes 3"),
        ({"betas": (0.9, 0.99, 1.0)}, "betas"),
        ({"betas": ("(0.9", 0.99, 0.9)}, "betas .*adan takes 3, each 0 to below 1"),
        ({"learning_rate": -1}, "learning_rate -1"),
        ({"learning_rate": float("inf")}, "learning_rate inf"),
        ({"eps": -1.0}, "eps -1.0"),
        ({"weight_decay": -0.1}, "weight_decay -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay nan"),
        ({"max_grad_norm": 0.0}, "max_grad_norm 0.0"),
    ],
)
def test_impossible_values(options, value):
    with pytest.raises(InputError, match=value) as error:
        create_optimizer("adan", **{"learning_rate": 0.1} | options)
    assert "\n" not in str(error.value)
