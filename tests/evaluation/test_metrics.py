"""PSNR, SSIM and Y against closed forms, scikit-image and published values."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity

from lkdn_jax.data.bicubic import upscale
from lkdn_jax.errors import InputError
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y, ssim

Images = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def images() -> Images:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 33, 3), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8)
    return x, y


@pytest.mark.parametrize(
    ("rgb", "y"),
    [
        ((255, 255, 255), 235.0),
        ((0, 0, 0), 16.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((51, 51, 51), 59.8),
    ],
)
def test_y_of_known_colours(rgb: tuple[int, int, int], y: float) -> None:
    value = rgb_to_y(np.array(rgb, np.uint8))
    assert value.dtype == np.float64
    assert float(value) == pytest.approx(y, abs=1e-12)


def test_y_equals_scikit_image(images: Images) -> None:
    expected = rgb2ycbcr(images[0])[..., 0]
    np.testing.assert_allclose(rgb_to_y(images[0]), expected, rtol=0, atol=1e-12)


def test_psnr_of_known_errors() -> None:
    x = np.zeros((6, 8), np.uint8)
    assert psnr(x, x) == math.inf
    assert psnr(x, x + 255) == pytest.approx(0.0, abs=1e-12)
    # uint8 differences must not wrap around.
    assert psnr(x, x + 1) == psnr(x + 1, x) == pytest.approx(48.13080360867910)


def test_psnr_averages_the_error_over_channels() -> None:
    x = np.zeros((4, 4, 3), np.uint8)
    y = x.copy()
    y[..., 1] = 3
    assert psnr(x, y) == pytest.approx(10 * math.log10(255**2 / 3), abs=1e-12)


def test_psnr_leaves_the_border_out() -> None:
    x = np.zeros((9, 9), np.uint8)
    y = x.copy()
    y[1, 4] = 200
    assert psnr(x, y, crop_border=1) < 50
    assert psnr(x, y, crop_border=2) == math.inf


@pytest.mark.parametrize("border", [0, 3])
def test_ssim_equals_scikit_image(images: Images, border: int) -> None:
    x, y = (rgb_to_y(image) for image in images)
    inner = (slice(border, 40 - border), slice(border, 33 - border))
    # scikit-image's own mean already leaves out the windows that reach outside.
    expected: Any = structural_similarity(
        x[inner],
        y[inner],
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert 0.5 < expected < 0.99
    assert ssim(x, y, crop_border=border) == pytest.approx(expected, abs=1e-12)


def test_ssim_averages_over_channels(images: Images) -> None:
    x, y = images
    expected: Any = structural_similarity(
        x,
        y,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )
    assert ssim(x, y) == pytest.approx(expected, abs=1e-12)
    assert ssim(x, y) != pytest.approx(ssim(x[..., 0], y[..., 0]), abs=1e-4)


def test_ssim_of_constants_is_the_luminance_term() -> None:
    x, y = np.full((11, 11), 100, np.uint8), np.full((11, 11), 150, np.uint8)
    expected = (2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2)
    assert ssim(x, y) == pytest.approx(expected, abs=1e-12)
    assert ssim(x, x) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.reference
def test_bicubic_baseline_on_set5(reference: Path) -> None:
    # 28.42 dB / 0.8104 is what the papers print for bicubic at x4.
    scores = []
    for path in sorted((reference / "benchmarks/Set5/image_SRF_4").glob("*_HR.png")):
        with Image.open(path) as hr, Image.open(str(path).replace("_HR", "_LR")) as lr:
            sr = rgb_to_y(upscale(np.array(lr), 4))
            hr_y = rgb_to_y(np.array(hr))
        scores.append((psnr(sr, hr_y, 4), ssim(sr, hr_y, 4)))
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    assert mean_psnr == pytest.approx(28.42, abs=0.02)
    assert mean_ssim == pytest.approx(0.8104, abs=0.001)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"\(20, 20\) and \(20, 21\)"):
        metric(np.zeros((20, 20)), np.zeros((20, 21)))
    with pytest.raises(ValueError, match="crop_border -1"):
        metric(np.zeros((20, 20)), np.zeros((20, 20)), crop_border=-1)


def test_too_small_for_the_window() -> None:
    x = np.zeros((16, 18), np.uint8)
    assert ssim(x, x, crop_border=2) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"16x18.*border of 3.*11x11") as raised:
        ssim(x, x, crop_border=3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("border", [8, 9, 40])
def test_nothing_left_for_psnr(border: int) -> None:
    x = np.zeros((16, 18), np.uint8)
    with pytest.raises(InputError, match=f"border of {border}"):
        psnr(x, x, crop_border=border)
