"""upscale.py as a user runs it."""

import numpy as np
from PIL import Image

import lkdn_jax


def test_upscale_does_what_it_is_asked_for(run, tmp_path, weights, data):
    frames = [Image.open(data / f"{name}.png") for name in "ab"]
    frames[0].save(data / "c.jpg", "MPO", save_all=True, append_images=frames[1:])
    (data / "d.gif").write_bytes(b"")
    output = tmp_path / "out"
    command = (
        "upscale.py", "--weights", weights / "x2.msgpack", "--output", output, data,
        "--format", "webp", "--fit", "40x40", "--tile", 32, "--context", 4,
        "--self_ensemble", "--device", "cpu",
    )  # fmt: skip
    first = run(*command)
    assert (first.returncode, first.stderr) == (0, "")
    assert "d.gif" not in first.stdout
    assert "files passed over: 1 (.gif)" in first.stdout
    assert f"3 upscaled, 0 already in {output}" in first.stdout
    assert {file.name for file in output.iterdir()} == {"a.webp", "b.webp", "c.webp"}
    upscaler = lkdn_jax.Upscaler(
        weights / "x2.msgpack", tile=32, context=4, self_ensemble=True
    )
    with Image.open(output / "a.webp") as image:
        expected = upscaler(frames[0]).resize((40, 35), Image.Resampling.LANCZOS)
        difference = np.abs(np.subtract(image, expected, dtype=int))
        assert difference.max() <= 1
    assert "3 upscaled, 0 already" in run(*command, "--overwrite").stdout


def test_upscale_names_what_failed(run, assert_one_line_error, tmp_path, weights, data):
    content = (data / "b.png").read_bytes()
    (data / "b.png").write_bytes(content[: len(content) // 2])
    command = ("upscale.py", "--weights", weights / "x2.msgpack", "--output", tmp_path)
    alone = run(*command, data / "b.png")
    assert_one_line_error(alone, "error: ", "b.png", "truncated")
    assert {file.name for file in tmp_path.iterdir()} == {"Sét"}
    result = run(*command, data)
    failed, error = result.stderr.strip().splitlines()
    assert failed.startswith(f"failed: {data / 'b.png'}")
    assert error == "error: 1 of 2 images failed"
    assert result.returncode == 1
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (68, 60)
    assert {file.name for file in tmp_path.iterdir()} == {"Sét", "a.png"}
