import sys

import pytest

from lkdn_jax import InputError
from lkdn_jax.cli import ArgumentParser
from lkdn_jax.training.config import load_config, naming_fields


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
        ("import sys; sys.exit(0)", "SystemExit: 0; a config is Python"),
        (f"{default}    c = default.get_config()\n    c.foo = 4", "locked.; a config"),
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


def test_errors_name_a_field_with_its_section(configs):
    config = load_config(configs / "x4.py")
    for message, expected in (
        ("warmup_steps 20: use less", "schedule.warmup_steps 20: use less"),
        ("steps 0: use more", "steps 0: use more"),
        ("name x: is in three sections", "name x: is in three sections"),
        ("unknown optimizer", "unknown optimizer"),
    ):
        with pytest.raises(InputError) as error, naming_fields(config):
            raise InputError(message)
        assert str(error.value) == expected


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
