"""Learning rate as a function of the step, by name."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from lkdn_jax.errors import InputError, unknown_name

NAMES = ("constant", "step", "cosine", "wsd")


def create_schedule(
    name: str,
    learning_rate: float,
    *,
    steps: int,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    decay: float = 0.5,
    decay_fraction: float = 0.2,
    final: float = 0.0,
) -> optax.Schedule:
    """Return a learning-rate schedule.

    - `constant`: `learning_rate` throughout, as in the paper.
    - `step`: multiplied by `decay` from each of `boundaries` on.
    - `cosine`: half a cosine from `learning_rate` to `final` of it.
    - `wsd`: warm-up, stable, decay: constant, then linear to `final` of it.

    Before each, a warm-up climbs by equal steps: step t uses (t + 1)/(warmup_steps + 1)
    of `learning_rate`, so that no step is wasted on a rate of zero.

    Args:
        name: One of the four above.
        learning_rate: The highest rate, positive.
        steps: Length of the training, in updates, at least 1.
        warmup_steps: Length of the warm-up, in [0, steps).
        boundaries: `step` only: updates counted from 0, warm-up included, ascending,
            within (warmup_steps, steps).
        decay: `step` only: the factor at a boundary, in (0, 1].
        decay_fraction: `wsd` only: the part of `steps` that decays, in (0, 1]; it must
            leave room for the warm-up. Hägele et al. (arXiv 2405.18392) find 0.2
            enough to match a cosine.
        final: `cosine` and `wsd` only: where the rate would be at the update after the
            last, as a part of the highest, in [0, 1].

    Returns:
        A function of the number of updates so far, from 0; it returns a float32 scalar.

    Raises:
        InputError: no schedule has that name, or a value it uses is out of range.
    """
    if name not in NAMES:
        raise unknown_name("schedule", name, NAMES)
    if not 0 < learning_rate < inf:
        raise InputError(f"learning_rate {learning_rate}: use a positive number")
    if not steps >= 1:
        raise InputError(f"steps {steps}: train for at least 1")
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"warmup_steps {warmup_steps}: use 0 to {steps - 1}, less than steps"
        )
    start = warmup_steps
    if name == "step":
        _check_boundaries(boundaries, decay, start, steps)
        main = optax.piecewise_constant_schedule(
            learning_rate, {boundary - start: decay for boundary in boundaries}
        )
    elif name == "cosine":
        _check_final(final)
        main = optax.cosine_decay_schedule(learning_rate, steps - start, alpha=final)
    elif name == "wsd":
        _check_final(final)
        length = _decay_length(decay_fraction, start, steps)
        down = optax.linear_schedule(learning_rate, final * learning_rate, length)
        stable = optax.constant_schedule(learning_rate)
        main = optax.join_schedules([stable, down], [steps - length - start])
    else:
        main = optax.constant_schedule(learning_rate)
    if start:
        up = optax.linear_schedule(learning_rate / (start + 1), learning_rate, start)
        main = optax.join_schedules([up, main], [start])

    def schedule(count: ArrayLike) -> Array:
        # A float, exact up to 2²⁴ steps: optax's schedules mix an int32 count with
        # floats, which strict dtype promotion refuses.
        return jnp.asarray(main(jnp.asarray(count, jnp.float32)), jnp.float32)

    return schedule


def _check_boundaries(
    boundaries: Sequence[int], decay: float, start: int, steps: int
) -> None:
    edges = [start, *boundaries, steps]
    whole = all(isinstance(edge, int) for edge in boundaries)
    ascending = whole and all(a < b for a, b in pairwise(edges))
    if not boundaries or not ascending:
        raise InputError(
            f"boundaries {tuple(boundaries)}: schedule 'step' needs ascending steps "
            f"between warmup_steps {start} and steps {steps}"
        )
    if not 0 < decay <= 1:
        raise InputError(f"decay {decay}: use a factor above 0, up to 1")


def _check_final(final: float) -> None:
    if not 0 <= final <= 1:
        raise InputError(f"final {final}: use 0 to 1, a part of learning_rate")


def _decay_length(fraction: float, start: int, steps: int) -> int:
    if not 0 < fraction <= 1:
        raise InputError(f"decay_fraction {fraction}: use a part above 0, up to 1")
    length = max(1, round(fraction * steps))
    if start + length > steps:
        raise InputError(
            f"decay_fraction {fraction}: {length} steps of decay and {start} of "
            f"warm-up are more than steps {steps}; lower one of them"
        )
    return length
