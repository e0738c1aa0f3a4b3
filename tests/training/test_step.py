import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lkdn_jax import LKDN, lkdn_s
from lkdn_jax.models.lkdn import draw_params, expected_params
from lkdn_jax.optim.adan import adan
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step, make_train_steps
from lkdn_jax.weights.published import from_published, to_published

MODEL = LKDN(scale=2, features=6, num_blocks=1)


def batches(count, size=4, patch=8):
    rng = np.random.default_rng(0)
    shape = (count, size, patch, patch, 3)
    lr = rng.integers(0, 256, shape, np.uint8)
    return lr, lr.repeat(2, 2).repeat(2, 3)


@pytest.mark.reference
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_ten_steps_of_the_authors_training(reference, loss):
    expected = np.load(reference / "training" / f"{loss}.npz")

    def tree(prefix):
        names = (name for name in expected.files if name.startswith(f"{prefix}/"))
        return {name.removeprefix(f"{prefix}/"): expected[name] for name in names}

    model, tx = lkdn_s(features=16), adan(5e-3)
    state = create_state(from_published(tree("init")), tx)
    step = jax.jit(make_train_step(model, tx, loss=loss), donate_argnums=0)
    for i in range(10):
        state, metrics = step(state, expected[f"lr_{i}"], expected[f"hr_{i}"])
        assert float(metrics["loss"]) == pytest.approx(expected["losses"][i], rel=1e-5)
    assert int(state.step) == 10
    for prefix, params in (("final", state.params), ("ema", state.ema_params)):
        ours = to_published(model, params)
        errors = [
            np.abs(ours[name] - array).max() / np.abs(array).max()
            for name, array in tree(prefix).items()
        ]
        assert len(errors) == len(ours)
        assert max(errors) <= 1e-3
        assert sum(error > 1e-4 for error in errors) <= 3


def test_learns():
    tx = adan(5e-3)
    state = create_state(draw_params(MODEL, seed=1), tx)
    step = jax.jit(make_train_step(MODEL, tx))
    lr, hr = (x[0] for x in batches(1))
    losses = []
    for _ in range(60):
        state, metrics = step(state, lr, hr)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.45 * losses[0]
    assert int(state.step) == 60


def test_several_steps_in_one_program_are_the_same_steps():
    tx = adan(5e-3)
    step = make_train_step(MODEL, tx)
    lr, hr = batches(5)
    state = one_by_one = create_state(draw_params(MODEL, seed=1), tx)
    together, metrics = jax.jit(make_train_steps(step, lambda _, batch: batch))(
        state, (), (lr, hr)
    )
    losses = []
    jitted = jax.jit(step)
    for i in range(5):
        one_by_one, row = jitted(one_by_one, lr[i], hr[i])
        losses.append(row["loss"])
    assert int(together.step) == 5
    assert metrics["loss"].shape == (5,)
    np.testing.assert_allclose(metrics["loss"], np.stack(losses), rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(together), jax.tree.leaves(one_by_one), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    tx = optax.sgd(0.1)
    state = create_state(draw_params(MODEL, seed=1), tx)
    lr, hr = (x[0] for x in batches(1, size=6))
    whole, metrics = jax.jit(make_train_step(MODEL, tx))(state, lr, hr)
    for accumulate in (2, 3):
        step = make_train_step(MODEL, tx, accumulate=accumulate)
        parts, others = jax.jit(step)(state, lr, hr)
        for a, b in zip(
            jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        for name, value in metrics.items():
            assert float(others[name]) == pytest.approx(float(value), rel=1e-4)


def test_metrics_and_average_are_what_they_say():
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    tx = optax.sgd(schedule)
    state = create_state(draw_params(MODEL, seed=1), tx)
    lr, hr = (x[0] for x in batches(1))
    options = {"loss": "l2", "schedule": schedule, "ema_decay": 0.75}
    step = jax.jit(make_train_step(MODEL, tx, **options))
    after, metrics = step(state, lr, hr)
    sr = jax.jit(MODEL.apply)({"params": state.params}, lr / np.float32(255))
    mse = float(np.mean((np.asarray(sr, np.float64) - hr / 255) ** 2))
    assert float(metrics["loss"]) == pytest.approx(mse, rel=1e-5)
    assert float(metrics["psnr"]) == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    moved = jax.tree.map(jnp.subtract, state.params, after.params)
    norm = float(np.sqrt(sum(np.sum(np.square(m)) for m in jax.tree.leaves(moved))))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    assert float(metrics["learning_rate"]) == 1.0
    assert float(step(after, lr, hr)[1]["learning_rate"]) == 0.75
    for old, new, ema in zip(
        *map(jax.tree.leaves, (state.params, after.params, after.ema_params)),
        strict=True,
    ):
        np.testing.assert_allclose(ema, 0.75 * old + 0.25 * new, atol=1e-7)


def test_remat_keeps_less_for_the_gradient():
    def kept(model):
        def residuals(params):
            lr = jnp.ones((1, 16, 16, 3))
            return jax.vjp(lambda p: model.apply({"params": p}, lr), params)

        kept = jax.eval_shape(residuals, expected_params(model))[1]
        return sum(leaf.size for leaf in jax.tree.leaves(kept))

    assert kept(MODEL.clone(remat=True)) < 0.4 * kept(MODEL)


def test_remat_and_bf16_change_speed_not_parameters_dtype():
    tx = adan(5e-3)
    state = create_state(draw_params(MODEL, seed=1), tx)
    lr, hr = (x[0] for x in batches(1))
    _, metrics = jax.jit(make_train_step(MODEL, tx))(state, lr, hr)
    again = jax.jit(make_train_step(MODEL.clone(remat=True), tx))(state, lr, hr)
    assert float(again[1]["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    np.testing.assert_allclose(again[1]["grad_norm"], metrics["grad_norm"], rtol=1e-5)
    half, low = jax.jit(make_train_step(MODEL.clone(dtype=jnp.bfloat16), tx))(
        state, lr, hr
    )
    assert float(low["loss"]) == pytest.approx(float(metrics["loss"]), rel=0.02)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(half.params)}
    assert dtypes == {jnp.dtype("float32")}
    assert low["loss"].dtype == jnp.float32
