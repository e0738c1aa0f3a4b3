"""Adan as its authors published it; `optax.adan` weights the difference by 1 − b2."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

Mask = Any | Callable[[optax.Params], Any]
# An array is what `optax.inject_hyperparams` passes: traced, in the parameters' dtype.
Scalar = float | Array


class ScaleByAdanState(NamedTuple):
    """What Adan remembers; the trees are in the parameters' dtype, float32 at least.

    Attributes:
        count: Number of updates so far, int32 scalar.
        m: Mean of the gradients.
        v: Mean of the gradient differences.
        n: Mean of the squares of the gradients with look-ahead.
        previous: Last gradient; zeros, and not used, before the first update.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    m: optax.Updates
    v: optax.Updates
    n: optax.Updates
    previous: optax.Updates


class ProximalWeightDecayState(NamedTuple):
    """The number of updates so far, int32 scalar: where a schedule is read."""

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]


def scale_by_adan(
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformation:
    """Turn gradients into Adan's direction; the learning rate and its sign come after.

    See :func:`adan` for the equations. Everything is computed in the parameters'
    dtype, in float32 where that is narrower; updates come back in the gradients' dtype.

    Args:
        b1: Decay of the mean of the gradients, in [0, 1).
        b2: Decay of the mean of the differences, and their weight, in [0, 1).
        b3: Decay of the mean of the squares, in [0, 1).
        eps: Added to the root in the denominator, non-negative.

    Returns:
        The transform, with a :class:`ScaleByAdanState`.
    """

    def init(params: optax.Params) -> ScaleByAdanState:
        def zeros() -> Any:
            return jax.tree.map(lambda p: jnp.zeros_like(p, _wide(p.dtype)), params)

        count = jnp.zeros([], jnp.int32)
        return ScaleByAdanState(count, zeros(), zeros(), zeros(), zeros())

    def update(
        updates: optax.Updates,
        state: ScaleByAdanState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScaleByAdanState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        first = count == 1
        corrections = [_bias_correction(b, count) for b in (b1, b2, b3)]

        def leaf(g: Array, m: Array, v: Array, n: Array, previous: Array) -> tuple:
            dtype = m.dtype
            w1, w2, w3, floor = (_scalar(x, dtype) for x in (b1, b2, b3, eps))
            c1, c2, c3 = (c.astype(dtype) for c in corrections)
            gradient = g.astype(dtype)
            difference = gradient - jnp.where(first, gradient, previous)
            m = w1 * m + (1 - w1) * gradient
            v = w2 * v + (1 - w2) * difference
            n = w3 * n + (1 - w3) * jnp.square(gradient + w2 * difference)
            direction = (m / c1 + w2 * (v / c2)) / (jnp.sqrt(n / c3) + floor)
            return direction.astype(g.dtype), m, v, n, gradient

        leaves = jax.tree.map(leaf, updates, state.m, state.v, state.n, state.previous)
        direction, *trees = jax.tree.transpose(
            jax.tree.structure(updates), jax.tree.structure((0,) * 5), leaves
        )
        return direction, ScaleByAdanState(count, *trees)

    # Pyright cannot match a state's own type with the base class's `Any` callables.
    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def add_proximal_weight_decay(
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: Scalar,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    """Decay the parameters after the step: θ ← (θ + update) / (1 + lr·λ).

    It stands last in a chain: the update it receives is already scaled by −lr.

    Args:
        learning_rate: lr, a scalar or a schedule, the one that scaled the update.
        weight_decay: λ, non-negative.
        mask: Tree of booleans with the structure of the parameters or a prefix of it,
            or a function of the parameters that returns one: True where to decay.
            None decays everything.

    Returns:
        The transform, with a :class:`ProximalWeightDecayState`. Its update raises
        ValueError if it is not given the parameters.
    """

    def init(params: optax.Params) -> ProximalWeightDecayState:
        del params
        return ProximalWeightDecayState(jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates,
        state: ProximalWeightDecayState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ProximalWeightDecayState]:
        if params is None:
            raise ValueError("weight decay needs params: call update(g, state, params)")
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def leaf(u: Array, p: Array) -> Array:
            dtype = _wide(p.dtype)
            decay = _scalar(rate, dtype) * _scalar(weight_decay, dtype)
            # (θ + u)/(1 + decay) − θ, written so that θ does not cancel.
            shrunk = (u.astype(dtype) - decay * p.astype(dtype)) / (1 + decay)
            return shrunk.astype(u.dtype)

        count = jnp.asarray(optax.safe_increment(state.count))
        return jax.tree.map(leaf, updates, params), ProximalWeightDecayState(count)

    transform = optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
    return transform if mask is None else optax.masked(transform, mask)


def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: Scalar = 0.98,
    b2: Scalar = 0.92,
    b3: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.0,
    *,
    no_prox: bool = False,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Return Adan, adaptive Nesterov momentum.

    With gradient :math:`g_t`, difference :math:`d_t = g_t - g_{t-1}` (:math:`d_1 = 0`)
    and means that start at zero,

    .. math::

        m_t &= b_1 m_{t-1} + (1 - b_1)\, g_t \\
        v_t &= b_2 v_{t-1} + (1 - b_2)\, d_t \\
        n_t &= b_3 n_{t-1} + (1 - b_3)\, (g_t + b_2 d_t)^2 \\
        u_t &= -\eta\, \frac{m_t / (1 - b_1^t) + b_2\, v_t / (1 - b_2^t)}
                            {\sqrt{n_t / (1 - b_3^t)} + \epsilon} \\
        \theta_t &= \frac{\theta_{t-1} + u_t}{1 + \eta \lambda}

    with learning rate :math:`\eta` and weight decay :math:`\lambda`; `no_prox` makes
    the last line :math:`\theta_t = (1 - \eta\lambda)\, \theta_{t-1} + u_t`. The betas
    are those of the authors' code; the paper's are 1 minus these.

    Args:
        learning_rate: η, a scalar or a schedule.
        b1: Decay of the mean of the gradients, in [0, 1).
        b2: Decay of the mean of the differences, and their weight, in [0, 1).
        b3: Decay of the mean of the squares, in [0, 1).
        eps: Added to the root in the denominator, non-negative.
        weight_decay: λ, non-negative.
        no_prox: Whether to decay before the step rather than after it.
        mask: Tree of booleans, or a function of the parameters that returns one: True
            where to decay. Under `optax.inject_hyperparams` name a function in
            `static_args`, or it is taken for a schedule.

    Returns:
        The optimizer; its state is four times the size of the parameters.

    References:
        Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing
        Deep Models, 2022, arXiv 2208.06677.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from lkdn_jax.optim import adan
        >>> loss = lambda x: jnp.sum(x**2)
        >>> tx = adan(0.1)
        >>> params = jnp.array([1.0, -2.0])
        >>> state = tx.init(params)
        >>> for step in range(3):
        ...     print(f"{loss(params):.2f}")
        ...     updates, state = tx.update(jax.grad(loss)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        5.00
        4.42
        3.88
    """
    before, after = [], []
    # An array can change from zero later: only a number that is zero drops the decay.
    if not isinstance(weight_decay, int | float) or weight_decay != 0:
        if no_prox:
            before = [optax.add_decayed_weights(weight_decay, mask)]
        else:
            after = [add_proximal_weight_decay(learning_rate, weight_decay, mask)]
    direction = scale_by_adan(b1, b2, b3, eps)
    scale = optax.scale_by_learning_rate(learning_rate)
    return optax.chain(direction, *before, scale, *after)


def _wide(dtype: DTypeLike) -> jnp.dtype:
    # Means with a decay of 0.99 stand still in bfloat16, which has 8 bits.
    return jnp.dtype(dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32)


def _scalar(value: ArrayLike, dtype: DTypeLike) -> Scalar:
    # Python's numbers stay what they are: 1 − b is then rounded only once.
    if isinstance(value, int | float):
        return float(value)
    return jnp.asarray(value).astype(dtype)


def _bias_correction(b: Scalar, count: Array) -> Array:
    # In float32, 1 − 0.99¹ computed as written is wrong by up to 3e-6 of its value.
    t = count.astype(float)
    b = _scalar(b, t.dtype)
    if isinstance(b, Array):
        return -jnp.expm1(t * jnp.log(b))
    return -jnp.expm1(t * math.log(b)) if b > 0 else jnp.ones_like(t)
