import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import read_photo, write_photo

H, W = 12, 20


def pixels(*channels, dtype=np.uint8):
    rng = np.random.default_rng(1)
    return rng.integers(0, np.iinfo(dtype).max, (H, W, *channels), dtype)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "deep"),
    [("a.png", False), ("a.tiff", False), ("a.png", True), ("a.tif", True)],
)
def test_orientation_is_applied_and_taken_out(tmp_path, orientation, name, deep):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "upright"
    path = tmp_path / name
    colours = pixels(3)
    if name == "a.tif":
        tags = [(0x0112, "H", 1, orientation), (0x010E, "s", None, b"upright")]
        values = colours.astype(np.uint16) * 257
        tifffile.imwrite(path, values, photometric="rgb", extratags=tags, metadata=None)
    elif deep:
        write_photo(path, Photo(colours.astype(np.uint16) * 257, exif=exif.tobytes()))
    else:
        Image.fromarray(colours).save(path, exif=exif)
    plain = tmp_path / "b.png"  # Pillow's own reading of the same
    Image.fromarray(colours).save(plain, exif=exif)
    with Image.open(plain) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(path)
    found = photo.pixels // 257 if deep else photo.pixels
    np.testing.assert_array_equal(found, upright)
    kept = Image.Exif()
    kept.load(photo.exif)
    assert 0x0112 not in kept
    assert kept[0x010E] == "upright"


def camera_exif():
    """EXIF as a telephone writes it: blocks within, and how the file is laid out."""
    exif = Image.Exif()
    exif.update(
        {0x013B: "Jörg".encode(), 0x010F: "Maker", 0x011C: 2, 0x0142: 64, 0x0112: 6}
    )
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0xA002: W, 0xA003: H, 0xA005: 660})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 0.0)})
    return exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_cameras_exif_is_kept_but_for_what_is_no_longer_true(tmp_path, suffix):
    Image.fromarray(pixels(3)).save(tmp_path / "a.jpg", exif=camera_exif())
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.pixels.shape == (W, H, 3)  # turned
    assert write_photo(tmp_path / f"b{suffix}", photo) == ()
    with Image.open(tmp_path / f"b{suffix}") as image:
        exif = image.getexif()
        camera, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert np.asarray(image).shape == (W, H, 3)
    assert exif[0x010F] == "Maker"
    assert exif[0x013B].encode("latin-1").decode() == "Jörg"
    assert not {0x0112, 0x0142} & set(exif) or exif[0x0112] == 1
    assert camera[0x829A] == pytest.approx(0.01)
    assert not {0xA002, 0xA003, 0xA005} & set(camera)
    assert place[1] == "N"


@pytest.mark.parametrize(
    "field",
    [
        (2, 2, b"6\0\0\0"),
        (4, 1, b"\xff\xff\xff\xff"),
        (3, 1, b"\x4d\0\0\0"),
        (5, 1, b"\xff\xff\xff\x7f"),
        (77, 1, b"\1\0\0\0"),
    ],
    ids=["text", "negative", "77", "outside", "unknown"],
)
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_an_orientation_that_breaks_the_rules_is_none(tmp_path, field):
    kind, count, value = field
    entry = struct.pack("<HHI", 0x0112, kind, count) + value
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    Image.fromarray(pixels(3)).save(tmp_path / "a.jpg", exif=block)
    assert read_photo(tmp_path / "a.jpg").pixels.shape == (H, W, 3)


def test_a_field_that_breaks_the_rules_does_not_turn_the_image(tmp_path):
    fields = struct.pack("<HHII", 0x0110, 9, 1, 7)  # a model that is a number
    fields += struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4)
    Image.fromarray(pixels(3)).save(tmp_path / "a.jpg", exif=block)
    assert read_photo(tmp_path / "a.jpg").pixels.shape == (W, H, 3)


@pytest.mark.parametrize(("length", "kept"), [(60_000, True), (70_000, False)])
def test_exif_too_long_for_jpeg_is_dropped_and_said(tmp_path, length, kept):
    exif = Image.Exif()
    exif[0x010E] = "x" * length
    notes = write_photo(tmp_path / "a.jpg", Photo(pixels(3), exif=exif.tobytes()))
    assert any("64 KB of EXIF" in note for note in notes) is not kept
    assert (read_photo(tmp_path / "a.jpg").exif is not None) is kept
