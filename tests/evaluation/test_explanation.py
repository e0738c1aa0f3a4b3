import pytest

from lkdn_jax.evaluation.explanation import explain, published


def test_explains_a_figure_that_is_far_off(entry):
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
def test_says_where_the_lr_images_are_from(entry, lr_files, foreign, origin):
    lines = explain(entry(lr_files=lr_files, foreign=foreign), "Set5")
    assert lines[0].startswith(f"LR images: {origin}")
    assert lines[1] == "a note."


def test_accuses_no_mistake_of_a_network_that_is_worse(entry):
    worse = entry(psnr=31.06)
    worse.gallery.mistakes["Set5"] = {"none": [31.06], "swapped": [31.1], "rgb": [29.0]}
    lines = explain(worse, "Set5")
    assert any("-1.33 dB from the published" in line for line in lines)
    assert not any(line.startswith(("What is", "These outputs")) for line in lines)


def test_what_is_published_is_of_the_whole_dataset(entry):
    assert published(entry(), "Set5") == (32.39486, 0.89795)
    assert published(entry(images=["a.png", "b.png"]), "Set5") is None
    other = entry()
    other.cost["parameters"] += 1
    assert published(other, "Set5") is None


def test_a_figure_is_far_off_from_a_twentieth_of_a_db(entry):
    for psnr, told in ((32.395 - 0.04, False), (32.395 - 0.06, True)):
        lines = explain(entry(psnr=psnr), "Set5")
        assert any("from the published" in line for line in lines) is told
