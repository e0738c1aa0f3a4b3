"""The benchmarks that end soon enough, as a user starts them."""

import json

import jax


def test_inference_beside_the_peers_there_are(run, tmp_path):
    output = tmp_path / "results.json"
    flags = ("--network", "LKDN-S", "--sizes", "2x8x9", "--rounds", "1")
    result = run("benchmarks/inference.py", *flags, "--output", output)
    assert result.returncode == 0, result.stderr
    results = json.loads(output.read_text())
    assert results["network"] == "LKDN-S"
    assert results["versions"]["jax"] == jax.__version__
    assert "cpu" in results["device"]
    (measured,) = results["results"]
    assert measured["size"] == [2, 8, 9]
    assert measured["ways"]["ours float32"]["ratio"] == 1
    for name in measured["missing"]:
        assert f"missing peer: {name}" in result.stdout


def test_a_folder_beside_the_bare_network(run, tmp_path, weights):
    output = tmp_path / "results.json"
    flags = ("--images", "2", "--rounds", "1", "--output", output)
    result = run("benchmarks/folder.py", "--weights", weights / "s_x2.msgpack", *flags)
    assert result.returncode == 0, result.stderr
    ways = json.loads(output.read_text())["ways"]
    assert set(ways) == {"network", "folder"}
    share = ways["network"]["seconds"] / ways["folder"]["seconds"]
    assert f"throughput: {share:.3f} × the bare network's" in result.stdout


def test_an_output_that_cannot_be_is_said_before_the_work(run, tmp_path):
    result = run("benchmarks/training_step.py", "--output", tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2
    said = f"error: argument --output: {tmp_path} is a folder; choose a file in it"
    assert line.startswith(said)
    assert result.stdout == ""
