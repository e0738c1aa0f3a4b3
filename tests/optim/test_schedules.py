import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.errors import InputError
from lkdn_jax.optim import create_schedule


def values(name, steps=10, **options):
    schedule = create_schedule(name, 0.1, steps=steps, **options)
    return np.array([schedule(i) for i in range(steps + 2)])


def test_constant():
    np.testing.assert_allclose(values("constant"), 0.1, rtol=1e-7)


def test_step():
    expected = [0.1] * 3 + [0.05] * 5 + [0.025] * 4
    np.testing.assert_allclose(values("step", boundaries=(3, 8)), expected, rtol=1e-6)
    lower = values("step", boundaries=(9,), decay=0.1)
    np.testing.assert_allclose(lower, [0.1] * 9 + [0.01] * 3, rtol=1e-6)


def test_cosine():
    t = np.minimum(np.arange(12), 10) / 10
    expected = 0.1 * 0.5 * (1 + np.cos(np.pi * t))
    np.testing.assert_allclose(values("cosine"), expected, rtol=1e-5, atol=1e-9)
    to_a_tenth = 0.1 * 0.1 + 0.9 * expected
    np.testing.assert_allclose(values("cosine", final=0.1), to_a_tenth, rtol=1e-5)


def test_wsd():
    expected = [0.1] * 7 + [0.075, 0.05, 0.025, 0, 0]
    ours = values("wsd", decay_fraction=0.4)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-9)
    ours = values("wsd", decay_fraction=0.2, final=0.5)
    np.testing.assert_allclose(ours, [0.1] * 9 + [0.075, 0.05, 0.05], rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "wsd"])
def test_warmup_is_linear_and_then_the_rest_begins(name):
    ours = values(name, warmup_steps=4, boundaries=[6])
    np.testing.assert_allclose(ours[:5], [0.02, 0.04, 0.06, 0.08, 0.1], rtol=1e-6)
    if name == "step":  # boundaries count the warm-up
        np.testing.assert_allclose(ours[5:7], [0.1, 0.05], rtol=1e-6)
    if name == "cosine":  # half of the six steps left
        np.testing.assert_allclose(ours[[7, 10]], [0.05, 0], rtol=1e-5, atol=1e-9)
    if name == "wsd":
        np.testing.assert_allclose(ours[[8, 9, 10]], [0.1, 0.05, 0], atol=1e-8)


def test_decay_may_fill_all_after_the_warmup():
    ours = values("wsd", warmup_steps=2, decay_fraction=0.8)
    np.testing.assert_allclose(ours[2:11], np.linspace(0.1, 0, 9), atol=1e-8)


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "wsd"])
def test_under_jit(name):
    steps = 1_000_000
    schedule = create_schedule(
        name, 5e-3, steps=steps, warmup_steps=5, boundaries=[999_999]
    )
    jitted = jax.jit(schedule)
    for count in (0, 5, 400_001, 999_998, 999_999, steps):
        y = jitted(jnp.asarray(count, jnp.int32))
        assert y.dtype == jnp.float32
        assert y.shape == ()
        np.testing.assert_allclose(y, schedule(count), rtol=1e-5, atol=1e-9)
    expected = {"constant": 5e-3, "step": 5e-3, "cosine": 2.5e-3, "wsd": 5e-3}
    np.testing.assert_allclose(jitted(jnp.int32(500_002)), expected[name], rtol=1e-4)
    expected = {"constant": 5e-3, "step": 2.5e-3, "cosine": 0, "wsd": 2.5e-8}
    np.testing.assert_allclose(jitted(jnp.int32(999_999)), expected[name], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cosin", "did you mean 'cosine'"), ("Steps", "did you mean 'step'"), ("?", "?")],
)
def test_unknown_name(name, hint):
    with pytest.raises(InputError) as error:
        create_schedule(name, 0.1, steps=10)
    assert repr(name) in str(error.value)
    assert hint in str(error.value)
    assert str(error.value).endswith("use constant, step, cosine, wsd")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("constant", {"learning_rate": 0.0}, "learning_rate 0.0"),
        ("constant", {"learning_rate": float("nan")}, "learning_rate nan"),
        ("constant", {"steps": 0}, "steps 0"),
        ("constant", {"warmup_steps": -1}, "warmup_steps -1"),
        ("cosine", {"warmup_steps": 10}, "warmup_steps 10: use 0 to 9"),
        ("step", {}, r"boundaries \(\)"),
        ("step", {"boundaries": [3, 10]}, r"boundaries \(3, 10\)"),
        ("step", {"boundaries": [0]}, r"boundaries \(0,\)"),
        ("step", {"boundaries": [5, 3]}, r"boundaries \(5, 3\)"),
        ("step", {"boundaries": ["x"]}, r"boundaries \('x',\)"),
        ("step", {"boundaries": [2], "warmup_steps": 2}, "between warmup_steps 2"),
        ("step", {"boundaries": [3], "decay": 0.0}, "decay 0.0"),
        ("cosine", {"final": -0.1}, "final -0.1"),
        ("wsd", {"final": 1.1}, "final 1.1"),
        ("wsd", {"decay_fraction": 0.0}, "decay_fraction 0.0"),
        ("wsd", {"decay_fraction": 1.5}, "decay_fraction 1.5"),
        ("wsd", {"decay_fraction": 0.9, "warmup_steps": 2}, "9 steps of decay and 2"),
    ],
)
def test_impossible_values(name, options, value):
    arguments = {"learning_rate": 0.1, "steps": 10, **options}
    with pytest.raises(InputError, match=value) as error:
        create_schedule(name, **arguments)
    assert "\n" not in str(error.value)
