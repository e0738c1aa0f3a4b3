import csv
import io
import json
import math

import pytest
from rich.console import Console

from lkdn_jax import InputError
from lkdn_jax.evaluation.report import check_output, print_report, write_report


def row(psnr_y):
    return {
        "psnr_y": psnr_y,
        "ssim_y": 0.9,
        "bicubic_psnr_y": 28.5,
        "seconds_per_megapixel": 0.25,
    }


REPORT = {
    "name": "LKDN_x4.pth",
    "weights": "some/LKDN_x4.pth",
    "scale": 4,
    "lr_mode": "auto",
    "datasets": {
        "Set|5": {
            "mean": row(32.5),
            "images": {"a.png": row(32.0), "bé.png": row(33.0)},
            "lr_files": 2,
            "notes": ["one line"],
        }
    },
}


def test_json_is_the_report(tmp_path):
    write_report(tmp_path / "r.json", REPORT)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == REPORT


def test_json_has_null_for_infinity(tmp_path):
    report = REPORT | {
        "datasets": {"d": {"mean": row(math.inf), "images": {}, "notes": []}}
    }
    write_report(tmp_path / "r.json", report)
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["datasets"]["d"]["mean"]["psnr_y"] is None


def test_csv_has_a_row_an_image_and_a_mean(tmp_path):
    write_report(tmp_path / "r.csv", REPORT)
    with (tmp_path / "r.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["dataset"], r["image"], float(r["psnr_y"])) for r in rows] == [
        ("Set|5", "a.png", 32.0),
        ("Set|5", "bé.png", 33.0),
        ("Set|5", "mean", 32.5),
    ]


def test_markdown_is_a_table(tmp_path):
    write_report(tmp_path / "r.md", REPORT)
    lines = (tmp_path / "r.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# LKDN_x4.pth, ×4"
    assert lines[2].split(" | ")[2] == "PSNR-Y"
    assert lines[4] == r"| Set\|5 | a.png | 32.0000 | 0.90000 | 28.5000 | 0.25 |"
    assert len({line.replace(r"\|", "").count("|") for line in lines[2:7]}) == 1
    assert lines[-1] == "Set|5: one line."


def test_several_networks_share_a_file(tmp_path):
    other = REPORT | {"name": "LKDN-S_x4.pth"}
    for suffix in ("json", "csv", "md"):
        write_report(tmp_path / f"r.{suffix}", REPORT, other)
    assert json.loads((tmp_path / "r.json").read_text("utf-8")) == [REPORT, other]
    with (tmp_path / "r.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["weights", "dataset", "image", "psnr_y"]
    assert [(row["weights"], row["image"]) for row in rows] == [
        (weights, image)
        for weights in ("LKDN_x4.pth", "LKDN-S_x4.pth")
        for image in ("a.png", "bé.png", "mean")
    ]
    lines = (tmp_path / "r.md").read_text("utf-8").splitlines()
    titles = [i for i, line in enumerate(lines) if line.startswith("# ")]
    assert [lines[i] for i in titles] == ["# LKDN_x4.pth, ×4", "# LKDN-S_x4.pth, ×4"]
    assert lines[titles[1] - 1] == ""


def test_prints_means_and_notes():
    file = io.StringIO()
    print_report(REPORT, Console(file=file, width=100))
    text = file.getvalue()
    assert "LKDN_x4.pth, ×4" in text
    assert "32.5000" in text
    assert "33.0000" not in text
    assert "note: Set|5: one line" in text


@pytest.mark.parametrize(("lr_mode", "made"), [("auto", True), ("matlab", False)])
def test_says_that_lr_images_were_made_unless_asked_for(tmp_path, lr_mode, made):
    dataset = REPORT["datasets"]["Set|5"] | {"lr_files": 0}
    report = REPORT | {"lr_mode": lr_mode, "datasets": {"Set5": dataset}}
    line = "Set5: no LR images there: made from the HR images by MATLAB's bicubic on"
    line += " uint8 images"
    file = io.StringIO()
    print_report(report, Console(file=file, width=100))
    assert (f"note: {line}\n" in file.getvalue()) is made
    write_report(tmp_path / "r.md", report)
    lines = (tmp_path / "r.md").read_text(encoding="utf-8").splitlines()
    assert (f"{line}." in lines) is made


def test_refuses_an_unknown_suffix_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"is written as \.html, \.json, \.md, \.csv"):
        check_output(tmp_path / "report.doc")
    with pytest.raises(InputError, match="is written as"):
        write_report(tmp_path / "report", REPORT)
    assert list(tmp_path.iterdir()) == []


def test_a_bracket_in_a_name_is_no_markup():
    dataset = REPORT["datasets"]["Set|5"] | {"notes": ["of [b] and [/b]"]}
    report = REPORT | {"name": "[b].pth", "datasets": {"Set[x4]5": dataset}}
    file = io.StringIO()
    print_report(report, Console(file=file, width=100))
    for name in ("[b].pth, ×4", "Set[x4]5", "of [b] and [/b]"):
        assert name in file.getvalue()


def test_refuses_a_folder_and_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    for name, reason in (
        ("file/report.json", "file is a file, not a folder"),
        ("folder.json", "is a folder"),
    ):
        with pytest.raises(InputError, match=reason):
            check_output(tmp_path / name)
    check_output(tmp_path / "new" / "folder" / "report.json")
