import sys

import jax
import optax
import pytest

from lkdn_jax import LKDN, InputError, save
from lkdn_jax.cli import ArgumentParser
from lkdn_jax.models.lkdn import expected_params
from lkdn_jax.training.config import load_config
from lkdn_jax.training.processes import join_processes
from lkdn_jax.training.setup import (
    check_config,
    create_feed,
    create_model,
    create_tx,
    initial_params,
)
from lkdn_jax.training.workdir import check_workdir

RECIPES = {
    # Scale, features, blocks, HR patch, batch, loss, optimizer, rate, steps (paper).
    "x2": (2, 56, 8, 96, 64, "l1", "adan", 5e-3, 1_000_000),
    "x3": (3, 56, 8, 144, 64, "l1", "adan", 5e-3, 1_000_000),
    "x4": (4, 56, 8, 192, 64, "l1", "adan", 5e-3, 1_000_000),
    "s_x4": (4, 42, 5, 256, 128, "l1", "adam", 1e-3, 950_000),
    "s_x4_finetune": (4, 42, 5, 480, 64, "l2", "adam", 2e-5, 100_000),
}


@pytest.fixture
def configs(request):
    return request.config.rootpath / "configs"


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


def test_every_field_can_be_set(configs):
    config = load_config(
        configs / "x4.py",
        [
            "--steps=1_000",
            "--optimizer.learning_rate", "1e-4",
            "--optimizer.max_grad_norm=1",
            "--optimizer.betas=0.9,0.8,0.7",
            "--model.remat=true",
            "--model.distilled=12",
            "--data.sources=a,tfds:div2k",
            "--data.weights=1,2.5",
            "--init_from=weights.pth",
        ],
    )  # fmt: skip
    assert config.steps == 1000
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.max_grad_norm == 1.0
    assert config.optimizer.betas == (0.9, 0.8, 0.7)
    for text in ("(0.9, 0.8, 0.7)", "[0.9,0.8,0.7]", "(0.9,0.8,0.7,)"):
        again = load_config(configs / "default.py", [f"--optimizer.betas={text}"])
        assert again.optimizer.betas == (0.9, 0.8, 0.7)
    for text in ("(2023) trip", "[old]", "(a),(b)"):
        again = load_config(configs / "default.py", [f"--data.sources={text}"])
        assert again.data.sources == tuple(text.split(","))
    assert config.model.remat is True
    assert config.model.distilled == 12
    assert config.data.sources == ("a", "tfds:div2k")
    assert config.data.weights == (1, 2.5)
    assert config.init_from == "weights.pth"
    for name, value in (("steps", "7"), ("seed", "3"), ("data.cache", "host")):
        config = load_config(configs / "default.py", [f"--{name}={value}"])
        node = config
        for part in name.split("."):
            node = node[part]
        assert str(node) == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--optimzer.learning_rate=1"], "did you mean --optimizer.learning_rate?"),
        (["--stps=1"], "did you mean --steps?"),
        (["--optimizer.lr=1"], "did you mean --optimizer.learning_rate?"),
        (["--lr=1"], "did you mean --optimizer.learning_rate?"),
        (["--data.batch=1"], "did you mean --data.batch_size?"),
        (["--model=1"], "--model: no such field"),
        (["--steps=many"], "--steps=many: not a value of type int"),
        (["--steps=1.5"], "not a value of type int"),
        (["--steps=1__0"], "--steps=1__0: not a value of type int"),
        (["--optimizer.learning_rate=1e_3"], "1e_3: not a value of type float"),
        (["--steps=None"], "not a value of type int"),
        (["--model.remat=perhaps"], "not a value of type bool"),
        (["--steps"], "a value is missing"),
        (["--steps", "--seed=1"], "--steps: a value is missing"),
        (["steps=3"], "overrides are written --field=value"),
    ],
)
def test_refuses_unknown_fields_and_types(configs, overrides, message):
    with pytest.raises(InputError) as error:
        load_config(configs / "x4.py", overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_files_that_are_no_configs(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "none.py")
    default = "from configs import default\ndef get_config():\n"
    for text, message in (
        ("", r"no get_config\(\) that returns a ConfigDict"),
        ("def get_config():\n    return {}", "no get_config"),
        ("def get_config(:", "SyntaxError"),
        ("import nonexistent", "No module named 'nonexistent'"),
        (f"{default}    c = default.get_config()\n    c.stepz = 4", 'mean "steps"'),
    ):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(InputError, match=message) as error:
            load_config(tmp_path / "bad.py")
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("c = ConfigDict()", r"has no checkpoint\.every, .*, data\.\w+, …"),
        ("del c.validation", r"has no validation\.every, validation\.folders;"),
        ("del c.optimizer.betas", r"has no optimizer\.betas; begin with what"),
        ("c.optimizer.lr = 1.0", "optimizer.lr is no field; did you mean optimizer."),
        ("c.extra = ConfigDict({'steps': 1})", "extra.steps is no field"),
        ("del c.steps\n    c.steps = 1e5", "steps is of type float, not int"),
        ("del c.model\n    c.model = 4", "model is no field; did you mean"),
    ],
)
def test_a_config_has_the_fields_of_the_default(configs, tmp_path, lines, message):
    (tmp_path / "mine.py").write_text(
        "from configs import default\n"
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    c = default.get_config().unlock()\n"
        f"    {lines}\n"
        "    return c\n"
    )
    with pytest.raises(InputError, match=f"mine.py: {message}") as error:
        load_config(tmp_path / "mine.py", default=configs / "default.py")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["x2", "x3", "x4", "s_x4", "s_x4_finetune", "quickstart", "default"]
)
def test_all_our_configs_have_the_fields_of_the_default(configs, name):
    path = configs / f"{name}.py"
    assert load_config(path, default=configs / "default.py") == load_config(path)


