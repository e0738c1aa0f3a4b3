import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lkdn_jax.data import prepare as prepare_module
from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.builders import open_prepared
from lkdn_jax.data.datasets import open_tiles
from lkdn_jax.data.images import write_image
from lkdn_jax.data.inputs import Photograph
from lkdn_jax.data.prepare import Options, prepare
from lkdn_jax.errors import InputError

ROOT = Path(__file__).parents[2]
OPTIONS = Options(scale=4, tile=32)


def photographs(folder, n=4, size=32):
    rng = np.random.default_rng(n)
    folder.mkdir(parents=True, exist_ok=True)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        write_image(folder / f"{i:03d}.png", image)
    return images


def command(source, output, *more):
    given = ["--input", source, "--output", output, "--scale", "4", "--tile", "32"]
    module = [sys.executable, "-W", "error", "-m", "lkdn_jax.data.prepare"]
    return [*module, *map(str, [*given, *more])]


def run(*arguments, **options):
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_the_command(tmp_path):
    images = photographs(tmp_path / "Fötos 写真", 5)
    # Pillow warns of it, in the worker that reads it.
    torn = b"Exif\0\0II*\0\x08\0\0\0\x05\0"
    Image.fromarray(images[4]).save(tmp_path / "Fötos 写真" / "004.png", exif=torn)
    output = tmp_path / "Fötos_x4"
    first = run(tmp_path / "Fötos 写真", output, "--workers", 2)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"{output} has 5 photographs, 5 tiles of 32\n"
    assert {p.name for p in tmp_path.iterdir()} == {"Fötos 写真", "Fötos_x4"}
    tiles = open_tiles(str(output), 4, 32)
    np.testing.assert_array_equal(tiles.hr, images)
    for lr, hr in zip(tiles.lr, images, strict=True):
        np.testing.assert_array_equal(lr, downscale(hr, 4, "matlab"))
    again = run(tmp_path / "Fötos 写真", output)
    assert again.returncode == 0
    assert again.stdout == f"{output} already has 5 photographs, 5 tiles of 32\n"


def test_other_arguments_overwrite_nothing(tmp_path):
    photographs(tmp_path / "raw")
    output = tmp_path / "out"
    done = prepare([tmp_path / "raw"], output, OPTIONS, workers=1)
    assert (done.photographs, done.tiles, done.existed) == (4, 4, False)
    assert prepare([tmp_path / "raw"], output, OPTIONS, workers=1).existed
    other = Options(4, 16, "basicsr")
    with pytest.raises(InputError, match=r"made with .*tile 32, lr_mode auto: nothing"):
        prepare([tmp_path / "raw"], output, other, workers=1)
    photographs(tmp_path / "raw", 5)
    with pytest.raises(InputError, match="made with other photographs: nothing"):
        prepare([tmp_path / "raw"], output, OPTIONS, workers=1)
    with pytest.raises(InputError, match="is no prepared dataset: nothing"):
        prepare([tmp_path / "raw"], tmp_path / "raw", OPTIONS, workers=1)
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "out"}


def test_killed_at_any_moment_it_goes_on(tmp_path, monkeypatch):
    n = 60
    images = photographs(tmp_path / "raw", n, size=64)
    output, rest = tmp_path / "out", tmp_path / "out.partial"
    arguments = command(tmp_path / "raw", output, "--workers", "2")
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (done := finished(rest)) and time.monotonic() < deadline:
        time.sleep(0.002)
    children = children_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(done) < n
    assert not output.exists()
    for child in children:
        wait_for_end(child)
    before = finished(rest)
    loaded = []
    load = Photograph.load

    def count(photograph, *arguments):
        loaded.append(photograph)
        return load(photograph, *arguments)

    monkeypatch.setattr(Photograph, "load", count)
    result = prepare([tmp_path / "raw"], output, OPTIONS, workers=1)
    assert len(loaded) == n - len(before)  # What was done was not done again.
    assert (result.photographs, result.tiles) == (n, 4 * n)
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "out"}
    hr = open_tiles(str(output), 4, 32).hr
    np.testing.assert_array_equal(hr[3::4], images[:, 32:, 32:])


def finished(rest):
    folders = (rest / "tiles").glob("*") if rest.exists() else ()
    return [path for path in folders if path.suffix != ".tmp"]


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wait_for_end(pid):
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "a worker outlives its killed parent"
        time.sleep(0.01)


