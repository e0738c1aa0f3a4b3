"""Bicubic resizing against MATLAB's own files and a per-pixel loop of fractions."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lkdn_jax.data import bicubic
from lkdn_jax.errors import InputError


def exact_kernel(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x < 2:
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def half_up(x: Fraction) -> int:
    return min(max(math.floor(x + Fraction(1, 2)), 0), 255)


def exact_line(line: list, ratio: Fraction, mode: str) -> list[Fraction]:
    n = len(line)
    shrink = min(ratio, Fraction(1))
    out = []
    for i in range(math.ceil(n * ratio)):
        centre = (i + Fraction(1, 2)) / ratio - Fraction(1, 2)
        reach = math.ceil(2 / shrink) + 1
        total = norm = Fraction(0)
        for j in range(math.floor(centre) - reach, math.floor(centre) + reach + 1):
            weight = exact_kernel((centre - j) * shrink)
            k = j
            while mode == "basicsr" and not 0 <= k < n:
                k = -1 - k if k < 0 else 2 * n - 1 - k
            total += weight * line[min(max(k, 0), n - 1)]
            norm += weight
        out.append(total / norm)
    return out


def exact_resize(image: np.ndarray, ratio: Fraction, mode: str) -> np.ndarray:
    columns = [exact_line(column.tolist(), ratio, mode) for column in image.T]
    if mode == "matlab":
        columns = [[half_up(x) for x in column] for column in columns]
    rows = [exact_line(list(row), ratio, mode) for row in zip(*columns, strict=True)]
    return np.array([[half_up(x) for x in row] for row in rows], np.uint8)


@pytest.mark.reference
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14)])
def test_matlab_mode_equals_the_benchmark_files(
    reference: Path, name: str, count: int, scale: int
) -> None:
    folder = reference / "benchmarks" / name / f"image_SRF_{scale}"
    differing = {}
    for path in sorted(folder.glob("*_HR.png")):
        with Image.open(path) as hr, Image.open(str(path).replace("_HR", "_LR")) as lr:
            made = bicubic.downscale(np.array(hr), scale, "matlab")
            differing[path.name] = int(np.sum(made != np.array(lr)))
    assert len(differing) == count
    assert {path: n for path, n in differing.items() if n} == {}


@pytest.mark.reference
def test_modes_differ_as_known_on_set5(reference: Path) -> None:
    shares = []
    for path in sorted((reference / "benchmarks/Set5/image_SRF_4").glob("*_HR.png")):
        with Image.open(path) as image:
            hr = np.array(image)
        made = [bicubic.downscale(hr, 4, mode) for mode in ("matlab", "basicsr")]
        shares.append(100 * np.mean(made[0] != made[1]))
    assert np.mean(shares) == pytest.approx(11.5327, abs=1e-4)


@pytest.mark.parametrize("mode", ["matlab", "basicsr"])
@pytest.mark.parametrize("ratio", ["1/4", "1/3", "1/2", "2", "3", "4", "2/3", "3/2"])
def test_equals_exact_arithmetic(ratio: str, mode: bicubic.Mode) -> None:
    # Extreme values make the kernel overshoot, so that clipping is tested as well.
    rng = np.random.default_rng(0)
    image = rng.choice(np.array([0, 1, 90, 128, 254, 255], np.uint8), (12, 15))
    expected = exact_resize(image, Fraction(ratio), mode)
    np.testing.assert_array_equal(
        bicubic.resize(image, Fraction(ratio), mode), expected
    )


def test_kernel_at_known_distances() -> None:
    x = np.array([0.0, 0.5, -0.5, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_array_equal(
        bicubic.cubic(x), [1, 0.5625, 0.5625, 0, -0.0625, 0, 0]
    )


@pytest.mark.parametrize("ratio", [Fraction(1, 4), Fraction(1, 3), Fraction(3)])
@pytest.mark.parametrize("mode", ["matlab", "basicsr"])
def test_weights_sum_to_one_and_indices_stay_inside(
    ratio: Fraction, mode: bicubic.Mode
) -> None:
    index, weight = bicubic.taps(5, ratio, mode)
    assert index.shape == weight.shape
    assert index.shape[0] == math.ceil(5 * ratio)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, rtol=0, atol=1e-15)
    assert (index.min(), index.max()) == (0, 4)


def test_weights_of_doubling_and_halving() -> None:
    _, up = bicubic.taps(4, Fraction(2), "matlab")
    np.testing.assert_array_equal(up[0] * 128, [-3, 29, 111, -9])
    np.testing.assert_array_equal(up[1] * 128, [-9, 111, 29, -3])
    _, down = bicubic.taps(8, Fraction(1, 2), "matlab")
    np.testing.assert_array_equal(down[1] * 256, [-3, -9, 29, 111, 111, 29, -9, -3])


def test_borders_replicate_or_mirror() -> None:
    matlab, _ = bicubic.taps(3, Fraction(1), "matlab")
    basicsr, _ = bicubic.taps(3, Fraction(1), "basicsr")
    assert matlab.tolist() == [[0, 0, 1, 2], [0, 1, 2, 2], [1, 2, 2, 2]]
    assert basicsr.tolist() == [[0, 0, 1, 2], [0, 1, 2, 2], [1, 2, 2, 1]]


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("mode", ["matlab", "basicsr"])
def test_constant_stays_constant(value: int, mode: bicubic.Mode) -> None:
    image = np.full((12, 24, 3), value, np.uint8)
    down, up = bicubic.downscale(image, 3, mode), bicubic.upscale(image, 3, mode)
    assert down.shape == (4, 8, 3)
    assert up.shape == (36, 72, 3)
    assert {down.dtype, up.dtype} == {np.dtype(np.uint8)}
    assert set(np.unique(down)) | set(np.unique(up)) == {value}


def test_halves_are_rounded_up() -> None:
    # Between equal neighbours, the mean of 0 and 1 is exactly one half.
    image = np.tile(np.array([0, 1], np.uint8), (4, 8))
    middle = bicubic.downscale(image, 2)[:, 2:-2]
    np.testing.assert_array_equal(middle, 1)


def test_channels_are_independent() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    together = bicubic.downscale(image, 4)
    for c in range(3):
        np.testing.assert_array_equal(
            together[..., c], bicubic.downscale(image[..., c], 4)
        )


def test_sizes_are_rounded_up() -> None:
    image = np.zeros((7, 10), np.uint8)
    assert bicubic.resize(image, Fraction(1, 3)).shape == (3, 4)


def test_images_smaller_than_the_kernel() -> None:
    image = np.array([[3]], np.uint8)
    for mode in ("matlab", "basicsr"):
        np.testing.assert_array_equal(bicubic.upscale(image, 4, mode), 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: b.downscale(np.zeros((8, 9), np.uint8), 4), "8x9.*multiple.*4"),
        (lambda b: b.upscale(np.zeros((8, 8), np.float32), 2), "float32.*uint8"),
        (lambda b: b.upscale(np.zeros((0, 8), np.uint8), 2), "non-empty"),
        (lambda b: b.upscale(np.zeros((8,), np.uint8), 2), r"\[8\]"),
        (lambda b: b.upscale(np.zeros((8, 8), np.uint8), 0), "scale 0"),
        (lambda b: b.resize(np.zeros((8, 8), np.uint8), 0), "ratio 0.*positive"),
        (
            lambda b: b.resize(np.zeros((8, 8), np.uint8), 2, "cv2"),
            "'cv2'.*matlab, basicsr",
        ),
    ],
)
def test_refusals_are_one_line(call: Callable[[Any], Any], words: str) -> None:
    # Typed as Any, since most of these calls are what the annotations forbid.
    with pytest.raises(InputError, match=words) as raised:
        call(bicubic)
    assert "\n" not in str(raised.value)
