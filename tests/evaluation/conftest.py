import numpy as np
import pytest
from PIL import Image

from lkdn_jax.data.bicubic import upscale
from lkdn_jax.evaluation.comparison import Entry
from lkdn_jax.evaluation.dataset import Sample
from lkdn_jax.evaluation.gallery import Gallery

NAMES = [f"{'long_' * 12}{i} <&>.png" for i in range(5)]


def make_entry(
    name="LKDN_x4", psnr=32.0, dataset="Set5", lr_files=0, foreign=0, images=NAMES
):
    rng = np.random.default_rng(0)
    gallery = Gallery(4)
    for i, image in enumerate(images):
        hr = rng.integers(0, 256, (160, 200, 3), np.uint8)
        noise = rng.integers(0, 2 + 4 * i, hr.shape)
        sr = (hr.astype(int) + noise).clip(0, 255).astype(np.uint8)
        row = {"psnr_y": psnr - i, "ssim_y": 0.9, "bicubic_psnr_y": 28.0}
        seen = Sample(
            hr[::4, ::4], sr, hr, sr, row, psnr - i, lambda lr: upscale(lr, 4)
        )
        gallery.add(dataset, image, seen)
    row = {"psnr_y": psnr, "ssim_y": 0.9, "bicubic_psnr_y": 28.0}
    report = {
        "name": f"{name}.pth",
        "weights": f"{name}.pth",
        "scale": 4,
        "lr_mode": "auto",
        "datasets": {
            dataset: {
                "mean": row,
                "images": dict.fromkeys(images, row),
                "lr_files": lr_files,
                "foreign_lr_files": foreign,
                "notes": ["a note"],
            }
        },
    }
    cost = {
        "parameters": 321_992,
        "multiply_adds": 18.2e9,
        "activations": 367e6,
        "peak_memory": 107e6,
        "seconds": 0.4,
        "quartiles": [0.39, 0.41],
        "device": "cpu",
    }
    return Entry(report, gallery, cost)


@pytest.fixture(scope="session")
def entry():
    return make_entry


@pytest.fixture
def photographs(tmp_path):
    """Write two HR images, one of an odd size, and return their folder."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a", (40, 44)), ("b", (37, 50))):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = coarse.resize(size[::-1], Image.Resampling.BICUBIC)
        smooth.save(folder / f"{name}.png")
    return folder
