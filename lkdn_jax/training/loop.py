"""The training loop: `train_and_evaluate(config, workdir)`.

A configuration enters, and is taken apart here; a folder with checkpoints, metrics,
the trained network and its report leaves.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from lkdn_jax.cli import progress_bar
from lkdn_jax.errors import InputError
from lkdn_jax.models.lkdn import expected_params
from lkdn_jax.models.memory import memory_advice
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
    hold,
    initial_params,
    steps_per_dispatch,
    write_config,
)
from lkdn_jax.training.sharding import (
    make_mesh,
    on_first_process,
    replicate,
    replicated_shapes,
)
from lkdn_jax.training.signals import stop_signals
from lkdn_jax.training.state import TrainState, create_state
from lkdn_jax.training.step import make_train_step, make_train_steps
from lkdn_jax.training.validation import Validation
from lkdn_jax.training.writer import MetricsWriter

Log = Callable[[str], None]


def train_and_evaluate(config: Config, workdir: Path, log: Log = print) -> bool:
    """Train a network, from the last checkpoint in `workdir` if there is one.

    Args:
        config: As in configs/default.py.
        workdir: Folder for checkpoints, metrics and the results; on several hosts one
            that all of them see.
        log: Where lines for the user go; process 0 alone calls it.

    Returns:
        Whether the training came to its end; False if a signal stopped it.

    Raises:
        InputError: A configuration or data that cannot be used, a workdir of another
            network, a loss that is not finite, a disk that is full, too little memory.
    """
    check_config(config)
    changes = check_workdir(config, workdir)
    with contextlib.ExitStack() as stack:
        on_first_process(lambda: stack.enter_context(hold(workdir)))
        return _train_and_evaluate(config, workdir, changes, log)


def _train_and_evaluate(
    config: Config, workdir: Path, changes: list[str], log: Log
) -> bool:
    primary = jax.process_index() == 0
    if not primary:
        log = _ignore
    for change in changes:
        log(f"note: {change}")
    model, mesh = create_model(config.model), make_mesh()
    schedule = create_schedule(
        learning_rate=config.optimizer.learning_rate,
        steps=config.steps,
        **config.schedule,
    )
    tx = create_tx(config.optimizer, schedule)
    validation, folders = None, config.validation.folders
    if folders:
        validation = on_first_process(lambda: Validation(model, folders, workdir))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    try:
        shapes = create_state.eval_shape(expected_params(model), tx)
        state = checkpoints.restore(replicated_shapes(mesh, shapes))
        if state is None:
            state = create_state(initial_params(model, config), tx)
            state = replicate(mesh, state)
        else:
            log(f"resumed from {checkpoints.last()}")
        with progress_bar() as progress, _advice(config):
            feed = create_feed(config, mesh, progress)
        devices = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
        if (done := int(state.step)) < config.steps:
            log(f"training to step {config.steps} on {devices}; compiling first")
        else:
            log(f"already at step {done} of {config.steps}: nothing to train")
        step = make_train_step(
            model,
            tx,
            loss=config.loss,
            ema_decay=config.ema_decay,
            accumulate=config.optimizer.accumulate,
            schedule=schedule,
        )
        steps = jax.jit(
            make_train_steps(step, feed.load),
            donate_argnums=0,
            out_shardings=NamedSharding(mesh, PartitionSpec()),
        )
        if primary:
            write_config(config, workdir)
        writer = MetricsWriter(workdir, done) if primary else None
        try:
            run = _Run(config, feed, steps, validation, checkpoints, writer, log)
            with _advice(config):
                state, stopped = run.train(state)
            checkpoints.wait()
        finally:
            if writer is not None:
                writer.close()
        if stopped:
            log(
                f"stopped by {stopped} at step {int(state.step)}, saved "
                f"{checkpoints.last()}; the same command resumes"
            )
        elif primary:
            found = validation.folders if validation is not None else []
            finish(model, state.ema_params, found, workdir, log)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("finished")
        return stopped is None
    finally:
        checkpoints.close()


def _advice(config: Config) -> AbstractContextManager[None]:
    return memory_advice(
        f"out of memory: lower data.batch_size {config.data.batch_size}, raise "
        "optimizer.accumulate, or set --model.remat=true or --data.cache=host; the "
        "same workdir then resumes from its last checkpoint"
    )


def _ignore(line: str) -> None:
    del line


@dataclass
class _Window:
    """Metrics since the last row."""

    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    waited: float = 0.0
    start: float = field(default_factory=time.perf_counter)


@dataclass
class _Run:
    config: Config
    feed: Feed
    steps: Any
    validation: Validation | None
    checkpoints: Checkpoints
    writer: MetricsWriter | None
    log: Log
    window: _Window = field(default_factory=_Window)

    def train(self, state: TrainState) -> tuple[TrainState, str | None]:
        """Run the steps that are left; returns the state and the signal that came."""
        config, done = self.config, int(state.step)
        lengths = list(dispatches(done, config.steps, steps_per_dispatch(config)))
        pending, stopped = None, None
        self.window = _Window()
        with (
            stop_signals() as stop,
            self.feed.samples(done, lengths) as samples,
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
                progress("training", done, config.steps)
                stopped = _agree(stop(), done, config.log_every)
                last = done == config.steps
                validate = last or done % config.validation.every == 0
                save = stopped or last or done % config.checkpoint.every == 0
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
        state: TrainState,
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
                f"{self.config.seed}, step {step}); lower optimizer.learning_rate or "
                "set optimizer.max_grad_norm; last good checkpoint: "
                f"{self.checkpoints.last()}"
            )
        done = first + len(finite)
        if done % self.config.log_every == 0:
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
        patches = len(columns["loss"]) * self.config.data.batch_size
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

    def keep(self, done: int, state: TrainState, *, validate: bool) -> None:
        """Save a checkpoint, after a validation if one is due."""
        start, psnr_y, failure = time.perf_counter(), None, None
        if validate and self.config.validation.folders:
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
