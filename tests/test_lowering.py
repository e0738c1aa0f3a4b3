"""The programs of GPU and TPU can be made on a machine that has neither."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from lkdn_jax import lkdn_s, optimize_for_inference, optimized_model
from lkdn_jax.models.lkdn import expected_params
from lkdn_jax.ops.depthwise import depthwise_conv
from lkdn_jax.ops.fused import framed_gelu, gated
from lkdn_jax.optim.adan import adan
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step

MODEL = lkdn_s(features=8, num_blocks=2)


def machine(platform):
    """Return a context in which programs are made for a device that is not here."""
    kind, name = {"cuda": ("NVIDIA H200", "gpu"), "tpu": ("TPU v5", "tpu")}[platform]
    device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=1, platform=name)
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def lower(function, *args, platform):
    with machine(platform):
        traced = jax.jit(function).trace(*args)
        return traced.lower(lowering_platforms=(platform,)).as_text()


# From jax 0.12 on; see docs/performance.md.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The Pallas Triton backend:DeprecationWarning"
)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_inference_and_training_lower(platform, dtype):
    model = optimized_model(MODEL, platform).clone(dtype=dtype)
    lr = jax.ShapeDtypeStruct((2, 12, 9, 3), jnp.float32)
    program = lower(
        lambda params, lr: model.apply({"params": params}, lr),
        expected_params(model),
        lr,
        platform=platform,
    )
    assert "tensor<2x48x36x3xf32>" in program
    assert ("bf16" in program) == (dtype == jnp.bfloat16)
    assert ("depthwise_forward" in program) == (platform == "cuda")
    assert "depthwise_gradients" not in program

    tx = adan(1e-3)
    state = create_state.eval_shape(expected_params(MODEL), tx)
    hr = jax.ShapeDtypeStruct((2, 48, 36, 3), jnp.float32)
    step = make_train_step(MODEL.clone(dtype=dtype), tx)
    program = lower(step, state, lr, hr, platform=platform)
    assert "tensor<2x48x36x3xf32>" in program
    assert ("bf16" in program) == (dtype == jnp.bfloat16)
    # XLA's own loop over the taps would be thousands of kernels on a GPU.
    for kernel in ("depthwise_forward", "depthwise_gradients"):
        assert (kernel in program) == (platform == "cuda")
    # Gradients of 1×1 convolutions, in groups of pixels.
    assert ("batching_dims" in program) == (platform == "cuda")


def lowered_gradient(dtype):
    x = jax.ShapeDtypeStruct((1, 9, 8, 4), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 1, 4), dtype)
    gradient = jax.grad(lambda x, k: jnp.square(depthwise_conv(x, k)).sum(), (0, 1))
    return lower(gradient, x, kernel, platform="cuda")


def test_float64_and_older_cards_take_no_triton(monkeypatch):
    assert "triton" in lowered_gradient(jnp.float32)
    with jax.enable_x64(True):
        assert "triton" not in lowered_gradient(jnp.float64)
    for capability, newer in (("7.5", False), ("8.0", True), ("10.0", True)):
        jax.clear_caches()  # what was traced for another card
        card = types.SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(jax, "local_devices", lambda card=card, **_: [card])
        assert ("triton" in lowered_gradient(jnp.float32)) == newer
    jax.clear_caches()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dilation", [1, 3])
def test_pallas_kernels_lower_for_gpus(dtype, dilation):
    x = jax.ShapeDtypeStruct((2, 50, 37, 56), dtype)
    kernel = jax.ShapeDtypeStruct((5, 5, 1, 56), dtype)

    def loss(x, kernel):
        y = depthwise_conv(x, kernel, dilation=dilation, implementation="pallas")
        return jnp.square(y).sum()

    program = lower(jax.grad(loss, (0, 1)), x, kernel, platform="cuda")
    # Forward, the gradient by the input, and that by the kernel.
    assert program.count("custom_call @__gpu$xla.gpu.triton") == 3
    assert program.count("fma.rn.f32") == 3  # XLA would leave two instructions two


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_follows_is_in_the_kernel(dtype):
    x = jax.ShapeDtypeStruct((2, 20, 19, 56), dtype)
    bias = jax.ShapeDtypeStruct((56,), jnp.float32)
    for function, k, arrays in ((framed_gelu, 3, (x,)), (gated, 5, (x, x))):
        kernel = jax.ShapeDtypeStruct((k, k, 1, 56), jnp.float32)
        program = lower(function, *arrays, kernel, bias, platform="cuda")
        assert program.count("custom_call @__gpu$xla.gpu.triton") == 1
        for operation in ("pad", "multiply", "convert"):
            assert f"stablehlo.{operation}" not in program


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_exports_once_for_all_sizes(init, platform):
    params = optimize_for_inference(init(MODEL)["params"], backend=platform)
    forward = jax.jit(optimized_model(MODEL, platform).apply)
    lr = jax.ShapeDtypeStruct(export.symbolic_shape("n, h, w, 3"), jnp.float32)
    exported = export.export(forward, platforms=[platform])({"params": params}, lr)
    assert "depthwise_forward" not in exported.mlir_module()
    if platform == "cpu":
        for shape in ((1, 7, 9, 3), (2, 12, 5, 3), (1, 1, 1, 3)):
            lr = np.random.default_rng(0).random(shape, np.float32)
            expected = forward({"params": params}, lr)
            sr = jax.jit(exported.call)({"params": params}, lr)
            np.testing.assert_allclose(sr, expected, atol=2e-6)


def test_exports_the_kernels_of_one_size_for_cuda(init):
    params = optimize_for_inference(init(MODEL)["params"], backend="cuda")
    kernels = export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    forward = jax.jit(optimized_model(MODEL, "cuda").apply)
    make = export.export(forward, platforms=["cuda"], disabled_checks=[kernels])
    lr = jax.ShapeDtypeStruct((1, 7, 9, 3), jnp.float32)
    with machine("cuda"):
        exported = make({"params": params}, lr)
    assert "depthwise_forward" in exported.mlir_module()
