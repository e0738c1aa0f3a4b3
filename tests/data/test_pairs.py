"""Benchmark layouts, and the checks on what they hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lkdn_jax.data.bicubic import downscale
from lkdn_jax.data.images import write_image
from lkdn_jax.data.pairs import Pair, find_pairs, load_pair
from lkdn_jax.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(folder: Path, scale: int = 4) -> tuple[str, list[tuple[str, str | None]]]:
    dataset = find_pairs(folder, scale)
    names = [
        (pair.hr.name, None if pair.lr is None else pair.lr.parent.name)
        for pair in dataset.pairs
    ]
    assert [pair.name for pair in dataset.pairs] == [name for name, _ in names]
    return dataset.name, names


def refusal(folder: Path, scale: int = 4) -> str:
    with pytest.raises(InputError) as raised:
        find_pairs(folder, scale)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_names_of_pairs_may_be_in_lower_case(tmp_path):
    touch(tmp_path / "Mine", "b_hr.png", "b_lr.png", "a_hr.png", "a_LR.png")
    dataset = find_pairs(tmp_path / "Mine", 4)
    names = [(pair.name, pair.lr and pair.lr.name) for pair in dataset.pairs]
    assert names == [("a_hr.png", "a_LR.png"), ("b_hr.png", "b_lr.png")]


def test_the_name_that_says_most_wins(tmp_path):
    names = ["a_LR.png", "aX4.png", "ax4.png", "a.png"]
    touch(tmp_path / "HR", "a.png")
    touch(tmp_path / "LR", *names)
    for name in names:
        (pair,) = find_pairs(tmp_path, 4).pairs
        assert pair.lr is not None
        assert pair.lr.name == name
        (tmp_path / "LR" / name).unlink()


@pytest.mark.parametrize("inside", ["", "image_SRF_4"])
def test_side_by_side(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "Set5" / inside
    touch(folder, "b_HR.png", "b_LR.png", "a_HR.png", "a_LR.png", "a_other.png")
    name, pairs = found(tmp_path / "Set5")
    assert name == "Set5"
    assert pairs == [("a_HR.png", folder.name), ("b_HR.png", folder.name)]
    lr = find_pairs(folder, 4).pairs[0].lr
    assert lr is not None
    assert lr.name == "a_LR.png"
    assert found(folder)[0] == "Set5"


def test_a_link_is_what_a_dataset_is_called(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "v2", "a_HR.png", "a_LR.png")
    (tmp_path / "Set5").symlink_to("store/v2")
    assert found(tmp_path / "Set5")[0] == "Set5"
    assert found(tmp_path / "Set5" / ".." / "v2")[0] == "v2"
    touch(tmp_path / "Set14" / "HR", "a.png")
    for link in ("HR", "GTmod12"):  # no names
        (tmp_path / "store" / link).symlink_to("../Set14/HR")
        assert found(tmp_path / "store" / link)[0] == "Set14"


def test_scales_mixed_in_one_folder(tmp_path: Path) -> None:
    for scale in (2, 4):
        touch(tmp_path, f"i_SRF_{scale}_HR.png", f"i_SRF_{scale}_LR.png")
    assert found(tmp_path, 4)[1] == [("i_SRF_4_HR.png", tmp_path.name)]
    assert found(tmp_path, 2)[1] == [("i_SRF_2_HR.png", tmp_path.name)]
    assert "for scale 2, 4;" in refusal(tmp_path, 3)


@pytest.mark.parametrize("lr", ["aX4.png", "ax4.png", "a.png", "a.webp"])
def test_hr_and_lr_bicubic(tmp_path: Path, lr: str) -> None:
    root = tmp_path / "B100"
    touch(root, "HR/a.png", f"LR_bicubic/X4/{lr}", "LR_bicubic/X2/a.png")
    for folder in (root, root / "HR"):
        assert found(folder) == ("B100", [("a.png", "X4")])
        assert find_pairs(folder, 4).pairs[0].lr == root / "LR_bicubic/X4" / lr
    assert found(root, 3) == ("B100", [("a.png", None)])


@pytest.mark.parametrize("lr", ["LR", "LR/X4", "lr/x4", "LR_bicubic/x4"])
@pytest.mark.parametrize("hr", ["HR", "hr", "valid_HR", "valid_hr"])
def test_hr_and_lr_in_other_spellings(tmp_path: Path, hr: str, lr: str) -> None:
    root = tmp_path / "B100"
    lr = f"{hr[:-2]}{lr}"
    touch(root, f"{hr}/a.png", f"{lr}/ax4.png")
    expected = [("a.png", Path(lr).name)]
    assert found(root) == ("B100", expected)
    name = "B100" if hr.lower() == "hr" else "valid"
    assert found(root / hr) == (name, expected)
    assert find_pairs(root, 4).pairs[0].lr == root / lr / "ax4.png"


def test_a_folder_of_the_very_name_wins_and_a_file_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "HR/a.png", "lr", "LR/x4/a.png", "LR/X2", "LR/x2/ax2.png")
    assert found(tmp_path, 4)[1] == [("a.png", "x4")]
    assert found(tmp_path, 2)[1] == [("a.png", "x2")]
    touch(tmp_path, "LR/X4/a.png")
    assert found(tmp_path, 4)[1] == [("a.png", "X4")]


def test_lr_bicubic_wins_over_lr(tmp_path: Path) -> None:
    touch(tmp_path, "HR/a.png", "LR/a.png", "LR_bicubic/X2/a.png")
    assert found(tmp_path, 2)[1] == [("a.png", "X2")]
    assert found(tmp_path, 4)[1] == [("a.png", "LR")]


def test_div2k(tmp_path: Path) -> None:
    root = tmp_path / "DIV2K"
    touch(root, "DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801x4.png")
    assert found(root) == ("DIV2K", [("0801.png", "X4")])
    assert found(root / "DIV2K_valid_HR") == ("DIV2K_valid", [("0801.png", "X4")])
    touch(root, "DIV2K_train_HR/0001.png", "DIV2K_train_LR_bicubic/X4/0001x4.png")
    assert "DIV2K_train_HR, DIV2K_valid_HR" in refusal(root)
    assert found(root / "DIV2K_train_HR") == ("DIV2K_train", [("0001.png", "X4")])


def test_gtmod(tmp_path: Path) -> None:
    root = tmp_path / "Set14"
    touch(root, "GTmod12/a.png", "LRbicx4/a.png", "LRbicx3/a.png", "GTmod2/a.png")
    for folder in (root, root / "GTmod12"):
        assert found(folder) == ("Set14", [("a.png", "LRbicx4")])
        assert found(folder, 3) == ("Set14", [("a.png", "LRbicx3")])
    assert find_pairs(root, 4).pairs[0].hr.parent.name == "GTmod12"
    touch(root, "GTmod4/a.png")
    assert find_pairs(root, 4).pairs[0].hr.parent.name == "GTmod4"
    assert found(root, 5) == ("Set14", [("a.png", None)])


@pytest.mark.parametrize("inside", ["", "HR", "GTmod8", "image_SRF_4"])
def test_hr_alone(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "photos"
    touch(root, str(Path(inside) / "b.JPG"), str(Path(inside) / "a_HR.png"))
    expected = ("photos", [("a_HR.png", None), ("b.JPG", None)])
    assert found(root) == found(root / inside) == expected


def test_pairs_win_over_hr_alone(tmp_path: Path) -> None:
    touch(tmp_path, "HR/a.png", "GTmod4/b.png", "LRbicx4/b.png", "overview.png")
    assert found(tmp_path)[1] == [("b.png", "LRbicx4")]


def test_relative_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "Urban100/a_HR.png", "Urban100/a_LR.png")
    monkeypatch.chdir(tmp_path / "Urban100")
    assert found(Path())[0] == "Urban100"


@pytest.mark.parametrize(
    "names",
    [
        ("a_HR.png", "a_LR.png", "b_HR.png", "c_HR.png"),
        ("HR/a.png", "HR/b.png", "LR_bicubic/X4/a.png"),
        ("GTmod4/a.png", "GTmod4/b.png", "LRbicx4/a.png"),
        ("HR/b.png", "LR_bicubic/X4/else.png"),
    ],
)
def test_partial_pairs_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *names)
    message = refusal(tmp_path)
    assert "no LR image of scale 4" in message
    assert "b.png" in message or "b_HR.png" in message


def test_lr_without_hr_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "image_SRF_4/a_SRF_4_LR.png")
    assert "only *_LR" in refusal(tmp_path)
    assert "only *_LR" in refusal(tmp_path / "image_SRF_4")


def test_other_scale_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "image_SRF_2/a_SRF_2_HR.png", "image_SRF_2/a_SRF_2_LR.png")
    touch(tmp_path, "image_SRF_3/b_HR.png", "image_SRF_3/b_LR.png")
    assert "for scale 2, 3;" in refusal(tmp_path)
    assert "for scale 2;" in refusal(tmp_path / "image_SRF_2")
    assert "for scale 3;" in refusal(tmp_path / "image_SRF_3")


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    message = refusal(tmp_path)
    for word in ("*_HR.png", "image_SRF_4", "LR_bicubic/X4", "GTmod4", "LRbicx4"):
        assert word in message
    assert "is no folder" in refusal(tmp_path / "missing")
    assert "scale 0" in refusal(tmp_path, 0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (18, 23, 3), dtype=np.uint8)
    write_image(tmp_path / "a_HR.png", hr)
    write_image(tmp_path / "a_LR.png", rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return Pair("a_HR.png", tmp_path / "a_HR.png", tmp_path / "a_LR.png")


def test_load_pair_crops_and_takes_the_file(pair: Pair) -> None:
    lr, hr = load_pair(pair, 4)
    assert (lr.shape, hr.shape) == ((4, 5, 3), (16, 20, 3))
    assert lr.dtype == hr.dtype == np.uint8
    assert lr[0, 0].tolist() != downscale(hr, 4)[0, 0].tolist()


@pytest.mark.parametrize("mode", ["matlab", "basicsr"])
def test_load_pair_makes_the_lr(pair: Pair, mode: Any) -> None:
    lr, hr = load_pair(pair, 4, mode)
    np.testing.assert_array_equal(lr, downscale(hr, 4, mode))


def test_load_pair_without_file_is_matlab(pair: Pair) -> None:
    lr, hr = load_pair(Pair(pair.name, pair.hr, None), 4)
    np.testing.assert_array_equal(lr, downscale(hr, 4, "matlab"))
    assert np.any(lr != downscale(hr, 4, "basicsr"))


@pytest.mark.parametrize(
    ("scale", "mode", "words"),
    [
        (3, "auto", r"4x5.*18x23.*scale 3.*6x7"),
        (19, "auto", r"18x23.*scale 19"),
        (4, "cv2", r"'cv2'.*auto, matlab, basicsr"),
        (0, "auto", "scale 0"),
    ],
)
def test_load_pair_refusals(pair: Pair, scale: int, mode: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        load_pair(pair, scale, mode)
    assert "\n" not in str(raised.value)


@pytest.mark.reference
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14)])
def test_the_benchmarks(reference: Path, name: str, count: int, scale: int) -> None:
    dataset = find_pairs(reference / "benchmarks" / name, scale)
    assert dataset.name == name
    assert len(dataset.pairs) == count
    assert dataset.pairs[2].name == f"img_003_SRF_{scale}_HR.png"
    # The third image of Set14 is grayscale.
    lr, hr = load_pair(dataset.pairs[2], scale)
    np.testing.assert_array_equal(lr, downscale(hr, scale))
