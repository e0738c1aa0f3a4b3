import numpy as np
import pytest

from lkdn_jax.evaluation.comparison import compare_files
from lkdn_jax.evaluation.dataset import Options, Sample
from lkdn_jax.evaluation.gallery import CROP, Gallery, busiest_crop
from lkdn_jax.evaluation.metrics import rgb_to_y


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


def seen(sr, hr, bicubic, psnr_y=30.0):
    metrics = {"psnr_y": psnr_y}
    return Sample(hr[::4, ::4], sr, hr, bicubic, metrics, psnr_y, lambda _: sr)


def test_a_picture_is_what_was_seen():
    rng = np.random.default_rng(0)
    hr, bicubic = rng.integers(8, 240, (2, 160, 200, 3), np.uint8)
    sr = hr + np.uint8(3)
    gallery = Gallery(4)
    gallery.add("Set5", "a.png", seen(sr, hr, bicubic))
    picture = gallery.pictures["Set5"]["a.png"]
    top, left = busiest_crop(rgb_to_y(hr))
    box = np.s_[top : top + CROP, left : left + CROP]
    np.testing.assert_array_equal(picture.bicubic, bicubic[box])
    np.testing.assert_array_equal(picture.ours, sr[box])
    np.testing.assert_array_equal(picture.hr, hr[box])
    # Three levels of grey are 3 · 219 / 255 on Y, and 16 times that is shown.
    assert (picture.error == round(16 * 3 * 219 / 255)).all()
    scores = gallery.mistakes["Set5"]
    exact = 20 * np.log10(255 / 3)
    assert scores["rgb"] == pytest.approx([exact])
    assert scores["jpeg_range"] == pytest.approx([exact])
    blue = np.array([0, 0, 9], np.uint8)
    gallery.add("Set5", "b.png", seen(hr + blue, hr, bicubic))
    assert scores["jpeg_range"][1] == pytest.approx(20 * np.log10(255 / (0.114 * 9)))


def test_the_crop_is_the_one_with_the_most_detail():
    rng = np.random.default_rng(1)
    for _ in range(5):
        y = rng.random((200, 260)) * rng.random((200, 1)) * rng.random(260)
        detail = np.pad(np.abs(np.diff(y, axis=0)), ((0, 1), (0, 0)))
        detail += np.pad(np.abs(np.diff(y, axis=1)), ((0, 0), (0, 1)))
        sums = {
            (i, j): detail[i : i + CROP, j : j + CROP].sum()
            for i in range(0, 200 - CROP + 1, 16)
            for j in range(0, 260 - CROP + 1, 16)
        }
        assert busiest_crop(y) == max(sums, key=sums.__getitem__)


def test_shows_the_worst_the_median_and_the_best():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    gallery = Gallery(4)
    for name, psnr_y in {"a": 31.0, "b": 35.0, "c": 28.0, "d": 33.0, "e": 29.0}.items():
        gallery.add("Set5", name, seen(image, image // 2, image, psnr_y))
    chosen = gallery.chosen("Set5")
    assert list(chosen.items()) == [("c", "worst"), ("a", "median"), ("b", "best")]
