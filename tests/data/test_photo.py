import numpy as np
from PIL import Image

from lkdn_jax.data.photo import Photo, from_pil

H, W = 12, 20


def pixels(*channels, dtype=np.uint8):
    rng = np.random.default_rng(1)
    return rng.integers(0, np.iinfo(dtype).max, (H, W, *channels), dtype)


def test_fills_what_is_transparent_with_the_nearest_colour():
    colours, alpha = pixels(3), np.full((H, W), 255, np.uint8)
    alpha[:, 10:] = 0
    filled = Photo(colours, alpha).opaque().pixels
    np.testing.assert_array_equal(filled[:, :10], colours[:, :10])
    np.testing.assert_array_equal(filled[:, 10:], colours[:, 9:10].repeat(10, 1))


def test_a_transparent_value_of_deep_grey_is_alpha():
    grey = pixels(dtype=np.uint16)
    image = Image.fromarray(grey)
    image.info["transparency"] = int(grey[3, 4])
    photo = from_pil(image)
    np.testing.assert_array_equal(photo.pixels[..., 0], grey)
    assert photo.alpha.dtype == np.uint16
    np.testing.assert_array_equal(photo.alpha, (grey != grey[3, 4]) * 65_535)


def test_what_is_a_little_visible_keeps_its_colour():
    colours, alpha = pixels(3), np.full((H, W), 255, np.uint8)
    alpha[:, 10:] = 1
    np.testing.assert_array_equal(Photo(colours, alpha).opaque().pixels, colours)
    alpha[:, 15:] = 0
    filled = Photo(colours, alpha).opaque().pixels
    np.testing.assert_array_equal(filled[:, :15], colours[:, :15])
    np.testing.assert_array_equal(filled[:, 15:], colours[:, 14:15].repeat(5, 1))
    nothing = Photo(colours, np.zeros((H, W), np.uint8))
    np.testing.assert_array_equal(nothing.opaque().pixels, colours)


def test_modes_that_are_multiplied_by_alpha():
    plain = Image.fromarray(pixels(4)).convert("RGBA")
    photo = from_pil(plain.convert("RGBa"))
    back = np.asarray(plain.convert("RGBa").convert("RGBA"))
    np.testing.assert_array_equal(photo.pixels, back[..., :3])
    np.testing.assert_array_equal(photo.alpha, back[..., 3])
