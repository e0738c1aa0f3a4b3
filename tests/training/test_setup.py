from pathlib import Path
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lkdn_jax import LKDN, InputError, save
from lkdn_jax.data.samples import Sampling
from lkdn_jax.data.tiles import Tiles
from lkdn_jax.models.lkdn import draw_params, expected_params
from lkdn_jax.optim.adan import adan
from lkdn_jax.training import loop, setup
from lkdn_jax.training.config import load_config
from lkdn_jax.training.loop import train_and_evaluate
from lkdn_jax.training.setup import (
    check_config,
    create_feed,
    create_model,
    create_tx,
    initial_params,
)

TINY = Path(__file__).with_name("tiny_config.py")
RECIPES = {
    # Scale, features, blocks, HR patch, batch, loss, optimizer, rate, steps (paper).
    "x2": (2, 56, 8, 96, 64, "l1", "adan", 5e-3, 1_000_000),
    "x3": (3, 56, 8, 144, 64, "l1", "adan", 5e-3, 1_000_000),
    "x4": (4, 56, 8, 192, 64, "l1", "adan", 5e-3, 1_000_000),
    "s_x4": (4, 42, 5, 256, 128, "l1", "adam", 1e-3, 950_000),
    "s_x4_finetune": (4, 42, 5, 480, 64, "l2", "adam", 2e-5, 100_000),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_papers(configs, name):
    config = load_config(configs / f"{name}.py")
    assert (
        config.model.scale,
        config.model.features,
        config.model.num_blocks,
        config.data.hr_patch,
        config.data.batch_size,
        config.loss,
        config.optimizer.name,
        config.optimizer.learning_rate,
        config.steps,
    ) == RECIPES[name]
    check_config(config)
    assert config.ema_decay == 0.999
    assert config.schedule.name == "constant"
    published = {"x2": 303_812, "x3": 311_387, "x4": 321_992}
    model = create_model(config.model)
    shapes = expected_params(model)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert parameters == published.get(name, 172_449)
    create_tx(config.optimizer, optax.constant_schedule(1e-3))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--data.hr_patch=190", "data.hr_patch 190 must be a multiple of the scale 4"),
        ("--data.hr_patch=1000", "at most data.tile 480"),
        ("--data.cache=disk", "data.cache 'disk' must be one of auto"),
        ("--data.weights=1,2", "one number for each of"),
        ("--loss=l3", "loss 'l3' must be one of"),
        ("--log_every=0", "log_every 0 must be at least 1"),
        ("--optimizer.accumulate=0", "optimizer.accumulate 0 must be at least 1"),
        ("--data.steps_per_dispatch=0", "data.steps_per_dispatch 0 must be"),
        ("--data.steps_per_dispatch=3", "must be a multiple of"),
        ("--checkpoint.keep=0", "checkpoint.keep 0 must be at least 1"),
        ("--model.scale=0", "scale 0: must be at least 1"),
        ("--model.dtype=float33", "model.dtype 'float33' must be one of"),
        ("--model.upsampler=x", "unknown 'x'"),
        ("--data.sources=", "must be names, at least one"),
        ("--data.sources=2024", "must be names, at least one"),
        ("--validation.folders=2024", "(2024,) must be names; a folder 2023 is"),
        ("--optimizer.accumulate=7", "try 63"),
        ("--data.weights=a", "none below 0, not all 0"),
        ("--data.weights=-1", "none below 0, not all 0"),
        ("--data.weights=0", "none below 0, not all 0"),
        ("--data.workers=-1", "data.workers -1 must be at least 0"),
        (f"--seed={2**32}", "seed 4294967296 must be at least 0 and below 2³²"),
        ("--seed=-1", "seed -1 must be at least 0"),
        ("--ema_decay=1", "ema_decay 1.0 must be at least 0 and below 1"),
    ],
)
def test_refuses_fields_that_do_not_fit(configs, override, message):
    with pytest.raises(InputError) as error:
        check_config(load_config(configs / "x4.py", [override]))
    assert message in str(error.value)


def test_says_which_network_the_weights_are_of(configs, save_weights):
    path = save_weights(LKDN(features=4, num_blocks=1))
    words = [f"--init_from={path}", "--model.features=4", "--model.num_blocks=2"]
    config = load_config(configs / "x4.py", [*words, "--model.shallow_block=RBSB"])
    known = r"\(num_blocks 1, not 2, shallow_block BSB, not RBSB\)"
    with pytest.raises(InputError, match=rf"than the config's {known}; give weights"):
        initial_params(create_model(config.model), config)


def test_refuses_data_that_is_not_there(configs, tmp_path):
    overrides = [f"--data.sources={tmp_path / 'none'}"]
    config = load_config(configs / "x4.py", overrides)
    with pytest.raises(InputError, match="none"):
        create_feed(config, None, lambda *_: None)


