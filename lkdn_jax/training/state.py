"""The state of a training run: everything a checkpoint must hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.core import unfreeze
from jax import Array

from lkdn_jax.models.lkdn import LKDN


class TrainState(struct.PyTreeNode):
    """State after some steps. The position in the data is the step itself.

    Attributes:
        step: Steps done, int32.
        params: Parameters, float32.
        ema_params: Exponential moving average of the parameters, float32.
        opt_state: State of the optimizer.
    """

    step: Array
    params: Any
    ema_params: Any
    opt_state: Any


def create_state(
    model: LKDN,
    tx: optax.GradientTransformation,
    *,
    seed: int = 0,
    params: Any = None,
) -> TrainState:
    """Create the state before the first step.

    Args:
        model: The network.
        tx: The optimizer.
        seed: Seed of the initial parameters.
        params: Parameters to start from instead.

    Returns:
        The state at step 0; the average starts as the parameters.
    """
    if params is None:
        lr = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        # Lazily: the forward pass, which is of no use here, is not compiled.
        params = model.lazy_init(jax.random.key(seed), lr)["params"]
    params = jax.tree.map(jnp.asarray, unfreeze(params))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the step donates its input, and no buffer can be donated twice.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
    )
