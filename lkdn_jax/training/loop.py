"""The training loop: `train_and_evaluate(config, workdir)`.

A configuration enters, and is taken apart here; a folder with checkpoints, metrics,
the trained network and its report leaves.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lkdn_jax.cli import progress_bar
from lkdn_jax.errors import InputError
from lkdn_jax.optim.schedules import create_schedule
from lkdn_jax.training.checkpoint import Checkpoints
from lkdn_jax.training.config import Config
from lkdn_jax.training.feed import Feed
from lkdn_jax.training.finish import finish
from lkdn_jax.training.setup import (
    check_config,
    check_workdir,
    create_feed,
    create_model,
    create_tx,
    initial_params,
    steps_per_dispatch,
)
from lkdn_jax.training.sharding import make_mesh, replicate
from lkdn_jax.training.signals import stop_signals
from lkdn_jax.training.state import TrainState, create_state
from lkdn_jax.training.step import make_train_step, make_train_steps
from lkdn_jax.training.validation import Validation
from lkdn_jax.training.writer import MetricsWriter

Log = Callable[[str], None]


def train_and_evaluate(config: Config, workdir: Path, log: Log = print) -> None:
    """Train a network, from the last checkpoint in `workdir` if there is one.

    Args:
        config: As in configs/default.py.
        workdir: Folder for checkpoints, metrics and the results.
        log: Where lines for the user go.

    Raises:
        InputError: A configuration or data that cannot be used, a workdir of another
            network, a loss that is not finite, a disk that is full.
    """
    check_config(config)
    primary = jax.process_index() == 0
    if primary:
        check_workdir(config, workdir)
    model = create_model(config.model)
    schedule = create_schedule(
        learning_rate=config.optimizer.learning_rate,
        steps=config.steps,
        **config.schedule,
    )
    tx = create_tx(config.optimizer, schedule)
    mesh = make_mesh()
    with progress_bar() as progress:
        feed = create_feed(config, mesh, progress)
    validation = Validation(model, config.validation.folders, workdir / "validation")
    state = create_state(model, tx, seed=config.seed, params=initial_params(config))
    state = replicate(mesh, state)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    try:
        if (restored := checkpoints.restore(state)) is not None:
            state = restored
            log(f"resumed from {checkpoints.last()}")
        step = make_train_step(
            model,
            tx,
            loss=config.loss,
            ema_decay=config.ema_decay,
            accumulate=config.optimizer.accumulate,
            schedule=schedule,
        )
        steps = jax.jit(make_train_steps(step, feed.load), donate_argnums=0)
        writer = MetricsWriter(workdir, int(state.step)) if primary else None
        run = _Run(config, feed, steps, validation, checkpoints, writer, log)
        state, stopped = run.train(state)
        checkpoints.wait()
        if writer is not None:
            writer.close()
        if stopped:
            log(
                f"stopped by {stopped} at step {int(state.step)}, saved "
                f"{checkpoints.last()}; the same command resumes"
            )
        elif primary:
            finish(model, state.ema_params, validation.folders, workdir, log)
    finally:
        checkpoints.close()


@dataclass
class _Window:
    """Metrics since the last row."""

    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    waited: float = 0.0
    start: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class _Run:
    config: Config
    feed: Feed
    steps: Any
    validation: Validation
    checkpoints: Checkpoints
    writer: MetricsWriter | None
    log: Log

    def train(self, state: TrainState) -> tuple[TrainState, str | None]:
        """Run the steps that are left; returns the state and the signal that came."""
        config, first = self.config, int(state.step)
        lengths = list(dispatches(first, config.steps, steps_per_dispatch(config)))
        window, pending, done = _Window(), None, first
        stopped = None
        with (
            stop_signals() as stop,
            self.feed.samples(first, lengths) as samples,
            progress_bar() as progress,
        ):
            for length in lengths:
                start = time.perf_counter()
                batch = next(samples)
                window.waited += time.perf_counter() - start
                state, metrics = self.steps(state, self.feed.dataset, batch)
                # The metrics of the dispatch before this one: the device never waits.
                if pending is not None:
                    self.collect(window, *pending)
                pending, done = (done, metrics), done + length
                progress("training", done, config.steps)
                stopped = _agree(stop(), done, config.log_every)
                events = self.events(done) | ({"save"} if stopped else set())
                if events:
                    self.collect(window, *pending)
                    pending = None
                    window = self.handle(events, done, state, window)
                if stopped:
                    break
        return state, stopped

    def events(self, done: int) -> set[str]:
        """Name what is due after so many steps."""
        config, last = self.config, done == self.config.steps
        due = {
            "log": done % config.log_every == 0,
            "validate": done % config.validation.every == 0 or last,
            "save": done % config.checkpoint.every == 0 or last,
        }
        return {name for name, is_due in due.items() if is_due}

    def collect(self, window: _Window, first: int, metrics: Any) -> None:
        """Fetch the metrics of a dispatch and check them."""
        values = jax.device_get(metrics)
        window.rows.append(values)
        finite = np.isfinite(values["loss"]) & np.isfinite(values["grad_norm"])
        if not finite.all():
            step = first + int(np.argmin(finite))
            raise InputError(
                f"loss {values['loss'][step - first]} or its gradient is not finite at "
                f"step {step} (batch of seed {self.config.seed}, step {step}); lower "
                "optimizer.learning_rate or set optimizer.max_grad_norm; last good "
                f"checkpoint: {self.checkpoints.last()}"
            )

    def handle(
        self, events: set[str], done: int, state: TrainState, window: _Window
    ) -> _Window:
        """Log, validate and save what is due; returns the window that goes on."""
        if "log" in events and window.rows:
            self.report(done, window)
            window = _Window()
        start, psnr_y = time.perf_counter(), None
        if "validate" in events and self.validation.folders:
            psnr_y = self.validate(done, state)
        if events & {"validate", "save"}:
            self.checkpoints.save(state, psnr_y)
        window.start += time.perf_counter() - start
        return window

    def report(self, done: int, window: _Window) -> None:
        """Write the row of a window."""
        if self.writer is None:
            return
        columns = {
            name: np.concatenate([row[name] for row in window.rows])
            for name in window.rows[0]
        }
        seconds = time.perf_counter() - window.start
        steps = len(columns["loss"])
        row = {name: float(np.mean(values)) for name, values in columns.items()}
        row |= {
            "learning_rate": float(columns["learning_rate"][-1]),
            "patches_per_second": steps * self.config.data.batch_size / seconds,
            "seconds_waiting_for_data": window.waited,
        }
        self.writer.scalars(done, row)
        self.log(
            f"step {done}: loss {row['loss']:.5f}, PSNR {row['psnr']:.2f} dB, "
            f"{row['patches_per_second']:.1f} patches/s"
        )

    def validate(self, done: int, state: TrainState) -> float:
        """Validate the average; all processes get the result of the first."""
        psnr_y = 0.0
        if self.writer is not None:
            row, picture = self.validation.run(state.ema_params)
            self.writer.scalars(done, row)
            self.writer.image(done, "validation", picture)
            psnr_y = row["psnr_y"]
            self.log(
                f"step {done}: validation PSNR-Y {psnr_y:.4f} dB (bicubic "
                f"{row['bicubic_psnr_y']:.4f}), SSIM-Y {row['ssim_y']:.5f}"
            )
        return _broadcast(psnr_y)


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


def _broadcast(value: float) -> float:
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))
