"""A write that fails leaves the folder as it was."""

from pathlib import Path

import pytest

from earmark._io import atomic_write


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_takes_the_name_when_done(tmp_path: Path, again: bool, kind: str):
    before = kind if again else None
    path = tmp_path / "deep" / "answer"
    make(path, before, "old")

    with atomic_write(path) as aside:
        make(aside, kind, "new")

    assert read(path) == "new"
    assert [found.name for found in path.parent.iterdir()] == ["answer"]


@pytest.mark.parametrize("before", [None, "file", "folder"])
@pytest.mark.parametrize("kind", [None, "file", "folder"])
def test_leaves_what_stood_when_the_block_fails(
    tmp_path: Path, before: str | None, kind: str | None
):
    path = tmp_path / "answer"
    make(path, before, "old")

    with pytest.raises(KeyboardInterrupt), atomic_write(path) as aside:  # noqa: PT012
        make(aside, kind, "new")
        raise KeyboardInterrupt

    assert [read(found) for found in tmp_path.iterdir()] == (["old"] if before else [])


def make(path: Path, kind: str | None, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "folder":
        path.mkdir()
        path = path / "part"
    if kind:
        path.write_text(text)


def read(path: Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


def test_a_folder_is_never_traded_for_a_file(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "work.txt").write_text("a year of it")

    with pytest.raises(FileExistsError, match="kept"), atomic_write(tmp_path / "kept") as aside:
        aside.write_text("a list")

    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "work.txt"]


def test_a_file_is_never_traded_for_a_folder(tmp_path: Path):
    (tmp_path / "kept").write_text("a year of it")

    with pytest.raises(FileExistsError, match="kept"), atomic_write(tmp_path / "kept") as aside:
        aside.mkdir()

    assert (tmp_path / "kept").read_text() == "a year of it"
