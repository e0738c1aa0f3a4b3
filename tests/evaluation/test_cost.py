import time

import jax
import numpy as np

from lkdn_jax import LKDN, fold, lkdn_s
from lkdn_jax.evaluation.cost import measure_costs, time_in_turns


def test_networks_are_counted_as_they_are(init):
    small, large = (LKDN(features=n, num_blocks=1) for n in (4, 8))
    networks = [(model, init(model)["params"]) for model in (small, large, small)]
    costs = measure_costs(networks)
    for cost, (_, params) in zip(costs, networks, strict=True):
        assert cost["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
        low, high = cost["quartiles"]
        assert 0 < low <= cost["seconds"] <= high
        # An image and an output of float32, at least.
        assert cost["peak_memory"] > 1280 * 720 * 3 * 4 * (1 + 1 / 16)
    counts = [(cost["multiply_adds"], cost["activations"]) for cost in costs]
    assert counts[0] == counts[2] < counts[1]


def test_functions_are_timed_in_turns():
    order = []

    def short():
        order.append("short")

    def long():
        order.append("long")
        time.sleep(0.01)

    seconds = time_in_turns([short, long])
    assert order == ["short", "long"] * 13
    assert seconds.shape == (10, 2)
    assert (seconds[:, 1] >= 0.01).all()


def test_the_folded_network_is_counted(init):
    model = lkdn_s(features=4, num_blocks=1)
    params = init(model)["params"]
    (cost,) = measure_costs([(model, params)])
    sizes = [leaf.size for leaf in jax.tree.leaves(fold(params))]
    assert cost["parameters"] == sum(sizes)
    assert sum(sizes) < sum(leaf.size for leaf in jax.tree.leaves(params))


def test_the_median_and_the_quartiles_are_told(init, monkeypatch):
    seconds = np.arange(5.0)[::-1, None]
    monkeypatch.setattr("lkdn_jax.evaluation.cost.time_in_turns", lambda _: seconds)
    model = LKDN(features=4, num_blocks=1)
    (cost,) = measure_costs([(model, init(model)["params"])])
    assert (cost["seconds"], cost["quartiles"]) == (2.0, [1.0, 3.0])
