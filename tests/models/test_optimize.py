import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lkdn_jax
from lkdn_jax import (
    LKDN,
    InputError,
    compiler_options,
    lkdn_s,
    optimize_for_inference,
    optimized_model,
)
from lkdn_jax.models.optimize import vector_length

SMALL = {"features": 8, "num_blocks": 2}


@pytest.fixture(params=[8, 16], ids=["8", "AVX-512"])
def vector(request, monkeypatch):
    """As on a processor whose registers hold so many numbers."""
    wide = request.param == 16
    monkeypatch.setattr(lkdn_jax.models.optimize, "_has_avx512", lambda: wide)
    return request.param


def compiled(model, h, w, options=None):
    params = lkdn_jax.models.lkdn.expected_params(model)
    lr = jax.ShapeDtypeStruct((1, h, w, 3), jnp.float32)
    program = jax.jit(
        lambda params, lr: model.apply({"params": params}, lr),
        compiler_options=compiler_options(model) if options is None else options,
    )
    return program.lower(params, lr).compile()


@pytest.mark.parametrize(
    "model",
    [
        LKDN(**SMALL),
        lkdn_s(**SMALL),
        lkdn_s(2, features=6, num_blocks=3),
        LKDN(features=9, num_blocks=1, distilled=5, attention_features=1),
    ],
    ids=["BSB", "RBSB", "narrow", "odd"],
)
def test_same_function_of_other_parameters(init, model, vector):
    variables = init(model)
    params = optimize_for_inference(variables["params"])
    width = -(-model.features // vector) * vector
    assert params["fea_conv"]["pw"]["kernel"].shape == (1, 1, 3, width)
    assert params["B1"]["c1_d"]["kernel"].shape[-1] == 8
    assert np.abs(params["B1"]["c6"]["kernel"].sum(-1)).max() < 1e-6
    lr = np.random.default_rng(1).random((2, 9, 7, 3), np.float32)
    expected = jax.jit(model.apply)(variables, lr)
    model = optimized_model(model)
    forward = jax.jit(model.apply, compiler_options=compiler_options(model))
    sr = forward({"params": params}, lr)
    np.testing.assert_allclose(sr, expected, atol=2e-6)


@pytest.mark.parametrize("model", [LKDN(**SMALL), lkdn_s(**SMALL)])
def test_in_bf16_kernels_are_rounded_before_and_nothing_else(init, model):
    params = init(model)["params"]
    wide, narrow = (optimize_for_inference(params, d) for d in (None, "bfloat16"))
    paths = jax.tree_util.tree_flatten_with_path(narrow)[0]
    rounded = {p[-2].key for p, leaf in paths if leaf.dtype == jnp.bfloat16}
    assert rounded == {"pw", "c1_d", "c2_d", "c3_d", "c5", "c6", "pointwise"}
    for path, leaf in paths:
        outside = not path[0].key.startswith("B")
        assert leaf.dtype == jnp.float32 or not outside, path
    forward = jax.jit(optimized_model(model).clone(dtype=jnp.bfloat16).apply)
    lr = np.random.default_rng(1).random((1, 9, 7, 3), np.float32)
    sr, expected = (forward({"params": p}, lr) for p in (narrow, wide))
    np.testing.assert_array_equal(sr, expected)
    program = forward.lower({"params": narrow}, lr).as_text()
    before = forward.lower({"params": wide}, lr).as_text()
    kernels = sum(leaf.dtype == jnp.bfloat16 for _, leaf in paths)
    fewer = before.count("stablehlo.convert") - program.count("stablehlo.convert")
    assert fewer >= kernels // model.num_blocks  # equal blocks are lowered once


def test_sums_are_rounded_once(init):
    params = jax.tree.map(np.zeros_like, init(LKDN(**SMALL))["params"])
    # Of the twelve channels, which are the image four times.
    params["fea_conv"]["pw"]["kernel"][0, 0, ::3] = np.array([[1], [1e-8], [-1], [0]])
    kernel = optimize_for_inference(params, backend="gpu")["fea_conv"]["pw"]["kernel"]
    np.testing.assert_allclose(kernel[0, 0, 0], 1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "vector", "features", "distilled", "joined"),
    [
        (LKDN(), 8, 56, 32, 112),
        (LKDN(), 16, 64, 32, 128),
        (lkdn_s(), 8, 48, 24, 96),
        (lkdn_s(), 16, 48, 24, 96),
    ],
    indirect=["vector"],
)
def test_zeros_that_whole_vectors_take(model, vector, features, distilled, joined):
    params = lkdn_jax.models.lkdn.expected_params(optimized_model(model))
    assert params["B1"]["c6"]["kernel"].shape[-1] == features
    assert params["B1"]["c1_d"]["kernel"].shape[-1] == distilled
    assert params["B1"]["c5"]["kernel"].shape[-2] == joined
    assert vector_length() == vector


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512dq\n", 16),
        ("flags\t\t: fpu avx2 avx512_bf16\n", 8),
        ("Features\t: fp asimd\n", 8),
        (None, 8),
    ],
)
def test_the_processor_is_asked(monkeypatch, tmp_path, text, length):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(lkdn_jax.models.optimize, "_CPUINFO", file)
    lkdn_jax.models.optimize._has_avx512.cache_clear()
    try:
        assert vector_length("cpu") == length
    finally:
        lkdn_jax.models.optimize._has_avx512.cache_clear()


