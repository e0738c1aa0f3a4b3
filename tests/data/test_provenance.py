import numpy as np
import pytest

from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.images import read_rgb
from lkdn_jax.data.provenance import interpolations, name_interpolation


@pytest.fixture(scope="module")
def hr():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 9, 3)).repeat(6, 0).repeat(6, 1)
    return np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3])
def test_names_each_interpolation(hr, scale):
    assert name_interpolation(downscale(hr, scale), hr, scale) is None
    for name, lr in interpolations(hr, scale).items():
        assert name_interpolation(lr, hr, scale) == name


def test_names_the_nearest_when_none_fits(hr):
    rng = np.random.default_rng(1)
    lr = np.clip(downscale(hr, 2) + rng.integers(-6, 7, (24, 27, 3)), 0, 255)
    name = name_interpolation(lr.astype(np.uint8), hr, 2)
    assert name is not None
    assert name.startswith("none known; the nearest is MATLAB's bicubic")


def test_sampling_without_antialiasing_by_hand():
    # Between 100 and 200 at ×2, a = −0.75: weights −3/32, 19/32, 19/32, −3/32.
    hr = np.zeros((8, 8, 3), np.uint8)
    hr[:, 2:4] = 100, 100, 100
    hr[:, 4:6] = 200, 200, 200
    lr = interpolations(hr, 2)["OpenCV's INTER_CUBIC (bicubic without antialiasing)"]
    row = [0, (2 * 100 * 19 - 3 * 200) / 32, (2 * 200 * 19 - 3 * 100) / 32, 0]
    expected = np.clip(np.floor(np.array(row) + 0.5), 0, 255)
    np.testing.assert_array_equal(lr[3, 1:3, 0], expected[1:3])


@pytest.mark.reference
def test_benchmark_files_are_the_papers(reference):
    folder = reference / "benchmarks" / "Set5" / "image_SRF_4"
    for hr_file in sorted(folder.glob("*_HR.png")):
        lr = read_rgb(hr_file.with_name(hr_file.name.replace("_HR", "_LR")))
        assert name_interpolation(lr, read_rgb(hr_file), 4) is None
