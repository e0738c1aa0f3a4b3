"""The report in a real browser: Debian's chromium, if it is there."""

import base64
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys

from lkdn_jax import LKDN, InputError
from lkdn_jax.data.bicubic import upscale
from lkdn_jax.evaluation.card import card
from lkdn_jax.evaluation.comparison import Entry, compare_files
from lkdn_jax.evaluation.dataset import Options, Sample
from lkdn_jax.evaluation.explanation import explain
from lkdn_jax.evaluation.gallery import CROP, Gallery, busiest_crop
from lkdn_jax.evaluation.html import render, write_html
from lkdn_jax.evaluation.outputs import check_outputs, write_figures, write_outputs
from lkdn_jax.evaluation.scatter import Point, scatter

NAMES = [f"{'long_' * 12}{i} <&>.png" for i in range(5)]


def entry(
    name="LKDN_x4", psnr=32.0, dataset="Set5", lr_files=0, foreign=0, images=NAMES
):
    rng = np.random.default_rng(0)
    gallery = Gallery(4)
    for i, image in enumerate(images):
        hr = rng.integers(0, 256, (160, 200, 3), np.uint8)
        noise = rng.integers(0, 2 + 4 * i, hr.shape)
        sr = (hr.astype(int) + noise).clip(0, 255).astype(np.uint8)
        row = {"psnr_y": psnr - i, "ssim_y": 0.9, "bicubic_psnr_y": 28.0}
        seen = Sample(
            hr[::4, ::4], sr, hr, sr, row, psnr - i, lambda lr: upscale(lr, 4)
        )
        gallery.add(dataset, image, seen)
    row = {"psnr_y": psnr, "ssim_y": 0.9, "bicubic_psnr_y": 28.0}
    report = {
        "weights": f"{name}.pth",
        "scale": 4,
        "lr_mode": "auto",
        "datasets": {
            dataset: {
                "mean": row,
                "images": dict.fromkeys(images, row),
                "lr_files": lr_files,
                "foreign_lr_files": foreign,
                "notes": ["a note"],
            }
        },
    }
    cost = {
        "parameters": 321_992,
        "multiply_adds": 18.2e9,
        "activations": 367e6,
        "peak_memory": 107e6,
        "seconds": 0.4,
        "quartiles": [0.39, 0.41],
        "device": "cpu",
    }
    return Entry(report, gallery, cost)


def test_crops_show_the_busiest_place():
    y = np.zeros((400, 300))
    y[200:220, 150:170] = np.random.default_rng(0).random((20, 20)) * 255
    top, left = busiest_crop(y)
    assert top <= 200
    assert left <= 150
    assert top + CROP >= 220
    assert left + CROP >= 170
    assert busiest_crop(np.ones((40, 300)))[0] == 0


