import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

import lkdn_jax
from lkdn_jax import LKDN, InputError
from lkdn_jax.data.bicubic import downscale, upscale
from lkdn_jax.data.images import read_rgb
from lkdn_jax.data.pairs import find_pairs
from lkdn_jax.evaluation.benchmark import evaluate_file
from lkdn_jax.evaluation.dataset import Options, evaluate_dataset, super_resolve
from lkdn_jax.evaluation.metrics import psnr, rgb_to_y, ssim

PUBLISHED = ["LKDN_x2", "LKDN_x3", "LKDN_x4", "LKDN-S_x4", "LKDN-S_del_rep_x4"]


@pytest.fixture
def weights(save_weights):
    return save_weights(LKDN(scale=2, features=4, num_blocks=1))


def write_pairs(folder, photographs, shrink):
    folder.mkdir()
    for file in photographs.iterdir():
        hr = read_rgb(file)
        hr = np.ascontiguousarray(hr[: hr.shape[0] // 2 * 2, : hr.shape[1] // 2 * 2])
        Image.fromarray(hr).save(folder / f"{file.stem}_HR.png")
        Image.fromarray(shrink(hr)).save(folder / f"{file.stem}_LR.png")
    return folder


@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_metrics_of_every_image(reference, name):
    expected = json.loads((reference / "expected_metrics.json").read_text())[name]
    compilations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        report = evaluate_file(
            reference / "weights" / f"{name}.pth",
            [reference / "benchmarks" / dataset for dataset in ("Set5", "Set14")],
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert 1 <= len(compilations) <= 4
    assert report["scale"] == int(name[-1])
    for dataset, values in expected.items():
        images = report["datasets"][dataset]["images"]
        assert set(images) == set(values["images"])
        for image, metrics in values["images"].items():
            assert images[image]["psnr_y"] == pytest.approx(
                metrics["psnr_y"], abs=0.001
            )
            assert images[image]["ssim_y"] == pytest.approx(metrics["ssim_y"], abs=1e-5)
        assert report["datasets"][dataset]["notes"] == []
        mean = report["datasets"][dataset]["mean"]["psnr_y"]
        assert mean == pytest.approx(values["mean"]["psnr_y"], abs=0.001)


@pytest.mark.reference
def test_lr_made_by_the_other_bicubic(reference):
    on_papers_lr = []

    def observe(*seen):
        on_papers_lr.append(seen[-1].paper_psnr_y)

    report = evaluate_file(
        reference / "weights" / "LKDN_x4.pth",
        [reference / "benchmarks" / "Set5"],
        options=Options(lr_mode="basicsr", observe=observe),
    )
    assert np.mean(on_papers_lr) == pytest.approx(32.3949, abs=1e-3)
    mean = report["datasets"]["Set5"]["mean"]
    assert mean["psnr_y"] == pytest.approx(32.3894, abs=1e-4)
    assert mean["bicubic_psnr_y"] == pytest.approx(28.42, abs=0.02)


def test_report_is_what_the_files_say(tmp_path, weights, photographs):
    options = Options(rgb=True, save_images=tmp_path / "out")
    steps = []
    report = evaluate_file(
        weights,
        [photographs],
        options=options,
        progress=lambda *step: steps.append(step),
    )
    model, params = lkdn_jax.load(weights)
    rows = report["datasets"]["photos"]["images"]
    assert list(rows) == ["a.png", "b.png"]
    for name, row in rows.items():
        hr = read_rgb(photographs / name)
        hr = np.ascontiguousarray(hr[: hr.shape[0] // 2 * 2, : hr.shape[1] // 2 * 2])
        lr = downscale(hr, 2)
        with jax.default_matmul_precision("highest"):
            sr = jax.jit(model.apply)({"params": params}, lr[None] / np.float32(255))[0]
        saved = read_rgb(tmp_path / "out" / "photos" / name)
        exact = np.clip(np.asarray(sr, np.float64), 0, 1) * 255
        assert np.abs(saved - exact).max() <= 0.5 + 1e-3
        y, hr_y = rgb_to_y(saved), rgb_to_y(hr)
        assert row["psnr_y"] == psnr(y, hr_y, 2)
        assert row["ssim_y"] == ssim(y, hr_y, 2)
        assert row["psnr_rgb"] == psnr(saved, hr, 2)
        assert row["ssim_rgb"] == ssim(saved, hr, 2)
        assert row["bicubic_psnr_y"] == psnr(rgb_to_y(upscale(lr, 2)), hr_y, 2)
        assert 0 < row["seconds_per_megapixel"] < 1000
    for metric, value in report["datasets"]["photos"]["mean"].items():
        assert value == pytest.approx(np.mean([row[metric] for row in rows.values()]))
    assert steps == [
        ("reading", 0, 2),
        ("compiling", 0, 2),
        ("photos", 1, 2),
        ("photos", 2, 2),
    ]


def test_says_what_a_foreign_interpolation_costs(tmp_path, weights, photographs):
    def nearest(hr):
        return hr[::2, ::2]

    same = write_pairs(tmp_path / "same", photographs, lambda hr: downscale(hr, 2))
    mixed = write_pairs(tmp_path / "mixed", photographs, nearest)
    hr = read_rgb(mixed / "a_HR.png")
    pillow = Image.fromarray(hr).resize((22, 20), Image.Resampling.BICUBIC)
    pillow.save(mixed / "a_LR.png")
    report = evaluate_file(weights, [same, mixed])["datasets"]
    assert report["same"]["notes"] == []
    (note,) = report["mixed"]["notes"]
    assert note.startswith("2 of 2 LR files were not made with MATLAB's bicubic")
    assert "1 with Pillow's bicubic, 1 with an unknown interpolation" in note
    gap = report["same"]["mean"]["psnr_y"] - report["mixed"]["mean"]["psnr_y"]
    assert f"costs {gap:.4f} dB" in note
    made = evaluate_file(weights, [mixed], options=Options(lr_mode="matlab"))
    assert made["datasets"]["mixed"]["notes"] == []
    assert made["datasets"]["mixed"]["lr_files"] == 0
    assert report["mixed"]["lr_files"] == report["mixed"]["foreign_lr_files"] == 2
    assert report["same"]["foreign_lr_files"] == 0
    assert made["datasets"]["mixed"]["mean"]["psnr_y"] == pytest.approx(
        report["same"]["mean"]["psnr_y"], abs=1e-3
    )


@pytest.mark.parametrize("linked", [False, True])
def test_never_saves_over_an_input(tmp_path, weights, photographs, linked):
    before = {file: file.read_bytes() for file in photographs.iterdir()}
    if linked:  # the images are elsewhere
        originals = photographs.rename(tmp_path / "originals")
        photographs.mkdir()
        for file in originals.iterdir():
            (photographs / file.name).symlink_to(file)
    with pytest.raises(
        InputError, match=r"--save_images would write .*a\.png twice or"
    ):
        evaluate_file(weights, [photographs], options=Options(save_images=tmp_path))
    assert {file: file.read_bytes() for file in photographs.iterdir()} == before
    Image.open(photographs / "a.png").save(photographs / "a.bmp")
    with pytest.raises(InputError, match="twice or over an input"):
        evaluate_file(
            weights, [photographs], options=Options(save_images=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_never_saves_among_the_inputs(tmp_path, weights):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "a.bmp")
    with pytest.raises(InputError, match=r"would write into .*photos, among the input"):
        evaluate_file(weights, [folder], options=Options(save_images=tmp_path))
    assert [file.name for file in folder.iterdir()] == ["a.bmp"]
    # Nor where inputs are looked for, if other folders there had none.
    (folder / "HR").mkdir()
    (folder / "a.bmp").rename(folder / "HR" / "a.bmp")
    with pytest.raises(InputError, match=r"would write into .*photos, among the input"):
        evaluate_file(weights, [folder], options=Options(save_images=tmp_path))


def test_finds_a_broken_image_before_the_work(tmp_path, weights, photographs):
    folder = write_pairs(tmp_path / "pairs", photographs, lambda hr: downscale(hr, 2))
    content = (folder / "b_LR.png").read_bytes()
    (folder / "b_LR.png").write_bytes(content[: len(content) // 2])
    steps = []
    with pytest.raises(InputError, match=r"b_LR\.png cannot be read"):
        evaluate_file(weights, [folder], progress=lambda *step: steps.append(step))
    assert steps == [("reading", 0, 2)]


@pytest.mark.parametrize(("observed", "times"), [(False, 1), (True, 2)])
def test_the_papers_lr_images_are_upscaled_where_someone_looks(
    photographs, observed, times
):
    calls = []

    def upscaler(lr):
        calls.append(lr.shape)
        return upscale(lr, 2) / np.float32(255)

    seen = {"observe": lambda *_: None} if observed else {}
    dataset = find_pairs(photographs, 2)
    evaluate_dataset(upscaler, dataset, 2, Options("basicsr", **seen))
    assert len(calls) == times * len(dataset.pairs)


def test_refuses_a_network_that_diverged(tmp_path, photographs, init):
    model = LKDN(scale=2, features=4, num_blocks=1)
    params = jax.tree.map(lambda leaf: leaf * np.nan, init(model)["params"])
    lkdn_jax.save(tmp_path / "nan.msgpack", model, params)
    with pytest.raises(InputError, match=r"a\.png: the network's output is not finite"):
        evaluate_file(tmp_path / "nan.msgpack", [photographs])


def test_refuses_two_datasets_of_one_name(weights, photographs):
    with pytest.raises(InputError, match="two have one name"):
        evaluate_file(weights, [photographs, photographs])


def test_says_which_image_is_too_small_for_ssim(tmp_path, weights):
    # Two pixels are cropped on each side, and the window has eleven.
    for name, (h, w) in {"good": (16, 16), "bad": (14, 40)}.items():
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    report = evaluate_file(weights, tmp_path / "good")
    assert report["datasets"]["good"]["mean"]["ssim_y"] <= 1
    with pytest.raises(InputError, match=r"a\.png: 14×40 pixels; 11×11 must be left"):
        evaluate_file(weights, tmp_path / "bad")


def test_says_that_files_are_jpeg(tmp_path, weights):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for name, image in zip(("a.png", "b.JPG"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    report = evaluate_file(weights, tmp_path)
    (note,) = report["datasets"][tmp_path.name]["notes"]
    assert note.startswith("1 of 2 files are JPEG")


def test_seconds_are_of_a_megapixel_of_output(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)

    def upscaler(lr):
        return upscale(lr, 2) / np.float32(255)

    report = evaluate_dataset(upscaler, find_pairs(tmp_path, 2), 2)
    assert report["mean"]["seconds_per_megapixel"] == pytest.approx(1 / 0.002)


def test_one_pixel_that_is_not_finite_is_refused():
    def upscaler(lr):
        sr = np.zeros((*(2 * n for n in lr.shape[:2]), 3), np.float32)
        sr[3, 4] = np.inf
        return sr

    with pytest.raises(InputError, match=r"a\.png: the network's output is not finite"):
        super_resolve(upscaler, np.zeros((4, 4, 3), np.uint8), "a.png")
