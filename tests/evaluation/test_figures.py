import numpy as np

from lkdn_jax.data.bicubic import upscale
from lkdn_jax.evaluation.figures import comparison_picture, enlarge


def test_a_comparison_shows_the_same_crop_of_all():
    rng = np.random.default_rng(0)
    lr = rng.integers(0, 256, (6, 7, 3), np.uint8)
    a, b, hr = rng.integers(0, 256, (3, 18, 21, 3), np.uint8)
    crop = slice(4, 10), slice(5, 16)
    picture = comparison_picture(lr, {"a": a, "b": b}, hr, 3, crop)
    assert picture.shape == (2 * 6 + 32, 5 * (2 * 11 + 8) - 8, 3)
    images = (enlarge(lr, 3), upscale(lr, 3), a, b, hr)
    for i, image in enumerate(images):
        shown = picture[32:, i * 30 : i * 30 + 22]
        np.testing.assert_array_equal(shown, enlarge(image[crop], 2))
