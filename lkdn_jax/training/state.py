"""The state of a training run: everything a checkpoint must hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array


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


@jax.jit(static_argnames="tx")  # one program of what would be hundreds
def create_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
    """Create the state before the first step.

    Args:
        params: The parameters to start from.
        tx: The optimizer.

    Returns:
        The state at step 0; the average starts as the parameters.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # A copy: the step donates its input, and no buffer can be donated twice.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
    )
