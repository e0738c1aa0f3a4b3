import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization

import lkdn_jax
from lkdn_jax import LKDN, InputError, lkdn_s
from lkdn_jax.weights.published import deduce_architecture, to_published
from lkdn_jax.weights.torch_file import read_pth

MODELS = {
    "LKDN": LKDN(scale=3, features=8, num_blocks=2),
    "LKDN-S": lkdn_s(2, features=6, num_blocks=5),
    "folded": LKDN(scale=4, features=6, num_blocks=5),
    "odd": LKDN(
        scale=1, features=9, num_blocks=1, distilled=2, attention_features=5,
        upsampler="rep",
    ),
    "sizes by numpy": LKDN(
        scale=np.int64(2), features=np.int32(8), num_blocks=np.uint8(2)
    ),
}  # fmt: skip
PUBLISHED = ["LKDN_x2", "LKDN_x3", "LKDN_x4", "LKDN-S_x4", "LKDN-S_del_rep_x4"]


def assert_equal(params, others):
    assert jax.tree.structure(params) == jax.tree.structure(others)
    jax.tree.map(np.testing.assert_array_equal, params, others)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("suffix", "names"),
    [(".msgpack", "ours"), (".safetensors", "ours"), (".safetensors", "published")],
)
def test_saves_and_loads(tmp_path, init, name, suffix, names):
    model, params = MODELS[name], init(MODELS[name])["params"]
    path = tmp_path / f"ünïcode{suffix}"
    lkdn_jax.save(path, model, params, names=names)
    loaded, others = lkdn_jax.load(path)
    assert loaded == model
    assert_equal(others, params)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", MODELS)
def test_deduces_the_network_from_a_pth(tmp_path, init, write_pth, name):
    model, params = MODELS[name], init(MODELS[name])["params"]
    write_pth(tmp_path / "a.pth", {"params_ema": to_published(model, params)})
    loaded, others = lkdn_jax.load(tmp_path / "a.pth")
    assert loaded == model
    assert_equal(others, params)


@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_round_trips_of_published_weights(tmp_path, reference, name):
    path = reference / "weights" / f"{name}.pth"
    model, params = lkdn_jax.load(path)
    for suffix in (".msgpack", ".safetensors"):
        lkdn_jax.save(tmp_path / f"a{suffix}", model, params)
        loaded, others = lkdn_jax.load(tmp_path / f"a{suffix}")
        assert loaded == model
        assert_equal(others, params)
    lkdn_jax.save(tmp_path / "p.safetensors", model, params, names="published")
    arrays = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    state = read_pth(path)
    assert set(arrays) == set(state)
    for key, array in state.items():
        np.testing.assert_array_equal(arrays[key], array)


def test_half_precision_becomes_float32(tmp_path, init):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    state = {
        name: array.astype(np.float16)
        for name, array in to_published(model, params).items()
    }
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    loaded, others = lkdn_jax.load(tmp_path / "a.safetensors")
    assert loaded == model
    rounded = jax.tree.map(lambda leaf: np.float32(np.float16(leaf)), params)
    assert_equal(others, rounded)
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fea_conv.pw.weight", (8, 9, 1, 1), "its first convolution takes 9 channels"),
        ("upsampler.0.weight", (28, 8, 3, 3), "an upsampler of 28 channels: expected"),
    ],
)
def test_networks_of_other_shapes(tmp_path, init, write_pth, name, shape, message):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    state = to_published(model, params)
    assert name in state
    write_pth(tmp_path / "a.pth", state | {name: np.zeros(shape, np.float32)})
    with pytest.raises(InputError, match=message):
        lkdn_jax.load(tmp_path / "a.pth")


def test_published_safetensors_without_metadata(tmp_path, init):
    model, params = MODELS["LKDN-S"], init(MODELS["LKDN-S"])["params"]
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(to_published(model, params), path)
    loaded, others = lkdn_jax.load(path)
    assert loaded == model
    assert_equal(others, params)


def test_errors_list_missing_unexpected_and_misshapen_names(tmp_path, init, write_pth):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    state = to_published(model, params)
    del state["B2.c5.bias"]
    state["B1.extra.bias"] = np.zeros(3, np.float32)
    state["c1.bias"] = np.zeros(7, np.float32)
    write_pth(tmp_path / "a.pth", state)
    with pytest.raises(InputError) as error:
        lkdn_jax.load(tmp_path / "a.pth")
    message = str(error.value)
    for problem in ("-B2.c5.bias", "+B1.extra.bias", "!c1.bias [7] instead of [8]"):
        assert problem in message
    assert "\n" not in message


def test_a_tree_of_numbers_is_no_network():
    with pytest.raises(InputError, match="not the weights of an LKDN"):
        deduce_architecture({"a": 1, "fea_conv": {"pw": {"kernel": 2.0}}})


@pytest.mark.reference
def test_another_network_is_refused(reference):
    with pytest.raises(InputError, match="not the weights of an LKDN"):
        lkdn_jax.load(reference / "weights" / "BSRN_x4.pth")


