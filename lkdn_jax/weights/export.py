"""Export: fold what can be folded, prove it, and write one file that is enough."""

import os
from dataclasses import dataclass
from pathlib import Path

from lkdn_jax.errors import InputError
from lkdn_jax.models.complexity import Complexity, complexity
from lkdn_jax.models.reparam import fold, fold_difference, folded_model
from lkdn_jax.weights.files import Names, load, save
from lkdn_jax.weights.published import check_finite

MAX_DIFFERENCE = 1e-4  # on [0, 1]: a fortieth of a grey level


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        before: Complexity of the network as loaded.
        after: Complexity of the network as written.
        difference: Largest difference of their outputs on random input, on [0, 1];
            None if nothing was folded.
    """

    before: Complexity
    after: Complexity
    difference: float | None


def export(
    weights: str | Path,
    output: str | Path,
    *,
    folded: bool = True,
    names: Names = "ours",
) -> Export:
    """Write a network in another format, folded where there is something to fold.

    Args:
        weights: A file for `lkdn_jax.load`.
        output: A `.msgpack` or `.safetensors` file.
        folded: Whether to fold.
        names: See `lkdn_jax.save`.

    Returns:
        What was done.

    Raises:
        InputError: Unusable files, parameters that are not finite, a folded network
            that computes something else, or that would replace `weights`; then nothing
            is written.
    """
    model, params = load(weights)
    check_finite(params, f"{weights}: ")
    before, difference = complexity(model, params), None
    if folded and folded_model(model) != model:
        difference = fold_difference(model, params)
        if not difference <= MAX_DIFFERENCE:  # NaN must not pass
            raise InputError(
                f"{weights}: folding changes the output by {difference:.1e}, more than "
                f"{MAX_DIFFERENCE:.0e}; the weights are damaged or very large, export "
                "them with --no-fold"
            )
        if os.path.exists(output) and os.path.samefile(weights, output):
            raise InputError(
                f"{output}: folding over the weights themselves would lose the form "
                "that is trained; choose another --output"
            )
        model, params = folded_model(model), fold(params)
    save(output, model, params, names=names)
    return Export(before, complexity(model, params), difference)
