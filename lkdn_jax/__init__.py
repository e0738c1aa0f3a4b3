"""LKDN, the Large Kernel Distillation Network, in JAX."""

from lkdn_jax.errors import InputError
from lkdn_jax.models.complexity import Complexity, complexity
from lkdn_jax.models.lkdn import LKDN, lkdn_s
from lkdn_jax.models.reparam import fold, fold_difference, folded_model
from lkdn_jax.weights.files import load, save

__all__ = [
    "LKDN",
    "Complexity",
    "InputError",
    "complexity",
    "fold",
    "fold_difference",
    "folded_model",
    "lkdn_s",
    "load",
    "save",
]