def test_starting_parameters_are_finite(configs, tmp_path, init):
    model = LKDN(scale=4)
    params = jax.tree.map(lambda leaf: leaf * float("nan"), init(model)["params"])
    save(tmp_path / "nan.msgpack", model, params)
    words = [f"--init_from={tmp_path / 'nan.msgpack'}"]
    with pytest.raises(
        InputError, match=r"nan\.msgpack: parameters that are not finite"
    ):
        initial_params(model, load_config(configs / "x4.py", words))


class EnoughError(Exception):
    """What is looked at has been seen."""


def test_the_config_reaches_the_step(tmp_path, monkeypatch):
    asked = {}

    def observed(model, _, **options):
        asked.update(options, model=model)
        raise EnoughError

    monkeypatch.setattr(loop, "make_train_step", observed)
    config = load_config(
        TINY,
        [
            "--loss=l2", "--ema_decay=0.5", "--optimizer.accumulate=2",
            "--model.dtype=bfloat16", "--optimizer.learning_rate=0.25",
        ],
    )  # fmt: skip
    with pytest.raises(EnoughError):
        train_and_evaluate(config, tmp_path)
    assert (asked["loss"], asked["ema_decay"], asked["accumulate"]) == ("l2", 0.5, 2)
    assert asked["model"].dtype == jnp.bfloat16
    assert asked["schedule"](3) == 0.25


def test_the_config_reaches_the_optimizer(configs):
    words = ["--optimizer.betas=0.5,0.25,0.75", "--optimizer.weight_decay=0.5"]
    config = load_config(configs / "x4.py", words)
    gradient, params = jnp.array([0.5, -2.0]), jnp.array([1.0, 3.0])

    def second_step(tx):
        state = tx.init(params)
        _, state = tx.update(gradient, state, params)
        return tx.update(2 * gradient, state, params)[0]

    found = second_step(create_tx(config.optimizer, optax.constant_schedule(0.125)))
    wanted = second_step(adan(0.125, 0.5, 0.25, 0.75, weight_decay=0.5))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_config_reaches_the_data(monkeypatch):
    feeds = []
    for name in ("device_feed", "host_feed"):
        monkeypatch.setattr(
            setup, name, lambda *a, name=name, **k: feeds.append((name, *a[2:], k))
        )
    words = ["--seed=7", "--data.sources=photographs,photographs", "--data.weights=1,3"]
    config = load_config(TINY, [*words, "--data.workers=2"])
    sampling = Sampling(7, 4, 8, (1, 3))
    create_feed(config, None, lambda *_: None)
    monkeypatch.setattr(setup, "_HOST_BYTES", 10_000)
    create_feed(config, None, lambda *_: None)
    assert feeds == [
        ("device_feed", sampling, {}),
        ("host_feed", sampling, {"workers": 2}),
    ]


def test_the_config_says_where_data_are(monkeypatch):
    asked = []

    def open_nothing(*words, **places):
        asked.append((*words[:3], places))
        raise EnoughError

    monkeypatch.setattr(setup, "open_tiles", open_nothing)
    words = ["--data.sources=tfds:div2k", "--data.tile=96"]
    places = ["--data.data_dir=a", "--data.decoded_dir=b"]
    for config in (load_config(TINY, words), load_config(TINY, [*words, *places])):
        with pytest.raises(EnoughError):
            create_feed(config, None, lambda *_: None)
    assert asked == [
        ("tfds:div2k", 2, 96, {"data_dir": None, "decoded_dir": None}),
        ("tfds:div2k", 2, 96, {"data_dir": "a", "decoded_dir": "b"}),
    ]


@pytest.mark.parametrize(
    ("stats", "fits"),
    [(None, False), ({"bytes_limit": 10**6}, False), ({"bytes_limit": 10**9}, True)],
)
def test_data_goes_where_an_accelerator_has_room(monkeypatch, stats, fits):
    devices = [Mock(memory_stats=lambda: stats)]
    monkeypatch.setattr(setup.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(setup.jax, "local_devices", lambda: devices)
    tiles = Tiles(np.zeros((200, 12, 12, 3), np.uint8), np.zeros(1, np.uint8))
    assert setup._fit_device([tiles] * 10) is fits  # 864,010 bytes


def test_the_seed_draws_the_parameters(configs):
    words = ["--seed=7", "--model.features=4", "--model.num_blocks=1"]
    config = load_config(configs / "x4.py", words)
    model = create_model(config.model)
    found = initial_params(model, config)
    jax.tree.map(np.testing.assert_array_equal, found, draw_params(model, 7))
    other = jax.tree.leaves(draw_params(model, 0))
    assert not np.array_equal(jax.tree.leaves(found)[1], other[1])
