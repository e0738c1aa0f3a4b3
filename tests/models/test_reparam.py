import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lkdn_jax
from lkdn_jax import LKDN, InputError, fold, fold_difference, folded_model, lkdn_s
from lkdn_jax.models import reparam


@pytest.mark.reference
def test_folds_the_published_lkdn_s_as_the_authors_did(reference):
    weights = reference / "weights"
    model, params = lkdn_jax.load(weights / "LKDN-S_x4.pth")
    authors_model, authors = lkdn_jax.load(weights / "LKDN-S_del_rep_x4.pth")
    folded = fold(params)
    assert folded_model(model) == authors_model
    assert jax.tree.structure(folded) == jax.tree.structure(authors)
    for ours, theirs in zip(
        jax.tree.leaves(folded), jax.tree.leaves(authors), strict=True
    ):
        assert np.abs(ours - theirs).max() <= 1e-6


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize(("features", "num_blocks"), [(6, 1), (10, 3)])
def test_folds_any_width_depth_and_scale(init, scale, features, num_blocks):
    model = lkdn_s(scale, features=features, num_blocks=num_blocks)
    params = init(model)["params"]
    folded = fold(params)
    expected = jax.eval_shape(
        folded_model(model).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )["params"]
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, expected)
    assert fold_difference(model, params, size=12) < 1e-5


def test_sums_are_rounded_once(init):
    params = jax.tree.map(np.zeros_like, init(lkdn_s(2, features=4))["params"])
    block = params["B1"]["c1_r"]
    block["dw"]["kernel"][1, 1] = -1  # and 1 of the identity
    block["rep1x1"]["kernel"][:] = 1e-8
    folded = fold(params)["B1"]["c1_r"]["dw"]["kernel"]
    np.testing.assert_allclose(folded[1, 1], 1e-8, rtol=1e-6)


def test_difference_sees_a_wrong_fold(init, monkeypatch):
    model = lkdn_s(2, features=6, num_blocks=1)
    params = init(model)["params"]

    def wrong(params):
        conv = right(params)["conv3"]
        return {"conv3": conv | {"bias": conv["bias"] + 0.01}}

    right = reparam._fold_upsampler
    monkeypatch.setattr(reparam, "_fold_upsampler", wrong)
    assert fold_difference(model, params, size=12) == pytest.approx(0.01, rel=1e-3)


def test_leaves_alone_what_cannot_be_folded(init):
    model = LKDN(scale=2, features=6, num_blocks=2, shallow_block="BSRB")
    params = init(model)["params"]
    folded = fold(params)
    assert folded_model(model) == model
    for ours, theirs in zip(
        jax.tree.leaves(folded), jax.tree.leaves(params), strict=True
    ):
        assert ours is theirs


def test_a_folded_network_refuses_parameters_that_are_not(init):
    for model, name in (
        (LKDN(scale=2, features=6, num_blocks=1, shallow_block="RBSB"), "rep1x1"),
        (LKDN(scale=2, features=6, num_blocks=1, upsampler="rep"), "conv1x1"),
    ):
        params, lr = init(model)["params"], jnp.zeros((1, 4, 4, 3))
        assert jax.eval_shape(model.apply, {"params": params}, lr).shape[1] == 8
        with pytest.raises(InputError, match=f"was given {name}, .*lkdn_jax.fold"):
            jax.eval_shape(folded_model(model).apply, {"params": params}, lr)
        residual = model.clone(shallow_block="BSRB", upsampler="direct")
        with pytest.raises(InputError, match=f"was given {name}"):
            jax.eval_shape(residual.apply, {"params": params}, lr)


def test_is_pure_and_idempotent(init):
    params = init(lkdn_s(2, features=6, num_blocks=1))["params"]
    before = jax.tree.map(np.array, params)
    once = fold(params)
    jax.tree.map(np.testing.assert_array_equal, before, params)
    jax.tree.map(np.testing.assert_array_equal, fold(once), once)


def test_difference_is_the_largest_and_of_an_image(init, monkeypatch):
    model = lkdn_s(2, features=4, num_blocks=1)
    params = init(model)["params"]
    upsampler, rbsb = reparam._fold_upsampler, reparam._fold_rbsb

    def one_bias_more(params):
        conv = upsampler(params)["conv3"]
        return {"conv3": conv | {"bias": conv["bias"].at[5].add(0.25)}}  # of twelve

    def half_the_products(params):
        folded = rbsb(params)
        return folded | {"pw": {"kernel": folded["pw"]["kernel"] / 2}}

    with monkeypatch.context() as patched:
        patched.setattr(reparam, "_fold_upsampler", one_bias_more)
        found = fold_difference(model, params, size=12)
        assert found == pytest.approx(0.25, rel=1e-3)
    monkeypatch.setattr(reparam, "_fold_rbsb", half_the_products)
    assert fold_difference(model, params, size=12) > 1e-3
