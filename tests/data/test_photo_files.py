import io
import os
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from lkdn_jax.data.images import read_rgb
from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import read_photo, write_photo
from lkdn_jax.errors import InputError

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
H, W = 12, 20


def pixels(*channels, dtype=np.uint8):
    rng = np.random.default_rng(1)
    return rng.integers(0, np.iinfo(dtype).max, (H, W, *channels), dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_formats_keep_everything(tmp_path, channels, alpha, dtype, suffix):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    photo = Photo(
        pixels(channels, dtype=dtype),
        pixels(dtype=dtype) if alpha else None,
        ICC,
        exif.tobytes(),
    )
    path = tmp_path / f"ä{suffix}"
    assert write_photo(path, photo) == ()
    back = read_photo(path)
    np.testing.assert_array_equal(back.pixels, photo.pixels)
    assert back.pixels.dtype == dtype
    assert (back.alpha is None) == (not alpha)
    if alpha:
        np.testing.assert_array_equal(back.alpha, photo.alpha)
    assert back.icc == ICC
    # Pillow, which reads EXIF, opens no 16-bit TIFF of grey with alpha.
    if not (dtype == np.uint16 and suffix == ".tif" and alpha and channels == 1):
        assert b"a description" in back.exif


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_8_bit_formats_keep_profile_and_exif_and_say_what_they_drop(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    photo = Photo(
        pixels(3, dtype=np.uint16), pixels(dtype=np.uint16), ICC, exif.tobytes()
    )
    notes = write_photo(tmp_path / f"a{suffix}", photo)
    assert any("the 16 were rounded" in note for note in notes)
    back = read_photo(tmp_path / f"a{suffix}")
    assert back.icc == ICC
    assert b"a description" in back.exif
    assert (back.alpha is None) == (suffix == ".jpg")
    if suffix == ".webp":
        assert (back.alpha == np.rint(photo.alpha / 257)).all()
        visible = back.alpha > 0  # WebP stores no colour where nothing is seen
        rounded = np.rint(photo.pixels / 257)
        np.testing.assert_array_equal(back.pixels[visible], rounded[visible])
    else:  # noise, which JPEG does not keep well
        opacity = photo.alpha[..., None] / 65535
        on_white = photo.pixels / 257 * opacity + 255 * (1 - opacity)
        assert np.abs(back.pixels - on_white).mean() < 4
    assert any("alpha" in note for note in notes) == (suffix == ".jpg")


def test_what_shows_through_becomes_white_where_there_is_no_alpha(tmp_path):
    colours, alpha = pixels(3) // 2, np.full((H, W), 255, np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 102, 0  # 0.4 of it is seen, and nothing
    notes = write_photo(tmp_path / "a.bmp", Photo(colours, alpha))
    assert notes == ("BMP has no alpha: what shows through became white",)
    back = read_photo(tmp_path / "a.bmp").pixels
    np.testing.assert_array_equal(back[:, :10], colours[:, :10])
    mixed = np.rint(colours[:, 10:20] * 0.4 + 0.6 * 255)
    np.testing.assert_array_equal(back[:, 10:20], mixed)
    assert (back[:, 20:] == 255).all()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".bmp"])
