"""The rooms of the package import one another in one direction only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import earmark

FOUNDATION = {"models", "data", "tuning", "activations", "results", "files", "engine"}
ROOT = Path(earmark.__file__).parent
ALLOWED = {
    "files": set(),
    "engine": set(),
    "signatures": set(),
    "models": {"files"},
    "data": {"files"},
    "results": {"files"},
    "tuning": {"models"},
    "activations": {"models", "data", "files"},
    "report": {"results", "files", "signatures"},  # sets and lines, never tensors
    "study": FOUNDATION | {"signatures"},
    "cli": FOUNDATION | {"study", "report"},
    "__main__": {"cli"},
}


def rooms_imported(file: Path) -> set[str]:
    here = (ROOT.name, *file.relative_to(ROOT).parts[:-1])
    paths = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            paths += [name.name.split(".") for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else ()
            module = node.module.split(".") if node.module else ()
            paths += [(*base, *module, name.name) for name in node.names]
    return {path[1] for path in paths if path[0] == ROOT.name and len(path) > 1}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: file.name)
def test_imports_go_one_way(file: Path):
    room = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if room != "__init__":
        assert rooms_imported(file) <= ALLOWED[room] | {room}


def modules_after(code: str) -> set[str]:
    printed = subprocess.check_output(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], text=True
    )
    return {name.split(".")[0] for name in printed.split()}


HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "numba",
    "altair",
    "pyarrow",
    "open_clip",
    "timm",
    "torchvision",
    "transformers",
    "sklearn",
    "ray",
    "accelerate",
    "pydantic",
}


@pytest.mark.parametrize("code", ["import earmark", "import earmark.cli"])
def test_import_is_light(code: str):
    assert not modules_after(code) & HEAVY


def test_a_name_brings_what_it_needs_and_no_more():
    modules = modules_after("import earmark; earmark.activation_kurtosis")

    assert "torch" in modules
    assert not modules & {"altair", "open_clip", "timm", "torchvision", "ray"}
