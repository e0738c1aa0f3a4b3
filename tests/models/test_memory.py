"""What a run on CPU is taken to need, against what XLA says of its programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lkdn_jax import LKDN, InputError, compiler_options, lkdn_s, optimized_model
from lkdn_jax.models.lkdn import expected_params
from lkdn_jax.models.memory import (
    check_memory,
    is_out_of_memory,
    memory_advice,
    needed_memory,
)


@pytest.mark.usefixtures("x86_cpu")
@pytest.mark.parametrize(
    "model",
    [
        LKDN(num_blocks=2),
        optimized_model(LKDN(scale=2, num_blocks=2)),
        lkdn_s(4, num_blocks=2),
        optimized_model(lkdn_s(4, num_blocks=2)),
    ],
    ids=["LKDN", "LKDN ×2 optimized", "LKDN-S", "LKDN-S optimized"],
)
def test_more_than_xla_needs(model):
    h, w = 90, 120
    lr = jax.ShapeDtypeStruct((1, h, w, 3), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, h, w, 1), np.bool_)
    program = jax.jit(
        lambda params, lr, valid: model.apply({"params": params}, lr, valid),
        compiler_options=compiler_options(model),
    )
    memory = program.lower(expected_params(model), lr, valid).compile()
    memory = memory.memory_analysis()
    two_maps = 2 * 4 * h * w * model.features  # what Eigen takes besides
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes + two_maps
    assert needed <= needed_memory(model, h, w) <= 1.3 * needed


def test_asks_for_it_on_cpu_only():
    check_memory(LKDN(), 20, 20, "cpu")
    with pytest.raises(MemoryError) as refused:
        check_memory(LKDN(), 10**6, 10**7, "cpu")
    check_memory(LKDN(), 10**6, 10**7, "gpu")
    with pytest.raises(InputError, match="too large"), memory_advice("too large"):
        raise refused.value
    with pytest.raises(ZeroDivisionError), memory_advice("too large"):
        raise ZeroDivisionError
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 MB"))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: 3 MB"))