def test_a_full_disk_is_one_line(tmp_path, capfd, dtype, suffix):
    import resource

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(1).integers(
        0, np.iinfo(dtype).max, (200, 200, 4), dtype
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file size limit fails a write the way a full disk does, without filling one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(
            InputError, match=r"^cannot write .*: File too large; check"
        ):
            write_photo(path, Photo(noise[..., :3], noise[..., 3]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr() == ("", "")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_tiff_of_other_layouts(tmp_path):
    colours, grey = pixels(3, dtype=np.uint16), pixels(dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.moveaxis(colours, -1, 0), photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(read_photo(path).pixels, colours)
    tifffile.imwrite(path, grey, photometric="miniswhite", compression="lzw")
    np.testing.assert_array_equal(read_photo(path).pixels[..., 0], 65535 - grey)
    opaque = np.full((H, W, 1), 65535, np.uint16)
    tifffile.imwrite(
        path,
        np.concatenate([colours // 2, opaque // 2 + 1], -1),
        photometric="rgb",
        extrasamples=["assocalpha"],
    )
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - colours).max() <= 3
    tifffile.imwrite(path, grey >> 4, photometric="minisblack", bitspersample=12)
    with pytest.raises(InputError, match="1 channels of 12 bits: only grey and RGB"):
        read_photo(path)
    tifffile.imwrite(path, np.stack([grey, grey]), photometric="minisblack")
    with pytest.raises(InputError, match=r"2 pages|several pages \(2\)"):
        read_photo(path)


def test_palettes_cmyk_and_bits_say_what_they_become(tmp_path):
    colours = Image.fromarray(pixels(3))
    palette = colours.quantize(16)
    palette.save(tmp_path / "p.png")
    photo = read_photo(tmp_path / "p.png")
    np.testing.assert_array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    assert photo.notes == ("the palette became RGB",)

    colours.convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    photo = read_photo(tmp_path / "c.jpg")
    with Image.open(tmp_path / "c.jpg") as image:
        np.testing.assert_array_equal(photo.pixels, image.convert("RGB"))
    assert np.abs(photo.pixels - pixels(3).astype(float)).mean() < 40
    assert photo.notes == ("CMYK became sRGB",)

    bits = Image.fromarray(pixels() > 127)
    bits.save(tmp_path / "1.png")
    photo = read_photo(tmp_path / "1.png")
    np.testing.assert_array_equal(photo.pixels[..., 0], np.asarray(bits) * 255)
    assert photo.notes == ("1 bit became 8 bits of grey",)


def test_a_transparent_colour_of_a_palette_becomes_alpha(tmp_path):
    image = Image.fromarray(pixels() // 64, "P")
    image.putpalette(list(range(12)))
    image.save(tmp_path / "a.png", transparency=0)
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.alpha == 0, np.asarray(image) == 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_value_of_grey_is_alpha(tmp_path, png_chunk, encode_png, bits):
    grey, clear = pixels() >> (8 - bits), 2**bits // 2
    grey[3, 4] = clear
    rows = np.unpackbits(grey[..., None], axis=2)[..., 8 - bits :].reshape(H, -1)
    transparent = png_chunk(b"tRNS", struct.pack(">H", clear))
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.packbits(rows, axis=1), W, bits, 0, transparent))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels[..., 0], grey * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(photo.alpha, np.where(grey == clear, 0, 255))
    with pytest.raises(InputError, match=r"a\.png is partly transparent"):
        read_rgb(path)


def test_a_profile_of_grey_is_not_for_the_colours_of_webp(tmp_path):
    icc = ICC[:16] + b"GRAY" + ICC[20:]
    photo = Photo(pixels(1), icc=icc)
    for suffix, kept in ((".png", icc), (".jpg", icc), (".webp", None)):
        notes = write_photo(tmp_path / f"a{suffix}", photo)
        assert read_photo(tmp_path / f"a{suffix}").icc == kept
        assert (notes == ()) == (kept is not None)


def test_refuses_animations_damage_and_other_depths(tmp_path):
    frames = [Image.fromarray(pixels(3)) for _ in range(2)]
    frames[1].putpixel((0, 0), (1, 2, 3))
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a\.webp: animated .*only still images"):
        read_photo(tmp_path / "a.webp")
    stream = io.BytesIO()
    frames[0].save(stream, "PNG")
    (tmp_path / "b.png").write_bytes(stream.getvalue()[:-200])
    with pytest.raises(InputError, match=r"b\.png cannot be read .*get a fresh copy"):
        read_photo(tmp_path / "b.png")
    for name in ("d.png", "d.tif"):
        write_photo(tmp_path / name, Photo(pixels(3, dtype=np.uint16)))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=rf"{name} cannot be read .*fresh copy"):
            read_photo(tmp_path / name)
    frames[0].save(tmp_path / "e.gif")
    with pytest.raises(InputError, match=r"e\.gif cannot be read: it must be a PNG"):
        read_photo(tmp_path / "e.gif")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(InputError, match=r"c\.tif: a TIFF of .* 32 bits: only"):
        read_photo(tmp_path / "c.tif")
    with pytest.raises(InputError, match="does not exist"):
        read_photo(tmp_path / "f.png")
    with pytest.raises(InputError, match=r"suffix '\.xyz'"):
        write_photo(tmp_path / "a.xyz", Photo(pixels(3)))


def test_webp_keeps_colours_that_are_not_seen(tmp_path):
    colours, alpha = pixels(3), np.full((H, W), 255, np.uint8)
    alpha[:, 5:] = 0
    write_photo(tmp_path / "a.webp", Photo(colours, alpha))
    back = read_photo(tmp_path / "a.webp")
    np.testing.assert_array_equal(back.pixels, colours)
    np.testing.assert_array_equal(back.alpha, alpha)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
def test_refuses_to_write_floating_point(tmp_path, name):
    photo = Photo(np.zeros((4, 4, 3), np.float32), np.ones((4, 4, 1), np.float32))
    with pytest.raises(
        InputError, match="pixels of dtype float32; give uint8 or uint16"
    ):
        write_photo(tmp_path / name, photo)
    assert not (tmp_path / name).exists()


def test_a_folder_is_no_photograph(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is a folder: give an image"):
        read_photo(tmp_path)


def test_deep_animations_are_refused(tmp_path, png_chunk):
    path = tmp_path / "a.png"
    write_photo(path, Photo(pixels(3, dtype=np.uint16)))
    chunk = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    content = path.read_bytes()
    path.write_bytes(
        content[:33] + chunk + content[33:]
    )  # after the header; the picture itself is no frame
    with pytest.raises(InputError, match=r"a\.png: animated .*\(3\): only still"):
        read_photo(path)


def test_a_deep_reader_that_divides_by_zero_is_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    write_photo(path, Photo(pixels(3, dtype=np.uint16)))

    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("lkdn_jax.data.photo_files.read_deep", fail)
    with pytest.raises(InputError, match=r"a\.tif cannot be read \(division by zero\)"):
        read_photo(path)


def test_cmyk_is_turned_into_srgb_by_its_profile(tmp_path, monkeypatch):
    converted = Image.fromarray(pixels(3))
    asked = []

    def convert(image, source, _target, **options):
        asked.append((image.mode, source.profile.profile_description, options))
        return converted

    # No profile of a press is free to ship; the one of RGB stands for it.
    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    image = Image.fromarray(pixels(3)).convert("CMYK")
    image.save(tmp_path / "a.jpg", icc_profile=ICC)
    photo = read_photo(tmp_path / "a.jpg")
    assert [mode for mode, *_ in asked] == ["CMYK"]
    assert asked[0][2] == {"outputMode": "RGB"}
    np.testing.assert_array_equal(photo.pixels, pixels(3))
    assert photo.icc is None  # it is of other colours


def test_a_deep_tiff_stored_white_first_keeps_its_alpha(tmp_path):
    grey, alpha = pixels(dtype=np.uint16), pixels(dtype=np.uint16)[::-1]
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([grey, alpha], -1),
        photometric="miniswhite",
        extrasamples=["unassalpha"],
        planarconfig="contig",
    )
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels[..., 0], 65535 - grey)
    np.testing.assert_array_equal(photo.alpha, alpha)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_deep_tiff_of_grey_and_alpha_is_turned(tmp_path, byteorder):
    both = pixels(2, dtype=np.uint16)  # which Pillow does not open
    tifffile.imwrite(
        tmp_path / "a.tif",
        both,
        byteorder=byteorder,
        photometric="minisblack",
        extrasamples=["unassalpha"],
        planarconfig="contig",
        extratags=[(0x0112, "H", 1, 6)],
        metadata=None,
    )
    photo = read_photo(tmp_path / "a.tif")
    turned = np.rot90(both, -1)
    np.testing.assert_array_equal(photo.pixels[..., 0], turned[..., 0])
    np.testing.assert_array_equal(photo.alpha, turned[..., 1])


def test_colours_multiplied_by_no_alpha_are_black(tmp_path):
    array = np.zeros((H, W, 4), np.uint16)
    array[:, 5:] = 30_000
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="rgb", extrasamples=["assocalpha"]
    )
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.pixels[:, :5] == 0).all()
    assert (photo.pixels[:, 5:] == 65_535).all()


def test_a_deep_tiff_that_is_too_large_is_refused(tmp_path, monkeypatch):
    both = pixels(2, dtype=np.uint16)
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", both, planarconfig="contig", **options)
    assert read_photo(tmp_path / "a.tif").pixels.shape == (H, W, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W // 2 - 1)
    with pytest.raises(InputError, match=rf"a\.tif: {W}×{H}: split it first"):
        read_photo(tmp_path / "a.tif")


def test_a_high_image_gets_white_all_over(tmp_path):
    colours = np.zeros((600, 3, 3), np.uint8)
    write_photo(tmp_path / "a.bmp", Photo(colours, np.zeros((600, 3), np.uint8)))
    assert (read_photo(tmp_path / "a.bmp").pixels == 255).all()
