import doctest
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lkdn_jax.optim import adan, create_schedule, scale_by_adan
from lkdn_jax.optim.adan import ScaleByAdanState, add_proximal_weight_decay


def oracle(
    params,
    gradients,
    lr,
    betas=(0.98, 0.92, 0.99),
    eps=1e-8,
    weight_decay=0.0,
    no_prox=False,
    max_grad_norm=None,
    lr_drop=1.0,
):
    """Yield the parameters after every step, in float64."""
    b1, b2, b3 = betas
    params = [p.astype(np.float64) for p in params]
    m, v, n = ([np.zeros_like(p) for p in params] for _ in range(3))
    last = None
    for t, gradient in enumerate(gradients, 1):
        g = [x.astype(np.float64) for x in gradient]
        if max_grad_norm is not None:
            norm = np.sqrt(sum((x**2).sum() for x in g))
            g = [x * min(1, max_grad_norm / norm) for x in g]
        rate = lr * (lr_drop if t > 10 else 1)
        for i, p in enumerate(params):
            d = g[i] - (g if last is None else last)[i]
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * d
            n[i] = b3 * n[i] + (1 - b3) * (g[i] + b2 * d) ** 2
            step = m[i] / (1 - b1**t) + b2 * v[i] / (1 - b2**t)
            step = -rate * step / (np.sqrt(n[i] / (1 - b3**t)) + eps)
            decay = rate * weight_decay
            params[i] = p * (1 - decay) + step if no_prox else (p + step) / (1 + decay)
        last = g
        yield list(params)


def trajectory(tx, params, gradients):
    """Yield the parameters after every step of an optax optimizer."""
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update(jax.tree.map(jnp.asarray, gradient), state, params)
        params = optax.apply_updates(params, updates)
        yield jax.tree.map(np.asarray, params)


def draw(seed=0, steps=30, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (5,), ()]
    params = [np.asarray(rng.uniform(0.5, 2, shape), dtype) for shape in shapes]
    gradients = [
        [np.asarray(rng.normal(0, size, shape), dtype) for shape in shapes]
        for size in 10.0 ** rng.integers(-4, 3, steps)
    ]
    return params, gradients


