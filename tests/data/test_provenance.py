from pathlib import Path

import numpy as np
import pytest

from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.images import read_rgb
from lkdn_jax.data.provenance import UNKNOWN, interpolations, name_interpolation


@pytest.fixture(scope="module")
def hr():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 9, 3)).repeat(6, 0).repeat(6, 1)
    return np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_names_what_the_libraries_made(scale):
    # Made with OpenCV 5.0.0 and Pillow 13.0.0.
    made = np.load(Path(__file__).with_name("interpolations.npz"))
    for key, name in (
        ("cubic", "OpenCV's INTER_CUBIC (no antialiasing)"),
        ("area", "OpenCV's INTER_AREA"),
        ("pillow", "Pillow's bicubic"),
    ):
        lr = made[f"{key}_{scale}"]
        assert name_interpolation(lr, made["hr"], scale) == name
        ours = interpolations(made["hr"], scale)[name]
        assert np.abs(lr.astype(int) - ours).max() <= 1


@pytest.mark.parametrize("scale", [2, 3])
def test_names_the_two_bicubics(hr, scale):
    assert name_interpolation(downscale(hr, scale), hr, scale) is None
    name = name_interpolation(downscale(hr, scale, "basicsr"), hr, scale)
    assert name == "BasicSR's bicubic (MATLAB's on double images)"


def test_says_when_none_fits(hr):
    rng = np.random.default_rng(1)
    lr = np.clip(downscale(hr, 2) + rng.integers(-6, 7, (24, 27, 3)), 0, 255)
    assert name_interpolation(lr.astype(np.uint8), hr, 2) == UNKNOWN


@pytest.mark.reference
def test_benchmark_files_are_the_papers(reference):
    folder = reference / "benchmarks" / "Set5" / "image_SRF_4"
    for hr_file in sorted(folder.glob("*_HR.png")):
        lr = read_rgb(hr_file.with_name(hr_file.name.replace("_HR", "_LR")))
        assert name_interpolation(lr, read_rgb(hr_file), 4) is None