def test_is_one_file_with_everything_escaped():
    text = render([entry(), entry("LKDN-S_x4", 31.5)])
    assert "<&>" not in text
    assert "&lt;&amp;&gt;" in text
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(", text)
    for figure in ("26.27", "26.35", "26.42", "(18.3 … 19.5)", "32.39 / 0.8980"):
        assert figure in text
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert len(pictures) == 2 * 3 * 5  # LR, both outputs, HR and error map
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    assert first.size == (CROP, CROP)


def test_shows_rgb_where_it_was_measured():
    measured = entry()
    assert "PSNR / SSIM RGB" not in render([measured])
    mean = measured.report["datasets"]["Set5"]["mean"]
    mean |= {"psnr_rgb": 30.126, "ssim_rgb": 0.87654}
    text = render([measured])
    assert '<th scope="col">PSNR / SSIM RGB</th>' in text
    assert "<td>30.13 / 0.8765</td>" in text


def test_compares_one_network_only_on_urban100():
    assert "multiply-adds, G" not in render([entry()])
    text = render([entry(dataset="Urban100", psnr=26.417)])
    assert text.count("<circle") == 4
    assert 'class="ours"' in text
    assert "LKDN_x4 26.42" in text


def labels(svg):
    """Return the heights of the labels, in the order of their points."""
    return [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="(?:s|e)', svg)]


def test_labels_of_equal_networks_do_not_overlap():
    points = [Point(f"net{i}", 18.2, 32 - i / 1e4, True) for i in range(8)]
    found = sorted(labels(scatter("Set5 ×4", points)))
    assert len(found) == 8
    assert np.diff(found).min() >= 14 - 0.1  # they are written with one decimal
    assert found[0] >= 30
    assert found[-1] <= 212  # above the axis


def test_labels_stay_at_their_dots_where_there_is_room():
    # Two at one height, too far apart to touch.
    text = scatter("", [Point("a", 7.3, 32.0, True), Point("b", 18.2, 32.0, False)])
    (left, right) = re.findall(
        r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', text
    )
    assert (left[0], right[0]) == ("ours", "theirs")
    assert float(left[1]) < float(right[1])
    assert labels(text) == [float(left[2]) + 4, float(right[2]) + 4]


def test_shows_a_network_beside_another():
    ours, theirs = entry(), entry("LKDN-S_x4", 31.5)
    picture = theirs.gallery.pictures["Set5"][NAMES[0]]
    picture.ours = np.full_like(picture.ours, 7)
    text = card(ours, [theirs], "Set5", NAMES[0], "best")
    (source,) = re.findall(r'class="before other0"[^>]*src="([^"]+)" hidden', text)
    shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert (np.asarray(shown) == 7).all()
    assert 'value="other0"> LKDN-S_x4, 31.50 dB<' in text
    assert "other0" not in card(ours, [], "Set5", NAMES[0], "best")


def test_explains_a_figure_that_is_far_off():
    there = entry(psnr=32.394)
    assert not any("published" in line for line in explain(there, "Set5"))
    far = entry(psnr=30.4)
    scores = {"rgb": [32.39], "no_crop": [30.4], "jpeg": [30.41], "swapped": [32.4]}
    far.gallery.mistakes["Set5"] = scores | {"none": [32.38]}
    lines = explain(far, "Set5")
    assert any("-1.99 dB from the published 32.39" in line for line in lines)
    assert (
        "These outputs reach the published figure by: PSNR over RGB, not over Y."
        in lines
    )
    assert (
        "What is measured here is what this gives: LR images kept as JPEG (quality 95)."
        in lines
    )


@pytest.mark.parametrize(
    ("lr_files", "foreign", "origin"),
    [
        (0, 0, "made from the HR images by MATLAB's bicubic on uint8 images."),
        (5, 0, "5 of 5 are files beside the HR images, as MATLAB's bicubic on uint8"),
        (5, 2, "5 of 5 are files beside the HR images. The output"),
        (2, 1, "2 of 5 are files beside the HR images, the other 3 made"),
    ],
)
def test_says_where_the_lr_images_are_from(lr_files, foreign, origin):
    lines = explain(entry(lr_files=lr_files, foreign=foreign), "Set5")
    assert lines[0].startswith(f"LR images: {origin}")
    assert lines[1] == "a note."


def test_accuses_no_mistake_of_a_network_that_is_worse():
    worse = entry(psnr=31.06)
    worse.gallery.mistakes["Set5"] = {"none": [31.06], "swapped": [31.1], "rgb": [29.0]}
    lines = explain(worse, "Set5")
    assert any("-1.33 dB from the published" in line for line in lines)
    assert not any(line.startswith(("What is", "These outputs")) for line in lines)


@pytest.mark.reference
def test_the_usual_mistakes_cost_what_they_cost(reference):
    weights = str(reference / "weights" / "LKDN-S_x4.pth")
    folder = str(reference / "benchmarks" / "Set5")
    found = compare_files(
        [weights], [folder], scale=None, options=Options(), progress=lambda *_: None
    )[0]
    mean = found.report["datasets"]["Set5"]["mean"]["psnr_y"]
    loss = {k: mean - np.mean(v) for k, v in found.gallery.mistakes["Set5"].items()}
    assert abs(loss["none"]) < 1e-6
    assert 6 < loss["opencv"] < 10
    assert 0.5 < loss["jpeg"] < 3
    assert 1 < loss["rgb"] < 3
    assert abs(loss["rounded_y"]) < 0.05
    assert -2 < loss["jpeg_range"] - loss["rgb"] < 0
    assert abs(loss["swapped"]) < 0.1
    assert len(found.gallery.pictures["Set5"]) == 5


def test_networks_of_two_scales_are_not_compared(tmp_path, save_weights):
    files = []
    for scale in (2, 4):
        path = save_weights(LKDN(scale=scale, features=4, num_blocks=1))
        files.append(str(path.rename(tmp_path / f"x{scale}.msgpack")))
    with pytest.raises(InputError, match="scales 2, 4: only networks of one scale"):
        compare_files(files, [], scale=None, options=Options(), progress=print)


def test_several_networks_go_into_one_file(tmp_path):
    entries = [entry(), entry("LKDN-S_x4", 31.5)]
    for name in ("r.json", "r.md", "r.csv"):
        assert check_outputs(tmp_path / name, None) is False
        assert write_outputs(tmp_path / name, None, entries) == [tmp_path / name]
    reports = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [report["weights"] for report in reports] == ["LKDN_x4.pth", "LKDN-S_x4.pth"]
    for name in ("r.md", "r.csv"):
        assert "LKDN-S_x4.pth" in (tmp_path / name).read_text(encoding="utf-8")


def test_names_that_are_no_text_stay_apart():
    strange = entry(images=["a\udcff.png", "a\udcfe.png"])
    groups = re.findall(r'type="radio" name="([^"]+)"', render([strange]))
    assert len(groups) == 4
    assert len(set(groups)) == 2


def test_writes_figures(tmp_path):
    write_figures(tmp_path / "figures", [entry()])
    files = sorted((tmp_path / "figures").iterdir())
    assert [file.name.split("_")[3] for file in files] == ["best", "median", "worst"]
    with Image.open(files[0]) as image:
        assert image.size == (4 * 3 * CROP + 3 * 8, 3 * CROP + 32)


def test_figures_of_one_image_with_a_very_long_name(tmp_path):
    alone = entry(images=["写" * 80 + ".png"])
    assert list(alone.gallery.chosen("Set5").values()) == ["only"]
    write_figures(tmp_path / "figures", [alone])
    (file,) = (tmp_path / "figures").iterdir()
    assert file.name == f"LKDN_x4_Set5_only_{'写' * 50}.png"


@pytest.fixture(scope="module")
def browser():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        # CI says that it must be there: a failed installation is no reason to skip.
        assert "LKDN_REQUIRE_BROWSER" not in os.environ
        pytest.skip("needs Debian's chromium and chromium-driver: apt-get install them")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield driver


def resize(browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(tmp_path, browser, width, scheme):
    path = tmp_path / "report.html"
    write_html(path, [entry(), entry("a" * 80, 31.5)])
    resize(browser, width)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(path.as_uri())
    assert browser.execute_script("return innerWidth") == width
    overflow = "return document.documentElement.scrollWidth - innerWidth"
    assert browser.execute_script(overflow) <= 0
    colour = browser.execute_script("return getComputedStyle(document.body).color")
    brightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert (brightness > 128) == (scheme == "dark")

    compare = browser.find_element("css selector", ".compare")
    slider = compare.find_element("css selector", "input")

    def place():
        # Where the line is drawn, in percent of the width.
        box = "return arguments[0].getBoundingClientRect()"
        line = compare.find_element("css selector", ".line")
        inner, outer = (browser.execute_script(box, e) for e in (line, compare))
        return 100 * (inner["left"] - outer["left"]) / outer["width"]

    assert place() == pytest.approx(50)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", compare)
    quarter = compare.size["width"] // 4
    ActionChains(browser).move_to_element_with_offset(
        slider, quarter, 0
    ).click().perform()
    assert 70 <= place() <= 80
    before = place()
    slider.send_keys(Keys.ARROW_LEFT * 5)
    assert place() == pytest.approx(before - 5, abs=0.1)
    bicubic, hr = (
        compare.find_element("css selector", kind) for kind in (".bicubic", ".hr")
    )
    assert (bicubic.is_displayed(), hr.is_displayed()) == (True, False)
    radio = browser.find_element("css selector", "input[value=hr]")
    radio.send_keys(Keys.SPACE)
    assert (bicubic.is_displayed(), hr.is_displayed()) == (False, True)
    other = compare.find_element("css selector", ".other0")
    assert not other.is_displayed()
    radio.send_keys(Keys.ARROW_RIGHT)
    assert (hr.is_displayed(), other.is_displayed()) == (False, True)
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth])"
    )
    assert all(complete and width > 0 for complete, width in sizes)
    assert browser.get_log("browser") == []


def test_a_phone_shows_the_psnr_without_scrolling(tmp_path, browser):
    path = tmp_path / "report.html"
    write_html(path, [entry()])
    resize(browser, 375)
    browser.get(path.as_uri())
    right = browser.execute_script(
        "return [...document.querySelectorAll('th')]"
        ".find(th => th.textContent.startsWith('PSNR')).getBoundingClientRect().right"
    )
    assert 200 < right <= 375
