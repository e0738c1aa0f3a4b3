import numpy as np
import pytest

from lkdn_jax.evaluation.comparison import compare_files
from lkdn_jax.evaluation.dataset import Options
from lkdn_jax.evaluation.gallery import CROP, busiest_crop


def test_crops_show_the_busiest_place():
    y = np.zeros((400, 300))
    y[200:220, 150:170] = np.random.default_rng(0).random((20, 20)) * 255
    top, left = busiest_crop(y)
    assert top <= 200
    assert left <= 150
    assert top + CROP >= 220
    assert left + CROP >= 170
    assert busiest_crop(np.ones((40, 300)))[0] == 0


@pytest.mark.reference
def test_the_usual_mistakes_cost_what_they_cost(reference):
    weights = str(reference / "weights" / "LKDN-S_x4.pth")
    folder = str(reference / "benchmarks" / "Set5")
    found = compare_files(
        [weights], [folder], scale=None, options=Options(), progress=lambda *_: None
    )[0]
    mean = found.report["datasets"]["Set5"]["mean"]["psnr_y"]
    loss = {k: mean - np.mean(v) for k, v in found.gallery.mistakes["Set5"].items()}
    assert abs(loss["none"]) < 1e-6
    assert 6 < loss["opencv"] < 10
    assert 0.5 < loss["jpeg"] < 3
    assert 1 < loss["rgb"] < 3
    assert abs(loss["rounded_y"]) < 0.05
    assert -2 < loss["jpeg_range"] - loss["rgb"] < 0
    assert abs(loss["swapped"]) < 0.1
    assert len(found.gallery.pictures["Set5"]) == 5
