"""export.py as a user runs it, and what it refuses."""

import contextlib
import os

import jax
import numpy as np
import pytest
import safetensors.numpy

import lkdn_jax
from lkdn_jax import LKDN, InputError, lkdn_s
from lkdn_jax.weights.export import export


def test_export_folds(run, tmp_path, weights):
    output = tmp_path / "folded.msgpack"
    result = run("export.py", "--weights", weights / "s_x2.msgpack", "--output", output)
    assert result.returncode == 0, result.stderr
    model, _ = lkdn_jax.load(output)
    assert model == LKDN(scale=2, features=4, num_blocks=1)
    assert (
        result.stdout.count("parameters") == result.stdout.count("multiply-adds") == 2
    )
    assert "largest difference" in result.stdout


def test_export_without_folding_is_bit_equal(run, tmp_path, weights):
    source, output = weights / "s_x2.msgpack", tmp_path / "same.msgpack"
    result = run("export.py", "--weights", source, "--output", output, "--no-fold")
    assert result.returncode == 0, result.stderr
    assert output.read_bytes() == source.read_bytes()
    assert "nothing was folded" in result.stdout
    assert "largest difference" not in result.stdout


def test_export_refuses_what_does_not_fold_exactly(
    run, assert_one_line_error, tmp_path, init
):
    model = lkdn_s(2, features=4, num_blocks=1)
    params = init(model)["params"]
    for branch in params["upsampler"].values():
        branch["kernel"] *= 1e4
    lkdn_jax.save(tmp_path / "huge.msgpack", model, params)
    output = tmp_path / "folded.msgpack"
    result = run(
        "export.py", "--weights", tmp_path / "huge.msgpack", "--output", output
    )
    assert_one_line_error(result, "folding changes the output by", "--no-fold")
    assert not output.exists()


def test_export_refuses_to_lose_what_is_trained(tmp_path, weights, init):
    source = tmp_path / "s_x2.msgpack"
    source.write_bytes(content := (weights / "s_x2.msgpack").read_bytes())
    os.link(source, tmp_path / "same.msgpack")
    for output in (source, tmp_path / "same.msgpack"):
        with pytest.raises(InputError, match="would lose the form that is trained"):
            export(source, output)
    assert source.read_bytes() == content
    model = lkdn_s(2, features=4, num_blocks=1)
    params = jax.tree.map(lambda leaf: leaf * np.nan, init(model)["params"])
    lkdn_jax.save(source, model, params)
    with pytest.raises(InputError, match="parameters that are not finite"):
        export(source, tmp_path / "folded.msgpack")
    assert not (tmp_path / "folded.msgpack").exists()


def test_export_counts_before_and_after_and_takes_the_names(tmp_path, weights):
    output = tmp_path / "folded.safetensors"
    done = export(weights / "s_x2.msgpack", output, names="published")
    model, params = lkdn_jax.load(weights / "s_x2.msgpack")
    assert done.before == lkdn_jax.complexity(model, params)
    assert done.after == lkdn_jax.complexity(
        lkdn_jax.folded_model(model), lkdn_jax.fold(params)
    )
    assert done.after.parameters < done.before.parameters
    found = set(safetensors.numpy.load_file(output))
    assert "fea_conv.pw.weight" in found
    assert not any("/" in name or name.endswith("kernel") for name in found)


def test_export_allows_a_difference_of_a_fortieth_of_a_level(
    tmp_path, weights, monkeypatch
):
    for difference, refused in ((0.9e-4, False), (1.1e-4, True)):
        monkeypatch.setattr(
            "lkdn_jax.weights.export.fold_difference", lambda *_, d=difference: d
        )
        output = tmp_path / f"{difference}.msgpack"
        with contextlib.ExitStack() as stack:
            if refused:
                stack.enter_context(pytest.raises(InputError, match="folding changes"))
            assert export(weights / "s_x2.msgpack", output).difference == difference
        assert output.exists() is not refused
