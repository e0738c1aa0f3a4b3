"""What a run writes and saves, and when."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lkdn_jax import InputError
from lkdn_jax.training.config import load_config
from lkdn_jax.training.feed import Feed
from lkdn_jax.training.run import Run
from lkdn_jax.training.setup import create_plan
from lkdn_jax.training.state import TrainState
from lkdn_jax.training.writer import MetricsWriter, read_metrics

TINY = Path(__file__).with_name("tiny_config.py")


def metrics(losses, first_rate=1.0):
    columns = {"loss": losses, "psnr": losses, "grad_norm": losses}
    rates = [first_rate - i / 8 for i in range(len(losses))]
    columns |= {"param_norm": losses, "learning_rate": rates}
    return {name: np.array(values, np.float32) for name, values in columns.items()}


def make_run(writer=None, validation=None, losses=(), **plan):
    """Make a run whose steps have these losses."""

    def steps(before, _, batch):
        start, count = batch
        after = before.replace(step=before.step + count)
        return after, metrics(losses[start : start + count])

    def samples(start, lengths):
        for length in lengths:
            yield start, length
            start += length

    plan = replace(create_plan(load_config(TINY)), **plan)
    feed = Feed((), Mock(), samples)
    return Run(plan, feed, steps, validation, Mock(), writer, Mock())


def test_a_row_is_the_mean_of_its_own_steps(tmp_path):
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as writer:
        run = make_run(writer, log_every=4, steps=100)
        run.collect((0, metrics([1.0, 2.0])))
        run.window.start, run.window.waited = time.perf_counter() - 10, 3.0
        run.collect((2, metrics([3.0, 6.0], 0.5)))
        run.collect((4, metrics([10.0, 10.0, 20.0, 40.0])))
        run.collect((8, metrics([7.0])))  # no row is due
    first, second = read_metrics(tmp_path)
    assert (first["step"], second["step"]) == (4, 8)
    assert (first["loss"], second["loss"]) == (3.0, 20.0)
    assert (first["learning_rate"], second["learning_rate"]) == (0.375, 0.625)
    # Four steps of four patches in ten seconds.
    assert first["patches_per_second"] == pytest.approx(1.6, rel=0.05)
    assert first["seconds_waiting_for_data"] == 3.0
    assert second["seconds_waiting_for_data"] == 0.0


def test_says_at_which_step_the_loss_was_not_finite():
    run = make_run()
    with pytest.raises(InputError, match=r"the loss nan, .* not finite at step 10 "):
        run.collect((8, metrics([1.0, 1.0, np.nan, 1.0])))


def saved(run):
    return [int(call.args[0].step) for call in run.checkpoints.save.call_args_list]


START = TrainState(np.int32(0), (), (), ())


def test_what_is_not_finite_is_not_saved():
    losses = [1.0] * 6 + [np.nan] + [1.0] * 5
    run = make_run(losses=losses, dispatch=4, save_every=4)
    with pytest.raises(InputError, match="not finite at step 6 "):
        run.train(START)
    assert saved(run) == [4]


def test_the_last_step_is_saved_and_validated(tmp_path):
    row = {"psnr_y": 30.0, "bicubic_psnr_y": 28.0, "ssim_y": 0.9}
    validation = Mock(run=Mock(return_value=(row, np.zeros((4, 4, 3), np.uint8))))
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as writer:
        run = make_run(
            writer, validation, [1.0] * 7, steps=7, save_every=2, validate_every=4,
            validated=True, log_every=2,
        )  # fmt: skip
        after, stopped = run.train(START)
    assert (int(after.step), stopped) == (7, None)
    assert saved(run) == [2, 4, 6, 7]
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows if "psnr_y" in row] == [4, 7]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 7]


def test_a_state_whose_metrics_are_not_known_yet_is_not_saved_unseen():
    def samples():
        raise InputError("a data worker was killed")
        yield

    run = make_run()
    with pytest.raises(InputError, match="not finite at step 7 "):
        run.next_batch(samples(), 8, START, (7, metrics([np.inf])))
    assert saved(run) == []
