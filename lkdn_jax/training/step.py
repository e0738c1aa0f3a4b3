"""One training step, and several of them in one program. Arrays are NHWC."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.state import TrainState

Loss = Literal["l1", "l2"]
Metrics = dict[str, Array]
Batch = tuple[Array, Array]  # lr [b, p, p, 3] and hr [b, p·s, p·s, 3]
Step = Callable[[TrainState, Array, Array], tuple[TrainState, Metrics]]
_LOSSES: dict[str, Callable[[Array], Array]] = {"l1": jnp.abs, "l2": jnp.square}


def make_train_step(
    model: LKDN,
    tx: optax.GradientTransformation,
    *,
    loss: Loss = "l1",
    ema_decay: float = 0.999,
    accumulate: int = 1,
    schedule: optax.Schedule | None = None,
    packing: Packing | None = None,
) -> Step:
    """Make the function of one training step.

    Args:
        model: The network; its dtype is that of the computation.
        tx: The optimizer.
        loss: `l1` (mean absolute difference) or `l2` (mean squared difference).
        ema_decay: Decay d of the average: ema ← d·ema + (1 − d)·params.
        accumulate: Number of equal parts of a batch to process one after another;
            the gradient is that of the whole batch.
        schedule: The learning rate by step, to be reported.
        packing: That of the states, if they are packed. The optimizer then sees one
            vector.

    Returns:
        A pure function of the state and a batch: lr [b, p, p, 3] and
        hr [b, p·s, p·s, 3], uint8, or float32 in [0, 1]. It returns the new state and
        metrics, float32 scalars: `loss`, `psnr` (dB, of the unclipped RGB batch),
        `grad_norm`, `param_norm` (after the step), with a schedule `learning_rate`.
    """

    def differences(params: Any, lr: Array, hr: Array) -> tuple[Array, Array]:
        if packing is not None:
            params = packing.params(params)
        sr: Any = model.apply({"params": params}, _to_float(lr))
        error = sr - _to_float(hr)
        return _LOSSES[loss](error).mean(), jnp.square(error).mean()

    def gradients(params: Any, lr: Array, hr: Array) -> tuple[Any, Any]:
        grad = jax.value_and_grad(differences, has_aux=True)
        if accumulate == 1:
            return grad(params, lr, hr)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, grad(params, *part)), None

        parts = jax.tree.map(lambda x: _split(x, accumulate), (lr, hr))
        shape = jax.eval_shape(grad, params, *jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
        total, _ = lax.scan(add, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / accumulate, total)

    def step(state: TrainState, lr: Array, hr: Array) -> tuple[TrainState, Metrics]:
        (value, squared_error), grads = gradients(state.params, lr, hr)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        ema_params = optax.incremental_update(params, state.ema_params, 1 - ema_decay)
        metrics = {
            "loss": value,
            "psnr": -10 * jnp.log10(squared_error),
            "grad_norm": _norm(grads),
            # Of the new ones: what a checkpoint would hold.
            "param_norm": _norm(params),
        }
        if schedule is not None:
            metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        return TrainState(state.step + 1, params, ema_params, opt_state), metrics

    return step


def make_train_steps(
    step: Step, load: Callable[[Any, Any], Batch]
) -> Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]:
    """Make the function of several steps, one after another in one program.

    Args:
        step: As made by `make_train_step`.
        load: A function of the dataset and what identifies one batch, which returns
            the batch.

    Returns:
        A function of the state, the dataset, and a tree whose leaves have a leading
        axis of steps; it returns the new state and metrics [steps].
    """

    def steps(state: TrainState, dataset: Any, samples: Any) -> tuple[TrainState, Any]:
        def one(state: TrainState, sample: Any) -> tuple[TrainState, Metrics]:
            return step(state, *load(dataset, sample))

        if jax.tree.leaves(samples)[0].shape[0] > 1:
            return lax.scan(one, state, samples)
        # No loop around a single step: XLA runs loop bodies on one CPU core.
        state, metrics = one(state, jax.tree.map(lambda leaf: leaf[0], samples))
        return state, jax.tree.map(lambda leaf: leaf[None], metrics)

    return steps


def _norm(tree: Any) -> Array:
    # As one vector: array by array, XLA on GPU would run two kernels for each of 250.
    return jnp.linalg.norm(ravel_pytree(tree)[0])


def _to_float(images: Array) -> Array:
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    return images


def _split(batch: Array, parts: int) -> Array:
    # Every part takes rows from all devices: nothing moves between them.
    return batch.reshape(-1, parts, *batch.shape[1:]).swapaxes(0, 1)
