import pytest

from lkdn_jax import LKDN, complexity, fold, folded_model, lkdn_s
from lkdn_jax.models.lkdn import expected_params


@pytest.mark.parametrize(
    ("scale", "parameters"), [(2, 303_812), (3, 311_387), (4, 321_992)]
)
def test_lkdn_has_the_published_number_of_parameters(scale, parameters):
    model = LKDN(scale=scale)
    assert complexity(model, expected_params(model)).parameters == parameters


def test_lkdn_s_has_the_published_number_of_parameters_and_less_work(init):
    model = lkdn_s()
    params = init(model)["params"]
    trained = complexity(model, params)
    folded = complexity(folded_model(model), fold(params))
    assert (trained.parameters, folded.parameters) == (172_449, 129_177)
    assert trained.multiply_adds == pytest.approx(9.7e9, abs=0.05e9)
    assert folded.multiply_adds == pytest.approx(7.3e9, abs=0.05e9)


def test_lkdn_x4_has_the_published_multiply_adds():
    model = LKDN()
    count = complexity(model, expected_params(model), (1280, 720)).multiply_adds
    assert 18.2e9 <= count <= 18.3e9


def test_counts_by_hand():
    model = LKDN(scale=2, features=4, num_blocks=1)
    cost = complexity(model, expected_params(model), (20, 12))
    pixels = 10 * 6
    weights = (
        12 * 4 + 9 * 4  # fea_conv
        + 3 * (4 * 2 + 4 * 4 + 9 * 4) + 4 * 2 + 9 * 2  # c1_d, c1_r … c4
        + 8 * 4 + (4 * 4 + 25 * 4 + 25 * 4) + 4 * 4  # c5, atten, c6
        + 4 * 4 + 4 * 4 + 9 * 4 + 9 * 4 * 12  # c1, c2, upsampler
    )  # fmt: skip
    outputs = 8 + 3 * (2 + 8) + 4 + 4 + 12 + 4 + 4 + 8 + 12
    assert cost.multiply_adds == pixels * weights
    assert cost.activations == pixels * outputs
    assert "20×12" in str(cost)


def test_what_fills_no_lr_pixel_is_not_counted():
    model = LKDN(scale=3, features=4, num_blocks=1)
    params = expected_params(model)
    whole, filled, more = (
        complexity(model, params, size).multiply_adds
        for size in ((1278, 720), (1280, 721), (1281, 720))
    )
    assert whole == filled < more
