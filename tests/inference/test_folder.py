import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lkdn_jax import LKDN, InputError, Upscaler
from lkdn_jax.data.images import write_image
from lkdn_jax.data.photo import Photo
from lkdn_jax.data.photo_files import read_photo, write_photo
from lkdn_jax.inference.folder import (
    fit_into,
    times,
    upscale_files,
    upscale_inputs,
)
from lkdn_jax.inference.jobs import find_jobs, passed_over

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights(save_weights):
    return save_weights(LKDN(scale=2, features=4, num_blocks=1))


def save(path, h=10, w=14, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(h)
    image = Image.fromarray(rng.integers(0, 255, (h, w, 3), np.uint8)).convert(mode)
    image.save(path)
    return path


def test_finds_files_folders_and_patterns(tmp_path):
    for name in ("in/a.png", "in/süb/b.JPG", "in/.hidden/c.png", "in/out/d.png"):
        save(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no image")
    output = tmp_path / "in" / "out"
    jobs = find_jobs([str(tmp_path / "in")], output)
    assert [job.target for job in jobs] == [output / "a.png", output / "süb/b.JPG"]
    jobs = find_jobs([str(tmp_path / "in/**/*.JPG")], output, ".webp")
    assert [job.target for job in jobs] == [output / "b.webp"]
    pattern = str(tmp_path / "in/**/*.png")  # without what lies in the output
    names = [job.source.name for job in find_jobs([pattern], output)]
    assert names == ["a.png"]
    for above in (tmp_path, tmp_path.parent):
        assert find_jobs([str(tmp_path / "in/*.png")], above)
    with pytest.raises(InputError, match="no image found"):
        find_jobs([str(tmp_path / "*.gif")], output)
    save(tmp_path / "noname.png").rename(tmp_path / "noname")
    with pytest.raises(InputError, match=r"none of \.png, .*give --format"):
        find_jobs([str(tmp_path / "noname")], output)
    assert find_jobs([str(tmp_path / "noname")], output, ".jpg")
    with pytest.raises(InputError, match="is also --output"):
        upscale_inputs([str(tmp_path / "in")], tmp_path / "in", "none")
    with pytest.raises(InputError, match=r"a\.png: --output is the folder"):
        upscale_inputs([str(tmp_path / "in")], tmp_path / "a.png", "none")
    with pytest.raises(InputError, match="would be overwritten"):
        find_jobs([str(tmp_path / "in/a.png")], tmp_path / "in")
    save(tmp_path / "other/a.jpg")
    with pytest.raises(InputError, match="would both be written"):
        find_jobs([str(tmp_path / n) for n in ("in/a.png", "other")], output, ".png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX pipes")
def test_waits_for_no_pipe(tmp_path):
    write_image(tmp_path / "in" / "a.png", np.zeros((4, 4, 3), np.uint8))
    os.mkfifo(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "c.png").symlink_to("nothing")
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert [job.source.name for job in jobs] == ["a.png", "c.png"]


def test_says_what_it_passes_over(tmp_path):
    for name in ("in/a.png", "in/out/d.gif"):
        save(tmp_path / name)
    for name in ("in/b.HEIC", "in/c/d.heic", "in/c/e", "in/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    inputs = [str(tmp_path / name) for name in ("in", "in/c/e", "in/*")]
    (note,), _ = passed_over(inputs, tmp_path / "in" / "out")
    assert note.startswith(
        f"{inputs[0]}: files passed over: 3 (.heic, no suffix); only"
    )
    assert passed_over([str(tmp_path / "in/out")], tmp_path)[0] == [
        f"{tmp_path / 'in/out'}: files passed over: 1 (.gif); only .png, .jpg, .jpeg, "
        ".webp, .tif, .tiff, .bmp are read"
    ]


def test_a_bad_image_stops_no_other_and_nothing_is_redone(tmp_path, weights):
    first = save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    save(tmp_path / "in" / "c" / "d.jpg", mode="L")
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    seen = []
    upscaler = Upscaler(weights)
    summary = upscale_files(upscaler, jobs, progress=lambda *a: seen.append(a))
    assert (summary.done, summary.skipped, len(summary.failures)) == (2, 0, 1)
    assert "b.png" in summary.failures[0]
    assert seen[-1][1:] == (2, 2)
    assert read_photo(tmp_path / "out" / "c" / "d.jpg").pixels.shape == (20, 28, 1)
    np.testing.assert_array_equal(
        read_photo(tmp_path / "out" / "a.png").pixels,
        upscaler(read_photo(first).pixels),
    )
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    again = upscale_files(upscaler, jobs)
    assert (again.done, again.skipped, len(again.failures)) == (0, 2, 1)
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert upscale_files(upscaler, jobs, overwrite=True).done == 2
    (tmp_path / "out" / "a.png").write_bytes(b"")
    os.utime(tmp_path / "in" / "c" / "d.jpg", (2**32, 2**32))  # changed since
    assert upscale_files(upscaler, jobs).done == 2


def test_whatever_fails_stops_no_other(tmp_path, weights):
    for i, name in enumerate("abc"):
        save(tmp_path / "in" / f"{name}.png", 10 + i)
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")

    def resize(size):  # the second needs more memory than there is
        return (10**8, 10**8) if size[1] == 11 else size

    summary = upscale_files(Upscaler(weights), jobs, resize=resize)
    assert (summary.done, len(summary.failures)) == (2, 1)
    assert summary.failures[0].startswith(str(tmp_path / "in" / "b.png"))


@pytest.mark.parametrize(
    ("rule", "size"),
    [(fit_into((21, 40)), (21, 15)), (times(1.5), (21, 15)), (times(3), (42, 30))],
)
@pytest.mark.parametrize("deep", [False, True])
def test_sizes_other_than_the_networks(tmp_path, weights, rule, size, deep):
    colour = np.full((10, 14, 3), 40000, np.uint16)
    colour = colour if deep else (colour // 257).astype(np.uint8)
    alpha = np.random.default_rng(0).integers(
        0, colour.max(), colour.shape[:2], colour.dtype
    )
    write_photo(tmp_path / "a.png", Photo(colour, alpha))
    jobs = find_jobs([str(tmp_path / "a.png")], tmp_path / "out")
    upscaler = Upscaler(weights)
    assert upscale_files(upscaler, jobs, resize=rule).failures == []
    photo = read_photo(tmp_path / "out" / "a.png")
    for resized, whole in (
        (photo.pixels[..., 1], upscaler(colour)[..., 1]),
        (photo.alpha, upscaler(alpha)),
    ):
        exact = Image.fromarray(whole.astype(np.float32) if deep else whole)
        exact = np.asarray(exact.resize(size, Image.Resampling.LANCZOS), np.float32)
        assert np.abs(resized - exact.clip(0, np.iinfo(colour.dtype).max)).max() <= 1
    assert photo.pixels.shape[1::-1] == size
    assert photo.alpha.shape[::-1] == size
    assert photo.pixels.dtype == colour.dtype


def test_a_factor_is_between_nothing_and_the_largest(tmp_path, weights):
    source = save(tmp_path / "a.png")
    for factor in (0, -1, 1e9, float("nan")):
        with pytest.raises(InputError, match=f"outscale {factor}: must be over 0 and"):
            upscale_inputs([str(source)], tmp_path / "out", weights, outscale=factor)
    assert times(0.01)((14, 10)) == (1, 1)
    upscale_inputs([str(source)], tmp_path / "out", weights, outscale=1.5)
    assert read_photo(tmp_path / "out" / "a.png").pixels.shape == (15, 21, 3)


def test_says_what_reading_and_writing_changed(tmp_path, weights):
    photo = Image.fromarray(np.arange(140, dtype=np.uint8).reshape(10, 14))
    photo.convert("RGBA").quantize(8).save(tmp_path / "a.png", transparency=0)
    summary = upscale_inputs(
        [str(tmp_path / "a.png")], tmp_path / "out", weights, format="jpg"
    )
    assert len(summary.notes) == 2, summary.notes
    assert "the palette became RGB" in summary.notes[0]
    assert "JPEG has no alpha" in summary.notes[1]


def test_never_writes_over_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("photos/a.png"))
    save(Path("photos/photos/a.png"), 12)
    with pytest.raises(InputError, match=r"^photos/a\.png is an input and would be"):
        find_jobs(["photos"], Path())
    Path("linked").mkdir()
    Path("linked/a.png").symlink_to("../photos/a.png")
    with pytest.raises(InputError, match=r"^linked/a\.png is an input and would be"):
        find_jobs(["photos/a.png"], Path("linked"))


def test_an_image_of_another_size_is_no_earlier_output(tmp_path, weights):
    save(tmp_path / "in" / "a.jpg")
    inputs, output = [str(tmp_path / "in")], tmp_path / "out"
    for name, content in (("image", save(tmp_path / "b.png", 12).read_bytes()),
                          ("text", b"a text")):  # fmt: skip
        older = output / name / "a.png"
        older.parent.mkdir(parents=True)
        older.write_bytes(content)
        os.utime(older, (0, 0))
        summary = upscale_inputs(inputs, older.parent, weights, format="png")
        assert "older and no image of the output's size" in summary.failures[0]
        assert older.read_bytes() == content
        again = {"format": "png", "overwrite": True}
        assert upscale_inputs(inputs, older.parent, weights, **again).done == 1
        written = older.read_bytes()
        os.utime(older, (0, 0))  # the input has changed since
        assert upscale_inputs(inputs, older.parent, weights, format="png").done == 1
        assert older.read_bytes() == written
        assert older.stat().st_mtime > 0


def test_a_newer_file_that_is_no_image_is_not_done(tmp_path, weights):
    save(tmp_path / "in" / "a.png")
    other = tmp_path / "out" / "a.png"
    other.parent.mkdir()
    other.write_text("a text")
    inputs = [str(tmp_path / "in")]
    summary = upscale_inputs(inputs, other.parent, weights)
    assert (summary.done, summary.skipped) == (0, 0)
    assert f"{other} is no image" in summary.failures[0]
    assert other.read_text() == "a text"


def test_what_a_link_leads_to_is_not_replaced(tmp_path, weights):
    save(tmp_path / "in" / "a.png")
    photograph = save(tmp_path / "b.png", 12)
    content = photograph.read_bytes()
    (tmp_path / "out").mkdir()
    for leads_to in ("../b.png", "../nothing.png"):
        link = tmp_path / "out" / "a.png"
        link.unlink(missing_ok=True)
        link.symlink_to(leads_to)
        inputs = [str(tmp_path / "in")]
        summary = upscale_inputs(inputs, tmp_path / "out", weights, overwrite=True)
        assert f"{link} is a link, and" in summary.failures[0]
    assert photograph.read_bytes() == content
    assert not (tmp_path / "nothing.png").exists()


def test_one_file_given_twice_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(Path("in/a.png"))
    (job,) = find_jobs(["in", str(path.absolute()), "in/../in/*.png"], Path("out"))
    assert job.target == Path("out/a.png")


def test_follows_links_to_folders_but_not_in_circles(tmp_path, monkeypatch):
    for name in ("in/a.png", "in/sub/c.png", "one/b.png", "two/d.png"):
        save(tmp_path / name)
    for link, target in {
        "in/album": "../one", "in/here": ".", "in/same": "sub", "in/up": "..",
        "one/back": "../in", "one/other": "../two", "two/other": "../one",
        "in/made": "../out/sub",
    }.items():  # fmt: skip
        (tmp_path / link).symlink_to(target)
    found = {"a.png", "album/b.png", "album/other/d.png", "sub/c.png"}
    save(tmp_path / "out/sub/c.png")
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert {str(job.target.relative_to(tmp_path / "out")) for job in jobs} == found
    monkeypatch.chdir(tmp_path / "in" / "sub")
    jobs = find_jobs([".."], tmp_path / "out")
    assert {str(job.target.relative_to(tmp_path / "out")) for job in jobs} == found
    monkeypatch.chdir(tmp_path)
    assert len(find_jobs(["in"], Path())) == 5  # `out` is then any other folder


def test_two_files_of_one_spelling_are_two(tmp_path):
    save(tmp_path / "in/a.png")
    save(tmp_path / "e/a.png", 12)
    (tmp_path / "e/x").mkdir()
    (tmp_path / "in/link").symlink_to("../e/x")
    names = [str(tmp_path / "in/a.png"), str(tmp_path / "in/link/../a.png")]
    with pytest.raises(InputError, match="would both be written to"):
        find_jobs(names, tmp_path / "out")


def test_says_which_folder_cannot_be_listed(tmp_path, monkeypatch, weights):
    save(tmp_path / "in/a.png")
    locked = save(tmp_path / "in/locked/b.png").parent
    listed = os.scandir

    def scandir(path):  # root may list everything
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    failure = f"{locked}: passed over (Permission denied)"
    inputs, output = [str(tmp_path / "in")], tmp_path / "out"
    assert passed_over(inputs, output) == ([], [failure])
    summary = upscale_inputs(inputs, output, weights)
    assert (summary.done, summary.total, summary.failures) == (1, 2, [failure])
    (job,) = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert job.source.name == "a.png"
    with pytest.raises(PermissionError):
        find_jobs([str(locked)], tmp_path / "out")


def test_a_link_to_nothing_and_a_damaged_image_of_another_kind(tmp_path, weights):
    save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to("nothing")
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "AVIF")
    damaged = bytearray(stream.getvalue())
    damaged[damaged.index(b"pitm") + 9] ^= 0xFF  # the number of the image in it
    (tmp_path / "in" / "c.jpg").write_bytes(damaged)
    save(tmp_path / "out" / "b.png")  # when it led somewhere
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    summary = upscale_files(Upscaler(weights), jobs)
    assert (summary.done, len(summary.failures)) == (1, 2)
    assert "b.png does not exist" in summary.failures[0]
    assert "c.jpg cannot be read" in summary.failures[1]


def test_killed_in_the_middle_it_leaves_whole_files_and_goes_on(tmp_path, weights):
    for i in range(40):
        save(tmp_path / "in" / f"{i:02}.png", 150, 150)
    command = [sys.executable, "upscale.py", "--weights", str(weights)]
    command += [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    run = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*.png"))) < 3:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    written = sorted((tmp_path / "out").glob("[!.]*.png"))
    assert 3 <= len(written) < 40
    hidden = [tmp_path / "out" / f".00.png.{i * 16}.tmp" for i in "01"]
    for path in hidden:  # as a kill leaves them
        path.write_bytes(b"half")
    os.utime(hidden[0], (0, 0))
    for path in written:
        assert read_photo(path).pixels.shape == (300, 300, 3)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{40 - len(written)} upscaled, {len(written)} already" in done.stdout
    # What is old is gone; what is new may be that of another process.
    assert [path.exists() for path in hidden] == [False, True]
