"""Metrics of a run: JSON lines, TensorBoard, and a picture of the curves."""

import io
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # pyright: ignore
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)

from lkdn_jax.files import atomic_write


class MetricsWriter:
    """Writes the metrics of a run; only process 0 has one."""

    def __init__(self, workdir: Path, resume_step: int) -> None:
        """Open the files.

        Args:
            workdir: Folder for `metrics.jsonl` and `tensorboard/`.
            resume_step: Rows after this step, of a run that was killed, are dropped;
                −1 drops all, of one that begins.
        """
        self._path = workdir / "metrics.jsonl"
        rows = [row for row in read_metrics(workdir) if row["step"] <= resume_step]
        with atomic_write(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file = self._path.open("a")
        folder = workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        # Not a SummaryWriter: its thread dies on a full disk, and the training waits.
        self._board = EventsWriter(str(folder / "events"))
        self._log(resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, metrics: dict[str, float]) -> None:
        """Write a row.

        Args:
            step: Steps done.
            metrics: Values by name; one that is not finite is null in the JSON line.
        """
        row = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps({"step": step} | row) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._log(step, summary=summary.scalar(name, value))
        self._board.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write an image [h, w, 3], uint8, to TensorBoard."""
        self._log(step, summary=summary.image(name, image, dataformats="HWC"))
        self._board.flush()

    def _log(self, step: int, **content: Any) -> None:
        self._board.write_event(Event(step=step, wall_time=time.time(), **content))

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        self._board.close()


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """Read the rows of a run.

    Args:
        workdir: Its folder.

    Returns:
        A dict a row, with `step`; a half-written last line is left out.
    """
    path = workdir / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_curves(workdir: Path, path: Path) -> None:
    """Draw the loss and the validation PSNR of a run.

    Args:
        workdir: Its folder.
        path: The PNG to write.
    """
    # Here, at the end of a run: it takes half a second to import.
    import matplotlib.figure

    rows = read_metrics(workdir)
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, keys, label in (
        (axes[0], ("loss",), "training loss"),
        (axes[1], ("psnr_y", "bicubic_psnr_y"), "validation PSNR-Y (dB)"),
    ):
        for key in keys:
            points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
            if points:
                marker = "." if len(points) < 50 else ""
                axis.plot(*zip(*points, strict=True), marker=marker, label=key)
        axis.set(xlabel="step", title=label)
        axis.grid(alpha=0.3)
    if axes[1].lines:
        axes[1].legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    with atomic_write(path) as file:
        file.write(content.getvalue())
