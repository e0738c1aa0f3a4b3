import json

import numpy as np
import pytest
from PIL import Image

from lkdn_jax import InputError
from lkdn_jax.evaluation.gallery import CROP, Picture
from lkdn_jax.evaluation.outputs import check_outputs, write_figures, write_outputs


def test_several_networks_go_into_one_file(entry, tmp_path):
    entries = [entry(), entry("LKDN-S_x4", 31.5)]
    for name in ("r.json", "r.md", "r.csv"):
        assert check_outputs([tmp_path / name], None) is False
        assert write_outputs([tmp_path / name], None, entries) == [tmp_path / name]
    reports = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [report["weights"] for report in reports] == ["LKDN_x4.pth", "LKDN-S_x4.pth"]
    for name in ("r.md", "r.csv"):
        assert "LKDN-S_x4.pth" in (tmp_path / name).read_text(encoding="utf-8")


def test_several_reports_and_figures_are_written_at_once(entry, tmp_path):
    outputs, figures = (
        [tmp_path / name for name in ("r.json", "r.HTML")],
        tmp_path / "f",
    )
    assert check_outputs(outputs, None) is True
    named = entry()
    named.report["name"] = "runs/b/model.msgpack"
    assert write_outputs(outputs, figures, [named]) == [*outputs, figures]
    assert json.loads(outputs[0].read_text("utf-8")) == named.report
    assert "runs/b/model" in outputs[1].read_text("utf-8")
    files = {file.name[:10] for file in (figures / "runs" / "b").iterdir()}
    assert files == {"model_Set5"}


def test_figures_do_not_go_among_the_images(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in (".", "link", "a/..", "HR", "link/HR/new"):
        folder = tmp_path / name
        with pytest.raises(InputError, match="figures there would be taken for its"):
            check_outputs([], folder, ["elsewhere", str(tmp_path)])
    assert check_outputs([], tmp_path / "a", [str(tmp_path / "b")]) is True


def test_writes_figures(entry, tmp_path):
    write_figures(tmp_path / "figures", [entry()])
    files = sorted((tmp_path / "figures").iterdir())
    assert [file.name.split("_")[3] for file in files] == ["best", "median", "worst"]
    with Image.open(files[0]) as image:
        assert image.size == (4 * 3 * CROP + 3 * 8, 3 * CROP + 32)


def test_figures_of_one_image_with_a_very_long_name(entry, tmp_path):
    alone = entry(images=["写" * 80 + ".png"])
    assert list(alone.gallery.chosen("Set5").values()) == ["only"]
    write_figures(tmp_path / "figures", [alone])
    (file,) = (tmp_path / "figures").iterdir()
    assert file.name == f"LKDN_x4_Set5_only_{'写' * 50}.png"


def test_a_figure_shows_the_panels_in_their_order(entry, tmp_path):
    alone, levels = entry(images=["a.png"]), (10, 80, 160, 240)
    panels = [np.full((CROP, CROP, 3), level, np.uint8) for level in levels]
    bicubic, ours, hr, error = panels
    alone.gallery.pictures["Set5"]["a.png"] = Picture(30.0, bicubic, ours, hr, error)
    write_figures(tmp_path, [alone])
    with Image.open(tmp_path / "LKDN_x4_Set5_only_a.png") as image:
        row = np.asarray(image)[-3 * CROP // 2, :, 0]
    width = 3 * CROP + 8
    assert [row[i * width + width // 2] for i in range(4)] == list(levels)
