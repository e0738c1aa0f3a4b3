"""The training loop: `train_and_evaluate(config, workdir)`.

A configuration enters, and is taken apart here; a folder with checkpoints, metrics,
the trained network and its report leaves.
"""

import contextlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from lkdn_jax.cli import progress_bar
from lkdn_jax.models.lkdn import expected_params
from lkdn_jax.models.memory import memory_advice
from lkdn_jax.optim.schedules import create_schedule
from lkdn_jax.progress import ignore
from lkdn_jax.training.checkpoint import Checkpoints
from lkdn_jax.training.config import Config, naming_fields
from lkdn_jax.training.finish import finish
from lkdn_jax.training.packing import Packing
from lkdn_jax.training.processes import (
    lost_process,
    lost_process_advice,
    on_first_process,
)
from lkdn_jax.training.run import Log, Run
from lkdn_jax.training.setup import (
    check_config,
    create_feed,
    create_model,
    create_plan,
    create_tx,
    initial_params,
)
from lkdn_jax.training.sharding import make_mesh, replicate, replicated_shapes
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step, make_train_steps
from lkdn_jax.training.validation import Validation
from lkdn_jax.training.workdir import (
    check_no_results,
    check_workdir,
    hold,
    write_config,
)
from lkdn_jax.training.writer import MetricsWriter

_AVERAGES = 3  # time constants of the average after which its beginning is forgotten


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
    with lost_process_advice(), contextlib.ExitStack() as stack:
        on_first_process(lambda: stack.enter_context(hold(workdir)))
        return _train_and_evaluate(config, workdir, changes, log)


def _train_and_evaluate(
    config: Config, workdir: Path, changes: list[str], log: Log
) -> bool:
    primary = jax.process_index() == 0
    if not primary:
        log = ignore
    for change in changes:
        log(f"note: {change}")
    model, mesh = create_model(config.model), make_mesh()
    with naming_fields(config):
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
        if config.steps * (1 - config.ema_decay) < _AVERAGES:
            log(
                f"note: {config.steps} steps are few for ema_decay {config.ema_decay}: "
                "the average, which validation and export use, is mostly the beginning"
            )
        with _advice(config):
            state = checkpoints.restore(replicated_shapes(mesh, shapes))
            resumed = state is not None
            if state is None:
                check_no_results(workdir)
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
        plan = create_plan(config)
        # Not for a single step: XLA on CPU compiles a kernel for each array that is cut
        # from a vector.
        packing = Packing(shapes.params) if plan.dispatch > 1 else None
        step = make_train_step(
            model,
            tx,
            loss=config.loss,
            ema_decay=config.ema_decay,
            accumulate=config.optimizer.accumulate,
            schedule=schedule,
            packing=packing,
        )
        steps = jax.jit(
            make_train_steps(step, feed.load),
            donate_argnums=0,
            out_shardings=NamedSharding(mesh, PartitionSpec()),
        )
        if primary and done < config.steps:
            write_config(config, workdir)
        writer = MetricsWriter(workdir, done if resumed else -1) if primary else None
        try:
            run = Run(
                plan, feed, steps, validation, checkpoints, writer, log, packing=packing
            )
            with _advice(config):
                if config.init_from and plan.validated and not resumed:
                    run.begin(state)
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
        if not lost_process(sys.exception()):  # a save would wait for it
            checkpoints.close()


def _advice(config: Config) -> AbstractContextManager[None]:
    return memory_advice(
        f"out of memory: lower data.batch_size {config.data.batch_size}, raise "
        "optimizer.accumulate, or set --model.remat=true or --data.cache=host; the "
        "same workdir then resumes from its last checkpoint"
    )
