"""Which photographs are found, and what would pair or count them wrongly."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lkdn_jax.data.inputs import ImageFile, Photograph, find_photographs
from lkdn_jax.errors import InputError


def png(size: int, value: int = 9) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, png(8))
    return path


def test_lr_images_of_one_name_are_refused(tmp_path):
    hr = zipped(tmp_path / "hr.zip", "train/1.png", "valid/1.png")
    lr = zipped(tmp_path / "lr.zip", "train/1x4.png", "valid/1x4.png")
    message = (
        r"lr\.zip/valid/1x4\.png and .*lr\.zip/train/1x4\.png are LR images of one"
    )
    with pytest.raises(InputError, match=message):
        find_photographs([hr], [lr], 4)
    single = zipped(tmp_path / "one.zip", "1x4.png")
    found = find_photographs([zipped(tmp_path / "a.zip", "b/1.png")], [single], 4)
    assert [str(one.lr) for one in found] == [f"{single}/1x4.png"]


@pytest.mark.parametrize("name", ["a_LR.png", "a_lr.png", "within/a_lr.PNG"])
def test_lr_images_in_a_zip_of_hr_images_are_refused(tmp_path, name):
    path = zipped(tmp_path / "a.zip", "a_hr.png", name)
    with pytest.raises(InputError, match=r"a_.*: an LR image, and in a zip"):
        find_photographs([path], [], 4)


def test_images_given_twice_by_another_way_are_refused(tmp_path):
    hr, lr = tmp_path / "set" / "HR", tmp_path / "low"
    for folder, size in ((hr, 32), (lr, 8)):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(png(size))
    for inputs in ([hr, hr], [hr.parent, hr], [hr, hr / ".." / "HR"]):
        with pytest.raises(InputError, match=f"{inputs[1]} is given twice: give each"):
            find_photographs(inputs, [], 4)
    # Of one HR image there may be several LR images.
    other = tmp_path / "low2"
    other.mkdir()
    (other / "a.png").write_bytes(png(8, 7))
    assert len(find_photographs([hr, hr], [lr, other], 4)) == 2


def test_folders_within_a_folder_are_inputs_of_their_own(tmp_path):
    outer, inner, deep = (tmp_path / name for name in ("a", "a/b", "a/b/c"))
    deep.mkdir(parents=True)
    for folder in (outer, inner, deep):
        (folder / "1.png").write_bytes(png(8))
    assert len(find_photographs([outer, inner, deep], [], 4)) == 3
    for inputs, left in (
        ([outer], inner),
        ([outer, inner], deep),
        ([inner, outer], deep),
    ):
        with pytest.raises(InputError, match=f"^{left} holds images too"):
            find_photographs(inputs, [], 4)


def test_work_is_named_by_the_files_as_they_are_and_the_options(tmp_path):
    hr, lr = tmp_path / "hr.png", tmp_path / "lr.png"
    hr.write_bytes(png(8))
    lr.write_bytes(png(4))
    both = Photograph(ImageFile(hr), ImageFile(lr))
    key = both.key(4, 480)
    assert key == Photograph(ImageFile(hr), ImageFile(lr)).key(4, 480)
    assert both.key(4, 96) != key
    assert Photograph(ImageFile(hr), None).key(4, 480) != key
    members = [ImageFile(hr, name) for name in ("a.png", "b.png")]  # of one zip
    assert len({Photograph(member, None).key() for member in members}) == 2
    for file in (lr, hr):
        time = file.stat().st_mtime_ns
        os.utime(file, ns=(time, time + 1_000_000_000))
        assert both.key(4, 480) != key  # touched
        os.utime(file, ns=(time, time))
        assert both.key(4, 480) == key
        file.write_bytes(file.read_bytes() + b"\0")
        os.utime(file, ns=(time, time))
        assert both.key(4, 480) != key  # of another size
        file.write_bytes(file.read_bytes()[:-1])
        os.utime(file, ns=(time, time))