def test_configs_share_code_with_those_beside_them(tmp_path):
    (tmp_path / "shared_base_of_a_test.py").write_text(
        "from configs import default\n"
        "def get_config():\n"
        "    c = default.get_config()\n"
        "    c.steps = 77\n"
        "    return c\n"
    )
    (tmp_path / "mine.py").write_text("from shared_base_of_a_test import get_config")
    path = list(sys.path)
    assert load_config(tmp_path / "mine.py").steps == 77
    assert sys.path == path


def test_what_may_be_none_may_become_none_again(configs, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs import default\n"
        "def get_config():\n"
        "    c = default.get_config()\n"
        "    c.optimizer.max_grad_norm = 1.0\n"
        "    return c\n"
    )
    words = ["--optimizer.max_grad_norm=None", "--model.distilled=28"]
    config = load_config(
        tmp_path / "mine.py",
        [*words, "--model.distilled=None"],
        default=configs / "default.py",
    )
    assert config.optimizer.max_grad_norm is None
    assert config.model.distilled is None


def test_a_field_may_be_set_to_nothing(configs):
    words = ["--init_from", "", "--validation.folders="]
    overrides = ArgumentParser(None).parse_known_args(words)[1]
    assert overrides == words
    config = load_config(configs / "s_x4_finetune.py", overrides)
    assert (config.init_from, config.validation.folders) == ("", ())


def test_an_override_may_be_meant_as_an_option_of_the_command(configs):
    for words in (["--multihots"], ["--multihots=1"]):
        with pytest.raises(InputError, match="did you mean --multihost"):
            load_config(configs / "x4.py", words, options=["config", "multihost"])


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


@pytest.mark.parametrize("content", ['{"a":', "[]", ""])
def test_a_damaged_note_of_the_run_before(configs, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is damaged: remove it"):
        check_workdir(load_config(configs / "x4.py"), tmp_path)


def test_a_run_keeps_its_optimizer_and_starts_once(configs, tmp_path):
    old = load_config(configs / "x4.py")
    (tmp_path / "config.json").write_text(old.to_json())
    new = load_config(configs / "x4.py", ["--optimizer.name=adam"])
    with pytest.raises(InputError, match=r"optimizer\.name is adan, not adam; choo"):
        check_workdir(new, tmp_path)
    new = load_config(configs / "x4.py", ["--optimizer.weight_decay=0.02"])
    with pytest.raises(InputError, match=r"weight_decay 0\.0, and Adan's state"):
        check_workdir(new, tmp_path)
    new = load_config(configs / "x4.py", ["--init_from=a.pth", "--steps=7"])
    assert check_workdir(new, tmp_path) == [
        "steps was 1000000, is now 7",
        "init_from was '', is now 'a.pth' (of no effect once there is a checkpoint)",
    ]


def test_says_which_network_the_weights_are_of(configs, save_weights):
    path = save_weights(LKDN(features=4, num_blocks=1))
    words = [f"--init_from={path}", "--model.features=4", "--model.num_blocks=2"]
    config = load_config(configs / "x4.py", [*words, "--model.shallow_block=RBSB"])
    known = r"\(num_blocks 1, not 2, shallow_block BSB, not RBSB\)"
    with pytest.raises(InputError, match=rf"than the config's {known}; give weights"):
        initial_params(create_model(config.model), config)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (("foo", 2, 0), "--coordinator foo: give host:port"),
        (("foo:1", 0, 0), "--process_id 0: must be at least 0 and below"),
        (("foo:1", 2, -1), "--process_id -1: must be at least 0 and below"),
    ],
)
def test_refuses_a_cluster_that_cannot_be(cluster, message):
    with pytest.raises(InputError, match=message):
        join_processes(*cluster)


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
