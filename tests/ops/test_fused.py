"""What CUDA computes in one kernel is what the other platforms compute in several."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax.ops import depthwise_pallas
from lkdn_jax.ops.depthwise import depthwise_conv
from lkdn_jax.ops.fused import framed_gelu, gated
from lkdn_jax.ops.gelu import gelu

OTHERS = (None, "lax", "shift")


def assert_close(a, b, **tolerances):
    np.testing.assert_allclose(np.asarray(a, np.float32), b, **tolerances)


def arrays(k, *shapes, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    c = shapes[0][-1]
    return [
        jnp.asarray(rng.normal(size=shape), of)
        for shape, of in [
            (shapes[0], dtype),
            ((k, k, 1, c), jnp.float32),
            ((c,), jnp.float32),
            *((shape, dtype) for shape in shapes[1:]),
        ]
    ]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(3, 3), (9, 36)])
def test_gelu_in_the_kernel(size, dtype):
    x, kernel, bias = arrays(3, (2, *size, 6), dtype=dtype)
    fused = framed_gelu(x, kernel, bias, implementation="pallas")
    assert fused.dtype == dtype
    assert fused.shape == (2, *size, 6)
    edge = np.pad(np.zeros((size[0] - 2, size[1] - 2)), 1, constant_values=1) == 1
    assert (np.asarray(fused)[:, edge] == 0).all()
    inner = depthwise_conv(
        x.astype(jnp.float32), kernel, bias, padding="VALID", implementation="lax"
    )
    exact = jax.nn.gelu(np.asarray(inner, np.float64), approximate=False)
    others = [framed_gelu(x, kernel, bias, implementation=i) for i in OTHERS]
    for got in (fused, *others):
        near = 1e-5 if dtype == jnp.float32 else 2e-2 * np.abs(exact).max()
        assert_close(got[:, 1:-1, 1:-1], exact, atol=near)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gate_in_the_kernel(dtype):
    x, kernel, bias, gate = arrays(5, (2, 9, 18, 6), (2, 9, 18, 6), dtype=dtype)
    fused = gated(gate, x, kernel, bias, dilation=3, implementation="pallas")
    assert fused.dtype == dtype
    wide = partial(depthwise_conv, dilation=3, implementation="lax")
    exact = gate.astype(jnp.float32) * wide(x.astype(jnp.float32), kernel, bias)
    conv = partial(gated, gate, x, kernel, bias, dilation=3)
    for got in (fused, *(conv(implementation=i) for i in OTHERS)):
        near = 2e-5 if dtype == jnp.float32 else 2e-2 * np.abs(exact).max()
        assert_close(got, exact, atol=near)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_those_of_the_parts(dtype):
    x, kernel, bias = arrays(3, (2, 7, 6, 4), dtype=dtype)
    dy, gate = (arrays(3, (2, 7, 6, 4), dtype=dtype)[0] + step for step in (1, 2))

    def parts(x, kernel, bias):
        y = gelu(depthwise_conv(x, kernel, bias, padding="VALID"))
        return jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def product(x, kernel, bias):
        return gate * depthwise_conv(x, kernel, bias, dilation=2)

    gate_first = partial(gated, gate, dilation=2)
    near = 1e-5 if dtype == jnp.float32 else 2e-2
    for ours, reference in ((framed_gelu, parts), (gate_first, product)):
        y, pullback = jax.vjp(ours, x, kernel, bias)
        expected, expected_pullback = jax.vjp(reference, x, kernel, bias)
        assert_close(y, expected, rtol=near, atol=near)
        for a, b in zip(pullback(dy), expected_pullback(dy), strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b, rtol=near, atol=near)


def test_differentiates_by_the_gate_and_twice():
    x, kernel, bias, gate = arrays(3, (2, 7, 6, 4), (2, 7, 6, 4))
    of_gate = jax.grad(lambda gate: gated(gate, x, kernel, bias).sum())(gate)
    assert_close(of_gate, depthwise_conv(x, kernel, bias), atol=1e-6)

    def penalty(function, x):
        slope = jax.grad(lambda x: jnp.square(function(x, kernel, bias)).sum())(x)
        return jnp.square(slope).sum()

    def plain(x, kernel, bias):
        y = gelu(depthwise_conv(x, kernel, bias, padding="VALID"))
        return jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))

    ours, expected = (jax.grad(partial(penalty, f))(x) for f in (framed_gelu, plain))
    assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_refuses_what_does_not_fit():
    x, kernel, bias, gate = arrays(3, (2, 7, 6, 4), (2, 7, 6, 4))
    for other in (gate[:, :1, :1], gate.astype(jnp.bfloat16)):
        with pytest.raises(ValueError, match=r"a gate of shape .*: give that of x"):
            gated(other, x, kernel, bias)
    for implementation in (None, "pallas"):
        with pytest.raises(ValueError, match=r"bias of shape \(3,\)"):
            framed_gelu(x, kernel, bias[:3], implementation=implementation)
    with pytest.raises(ValueError, match="'winograd': use one of"):
        framed_gelu(x, kernel, bias, implementation="winograd")
    with pytest.raises(ValueError, match=r"kernel of shape \(5, 5, 1, 4\): here it is"):
        framed_gelu(x, jnp.ones((5, 5, 1, 4)), bias)
    with pytest.raises(ValueError, match=r"kernel of shape \(\): a depthwise kernel"):
        gated(gate, x, bias[0], bias)


def test_one_kernel_is_traced_and_none_for_its_parts():
    x, kernel, bias, gate = arrays(3, (2, 7, 6, 4), (2, 7, 6, 4))
    for function, args in ((gated, (gate, x)), (framed_gelu, (x,))):
        program = str(jax.make_jaxpr(function)(*args, kernel, bias))
        assert program.count("pallas_call") == 1


def test_no_images():
    x, kernel, bias = arrays(3, (0, 7, 6, 4))
    assert gated(x, x, kernel, bias).shape == (0, 7, 6, 4)
    assert framed_gelu(x, kernel, bias).shape == (0, 7, 6, 4)


def test_takes_images_one_by_one():
    x, kernel, bias, gate = arrays(5, (3, 9, 8, 4), (3, 9, 8, 4))
    fused = partial(depthwise_pallas.forward, dilation=1, pad=2, interpret=True)
    each = jax.vmap(lambda x, gate: fused(x[None], kernel, bias, gate[None])[0])
    assert_close(each(x, gate), fused(x, kernel, bias, gate), atol=1e-6)


TWO_DEVICES = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from functools import partial
from lkdn_jax import LKDN
from lkdn_jax.models.lkdn import draw_params
from lkdn_jax.ops.depthwise_pallas import forward

jax.config.update("jax_num_cpu_devices", 2)
mesh = jax.make_mesh((2,), ("batch",), (AxisType.Auto,))
by_image = NamedSharding(mesh, PartitionSpec("batch"))
rng = np.random.default_rng(0)
x, kernel = (
    jnp.asarray(rng.normal(size=size), jnp.float32)
    for size in ((4, 9, 7, 6), (3, 3, 1, 6))
)
split = jax.device_put(x, by_image)
for gate, how in (((), dict(activated=True, frame=1, pad=0)), ((x,), dict(pad=1))):
    run = jax.jit(partial(forward, dilation=1, interpret=True, **how))
    compiled = run.lower(split, kernel, kernel[0, 0, 0], *gate).compile()
    program = compiled.as_text()
    print(program.count(" all-reduce("), program.count(" all-gather("))
    got = run(split, kernel, kernel[0, 0, 0], *gate)
    assert got.sharding.is_equivalent_to(by_image, 4), got.sharding
    assert jnp.allclose(got, run(x, kernel, kernel[0, 0, 0], *gate), atol=1e-6)

model = LKDN(scale=2, features=4, num_blocks=1)
params, lr = {"params": draw_params(model, 0)}, jnp.ones((2, 6, 5, 3))
expected = jax.jit(model.apply)(params, lr)
specs = PartitionSpec(), by_image.spec
for check in (True, False):
    split = jax.shard_map(
        model.apply, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=check
    )
    print(jnp.allclose(jax.jit(split)(params, lr), expected, atol=1e-6))

def loss(params, lr):
    return jnp.square(model.apply(params, lr)).sum()

whole = jax.jit(jax.grad(loss))(params, lr)
specs = PartitionSpec(), by_image.spec
split = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=specs, out_specs=specs[0])
parts = jax.tree.map(jnp.subtract, jax.jit(split)(params, lr), whole)
print(jax.tree.all(jax.tree.map(lambda d, w: abs(d).max() < 1e-5 * abs(w).max() + 1e-6,
                                parts, whole)))
"""


def test_images_stay_on_their_device():
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0"] * 2 + ["True"] * 3, done.stderr
