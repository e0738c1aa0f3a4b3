"""The end of a run: the network as files, its report, and its curves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lkdn_jax.cli import console
from lkdn_jax.evaluation.benchmark import evaluate_file
from lkdn_jax.evaluation.dataset import Options
from lkdn_jax.evaluation.report import print_report, write_report
from lkdn_jax.models.lkdn import LKDN
from lkdn_jax.training.writer import write_curves
from lkdn_jax.weights.export import export
from lkdn_jax.weights.files import save

UPSCALED = "upscaled"  # folder of a run for the validation images it upscaled


def finish(
    model: LKDN,
    params: Any,
    folders: Sequence[Path],
    workdir: Path,
    log: Callable[[str], None],
) -> None:
    """Write the results of a run.

    Args:
        model: The network.
        params: The averaged parameters.
        folders: Validation images.
        workdir: Where to write `model.msgpack`, `model_folded.msgpack`,
            `report.json`, `report.md`, `upscaled/` and `curves.png`.
        log: Where lines for the user go.

    Raises:
        InputError: A file that cannot be written, or a network that diverged so far
            that folding changes what it computes.
    """
    path, folded = workdir / "model.msgpack", workdir / "model_folded.msgpack"
    save(path, model, params)
    write_curves(workdir, workdir / "curves.png")
    export(path, folded)
    log(f"wrote {path}, {folded.name} and curves.png")
    if not folders:
        return
    options = Options(save_images=workdir / UPSCALED)
    report = evaluate_file(folded, folders, options=options)
    for suffix in ("json", "md"):
        write_report(workdir / f"report.{suffix}", report)
    print_report(report, console())
    log(f"report: {workdir / 'report.json'}")
