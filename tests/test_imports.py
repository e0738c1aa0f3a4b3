"""Imports run downhill: each part of the package imports only what lies below it."""

import ast
import subprocess
import sys
from pathlib import Path

import lkdn_jax

ROOT = Path(__file__).parents[1]
# From the bottom up; `evaluation.metrics` is named because it must know no jax.
LAYERS = [
    ("errors", "progress"),
    ("files", "runtime"),
    ("cli",),
    ("data", "evaluation.metrics", "evaluation.figures"),
    ("ops",),
    ("models",),
    ("weights",),
    ("optim",),
    ("evaluation",),
    ("training",),
    ("inference",),
    ("demo",),
]
# What a part knows nothing of, though it lies below.
APART = {
    "inference": {"training", "evaluation", "optim"},
    "optim": {"data", "evaluation", "ops", "models", "weights", "files", "cli"},
    "evaluation": {"optim"},
}
# What the scripts call: the top of what each is for.
SCRIPTS = {
    "train": {"cli", "training"},
    "evaluate": {"cli", "evaluation"},
    "upscale": {"cli", "errors", "inference.folder"},
    "export": {"cli", "weights.export"},
}
WITHOUT_JAX = {
    "errors",
    "progress",
    "files",
    "runtime",
    "cli",
    "data",
    "evaluation.metrics",
}


def layer_of(module: str) -> int:
    name = module.removeprefix("lkdn_jax").removeprefix(".")
    if not name:
        return len(LAYERS)  # the package itself re-exports
    matches = [
        (len(part), level)
        for level, parts in enumerate(LAYERS)
        for part in parts
        if name == part or name.startswith(f"{part}.")
    ]
    assert matches, f"{module} is in no layer: add it to LAYERS"
    return max(matches)[1]


def imports(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    from_ = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 for node in from_), f"{file}: a relative import"
    found = {node.module or "" for node in from_}
    return found | {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}


def modules() -> dict[str, Path]:
    files = (ROOT / "lkdn_jax").rglob("*.py")
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): file
        for file in files
    }


def test_imports_run_downhill():
    for module, file in modules().items():
        for imported in imports(file):
            if imported.split(".")[0] == "lkdn_jax":
                assert layer_of(imported) <= layer_of(module), (module, imported)


def lies_in(module: str, parts: set[str]) -> bool:
    name = module.removeprefix("lkdn_jax.")
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def test_some_parts_stand_apart():
    for module, file in modules().items():
        for part, others in APART.items():
            if lies_in(module, {part}):
                found = {name for name in imports(file) if lies_in(name, others)}
                assert not found, (module, found)


def test_scripts_and_configs_import_only_the_top():
    for name, parts in SCRIPTS.items():
        ours = {i for i in imports(ROOT / f"{name}.py") if i.startswith("lkdn_jax")}
        assert ours
        assert all(lies_in(i, parts) for i in ours), (name, ours)
    for file in (ROOT / "configs").glob("*.py"):
        assert imports(file) <= {
            "ml_collections",
            "ml_collections.config_dict",
            "configs",
        }


def test_data_and_metrics_know_no_jax():
    for module, file in modules().items():
        if lies_in(module, WITHOUT_JAX):
            roots = {imported.split(".")[0] for imported in imports(file)}
            assert not roots & {"jax", "flax", "jaxlib"}, module


def test_reading_images_loads_no_jax():
    code = "import sys, lkdn_jax.data.pairs; print('jax' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout.strip() == "False", result.stderr


def test_scripts_are_thin():
    for script in ROOT.glob("*.py"):
        assert len(script.read_text().splitlines()) <= 70, script.name


def test_every_public_name_is_there():
    for name in lkdn_jax.__all__:
        assert getattr(lkdn_jax, name).__name__ == name
