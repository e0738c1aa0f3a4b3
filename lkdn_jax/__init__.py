"""LKDN, the Large Kernel Distillation Network, in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lkdn_jax.errors import InputError
    from lkdn_jax.inference.upscaler import Upscaler
    from lkdn_jax.models.complexity import Complexity, complexity
    from lkdn_jax.models.lkdn import LKDN, lkdn_s
    from lkdn_jax.models.optimize import (
        compiler_options,
        optimize_for_inference,
        optimized_model,
    )
    from lkdn_jax.models.reparam import fold, fold_difference, folded_model
    from lkdn_jax.weights.files import load, save

__version__ = "0.1.0"

__all__ = [
    "LKDN",
    "Complexity",
    "InputError",
    "Upscaler",
    "compiler_options",
    "complexity",
    "fold",
    "fold_difference",
    "folded_model",
    "lkdn_s",
    "load",
    "optimize_for_inference",
    "optimized_model",
    "save",
]

# Loaded when asked for: processes that only read images need no jax.
_MODULES = {
    "InputError": "errors",
    "Upscaler": "inference.upscaler",
    "Complexity": "models.complexity",
    "complexity": "models.complexity",
    "LKDN": "models.lkdn",
    "lkdn_s": "models.lkdn",
    "fold": "models.reparam",
    "compiler_options": "models.optimize",
    "optimize_for_inference": "models.optimize",
    "optimized_model": "models.optimize",
    "fold_difference": "models.reparam",
    "folded_model": "models.reparam",
    "load": "weights.files",
    "save": "weights.files",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
