"""Validation: which network is the best, and what is written of it."""

import contextlib
import struct
from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import lkdn_jax
from lkdn_jax import LKDN, InputError
from lkdn_jax.data.images import write_image
from lkdn_jax.training.config import load_config
from lkdn_jax.training.run import Run
from lkdn_jax.training.setup import create_plan
from lkdn_jax.training.validation import Validation
from lkdn_jax.training.writer import MetricsWriter, read_metrics

TINY = Path(__file__).with_name("tiny_config.py")


def test_a_validation_that_is_not_finite_is_no_best(tmp_path):
    row = {"psnr_y": np.inf, "bicubic_psnr_y": 30.0, "ssim_y": 1.0}
    validation = Mock(run=lambda _: (row, np.zeros((4, 4, 3), np.uint8)))
    checkpoints = Mock()
    plan = create_plan(load_config(TINY, [f"--validation.folders={tmp_path}"]))
    run = Run(plan, Mock(), Mock(), validation, checkpoints, Mock(), Mock())
    state = Mock(step=4)
    with pytest.raises(InputError, match="PSNR-Y inf dB is not finite"):
        run.keep(4, state, validate=True)
    checkpoints.save.assert_called_once_with(state, None)


def test_an_infinite_psnr_is_never_the_best(tmp_path, init):
    model = LKDN(scale=2, features=4, num_blocks=1)
    params = jax.tree.map(np.zeros_like, init(model)["params"])
    folder = tmp_path / "images"
    write_image(folder / "black.png", np.zeros((40, 40, 3), np.uint8))
    assert np.isposinf(
        Validation(model, [str(folder)], tmp_path).run(params)[0]["psnr_y"]
    )
    assert not (tmp_path / "model_best.msgpack").exists()
    (folder / "black.png").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    write_image(folder / "noise.png", noise)
    (tmp_path / "validation").mkdir(exist_ok=True)
    (tmp_path / "validation" / "best.json").write_text(
        f'{{"images": ["{folder}"], "psnr_y": Infinity}}'  # of an older version
    )
    Validation(model, [str(folder)], tmp_path).run(params)
    assert (tmp_path / "model_best.msgpack").is_file()


def test_the_best_network_is_kept(tmp_path, init):
    model = LKDN(scale=2, features=4, num_blocks=1)
    good = init(model)["params"]
    bad = jax.tree.map(lambda leaf: leaf * 0.5, good)
    best = tmp_path / "model_best.msgpack"
    rng, scores = np.random.default_rng(0), []
    for i in range(2):
        noise = rng.integers(0, 256, (40, 40, 3), np.uint8)
        write_image(tmp_path / f"images_{i}" / "a.png", noise // (2 - i))
    first, other = ([str(tmp_path / f"images_{i}")] for i in range(2))
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as writer:
        for step, params in enumerate((bad, good, bad)):
            # As a run that was resumed: it must know what the best was.
            validation = Validation(model, first, tmp_path)
            row, picture = validation.run(params)
            scores.append(row["psnr_y"])
            writer.scalars(step, row)
            writer.image(step, "validation", picture)
            if params is good:
                kept = best.read_bytes()
    assert scores[0] == scores[2] < scores[1]
    assert best.read_bytes() == kept
    jax.tree.map(np.testing.assert_array_equal, lkdn_jax.load(best)[1], good)
    # Of other images the best is another, even if it is worse.
    assert Validation(model, other, tmp_path).run(bad)[0]["psnr_y"] < scores[1]
    jax.tree.map(np.testing.assert_array_equal, lkdn_jax.load(best)[1], bad)
    (board,) = (tmp_path / "tensorboard").iterdir()
    events = read_events(board)
    values = [v for event in events for v in event.summary.value]
    shown = [v.simple_value for v in values if v.tag == "psnr_y"]
    assert shown == pytest.approx(scores)
    pictures = [v.image for v in values if v.tag == "validation"]
    assert [(p.height, p.width) for p in pictures] == [picture.shape[:2]] * 3


def read_events(file):
    """Read TensorBoard's file: records of a length, its checksum, data, theirs."""
    content, events = file.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return events


def test_a_validation_is_the_mean_of_its_datasets_in_float32(tmp_path, init):
    model = LKDN(scale=2, features=4, num_blocks=1)
    # Doubled, its output is off by more than a grey level in bf16.
    params = jax.tree.map(lambda leaf: 2 * leaf, init(model)["params"])
    rng = np.random.default_rng(0)
    for name, level in (("a", 1), ("b", 3)):
        noise = rng.integers(0, 256, (48, 400, 3), np.uint8) // level
        write_image(tmp_path / name / "image.png", noise)
    folders = [str(tmp_path / name) for name in "ab"]
    alone = [Validation(model, [f], tmp_path / "w").run(params)[0] for f in folders]
    row, picture = Validation(model, folders, tmp_path / "w").run(params)
    assert abs(alone[0]["psnr_y"] - alone[1]["psnr_y"]) > 1
    mean = (alone[0]["psnr_y"] + alone[1]["psnr_y"]) / 2
    assert row["psnr_y"] == pytest.approx(mean, abs=1e-6)
    half = Validation(model.clone(dtype=jnp.bfloat16), folders, tmp_path / "w")
    assert half.run(params)[0]["psnr_y"] == pytest.approx(mean, abs=1e-6)
    # Four panels of the middle, 160 columns and all rows, twice as large; a caption.
    assert picture.shape[1] == 4 * 2 * 160 + 3 * 8
    assert 2 * 48 < picture.shape[0] < 2 * 48 + 40


def test_what_is_not_finite_is_null(tmp_path):
    with contextlib.closing(MetricsWriter(tmp_path, 0)) as writer:
        writer.scalars(1, {"psnr_y": np.inf, "loss": 0.5})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert line == '{"step": 1, "psnr_y": null, "loss": 0.5}'


def test_a_row_that_was_cut_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "l')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_rows_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    for resume_step, kept in ((2, [0, 1, 2]), (0, [0]), (-1, [])):
        rows = "".join(f'{{"step": {step}}}\n' for step in range(4))
        (tmp_path / "metrics.jsonl").write_text(rows)
        MetricsWriter(tmp_path, resume_step).close()
        assert [row["step"] for row in read_metrics(tmp_path)] == kept