@pytest.mark.parametrize("suffix", [".msgpack", ".safetensors"])
def test_damaged_files(tmp_path, init, suffix):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    path = tmp_path / f"a{suffix}"
    lkdn_jax.save(path, model, params)
    content = path.read_bytes()
    for damaged in (b"", b"a text file\n", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged|not one that") as error:
            lkdn_jax.load(path)
        assert "\n" not in str(error.value)


def test_unknown_architecture(tmp_path, init):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    path = tmp_path / "a.safetensors"
    arrays = to_published(model, params)
    safetensors.numpy.save_file(arrays, path, {"architecture": "of somebody else"})
    assert lkdn_jax.load(path)[0] == model
    for text in (
        '{"depth": 3}', '{"shallow_block": "X"}', '{"num_blocks": 1000000}', "[1]", "{",
    ):  # fmt: skip
        safetensors.numpy.save_file(arrays, path, {"lkdn_jax.1": text})
        with pytest.raises(InputError, match="damaged"):
            lkdn_jax.load(path)


def test_bsrb_is_what_its_file_states(tmp_path, init):
    model = LKDN(scale=2, features=4, num_blocks=1, shallow_block="BSRB")
    lkdn_jax.save(tmp_path / "a.msgpack", model, init(model)["params"])
    assert lkdn_jax.load(tmp_path / "a.msgpack")[0] == model


@pytest.mark.parametrize(
    "content",
    [
        {"format": "lkdn_jax.1"},
        {"format": "lkdn_jax.1", "architecture": {}, "params": [1]},
        {"format": "lkdn_jax.1", "architecture": {}, "params": {"fea_conv": 3}},
        {"format": "lkdn_jax.1", "architecture": 3, "params": {"fea_conv": {}}},
        {"params": {}},
        [1, 2],
    ],
)
def test_msgpack_with_other_content(tmp_path, content):
    path = tmp_path / "a.msgpack"
    path.write_bytes(serialization.msgpack_serialize(content))
    with pytest.raises(InputError, match=r"a\.msgpack") as error:
        lkdn_jax.load(path)
    assert "\n" not in str(error.value)


def test_names_that_cannot_be_a_tree(tmp_path, write_pth):
    state = {"c1": np.zeros(3), "c1.weight": np.zeros((1, 1, 1, 1))}
    write_pth(tmp_path / "a.pth", state)
    with pytest.raises(InputError, match="damaged, or written by another program"):
        lkdn_jax.load(tmp_path / "a.pth")


def test_a_far_block_is_a_missing_block(tmp_path, init, write_pth):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    state = to_published(model, params) | {"B3000.x.weight": np.zeros(1)}
    write_pth(tmp_path / "a.pth", state)
    with pytest.raises(InputError, match=r"-B3\.c1_d\.kernel.*(more|B3000)"):
        lkdn_jax.load(tmp_path / "a.pth")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "locked.pth").write_text("x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(InputError, match=r"locked\.pth: may not be read; change"):
        lkdn_jax.load(tmp_path / "locked.pth")


def test_names_that_cannot_be_read_or_written(tmp_path, init):
    model, params = MODELS["LKDN"], init(MODELS["LKDN"])["params"]
    (tmp_path / "weights.txt").write_text("x")
    with pytest.raises(InputError, match=r"are read from \.pth, \.safetensors"):
        lkdn_jax.load(tmp_path / "weights.txt")
    with pytest.raises(InputError, match="no such file"):
        lkdn_jax.load(tmp_path / "none.pth")
    for name, names in (("a.pth", "ours"), ("a.msgpack", "published")):
        with pytest.raises(InputError, match=r"saved as \.msgpack or"):
            lkdn_jax.save(tmp_path / name, model, params, names=names)
    with pytest.raises(InputError, match="names 'pytorch': must be one of ours, publ"):
        lkdn_jax.save(tmp_path / "a.safetensors", model, params, names="pytorch")
    with pytest.raises(InputError, match="do not fit the network"):
        lkdn_jax.save(tmp_path / "a.msgpack", lkdn_s(), params)
    with pytest.raises(InputError, match="a tree of variables: give the one in it"):
        lkdn_jax.save(tmp_path / "a.msgpack", model, {"params": params})
    assert jax.tree.leaves(params)[0].dtype == jnp.float32
    assert [file.name for file in tmp_path.iterdir()] == ["weights.txt"]


def test_refuses_to_save_optimized_parameters(tmp_path, init):
    model = lkdn_jax.optimized_model(MODELS["LKDN"])
    params = lkdn_jax.optimize_for_inference(init(MODELS["LKDN"])["params"])
    with pytest.raises(InputError, match="optimize after loading"):
        lkdn_jax.save(tmp_path / "a.msgpack", model, params)


def test_a_network_is_replaced_not_written_over(tmp_path, init):
    model = LKDN(scale=2, features=4, num_blocks=1)
    path = tmp_path / "a.msgpack"
    lkdn_jax.save(path, model, init(model)["params"])
    with path.open("rb") as reader:  # which began before
        before = path.read_bytes()
        params = jax.tree.map(lambda leaf: leaf + 1, init(model)["params"])
        lkdn_jax.save(path, model, params)
        assert reader.read() == before != path.read_bytes()
