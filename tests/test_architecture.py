"""The rooms of the package import one another in one direction only."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import earmark

ROOT = Path(earmark.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PRIVATE = {
    "_inputs",
    "_io",
    "_plugins",
    "_progress",
    "_tabular",
    "_text",
}  # any room may import them
FOUNDATION = {"models", "data", "activations", "training", "weights", "records", "engine"}
ALLOWED = {
    "_inputs": set(),
    "_io": set(),
    "_plugins": set(),
    "_progress": set(),
    "_tabular": set(),
    "_text": set(),
    "_records_v1": set(),
    "engine": set(),
    "quantities": {"records"},  # for types alone
    "records": {"quantities", "_records_v1"},
    "_kernels": set(),
    "statistics": {"_kernels"},
    "signatures": {"_kernels", "statistics"},
    "estimation": {"_kernels", "statistics", "signatures"},
    "models": set(),
    "data": set(),
    "activations": {"models", "data"},
    "training": {"models", "data"},
    "weights": {"models"},
    "lab": FOUNDATION | {"signatures", "statistics", "quantities"},
    "study": FOUNDATION
    | {"signatures", "statistics", "quantities", "lab", "_kernels", "estimation"},
    "report": {"records", "quantities", "statistics", "signatures", "data"},
    "api": FOUNDATION | {"signatures", "estimation", "lab", "study", "report"},
    "cli": FOUNDATION
    | {"signatures", "statistics", "quantities", "lab", "study", "report", "api", "__version__"}
    | {"estimation"},
    "__main__": {"cli"},
}


def imports(file: Path) -> set[tuple[str, ...]]:
    """Dotted paths within the package that a file imports, without the package's name."""
    package = (ROOT.name, *file.relative_to(ROOT).parts[:-1])
    paths: list[Sequence[str]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            paths += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = node.module.split(".") if node.module else ()
            paths += [(*base, *module, alias.name) for alias in node.names]
    return {tuple(path[1:]) for path in paths if path[0] == ROOT.name and len(path) > 1}


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_room_is_on_the_map():
    assert {room_of(file) for file in FILES} == {*ALLOWED, "__init__"}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_imports_go_one_way(room: str):
    for file in FILES:
        if room_of(file) == room:
            rooms = {path[0] for path in imports(file)}
            assert rooms <= ALLOWED[room] | PRIVATE | {room}, file


def test_reports_need_no_images():
    """Of the data they know the registry alone."""
    for file in FILES:
        if room_of(file) == "report":
            modules = {path[:2] for path in imports(file) if path[0] == "data"}
            assert modules <= {("data", "registry")}, file


def test_lower_rooms_do_not_load_the_lab_by_name():
    """Its models come through the entry point `earmark.models`, as a plug-in's do."""
    for file in FILES:
        if room_of(file) in {"models", "data", "activations", "training", "weights"}:
            assert "earmark.lab" not in file.read_text(), file


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
