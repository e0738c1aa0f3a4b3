"""The steps of a run: their metrics, checkpoints and validations, and how they end."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lkdn_jax.cli import progress_bar
from lkdn_jax.errors import InputError
from lkdn_jax.training.checkpoint import Checkpoints
from lkdn_jax.training.feed import Feed
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.processes import on_first_process
from lkdn_jax.training.signals import stop_signals
from lkdn_jax.training.state import TrainState
from lkdn_jax.training.validation import Validation
from lkdn_jax.training.writer import MetricsWriter

Log = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is due when.

    Attributes:
        steps: Steps of the whole run.
        dispatch: Steps of one call of the compiled program.
        log_every: Steps between two rows of metrics.
        validate_every: Steps between two validations; a checkpoint is saved, too.
        save_every: Steps between two checkpoints.
        validated: Whether there are validation images.
        seed: Seed of the samples.
        batch_size: Patches of a step, over all hosts.
    """

    steps: int
    dispatch: int
    log_every: int
    validate_every: int
    save_every: int
    validated: bool
    seed: int
    batch_size: int


@dataclass
class _Window:
    """Metrics since the last row."""

    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    waited: float = 0.0
    start: float = field(default_factory=time.perf_counter)


@dataclass
class Run:
    """A run and its parts.

    Attributes:
        plan: What is due when.
        feed: Where batches come from.
        steps: The compiled steps: from the state, the dataset and the samples of a
            dispatch to the state after it and the metrics of its steps.
        validation: The validation images, on process 0 alone, or None.
        checkpoints: Where states are saved.
        writer: Where metrics go, on process 0 alone.
        log: Where lines for the user go.
        window: Metrics since the last row.
        packing: That of the states that the steps take, or None.
    """

    plan: Plan
    feed: Feed
    steps: Any
    validation: Validation | None
    checkpoints: Checkpoints
    writer: MetricsWriter | None
    log: Log
    window: _Window = field(default_factory=_Window)
    packing: Packing | None = None

    def begin(self, state: TrainState) -> None:
        """Validate and save what a run begins with: none of its steps may be better."""
        self.checkpoints.save(state, self.validate(int(state.step), state))

    def train(self, state: TrainState) -> tuple[TrainState, str | None]:
        """Run the steps that are left; returns the state and the signal that came."""
        if self.packing is None:
            return self.run_steps(state)
        packed, stopped = self.run_steps(self.packing.pack(state))
        return self.packing.unpack(packed), stopped

    def run_steps(self, state: Any) -> tuple[Any, str | None]:
        """Run the steps that are left on a state as they take it."""
        plan, done = self.plan, int(state.step)
        lengths = list(dispatches(done, plan.steps, plan.dispatch))
        pending, stopped = None, None
        self.window = _Window()
        with (
            stop_signals() as stop,
            closing(self.feed.samples(done, lengths)) as samples,
            progress_bar() as progress,
        ):
            for length in lengths:
                start = time.perf_counter()
                batch = self.next_batch(samples, done, state, pending)
                self.window.waited += time.perf_counter() - start
                state, metrics = self.steps(state, self.feed.dataset, batch)
                # The metrics of the dispatch before this one: the device never waits.
                self.collect(pending)
                pending, done = (done, metrics), done + length
                progress("training", done, plan.steps)
                stopped = _agree(stop(), done, plan.log_every)
                last = done == plan.steps
                validate = last or done % plan.validate_every == 0
                save = stopped or last or done % plan.save_every == 0
                if validate or save:
                    self.collect(pending)
                    pending = None
                    self.keep(done, state, validate=validate)
                if stopped:
                    break
        return state, stopped

    def next_batch(
        self,
        samples: Iterator[Any],
        done: int,
        state: Any,
        pending: tuple[int, Any] | None,
    ) -> Any:
        """Return the next batch; if there can be none, the state is saved first."""
        try:
            return next(samples)
        except InputError:
            if done and jax.process_count() == 1:  # several must save together
                self.collect(pending)
                self.keep(done, state, validate=False)
                self.checkpoints.wait()
            raise

    def collect(self, pending: tuple[int, Any] | None) -> None:
        """Fetch and check the metrics of a dispatch; write a row if one is due."""
        if pending is None:
            return
        first, metrics = pending
        values = jax.device_get(metrics)
        self.window.rows.append(values)
        finite = np.all(
            [np.isfinite(values[k]) for k in ("loss", "grad_norm", "param_norm")], 0
        )
        if not finite.all():
            step = first + int(np.argmin(finite))
            raise InputError(
                f"the loss {values['loss'][step - first]}, its gradient or the "
                f"parameters are not finite at step {step} (batch of seed "
                f"{self.plan.seed}, step {step}); lower optimizer.learning_rate or "
                "set optimizer.max_grad_norm; last good checkpoint: "
                f"{self.checkpoints.last()}"
            )
        done = first + len(finite)
        if done % self.plan.log_every == 0 or done == self.plan.steps:
            self.report(done)
            self.window = _Window()

    def report(self, done: int) -> None:
        """Write the row of a window."""
        if self.writer is None:
            return
        rows = self.window.rows
        columns = {
            name: np.concatenate([row[name] for row in rows]) for name in rows[0]
        }
        seconds = time.perf_counter() - self.window.start
        patches = len(columns["loss"]) * self.plan.batch_size
        row = {name: float(np.mean(values)) for name, values in columns.items()}
        row |= {
            "learning_rate": float(columns["learning_rate"][-1]),
            "patches_per_second": patches / seconds,
            "seconds_waiting_for_data": self.window.waited,
        }
        self.writer.scalars(done, row)
        self.log(
            f"step {done}: loss {row['loss']:.5f}, PSNR {row['psnr']:.2f} dB, "
            f"{row['patches_per_second']:.1f} patches/s"
        )

    def keep(self, done: int, state: Any, *, validate: bool) -> None:
        """Save a checkpoint, after a validation if one is due."""
        start, psnr_y, failure = time.perf_counter(), None, None
        if self.packing is not None:
            state = self.packing.unpack(state)
        if validate and self.plan.validated:
            try:
                psnr_y = self.validate(done, state)
            except Exception as error:  # noqa: BLE001  raised once the state is safe
                failure = error
        self.checkpoints.save(state, psnr_y)
        if failure is not None:
            raise failure
        self.window.start += time.perf_counter() - start  # not the training's time

    def validate(self, done: int, state: TrainState) -> float:
        """Validate the average; all processes get the result of the first."""

        def run() -> float:
            assert self.validation is not None and self.writer is not None  # noqa: S101, PT018
            row, picture = self.validation.run(state.ema_params)
            self.writer.scalars(done, row)
            self.writer.image(done, "validation", picture)
            self.log(
                f"step {done}: validation PSNR-Y {row['psnr_y']:.4f} dB (bicubic "
                f"{row['bicubic_psnr_y']:.4f}), SSIM-Y {row['ssim_y']:.5f}"
            )
            return row["psnr_y"]

        psnr_y: Any = on_first_process(run)
        if jax.process_count() > 1:
            psnr_y = multihost_utils.broadcast_one_to_all(np.float32(psnr_y or 0))
        if not np.isfinite(psnr_y):
            raise InputError(
                f"the validation failed: PSNR-Y {psnr_y} dB is not finite; leave out "
                "images of one colour"
            )
        return float(psnr_y)


def dispatches(first: int, steps: int, length: int) -> Iterator[int]:
    """Split the steps left into dispatches that end at multiples of `length`."""
    while first < steps:
        end = min(steps, first - first % length + length)
        yield end - first
        first = end


def _agree(signal_name: str | None, done: int, every: int) -> str | None:
    """Make all processes stop at one step, if a signal reached any of them."""
    if jax.process_count() == 1:
        return signal_name
    if done % every:
        return None
    stop = multihost_utils.process_allgather(np.array(signal_name is not None))
    return (signal_name or "a signal to another process") if stop.any() else None
