"""The report, also in a real browser: Debian's chromium, if it is there."""

import base64
import io
import os
import re
import shutil

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys

from lkdn_jax.evaluation.gallery import CROP
from lkdn_jax.evaluation.html import render, write_html


def test_is_one_file_with_everything_escaped(entry):
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


def test_shows_rgb_where_it_was_measured(entry):
    measured = entry()
    assert "PSNR / SSIM RGB" not in render([measured])
    mean = measured.report["datasets"]["Set5"]["mean"]
    mean |= {"psnr_rgb": 30.126, "ssim_rgb": 0.87654}
    text = render([measured])
    assert '<th scope="col">PSNR / SSIM RGB</th>' in text
    assert "<td>30.13 / 0.8765</td>" in text


def test_compares_one_network_only_on_urban100(entry):
    assert "multiply-adds, G" not in render([entry()])
    text = render([entry(dataset="Urban100", psnr=26.417)])
    assert text.count("<circle") == 4
    assert 'class="ours"' in text
    assert "LKDN_x4 26.42" in text


def test_names_that_are_no_text_stay_apart(entry):
    strange = entry(images=["a\udcff.png", "a\udcfe.png"])
    groups = re.findall(r'type="radio" name="([^"]+)"', render([strange]))
    assert len(groups) == 4
    assert len(set(groups)) == 2


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
def test_in_a_browser(entry, tmp_path, browser, width, scheme):
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


def test_a_phone_shows_the_psnr_without_scrolling(entry, tmp_path, browser):
    path = tmp_path / "report.html"
    write_html(path, [entry()])
    resize(browser, 375)
    browser.get(path.as_uri())
    right = browser.execute_script(
        "return [...document.querySelectorAll('th')]"
        ".find(th => th.textContent.startsWith('PSNR')).getBoundingClientRect().right"
    )
    assert 200 < right <= 375


def test_all_images_have_the_figures_of_their_network(entry):
    first, second = entry(images=["a.png"]), entry("LKDN-S_x4", images=["a.png"])
    for i, one in enumerate((first, second)):
        one.report["datasets"]["Set5"]["images"] = {
            "a.png": {"psnr_y": 31.25 + i, "ssim_y": 0.875, "bicubic_psnr_y": 27.5}
        }
    row = "<td>31.25 / 0.8750</td><td>32.25 / 0.8750</td><td>27.50</td>"
    assert row in re.sub(r"\s+<", "<", render([first, second]))