def bad_images(folder):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    deep = np.full((32, 32), 40_000, np.uint16)
    Image.fromarray(deep).save(folder / "16bit.png")
    Image.fromarray(image).convert("CMYK").save(folder / "cmyk.jpg")
    glass = Image.fromarray(image).convert("RGBA")
    glass.putalpha(100)
    glass.save(folder / "glass.png")
    write_image(folder / "small.png", image[:, :24])
    write_image(folder / "torn.png", image)
    data = (folder / "torn.png").read_bytes()
    (folder / "torn.png").write_bytes(data[: len(data) // 2])
    return {
        "16bit.png": "8 bits per channel",
        "cmyk.jpg": "CMYK",
        "glass.png": "transparent",
        "small.png": "32x24 .* use --tile of at most 24",
        "torn.png": "cannot be read",
    }


def test_bad_images_are_all_named(tmp_path):
    raw = tmp_path / "raw"
    photographs(raw, 2)
    reasons = bad_images(raw)
    failed = run(raw, tmp_path / "out", "--workers", 1)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "5 of 7 photographs cannot be used" in failed.stderr
    assert all(name in failed.stderr for name in reasons)
    assert not (tmp_path / "out").exists()
    skipped = run(raw, tmp_path / "out", "--workers", 1, "--skip_bad")
    assert skipped.returncode == 0
    lines = skipped.stderr.splitlines()
    assert len(lines) == 5
    for line, (name, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"skipped: {raw / name} ")
        assert re.search(reason, line)
    assert skipped.stdout.endswith("has 2 photographs, 2 tiles of 32\n")
    assert open_prepared(tmp_path / "out")[1]["photographs"] == 2


def test_many_bad_images_are_counted(tmp_path):
    photographs(tmp_path / "raw", 13, size=16)
    with pytest.raises(InputError) as caught:
        prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=1)
    assert "13 of 13 photographs cannot be used" in str(caught.value)
    assert str(caught.value).endswith("; and 3 more")
    assert str(caught.value).count("is 16x16") == 10
    with pytest.raises(InputError, match="13 of 13"):
        prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=1, skip_bad=True)
    assert "--skip_bad" not in str(caught.value)  # none would be left
    with pytest.raises(InputError, match="raw is given twice"):
        prepare([tmp_path / "raw"] * 2, tmp_path / "out", OPTIONS, workers=1)
    with pytest.raises(InputError, match="has no name of its own"):
        prepare([tmp_path / "raw"], Path("/"), OPTIONS, workers=1)


def test_a_photograph_that_is_touched_meanwhile_is_not_lost(tmp_path):
    images = photographs(tmp_path / "raw", 3)

    def touch(stage, done, _):
        if stage == "cutting" and done == 2:
            os.utime(tmp_path / "raw" / "000.png")

    given = [tmp_path / "raw"], tmp_path / "out", OPTIONS
    done = prepare(*given, workers=1, progress=touch)
    assert (done.photographs, done.tiles) == (3, 3)
    np.testing.assert_array_equal(open_tiles(str(tmp_path / "out"), 4, 32).hr, images)


def test_grayscale_counts_as_rgb(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    write_image(tmp_path / "raw" / "gray.png", gray)
    prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=1)
    hr = open_tiles(str(tmp_path / "out"), 4, 32).hr
    np.testing.assert_array_equal(hr[0], np.repeat(gray[..., None], 3, axis=2))


def test_modes_of_the_lr_images(tmp_path):
    images = photographs(tmp_path / "raw", 2)
    for mode in ("matlab", "basicsr"):
        options = Options(4, 32, mode)
        prepare([tmp_path / "raw"], tmp_path / mode, options, workers=1)
        lr = open_tiles(str(tmp_path / mode), 4, 32).lr
        np.testing.assert_array_equal(lr[1], downscale(images[1], 4, mode))
    assert (lr[1] != downscale(images[1], 4, "matlab")).any()


@pytest.mark.parametrize("zipped", [False, True])
def test_pairs_given_apart(tmp_path, zipped):
    images = photographs(tmp_path / "HR", 2)
    for i in range(2):
        # A shade no bicubic makes: the files are taken, not made.
        write_image(tmp_path / "LR" / f"{i:03d}x4.png", np.full((8, 8), i, np.uint8))
    sources = [tmp_path / "HR", tmp_path / "LR"]
    if zipped:
        for i, folder in enumerate(sources):
            sources[i] = Path(shutil.make_archive(str(folder), "zip", folder))
    prepare(sources[:1], tmp_path / "out", OPTIONS, lr_inputs=sources[1:], workers=1)
    tiles = open_tiles(str(tmp_path / "out"), 4, 32)
    np.testing.assert_array_equal(tiles.hr, images)
    assert [set(lr.ravel().tolist()) for lr in tiles.lr] == [{0}, {1}]


def test_a_missing_lr_image(tmp_path):
    photographs(tmp_path / "HR", 2)
    photographs(tmp_path / "LR", 1, size=8)
    with pytest.raises(InputError, match=r"HR/001\.png has no LR image in .*LR"):
        prepare(
            [tmp_path / "HR"], tmp_path / "out", OPTIONS, lr_inputs=[tmp_path / "LR"]
        )
    with pytest.raises(InputError, match="1 inputs but 2 of LR images"):
        prepare([tmp_path / "HR"], tmp_path / "out", OPTIONS, lr_inputs=[tmp_path] * 2)