def test_tree_and_network_are_for_one_platform(init, monkeypatch):
    # An `Upscaler` on CPUs of a machine that has a GPU.
    monkeypatch.setattr(lkdn_jax.models.optimize, "_has_avx512", lambda: True)
    model = LKDN(**SMALL)
    params = init(model)["params"]
    lr = np.random.default_rng(1).random((6, 7, 3), np.float32)
    expected = lkdn_jax.Upscaler((model, params))(lr)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert optimized_model(model).features == 8
    upscaler = lkdn_jax.Upscaler((model, params), devices=jax.local_devices())
    np.testing.assert_array_equal(upscaler(lr), expected)
    tree = optimize_for_inference(params, backend="cpu")
    assert tree["B1"]["c6"]["kernel"].shape[-1] == 16
    optimized_model(model, "cpu").apply({"params": tree}, lr[None])


def test_vectors_are_those_of_the_platform(vector):
    assert vector_length("cpu") == vector
    assert vector_length("gpu") == vector_length("tpu") == 8
    assert optimized_model(LKDN(), "gpu").features == 56
    width = compiler_options(LKDN(), "cpu").get("xla_cpu_prefer_vector_width")
    x86 = platform.machine() == "x86_64"
    assert width == ("512" if vector == 16 and x86 else None)
    assert compiler_options(LKDN(), "gpu") == {}


def test_leaves_the_given_tree_alone(init):
    params = init(lkdn_s(**SMALL))["params"]
    before = jax.tree.map(np.array, params)
    optimize_for_inference(params)
    jax.tree.map(np.testing.assert_array_equal, params, before)


@pytest.mark.reference
@pytest.mark.usefixtures("vector")
@pytest.mark.parametrize("name", ["LKDN_x4", "LKDN-S_x4"])
def test_published_networks(reference, name):
    model, params = lkdn_jax.load(reference / "weights" / f"{name}.pth")
    expected = np.load(reference / "forward" / f"{name}.npz")
    model = optimized_model(model)
    forward = jax.jit(model.apply, compiler_options=compiler_options(model))
    params = optimize_for_inference(params)
    for image in ("noise", "crop"):
        sr = forward({"params": params}, expected[f"{image}_lr"][None])[0]
        assert np.abs(sr - expected[f"{image}_sr"]).max() <= 2e-5


@pytest.mark.parametrize("wrap", [optimize_for_inference, lambda p: {"params": p}])
def test_refuses_other_trees(init, wrap):
    params = init(LKDN(**SMALL))["params"]
    with pytest.raises(InputError, match="not the parameters of an LKDN, or optimized"):
        optimize_for_inference(wrap(params))


def test_cpu_copies_no_parts_together():
    # XLA of jaxlib 0.12 copies what is concatenated, part by part.
    program = compiled(optimized_model(LKDN(num_blocks=2)), 36, 40).as_text()
    assert program.count(" dot(") > 0
    assert program.count(" concatenate(") == 0


@pytest.mark.usefixtures("x86_cpu")
def test_cpu_leaves_products_to_eigen():
    model = optimized_model(LKDN(num_blocks=2))
    ours = compiled(model, 36, 40).as_text()
    assert ours.count('"kind":"__ynn_fusion"') <= 1  # the upsampler's convolution
    xla = compiled(model, 36, 40, {}).as_text()
    assert xla.count('"kind":"__ynn_fusion"') > 10


def test_compiler_options_of_what_was_not_measured():
    assert compiler_options(LKDN(dtype="bfloat16"), "cpu") == {}
    assert compiler_options(LKDN(), "gpu") == {}
    float32 = compiler_options(LKDN(dtype="float32"), "cpu")
    assert float32 == compiler_options(LKDN(), "cpu")


@pytest.mark.usefixtures("vector")
def test_memory_of_a_large_image():
    # Input, output and four feature maps, twice: what an efficient network may need.
    h, w, s = 720, 1280, 4
    memory = compiled(optimized_model(LKDN()), h, w).memory_analysis()
    used = (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        + memory.argument_size_in_bytes
    )
    assert used <= 2 * 4 * h * w * (3 + 3 * s * s + 4 * 56)


def test_an_optimized_network_is_what_it_is():
    model = lkdn_jax.lkdn_s(features=42)  # which become 48
    once = lkdn_jax.optimized_model(model)
    assert once != model
    assert lkdn_jax.optimized_model(once) == once