NAMES = ["default", "decay_prox", "decay_no_prox", "clip", "betas_eps", "lr_drop"]


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES)
def test_published_trajectories(reference, name):
    folder = reference / "adan"
    arguments = json.loads((folder / "arguments.json").read_text())[name]
    with np.load(folder / f"{name}.npz") as table:
        start = [table["p0"], table["p1"]]
        gradients = [[table[f"g{k}_{i}"] for k in (0, 1)] for i in range(20)]
        expected = [[table[f"p{k}_{i}"] for k in (0, 1)] for i in range(20)]
    exact = list(oracle(start, gradients, **arguments))
    rate, norm = arguments.pop("lr"), arguments.pop("max_grad_norm", None)
    if drop := arguments.pop("lr_drop", None):
        rate = create_schedule("step", rate, steps=20, boundaries=[10], decay=drop)
    tx = adan(rate, *arguments.pop("betas", ()), **arguments)
    if norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(norm), tx)
    ours = list(trajectory(tx, start, gradients))
    assert len(ours) == 20
    for step in range(20):
        for y, published, target in zip(
            ours[step], expected[step], exact[step], strict=True
        ):
            assert np.abs(y - published).max() <= 1e-6 * np.abs(published).max()
            # Element by element, but where a parameter of `betas_eps` passes zero
            # (3e-4): there the published ones are 6e-6 away from float64, and ours
            # depend on how a version of jax rounds (1e-9).
            np.testing.assert_allclose(y, published, rtol=1e-6, atol=5e-9)
            np.testing.assert_allclose(y, target, rtol=1e-6, atol=2e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.3},
        {"weight_decay": 0.3, "no_prox": True},
        {"b1": 0.5, "b2": 0.0, "b3": 0.9, "eps": 0.1},
    ],
)
def test_equals_the_equations(options):
    params, gradients = draw()
    betas = (options.get("b1", 0.98), options.get("b2", 0.92), options.get("b3", 0.99))
    rest = {k: v for k, v in options.items() if k not in ("b1", "b2", "b3")}
    for y, target in zip(
        trajectory(adan(0.01, **options), params, gradients),
        oracle(params, gradients, 0.01, betas, **rest),
        strict=True,
    ):
        for a, b in zip(y, target, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_float64_is_exact():
    with jax.enable_x64(True):
        params, gradients = draw(1, dtype=np.float64)
        tx = adan(0.01, weight_decay=0.3)
        ours = list(trajectory(tx, params, gradients))
    assert ours[0][0].dtype == np.float64
    target = list(oracle(params, gradients, 0.01, weight_decay=0.3))
    for a, b in zip(ours[-1], target[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_is_not_the_adan_of_optax():
    params, gradients = draw()
    with jax.numpy_dtype_promotion("standard"):
        *_, theirs = trajectory(optax.adan(0.01), params, gradients)
    *_, ours = trajectory(adan(0.01), params, gradients)
    assert np.abs(ours[0] - theirs[0]).max() > 1e-3


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_first_step_has_no_difference(size):
    g = size * jnp.array([1.0, -3.0, 0.0])
    tx = scale_by_adan()
    direction, state = tx.update(g, tx.init(g))
    # Without a difference and corrected, m̂/√n̂ is the sign; with 1 − bᵗ computed as
    # written in float32 it would be off by 1e-6.
    expected = g / (jnp.abs(g) + 1e-8)
    np.testing.assert_allclose(direction, expected, rtol=3e-7)
    assert isinstance(state, ScaleByAdanState)
    np.testing.assert_array_equal(state.v, 0)
    np.testing.assert_array_equal(state.previous, g)
    np.testing.assert_allclose(state.m, 0.02 * g, rtol=1e-6)
    np.testing.assert_allclose(state.n, 0.01 * g**2, rtol=1e-6)
    assert state.count == 1
    assert state.count.dtype == jnp.int32


def test_second_step_by_hand():
    tx = scale_by_adan(0.5, 0.5, 0.75, eps=1.0)
    state = tx.init(jnp.zeros(()))
    for g in (1.0, 3.0):
        direction, state = tx.update(jnp.asarray(g), state)
    # d = 2, m = 1.75, v = 1, n = 0.75·0.25 + 0.25·4² = 4.1875
    assert (state.m, state.v, state.n) == (1.75, 1.0, 4.1875)
    expected = (1.75 / 0.75 + 0.5 * 1 / 0.75) / ((4.1875 / 0.4375) ** 0.5 + 1)
    np.testing.assert_allclose(direction, expected, rtol=3e-7)


def test_zero_gradients_move_nothing():
    params = {"w": jnp.ones(3)}
    tx = adan(0.1)
    updates, _ = tx.update({"w": jnp.zeros(3)}, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], 0)


@pytest.mark.parametrize("no_prox", [False, True])
@pytest.mark.parametrize("as_function", [False, True])
def test_mask_chooses_what_decays(no_prox, as_function):
    params = {"conv": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}}
    mask = {"conv": {"kernel": True, "bias": False}}
    tx = adan(
        0.1,
        weight_decay=0.5,
        no_prox=no_prox,
        mask=(lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree))
        if as_function
        else mask,
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    new = optax.apply_updates(params, updates)["conv"]
    kernel = 2 * (1 - 0.05) if no_prox else 2 / (1 + 0.05)
    np.testing.assert_allclose(new["kernel"], kernel, rtol=2e-7)
    np.testing.assert_array_equal(new["bias"], 2.0)


def test_proximal_decay_follows_the_schedule():
    schedule = create_schedule("step", 0.5, steps=4, boundaries=[2], decay=0.2)
    tx = add_proximal_weight_decay(schedule, 1.0)
    params = jnp.array([3.0])
    state = tx.init(params)
    expected = 3.0
    for rate in (0.5, 0.5, 0.1, 0.1):
        updates, state = tx.update(jnp.array([-0.25]), state, params)
        params = optax.apply_updates(params, updates)
        expected = (expected - 0.25) / (1 + rate)
        np.testing.assert_allclose(params, [expected], rtol=3e-7)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(params, state)


def test_schedule_equals_constants_in_turn():
    params, gradients = draw(2, steps=6)
    schedule = create_schedule("step", 0.1, steps=6, boundaries=[3])
    by_schedule = list(trajectory(adan(schedule, weight_decay=0.3), params, gradients))
    tx = optax.inject_hyperparams(adan)(0.1, weight_decay=0.3)
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for i, gradient in enumerate(gradients):
        if i == 3:
            state.hyperparams["learning_rate"] = jnp.asarray(0.05)
        g = jax.tree.map(jnp.asarray, gradient)
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        for a, b in zip(params, by_schedule[i], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)


@pytest.mark.parametrize("no_prox", [False, True])
def test_injected_hyperparameters(no_prox):
    params, gradients = draw(3, steps=8)
    schedule = create_schedule("cosine", 0.1, steps=8, warmup_steps=2)
    mask = jax.tree.map(lambda p: p.ndim > 0, params)
    options = {"weight_decay": 0.3, "no_prox": no_prox, "mask": mask}
    inject = optax.inject_hyperparams(adan, static_args=("mask",))
    for a, b in zip(
        trajectory(inject(schedule, **options), params, gradients),
        trajectory(adan(schedule, **options), params, gradients),
        strict=True,
    ):
        for x, y in zip(a, b, strict=True):
            # 1 − b of a float32 b has fewer digits than of Python's.
            np.testing.assert_allclose(x, y, rtol=1e-5)


def test_multi_steps_averages():
    params, gradients = draw(4, steps=8)
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    means = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in pairs]
    tx = adan(0.1, weight_decay=0.3)
    # optax's MultiSteps multiplies floats by booleans and counts.
    with jax.numpy_dtype_promotion("standard"):
        every = list(trajectory(optax.MultiSteps(tx, 2), params, gradients))
    for i, once in enumerate(trajectory(tx, params, means)):
        for a, b in zip(every[2 * i + 1], once, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)
    for a, b in zip(every[0], params, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("inject", [False, True])
def test_traces_once_and_donates(inject):
    make = optax.inject_hyperparams(adan) if inject else adan
    schedule = create_schedule("wsd", 0.1, steps=9, warmup_steps=2)
    tx = optax.chain(optax.clip_by_global_norm(1.0), make(schedule, weight_decay=0.1))
    traces = 0

    def step(params, state, gradients):
        nonlocal traces
        traces += 1
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    state = tx.init(params)
    structure = jax.tree.structure(state)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(3):
        gradients = jax.tree.map(jnp.ones_like, params)
        params, state = jitted(params, state, gradients)
    assert traces == 1
    assert jax.tree.structure(state) == structure
    assert optax.tree_utils.tree_get(state, "m")["w"].shape == (3, 2)
    assert float(params["w"][0, 0]) < 1


def test_narrow_parameters_keep_a_wide_state():
    params, gradients = draw(5, steps=5)
    narrow = [jnp.asarray(p, jnp.bfloat16) for p in params]
    tx = adan(0.1, weight_decay=0.3)
    state, wide_state = (
        tx.init(narrow),
        tx.init([p.astype(jnp.float32) for p in narrow]),
    )
    for gradient in gradients:
        g = [jnp.asarray(x, jnp.bfloat16) for x in gradient]
        updates, state = jax.jit(tx.update)(g, state, narrow)
        wide, wide_state = tx.update(
            [x.astype(jnp.float32) for x in g],
            wide_state,
            [p.astype(jnp.float32) for p in narrow],
        )
        for a, b in zip(updates, wide, strict=True):
            assert a.dtype == jnp.bfloat16
            # Rounded after the direction, the learning rate and the decay.
            np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2e-2, atol=1e-3)
        narrow = optax.apply_updates(narrow, updates)
    for name in ("m", "v", "n", "previous"):
        trees = getattr(state[0], name), getattr(wide_state[0], name)
        for a, b in zip(*trees, strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert all(p.dtype == jnp.bfloat16 for p in narrow)


def test_state_mirrors_the_parameters():
    params = {"a": {"kernel": jnp.ones((2, 3)), "empty": {}}, "b": [jnp.ones(1)]}
    tx = scale_by_adan()
    state = tx.init(params)
    for tree in state[1:]:
        assert jax.tree.structure(tree) == jax.tree.structure(params)
    direction, state = jax.jit(tx.update)(params, state)
    assert jax.tree.structure(direction) == jax.tree.structure(params)
    marked = optax.tree_utils.tree_map_params(tx, lambda _: "p", state)
    assert marked.count == 1
    assert set(jax.tree.leaves(marked[1:])) == {"p"}


def test_optimizes_a_quadratic():
    scales = jnp.array([1.0, 10.0, 100.0])
    schedule = create_schedule("cosine", 0.1, steps=1000)
    tx = adan(schedule)

    def loss(x):
        return 0.5 * jnp.sum(scales * x**2)

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(jax.grad(loss)(x), state, x)
        return (optax.apply_updates(x, updates), state), None

    x = jnp.array([1.0, -2.0, 3.0])
    (x, _), _ = jax.lax.scan(step, (x, tx.init(x)), length=1000)
    assert loss(x) < 1e-9


def test_example():
    module = importlib.import_module("lkdn_jax.optim.adan")
    result = doctest.testmod(module)
    assert result.attempted >= 6
    assert result.failed == 0