def test_errors_name_the_file_in_the_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner/x.png", b"no image")
        archive.writestr("__MACOSX/inner/._x.png", b"junk")
    with pytest.raises(InputError, match=r"1 of 1 .*a\.zip/inner/x\.png cannot be id"):
        prepare([tmp_path / "a.zip"], tmp_path / "out", OPTIONS, workers=1)


@pytest.mark.parametrize(
    "packed",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
)
def test_a_damaged_member_of_a_zip_is_named(tmp_path, packed):
    photographs(tmp_path, 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", packed) as archive:
        archive.write(tmp_path / "000.png", "x.png")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100:300] = bytes(byte ^ 0x5A for byte in content[100:300])
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"1 of 1 .*a\.zip/x\.png cannot be unpacked"):
        prepare([tmp_path / "a.zip"], tmp_path / "out", OPTIONS, workers=1)


def test_takes_no_part_of_an_input_silently(tmp_path):
    photographs(tmp_path / "raw")
    photographs(tmp_path / "raw/2019/june", 2)
    with pytest.raises(
        InputError, match=r"raw/2019/june holds images too, .*of its own"
    ):
        prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=1)
    (tmp_path / "raw/2019").rename(tmp_path / "raw/.2019")
    photographs(tmp_path / "raw" / "2020" / ".thumbnails")
    (tmp_path / "raw" / "2020" / "a.png").mkdir()
    (tmp_path / "raw" / "bad.png").touch()
    output = tmp_path / "raw" / "out" / "x4"
    with pytest.raises(InputError, match=r"bad\.png"):
        prepare([tmp_path / "raw"], output, OPTIONS, workers=1)
    assert list((tmp_path / "raw/out/x4.partial").rglob("*.webp"))  # tiles
    (tmp_path / "raw" / "bad.png").unlink()
    done = prepare([tmp_path / "raw"], output, OPTIONS, workers=1)
    assert done.photographs == 4
    photographs(tmp_path / "set/HR")
    photographs(tmp_path / "set/HR/more")
    with pytest.raises(InputError, match="HR/more holds images too"):
        prepare([tmp_path / "set"], tmp_path / "out", OPTIONS, workers=1)

    image = (tmp_path / "raw" / "000.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("album.png")
        archive.writestr("album.png/a.png", image)
        archive.writestr("b.png", image)
    done = prepare([tmp_path / "a.zip"], tmp_path / "of_zip", OPTIONS, workers=1)
    assert done.photographs == 2
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("b_LR.png", image)
    with pytest.raises(InputError, match=r"a\.zip/b_LR\.png: an LR image, .*unpack"):
        prepare([tmp_path / "a.zip"], tmp_path / "of_lr", OPTIONS, workers=1)


def test_workers_must_be_some(tmp_path):
    photographs(tmp_path / "raw", 1)
    with pytest.raises(InputError, match="workers 0 must be at least 1"):
        prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=0)


def test_inputs_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("text")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    for name, message in {
        "empty": "has no images for scale 4",
        "missing": "cannot be read",
        "text.zip": "cannot be read",
        "empty.zip": "holds no images",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            prepare([tmp_path / name], tmp_path / "out", OPTIONS)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [2_000, 100_000])
def test_a_full_disk_leaves_no_output_and_can_go_on(tmp_path, limit):
    """2 kB stops the first tile of 3 kB; 100 kB the dataset of all of them."""
    photographs(tmp_path / "raw", 40)

    # The child inherits the limit; setting it after a fork would not be safe here.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        full = run(tmp_path / "raw", tmp_path / "out", "--workers", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert full.returncode == 1, full.stderr
    assert full.stderr.startswith(f"error: cannot write {tmp_path / 'out'}: ")
    assert full.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    done = prepare([tmp_path / "raw"], tmp_path / "out", OPTIONS, workers=1)
    assert done.tiles == 40
    assert not (tmp_path / "out.partial").exists()


def test_tiles_that_were_not_all_written_are_written_again(tmp_path, monkeypatch):
    photographs(tmp_path / "raw", 2, 64)  # four tiles each, of two files
    write, written = prepare_module._write_tile, []

    def fill_up(path, image):
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, image)

    arguments = [tmp_path / "raw"], tmp_path / "x4", Options(4, 32)
    with monkeypatch.context() as patched:
        patched.setattr(prepare_module, "_write_tile", fill_up)
        with pytest.raises(InputError, match="No space"):
            prepare(*arguments, workers=1)
    assert prepare(*arguments, workers=1).tiles == 8
    assert open_tiles(str(tmp_path / "x4"), 4, 32).hr.shape == (8, 32, 32, 3)
