"""Checkpoints: the only file that knows Orbax.

A checkpoint is written by a thread while training goes on, under a temporary name, and
renamed when it is whole. Kept are the last few and the best.
"""

import contextlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import absl.logging
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    preservation_policy,
    save_decision_policy,
)

from lkdn_jax.errors import InputError
from lkdn_jax.models.memory import is_out_of_memory
from lkdn_jax.training.state import TrainState


def _psnr_y(metrics: Any) -> float:
    return metrics["psnr_y"]


def _check_metrics(folder: Path) -> None:
    # Orbax reads those of all checkpoints at once, and does not say which fails.
    for path in folder.glob("*/metrics/metrics"):
        if not path.parents[1].name.isdigit():
            continue  # one that was not finished, which Orbax removes
        try:
            metrics = json.loads(path.read_bytes())
            if metrics is not None:
                float(_psnr_y(metrics))
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise InputError(
                f"{path}: damaged; move {path.parent} away, and the checkpoint counts "
                "as one that was not validated; if more of it is damaged, move all of "
                f"{path.parents[1]}"
            ) from error


def _silence_closed_loops() -> None:
    # After a failed save its writers go on telling an event loop that is gone, each
    # with a traceback, and what they never came to is warned of.
    warnings.filterwarnings("ignore", "coroutine", RuntimeWarning)
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        """Open or create the folder.

        Args:
            folder: Where the checkpoints are.
            keep: How many of the latest to keep, beside the one of the best PSNR.

        Raises:
            InputError: The metrics of a checkpoint there are damaged.
        """
        # What a failed save says is raised, too; its log would be hundreds of lines.
        absl.logging.set_verbosity(absl.logging.FATAL)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        _silence_closed_loops()
        keep_latest = preservation_policy.LatestN(keep)
        keep_best = preservation_policy.BestN(
            get_metric_fn=_psnr_y, n=1, keep_checkpoints_without_metrics=False
        )
        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            best_fn=_psnr_y,  # without it the metrics are not written
            preservation_policy=preservation_policy.AnyPreservationPolicy(
                [keep_latest, keep_best]
            ),
            save_decision_policy=save_decision_policy.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        )
        _check_metrics(folder)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: TrainState, psnr_y: float | None = None) -> None:
        """Start to save a state; returns before it is written.

        Args:
            state: The state.
            psnr_y: Its validation PSNR in dB, if it was measured.

        Raises:
            InputError: An earlier save failed, as on a full disk.
        """
        metrics = None if psnr_y is None else {"psnr_y": psnr_y}
        try:
            self._manager.save(
                int(state.step), args=ocp.args.StandardSave(state), metrics=metrics
            )
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState) -> TrainState | None:
        """Restore the last whole checkpoint.

        Args:
            like: The state's structure, with a `jax.ShapeDtypeStruct` and its sharding
                for each array.

        Returns:
            The state, or None where there is no checkpoint.

        Raises:
            InputError: The checkpoint is damaged, or of another network or optimizer.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            restored: Any = self._manager.restore(
                step, args=ocp.args.StandardRestore(like)
            )
        except Exception as error:  # of what is damaged, Orbax says so in any way
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{self._folder}: checkpoint {step} is damaged, or of another network "
                "or optimizer than the config; use its config or another --workdir, or "
                f"if it is damaged move {step} away to resume from the one before"
            ) from error
        return restored

    def last(self) -> str:
        """Name the last whole checkpoint, for messages."""
        self._manager.reload()
        step = self._manager.latest_step()
        return "none" if step is None else str(self._folder / str(step))

    def wait(self) -> None:
        """Wait until all saves are written.

        Raises:
            InputError: A save failed, as on a full disk.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Wait, and release the threads; a save that fails now is not reported."""
        with contextlib.suppress(OSError, ValueError):
            self._manager.close()

    def _failed(self, error: Any) -> InputError:
        reason = " ".join(str(error).split())[-200:]  # the cause stands at the end
        return InputError(
            f"cannot save a checkpoint in {self._folder}: {reason}; free space and run "
            f"the same command again, it resumes from {self.last()}"
        )
