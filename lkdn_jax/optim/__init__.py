"""Optimizers and learning-rate schedules, in optax's manner."""

from lkdn_jax.optim.adan import adan, scale_by_adan
from lkdn_jax.optim.optimizers import create_optimizer
from lkdn_jax.optim.schedules import create_schedule

__all__ = ["adan", "create_optimizer", "create_schedule", "scale_by_adan"]
