"""Tests of `earmark check`: its output, its list of fixes, and its exit code."""

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from earmark import cli
from earmark.data import registry

R = registry.class_ids("r")


def check(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["check", *map(str, arguments)], catch_exceptions=False)


def fill(root: Path, folders: Iterable[str]) -> Path:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(stream, "PNG")
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "1.png").write_bytes(stream.getvalue())
    return root


@pytest.fixture
def small_r(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet-R has one image of each class."""
    known = {
        **registry.DATASETS,
        "imagenet-r": replace(registry.DATASETS["imagenet-r"], n_images=200),
    }
    monkeypatch.setattr(registry, "DATASETS", MappingProxyType(known))


@pytest.mark.usefixtures("small_r")
def test_a_planted_fault(tmp_path: Path):
    root = fill(tmp_path / "imagenet-r", R)
    broken = [root / folder / "1.png" for folder in R[:2]]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(b"<html>404</html>")
    fixes = tmp_path / "new" / "fixes.tsv"

    result = check(tmp_path, "--fix-list", fixes, "--threads", 1)

    head, row, *lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert head.split() == ["Dataset", "Folder", "Images", "Expected", "Faults"]
    assert row.split() == ["ImageNet-R", str(root), "200", "200", "1"]
    assert lines == [
        f"fault: ImageNet-R: 2 images cannot be read ({R[0]}/1.png, {R[1]}/1.png): replace them.",
        f"{fixes}: 2 lines.",
    ]
    assert fixes.read_text().splitlines() == [
        f"unreadable\t{broken[0]}\tThe file is empty: replace it.",
        f"unreadable\t{broken[1]}\tThe file is not an image: replace it.",
    ]


@pytest.mark.usefixtures("small_r")
def test_a_whole_dataset(tmp_path: Path):
    root = fill(tmp_path / "imagenet-r", R)
    fixes = tmp_path / "fixes.tsv"
    fixes.write_text("those of before")

    result = check(root, "--fix-list", fixes)

    assert result.exit_code == 0
    _, row, *lines = result.stdout.splitlines()
    assert row.split() == ["ImageNet-R", str(root), "200", "200", "none"]
    assert lines == [f"{fixes}: 0 lines."]
    assert fixes.read_bytes() == b""


def test_own_images_with_nothing_to_compare_with(tmp_path: Path):
    root = fill(tmp_path / "pets", ["cat", "dog"])

    result = check(root)

    assert result.exit_code == 0
    _, row, *lines = result.stdout.splitlines()
    assert row.split() == ["your", "own", "images", str(root), "2", "none"]
    assert lines == ["note: your own images: 2 classes and 2 images."]


def test_names_that_look_like_markup_are_printed_whole(tmp_path: Path):
    root = fill(tmp_path / "x[red]y :smile: [/]", ["[bold]", "b" * 200])
    for folder in root.iterdir():
        (folder / "1.png").write_bytes(b"")
    fixes = root / "[link].tsv"

    result = check(root, "--fix-list", fixes)

    assert result.exit_code == 1
    _, *lines = result.stdout.splitlines()
    files = f"[bold]/1.png, {'b' * 200}/1.png"
    assert str(root) in lines[0]
    assert lines[-2] == (
        f"fault: your own images: 2 images cannot be read ({files}): replace them."
    )
    assert lines[-1] == f"{fixes}: 2 lines."


def test_no_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*/gone: give the folder"):
        check(tmp_path / "gone")


@pytest.mark.usefixtures("small_r")
def test_a_deliberate_subset(tmp_path: Path):
    root = fill(tmp_path / "imagenet-r", R[:20])

    strict, accepted = check(tmp_path), check(tmp_path, "--subset")

    assert strict.exit_code == 1
    assert "give --subset if a part is meant" in strict.stdout
    assert accepted.exit_code == 0
    _, row, *lines = accepted.stdout.splitlines()
    assert row.split() == ["ImageNet-R", str(root), "20", "200", "none"]
    assert lines == [
        "note: ImageNet-R: A subset: 20 of 200 classes and 20 of 200 images of ImageNet-R."
    ]


def test_names_do_not_steer_the_terminal(tmp_path: Path):
    root = fill(tmp_path / "x\x1b[2J", ["a\x1b]0;title\x07\nnote: b", "caf\udce9"])
    for folder in root.iterdir():
        (folder / "1.png").write_bytes(b"")

    result = check(root)

    assert result.exit_code == 1
    assert "\x1b" not in result.stdout
    assert "a\ufffd]0;title\ufffd\\nnote: b/1.png, caf\ufffd/1.png" in result.stdout
    assert len(result.stdout.splitlines()) == 4
