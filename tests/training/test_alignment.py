"""The whole pipeline, from photographs to parameters, keeps LR and HR aligned."""

from functools import partial

import jax
import numpy as np
import pytest

import lkdn_jax
from lkdn_jax.data.pairs import find_pairs
from lkdn_jax.data.photographs import photograph_tiles
from lkdn_jax.data.samples import Sampling
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.evaluation.benchmark import lr_sizes
from lkdn_jax.evaluation.bucketing import BucketedUpscaler
from lkdn_jax.evaluation.dataset import evaluate_dataset
from lkdn_jax.optim.adan import adan
from lkdn_jax.training.feed import device_feed
from lkdn_jax.training.sharding import make_mesh, replicate
from lkdn_jax.training.state import create_state
from lkdn_jax.training.step import make_train_step, make_train_steps

STEPS = 50


@pytest.mark.reference
def test_fine_tuning_published_weights_keeps_their_psnr(reference):
    model, params = lkdn_jax.load(reference / "weights" / "LKDN-S_del_rep_x4.pth")
    mesh, tx = make_mesh(), adan(2e-5)
    tiles = photograph_tiles(4, 256)
    dataset = find_pairs(reference / "benchmarks" / "Set5", 4)
    sizes = lr_sizes(dataset.pairs, 4)
    upscaler = BucketedUpscaler(model, sizes, max_programs=1)
    program = None

    def psnr_after_training(tiles):
        nonlocal program
        feed = device_feed(mesh, [tiles], Sampling(0, 2, 32))
        if program is None:
            steps = make_train_steps(make_train_step(model, tx), feed.load)
            program = jax.jit(steps)
        state = replicate(mesh, create_state(params, tx))
        for batch in feed.samples(0, [1] * STEPS):
            state, _ = program(state, feed.dataset, batch)
        trained = jax.tree.map(np.asarray, state.params)
        report = evaluate_dataset(partial(upscaler, trained), dataset, 4)
        return report["mean"]["psnr_y"]

    assert psnr_after_training(tiles) == pytest.approx(32.106, abs=0.02)
    shifted = Tiles(tiles.lr, np.roll(tiles.hr, 1, axis=2))
    assert psnr_after_training(shifted) < 32.106 - 0.02
