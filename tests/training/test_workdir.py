import pytest

from lkdn_jax import InputError
from lkdn_jax.training.config import load_config
from lkdn_jax.training.workdir import check_no_results, check_workdir


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
    (tmp_path / "config.json").write_text(new.to_json())
    with pytest.raises(InputError, match=r"weight_decay 0\.02, and Adan's state"):
        check_workdir(old, tmp_path)
    (tmp_path / "config.json").write_text(old.to_json())
    new = load_config(configs / "x4.py", ["--model.dtype=bfloat16"])
    assert check_workdir(new, tmp_path) == [
        "model.dtype was 'float32', is now 'bfloat16'"
    ]
    new = load_config(configs / "x4.py", ["--init_from=a.pth", "--steps=7"])
    assert check_workdir(new, tmp_path) == [
        "steps was 1000000, is now 7",
        "init_from was '', is now 'a.pth' (of no effect once there is a checkpoint)",
    ]


@pytest.mark.parametrize("name", ["report.md", "metrics.jsonl", "upscaled"])
def test_refuses_to_begin_over_files_of_no_run(tmp_path, name):
    check_no_results(tmp_path)
    (tmp_path / "notes.md").write_text("of no concern")
    check_no_results(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is of no run"):
        check_no_results(tmp_path)
    (tmp_path / "config.json").write_text("{}")  # of a run that was stopped early
    check_no_results(tmp_path)
