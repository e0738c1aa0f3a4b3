import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lkdn_jax
from lkdn_jax import LKDN, lkdn_s
from lkdn_jax.models.frames import unframe
from lkdn_jax.models.lkdn import draw_params, expected_params

SMALL = {"features": 8, "num_blocks": 2}


def random_lr(*shape):
    return jnp.asarray(np.random.default_rng(0).random(shape, np.float32))


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["LKDN_x2", "LKDN_x3", "LKDN_x4", "LKDN-S_x4", "LKDN-S_del_rep_x4"]
)
def test_computes_what_the_published_network_computes(reference, name):
    model, params = lkdn_jax.load(reference / "weights" / f"{name}.pth")
    expected = np.load(reference / "forward" / f"{name}.npz")

    @jax.jit
    def forward(params, lr):
        return model.apply(
            {"params": params}, lr, capture_intermediates=True, mutable="intermediates"
        )

    sr, state = forward(params, expected["noise_lr"][None])
    assert np.abs(sr[0] - expected["noise_sr"]).max() <= 2e-5
    for module in ("fea_conv", "B1", "c2"):
        inner = state["intermediates"][module]["__call__"][0]
        inner = unframe(inner) if module == "B1" else inner
        assert np.abs(inner[0] - expected[f"noise_{module}"]).max() <= 2e-5, module
    sr, _ = forward(params, expected["crop_lr"][None])
    assert np.abs(sr[0] - expected["crop_sr"]).max() <= 2e-5


@pytest.mark.parametrize("shallow_block", ["BSB", "BSRB", "RBSB"])
@pytest.mark.parametrize("upsampler", ["direct", "rep"])
def test_all_sizes_are_arguments(init, shallow_block, upsampler):
    model = LKDN(
        scale=5,
        features=10,
        num_blocks=3,
        distilled=4,
        attention_features=6,
        shallow_block=shallow_block,
        upsampler=upsampler,
    )
    variables = init(model)
    params = variables["params"]
    assert params["B3"]["c4"]["pw"]["kernel"].shape == (1, 1, 10, 4)
    assert params["B3"]["atten"]["depthwise"]["kernel"].shape == (5, 5, 1, 6)
    assert params["c1"]["kernel"].shape == (1, 1, 30, 10)
    sr = jax.jit(model.apply)(variables, random_lr(2, 7, 4, 3))
    assert sr.shape == (2, 35, 20, 3)


@pytest.mark.parametrize("model", [LKDN(**SMALL), lkdn_s(**SMALL)], ids=["BSB", "RBSB"])
def test_masked_padding_changes_nothing(init, model):
    variables = init(model)
    lr = random_lr(1, 11, 9, 3)
    alone = jax.jit(model.apply)(variables, lr)
    padded = jnp.pad(lr, ((0, 0), (0, 6), (0, 5), (0, 0)), constant_values=jnp.nan)
    valid = jnp.zeros((1, 17, 14, 1), bool).at[:, :11, :9].set(True)
    out = jax.jit(model.apply)(variables, padded, valid)
    np.testing.assert_allclose(out[:, :44, :36], alone, atol=2e-6)


@pytest.mark.parametrize("remat", [False, True])
def test_draws_the_parameters_of_init(remat):
    model = lkdn_s(2, features=2, num_blocks=2, remat=remat)
    lr = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    params = model.clone(remat=False).lazy_init(jax.random.key(3), lr)["params"]
    drawn = draw_params(model, seed=3)
    assert jax.tree.structure(drawn) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, drawn, params)
    expected = expected_params(model)
    assert jax.tree.structure(expected) == jax.tree.structure(params)
    kinds = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), expected) == kinds


def test_equal_blocks_are_lowered_once():
    lr = jax.ShapeDtypeStruct((1, 9, 8, 3), jnp.float32)

    def products(num_blocks, transform):
        model = LKDN(features=8, num_blocks=num_blocks)

        def mean(params, lr):
            return model.apply({"params": params}, lr).mean()

        program = jax.jit(transform(mean)).lower(expected_params(model), lr)
        return program.as_text().count("stablehlo.dot_general")

    # Each block's share of the trunk, and its two gradients.
    for transform, share in ((lambda mean: mean, 1), (jax.grad, 3)):
        assert products(5, transform) - products(3, transform) == 2 * share


def test_captures_what_is_asked_for(init):
    model = LKDN(**SMALL)
    variables, lr = init(model), random_lr(1, 8, 8, 3)

    def captured(name):
        _, state = model.apply(
            variables,
            lr,
            capture_intermediates=lambda module, _: module.name == name,
            mutable="intermediates",
        )
        return set(state["intermediates"]["B2"])

    assert [captured("c1_d"), captured("c1_r")] == [{"c1_d"}, {"c1_r"}]


