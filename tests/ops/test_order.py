import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from lkdn_jax.ops.order import add_now, after, store


def test_values_and_gradients_are_those_of_a_plain_sum():
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(2, 1, 3, 4, 5)), jnp.float32)

    def ours(x, y):
        return (after(add_now(store(x), y), y) ** 2).sum()

    def plain(x, y):
        return ((x + y) ** 2).sum()

    for a, b in zip(
        jax.value_and_grad(ours, (0, 1))(x, y),
        jax.value_and_grad(plain, (0, 1))(x, y),
        strict=True,
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), a, b)


def test_a_running_sum_needs_the_memory_of_three_terms_and_not_of_all():
    terms, shape = 8, (1, 100, 100, 16)

    def temporary(add):
        def chain(x, w):
            total = jnp.zeros_like(x)
            for _ in range(terms):
                x = jnp.tanh(x @ w)
                total = add(total, x @ w)
            return total

        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        w = jax.ShapeDtypeStruct((16, 16), jnp.float32)
        analysis = jax.jit(chain).lower(x, w).compile().memory_analysis()
        return analysis.temp_size_in_bytes / (4 * np.prod(shape))

    assert temporary(add_now) < 3.1
    assert temporary(jnp.add) > terms - 1  # or add_now has become needless


TWO_DEVICES = """
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lkdn_jax.ops.order import add_now, after, store

jax.config.update("jax_num_cpu_devices", 2)
mesh = jax.make_mesh((2,), ("batch",), (AxisType.Auto,))
x = np.random.default_rng(0).normal(size=(4, 9, 7, 6)).astype(np.float32)
split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
ordered = jax.jit(lambda x: after(add_now(store(x), x), store(x * x)))
compiled = ordered.lower(split).compile()
np.testing.assert_array_equal(compiled(split), x + x)
program = compiled.as_text()
print(*(program.count(f" all-{name}(") for name in ("reduce", "gather", "to-all")))
"""


def test_images_on_several_devices_do_not_wait_for_each_other():
    command = [sys.executable, "-c", TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "0"], done.stderr
