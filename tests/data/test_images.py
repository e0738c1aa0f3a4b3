"""Reading and writing images, and what must be refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from lkdn_jax.data.images import (
    IMAGE_SUFFIXES,
    list_images,
    read_rgb,
    to_uint8,
    write_image,
)
from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import write_photo
from lkdn_jax.errors import InputError

LOSSLESS = (".png", ".PNG", ".webp", ".tif", ".tiff", ".bmp")


@pytest.fixture
def image() -> np.ndarray:
    ramp = np.add.outer(np.arange(20), np.arange(30)) * 4
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1).astype(np.uint8)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        read_rgb(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.fixture
def png(encode_png: Callable[..., bytes]) -> Callable[[int, int, int], bytes]:
    """Return a function that encodes 2x2 pixels of the bytes 0x12."""

    def png(color: int, depth: int, channels: int) -> bytes:
        rows = np.full((2, 2 * channels * depth // 8), 0x12, np.uint8)
        return encode_png(rows, 2, depth, color)

    return png


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_round_trip(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"Übung 猫{suffix}"
    write_image(path, image)
    read = read_rgb(path)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, image)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg_round_trip(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    write_image(tmp_path / f"x{suffix}", image)
    difference = read_rgb(tmp_path / f"x{suffix}").astype(int) - image
    assert 0 < np.abs(difference).max() <= 12
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_grayscale_gives_equal_channels(
    tmp_path: Path, image: np.ndarray, suffix: str
) -> None:
    write_image(tmp_path / f"x{suffix}", image[..., 0])
    expected = np.repeat(image[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_rgb(tmp_path / f"x{suffix}"), expected)


def test_one_bit_gives_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4) > 0).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "x.png")[..., 1], np.eye(4) * 255)


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    paletted = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "L").convert("P")
    paletted.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    paletted.save(tmp_path / "x.png")
    read = read_rgb(tmp_path / "x.png")
    assert read.tolist() == [
        [[10, 20, 30], [40, 50, 60]],
        [[40, 50, 60], [70, 80, 90]],
    ]


def test_opaque_alpha_is_dropped(tmp_path: Path, image: np.ndarray) -> None:
    alpha = np.full((20, 30, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([image, alpha], -1)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "x.png"), image)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparency_is_refused(
    tmp_path: Path, image: np.ndarray, suffix: str
) -> None:
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[3, 4] = 254
    path = tmp_path / f"x{suffix}"
    rgba = Image.fromarray(np.concatenate([image, alpha], -1))
    rgba.save(path, lossless=True)
    assert "transparent" in refusal(path)


def test_transparent_colour_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    black = tuple(image[0, 0].tolist())
    Image.fromarray(image).save(tmp_path / "x.png", transparency=black)
    assert "transparent" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_is_refused(
    tmp_path: Path, png: Callable[..., bytes], color: int, channels: int
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(color, 16, channels))
    assert "more than 8 bits" in refusal(path)
    if color == 2:
        path.write_bytes(png(color, 8, channels))
        np.testing.assert_array_equal(read_rgb(path), np.full((2, 2, 3), 0x12))


def test_16_bit_rgb_tiff_is_refused(tmp_path: Path) -> None:
    # Written by hand as well: eight sorted entries, then 2x2 pixels of 6 bytes.
    tags = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 3, 110),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 116),
        (277, 3, 1, 3),
        (279, 4, 1, 24),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    bits = struct.pack("<HHH", 16, 16, 16)
    path = tmp_path / "x.tif"
    path.write_bytes(head + bits + bytes(range(24)))
    assert len(head) == 110
    with Image.open(path) as opened:
        assert isinstance(opened, TiffImagePlugin.TiffImageFile)
        assert opened.mode == "RGB"
    assert "more than 8 bits" in refusal(path)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_grayscale_tiff_is_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "x.tif")
    assert "more than 8 bits" in refusal(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "x.jpg"), ("CMYK", "x.tif"), ("LAB", "x.tif")]
)
def test_other_colour_modes_are_refused(tmp_path: Path, mode: str, name: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / name)
    assert f"colour mode {mode}" in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_several_frames_are_refused(
    tmp_path: Path, image: np.ndarray, suffix: str
) -> None:
    first, second = Image.fromarray(image), Image.fromarray(255 - image)
    path = tmp_path / f"x{suffix}"
    first.save(path, save_all=True, append_images=[second])
    assert "2 frames" in refusal(path)


def test_exif_orientation_is_applied(tmp_path: Path, image: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "x.png"), np.rot90(image, -1))


# Pillow warns about a cut TIFF directory before it gives up.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_image(path, noise)
    whole = path.read_bytes()
    for share in (0.9, 0.5, 0.02):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "image" in refusal(path)


def test_corrupt_png_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "x.png"
    write_image(path, image)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 12] ^= 0xFF
    path.write_bytes(content)
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n", b"GIF89a" + bytes(30)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert "PNG, JPEG, WebP, TIFF or BMP" in refusal(tmp_path / "x.png")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.png")
    assert "cannot be read" in refusal(tmp_path)


def test_an_image_too_long_for_jpeg(tmp_path: Path) -> None:
    for write, image in (
        (write_image, np.zeros((1, 65_501, 3), np.uint8)),
        (write_photo, Photo(np.zeros((65_501, 1, 3), np.uint8))),
    ):
        with pytest.raises(InputError, match="at most 65500 pixels a side; choose PNG"):
            write(tmp_path / "long.jpg", image)
    assert list(tmp_path.iterdir()) == []
    write_image(tmp_path / "long.jpg", np.zeros((1, 65_500, 3), np.uint8))
    assert read_rgb(tmp_path / "long.jpg").shape == (1, 65_500, 3)


def test_huge_header_is_refused(tmp_path: Path, png: Callable[..., bytes]) -> None:
    content = bytearray(png(2, 8, 3))
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "x.png").write_bytes(content)
    assert "too large" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("x.gif", np.zeros((4, 4, 3), np.uint8), r"'\.gif'.*\.png"),
        ("x", np.zeros((4, 4, 3), np.uint8), "suffix ''"),
        ("x.png", np.zeros((4, 4, 3), np.float32), "float32"),
        ("x.png", np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\]"),
        ("x.png", np.zeros((0, 4), np.uint8), "non-empty"),
        ("x.webp", np.zeros((2, 17000), np.uint8), "2x17000.*PNG"),
        ("x.webp", np.zeros((1, 16384), np.uint8), "at most 16383 pixels a side"),
    ],
)
def test_unwritable_images_are_refused(
    tmp_path: Path, name: str, array: np.ndarray, words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        write_image(tmp_path / name, array)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "ü.tif", ".hidden.png", "notes.txt", "c.png.part"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "ü.tif"]


def test_list_images_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("nowhere", "file"):
        with pytest.raises(InputError, match=f"{name} cannot be listed") as raised:
            list_images(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_to_uint8_clips_and_rounds():
    image = np.array([-1, 0.4999 / 255, 0.5001 / 255, 254.4 / 255, 1, 1.5])
    np.testing.assert_array_equal(to_uint8(image), [0, 0, 1, 254, 255, 255])