def test_jit_vmap_and_grad(init):
    model = LKDN(**SMALL)
    variables = init(model)
    lr = random_lr(3, 9, 8, 3)
    eager = model.apply(variables, lr)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, lr), eager, atol=2e-6)
    one_by_one = jax.vmap(lambda x: model.apply(variables, x[None])[0])(lr)
    np.testing.assert_allclose(one_by_one, eager, atol=2e-6)

    rng = np.random.default_rng(2)
    weight = jnp.asarray(rng.normal(size=eager.shape), jnp.float32)
    with jax.enable_x64(True):  # finite differences need it
        variables, lr, weight = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (variables, lr, weight)
        )

        @jax.jit
        def loss(lr):
            return (model.apply(variables, lr) * weight).sum()

        step, direction = 1e-6, rng.normal(size=lr.shape)
        ahead, behind = loss(lr + step * direction), loss(lr - step * direction)
        slope = float((jax.grad(loss)(lr) * direction).sum())
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


EXPLICIT = """
from functools import partial
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import lkdn_jax

jax.config.update("jax_num_cpu_devices", 2)
mesh = jax.make_mesh((2,), ("images",), (AxisType.Explicit,))
model = lkdn_jax.lkdn_s(2, features=4, num_blocks=1)
whole = np.random.default_rng(0).random((4, 7, 9, 3), np.float32)
params = model.init(jax.random.key(0), whole)["params"]
split = jax.device_put(whole, NamedSharding(mesh, PartitionSpec("images")))
on_all_devices = NamedSharding(mesh, PartitionSpec())
on_all = jax.device_put(params, on_all_devices)

@jax.jit
@partial(jax.grad, has_aux=True)
def grad(params, lr):
    sr = model.apply({"params": params}, lr)
    return jnp.square(sr - 0.5).mean(), sr

expected = grad(params, whole)
program = grad.lower(on_all, split).compile()
found = program(on_all, split)
jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), found, expected)
fast, folded = lkdn_jax.optimized_model(model), lkdn_jax.optimize_for_inference(params)
sr = jax.jit(fast.apply)({"params": jax.device_put(folded, on_all_devices)}, split)
np.testing.assert_allclose(sr, expected[1], atol=2e-5)
print(found[1].sharding.spec, sr.sharding.spec)
print(program.as_text().count(" all-gather("), program.as_text().count(" all-to-all("))
"""


def test_images_may_be_split_over_explicit_axes():
    command = [sys.executable, "-c", EXPLICIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == " ".join(["P('images', None, None, None)"] * 2) + "\n0 0\n", (
        done.stderr
    )


def test_bf16_computes_in_bf16_and_keeps_float32_parameters(init):
    model = LKDN(**SMALL, dtype=jnp.bfloat16)
    variables = init(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    lr = random_lr(1, 12, 12, 3)
    sr, state = jax.jit(partial(model.apply, capture_intermediates=True))(variables, lr)
    exact = jax.jit(model.clone(dtype=None).apply)(variables, lr)
    assert sr.dtype == jnp.float32
    assert 0 < np.abs(sr - exact).max() < 0.02 * np.abs(exact).max()
    inner = state["intermediates"]
    for module in ("c1_d", "c1_r", "c4", "c5", "atten", "c6"):
        assert inner["B2"][module]["__call__"][0].dtype == jnp.bfloat16
    # What adds up over the whole depth.
    for module in ("fea_conv", "B1", "c1", "c2", "upsampler"):
        assert inner[module]["__call__"][0].dtype == jnp.float32


@pytest.mark.reference
def test_bf16_on_a_real_image(reference):
    model, params = lkdn_jax.load(reference / "weights" / "LKDN_x4.pth")
    expected = np.load(reference / "forward" / "LKDN_x4.npz")
    half = model.clone(dtype=jnp.bfloat16)
    sr = jax.jit(half.apply)({"params": params}, expected["crop_lr"][None])[0]
    rms = float(np.sqrt(np.mean((sr - expected["crop_sr"]) ** 2)))
    assert rms < 0.004  # one grey level of 255


def test_refuses_what_it_cannot_upscale(init):
    model = LKDN(**SMALL)
    variables = init(model)
    with pytest.raises(TypeError, match="divide 8-bit images by 255"):
        model.apply(variables, jnp.zeros((1, 8, 8, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"LKDN takes \[n, h, w, 3\]"):
        model.apply(variables, jnp.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="unknown 'XSB': use one of BSB, BSRB, RBSB"):
        init(LKDN(**SMALL, shallow_block="XSB"))
    for name in ("scale", "features", "num_blocks", "distilled", "attention_features"):
        with pytest.raises(ValueError, match=rf"{name} 2\.5: must be a whole number"):
            expected_params(LKDN(**{name: 2.5}))
        expected_params(LKDN(**{"num_blocks": 1, name: np.int64(4)}))
        with pytest.raises(ValueError, match=f"{name} 0: must be at least 1"):
            init(LKDN(**SMALL | {name: 0}))


def test_in_bf16_the_image_is_not_rounded(init):
    model = LKDN(features=8, num_blocks=1)
    variables = init(model)
    lr = jnp.asarray(np.random.default_rng(0).random((1, 12, 12, 3)), jnp.float32)

    def first_layer(model):
        _, seen = model.apply(
            variables,
            lr,
            capture_intermediates=lambda module, _: module.name == "fea_conv",
            mutable="intermediates",
        )
        return seen["intermediates"]["fea_conv"]["__call__"][0]

    np.testing.assert_array_equal(
        first_layer(model), first_layer(model.clone(dtype=jnp.bfloat16))
    )
