"""The optimizers a configuration can name."""

from math import inf
from typing import Any

import jax
import optax

from lkdn_jax.errors import InputError, unknown_name
from lkdn_jax.optim.adan import Mask, adan

# Adam's are those of BasicSR's configurations, which LKDN-S was trained with.
BETAS = {"adan": (0.98, 0.92, 0.99), "adam": (0.9, 0.99)}


def create_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    betas: tuple[float, ...] | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_prox: bool = False,
    mask: Mask | None = None,
    max_grad_norm: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer.

    Args:
        name: `adan` or `adam`.
        learning_rate: A number, non-negative, or a schedule.
        betas: Decays of the means, each in [0, 1): three for `adan`, two for `adam`.
            None takes (0.98, 0.92, 0.99) and (0.9, 0.99).
        eps: Added to the root in the denominator, non-negative.
        weight_decay: λ, non-negative; decoupled from the gradient for both.
        no_prox: `adan` only: decay before the step, as `adam` always does.
        mask: Where to decay, see :func:`lkdn_jax.optim.adan.adan`.
        max_grad_norm: Longer gradients, all parameters taken as one vector, are
            shortened to this norm, positive. None leaves them alone.

    Returns:
        The optimizer.

    Raises:
        InputError: no optimizer has that name, or a value is out of range.
    """
    if name not in BETAS:
        raise unknown_name("optimizer", name, BETAS)
    betas = BETAS[name] if betas is None else tuple(betas)
    count = len(BETAS[name])
    numbers = all(isinstance(b, int | float) and 0 <= b < 1 for b in betas)
    if len(betas) != count or not numbers:
        raise InputError(f"betas {betas}: {name} takes {count}, each 0 to below 1")
    if isinstance(learning_rate, int | float) and not 0 <= learning_rate < inf:
        raise InputError(f"learning_rate {learning_rate}: use 0 or a positive number")
    if not 0 <= eps < inf:
        raise InputError(f"eps {eps}: use a small number, not negative")
    if not 0 <= weight_decay < inf:
        raise InputError(f"weight_decay {weight_decay}: use 0 or a positive number")
    if max_grad_norm is not None and not 0 < max_grad_norm < inf:
        raise InputError(
            f"max_grad_norm {max_grad_norm}: use a positive number, or None not to clip"
        )
    if name == "adan":
        b1, b2, b3 = betas
        tx = adan(
            learning_rate, b1, b2, b3, eps, weight_decay, no_prox=no_prox, mask=mask
        )
    else:
        b1, b2 = betas
        tx = _standard_promotion(
            optax.adamw(
                learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask
            )
        )
    return tx if max_grad_norm is None else _clipped(tx, max_grad_norm)


def _clipped(
    tx: optax.GradientTransformationExtraArgs, max_norm: float
) -> optax.GradientTransformationExtraArgs:
    # No chain: its state would be another, and a run may begin to clip when resumed.
    clip = optax.clip_by_global_norm(max_norm)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        shortened, _ = clip.update(updates, optax.EmptyState(), params)
        return tx.update(shortened, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _standard_promotion(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    # optax 0.2.8 raises a float to an int32 power, which strict promotion refuses.
    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)
