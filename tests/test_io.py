"""Reading is bounded, a damaged file is noticed, and a failed write leaves the folder as it was."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from errno import ENOLCK
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark._io import (
    _HOST,
    LOCK_FILE,
    DamagedFileError,
    atomic_write,
    check_regular_file,
    has_seal,
    lock_folder,
    new_seal,
    parse_json,
    read_bytes,
    read_json,
    sweep_leftovers,
    write_seal,
)


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


# Reading.


def test_bytes_of_a_regular_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")

    assert read_bytes(tmp_path / "file", max_bytes=5) == b"12345"
    with pytest.raises(ValueError, match=r"file has 5 bytes, more than the 4 that are read"):
        read_bytes(tmp_path / "file", max_bytes=4)
    with pytest.raises(IsADirectoryError, match="is a folder: give a file"):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


@pytest.mark.parametrize("read", [check_regular_file, read_bytes, read_json, has_seal])
def test_pipes_and_devices_are_refused(tmp_path: Path, read: Callable[[Path], object]):
    """Without a check each of these calls would never return."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")

    for name in ("pipe", "zeros"):
        with pytest.raises(ValueError, match=f"{name} is no regular file but a pipe or device"):
            read(tmp_path / name)


@given(st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=9))
def test_json_is_the_standard_librarys(value: object):
    assert parse_json(json.dumps(value), source="text") == value


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[" * 100_000, "file is no JSON that can be read: it is nested too deep"),
        ('{"a":' * 100_000, "file is no JSON that can be read: it is nested too deep"),
        ("[1, 2", "file is not JSON .*: check that it is complete"),
        (b"\xff\xfe\x00", "file is not JSON .*: check that it is complete"),
        ("9" * 5000, "file is not JSON .*: check that it is complete"),
    ],
)
def test_json_that_cannot_be_read_names_its_source(tmp_path: Path, text: str | bytes, match: str):
    (tmp_path / "file").write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ValueError, match=match) as error:
        read_json(tmp_path / "file")

    assert "\n" not in str(error.value)


def test_a_json_file_has_a_largest_size(tmp_path: Path):
    (tmp_path / "file").write_text("[1, 2]")

    assert read_json(tmp_path / "file", max_bytes=6) == [1, 2]
    with pytest.raises(ValueError, match="more than the 5 that are read"):
        read_json(tmp_path / "file", max_bytes=5)


# Seals.


def write_sealed(path: Path, before: bytes = b"", after: bytes = b"") -> None:
    seal = new_seal()
    path.write_bytes(before + seal.encode() + after)
    write_seal(path, seal)


@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_a_seal_is_the_hash_of_the_file_with_zeros_in_its_place(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes
):
    path = tmp_path_factory.mktemp("seals") / "file"
    write_sealed(path, before, after)

    head, digest, tail = re.split(rb"earmark-sha256:([0-9a-f]{64})", path.read_bytes())
    expected = sha256(head + b"earmark-sha256:" + bytes(64) + tail).hexdigest()
    assert (head, digest.decode(), tail) == (before, expected, after)
    assert has_seal(path)


def test_the_same_content_gives_the_same_file(tmp_path: Path):
    for name in ("one", "two"):
        write_sealed(tmp_path / name, b"content")

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_flipped_bit_passes(tmp_path: Path):
    """Bits of the content break the seal. Those of its name make the file one without a seal."""
    path, sealed = tmp_path / "file", []
    write_sealed(path, b"some content, ", b" and more")
    whole = path.read_bytes()

    for bit in range(8 * len(whole)):
        path.write_bytes(flip_bit(whole, bit))
        try:
            sealed.append(has_seal(path))
        except ValueError as error:
            assert str(error) == f"{path} is damaged: its checksum does not match."  # noqa: PT017

    assert not any(sealed)
    assert len(sealed) < 8 * len("earmark-sha256:") + 64 * 8


def flip_bit(content: bytes, bit: int) -> bytes:
    place, mask = bit // 8, 1 << bit % 8
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


@pytest.mark.parametrize("is_first", [True, False])
def test_texts_that_look_like_seals_do_no_harm(tmp_path: Path, is_first: bool):
    others = b"".join(new_seal().encode() for _ in range(50))
    path = tmp_path / "file"

    write_sealed(path, *((b"a", others) if is_first else (others, b"b")))

    assert has_seal(path)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"earmark-sha256:0"])
def test_a_file_without_a_seal(tmp_path: Path, content: bytes):
    (tmp_path / "file").write_bytes(content)

    assert not has_seal(tmp_path / "file")


def test_a_text_like_a_seal_does_no_harm(tmp_path: Path):
    lookalike = new_seal().encode()
    write_sealed(tmp_path / "file", lookalike, lookalike)

    assert has_seal(tmp_path / "file")


def test_a_seal_must_stand_in_the_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"content")

    with pytest.raises(ValueError, match=r"does not hold the seal .*: write it there first"):
        write_seal(tmp_path / "file", new_seal())

    assert (tmp_path / "file").read_bytes() == b"content"


# Locks.


HOLD = """
import sys, time
from pathlib import Path
from earmark._io import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path, holder: "subprocess.Popen[str]"):
    match = rf"out is in use by process {holder.pid} on .*: wait until it ends, or give another"
    with pytest.raises(BlockingIOError, match=match), lock_folder(tmp_path / "out"):
        pass

    holder.kill()
    holder.wait()

    assert [*(tmp_path / "out").iterdir()] == [tmp_path / "out" / LOCK_FILE]
    with lock_folder(tmp_path / "out"):
        pass
    assert not [*(tmp_path / "out").iterdir()]


def test_a_lock_of_this_process_keeps_it_out_too(tmp_path: Path):
    match = f"in use by process {os.getpid()} on"
    with lock_folder(tmp_path), pytest.raises(BlockingIOError, match=match), lock_folder(tmp_path):
        pass

    with lock_folder(tmp_path):
        pass


def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path: Path):
    target, out = tmp_path / "token", tmp_path / "out"
    target.write_text("secret")
    out.mkdir()
    (out / LOCK_FILE).symlink_to(target)

    with pytest.raises(ValueError, match="is a link, which is not followed"), lock_folder(out):
        pass
    (out / LOCK_FILE).unlink()
    (out / LOCK_FILE).symlink_to(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a link"), lock_folder(out):
        pass

    assert target.read_text() == "secret"
    assert not (tmp_path / "absent").exists()


def test_many_texts_like_a_seal_cost_few_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, passes = tmp_path / "forged", 0

    def count(*_: object) -> bytes:
        nonlocal passes
        passes += 1
        return b"another"

    monkeypatch.setattr("earmark._io._hash_around", count)
    path.write_text("\n".join(new_seal() for _ in range(1000)))

    with pytest.raises(DamagedFileError):
        has_seal(path)
    assert passes < 20


def test_a_lock_file_of_another_content_is_not_shown(tmp_path: Path):
    with lock_folder(tmp_path):
        (tmp_path / LOCK_FILE).write_text("\x1b[31mmine\n")
        match = "in use by another process: "
        with pytest.raises(BlockingIOError, match=match), lock_folder(tmp_path):
            pass


def test_a_lock_on_a_file_that_lost_its_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As when the holder before removes the file between its opening and its locking here."""
    opened = []
    real = os.open

    def open_and_lose(path: Path, flags: int, mode: int) -> int:
        descriptor = real(path, flags, mode)
        if not opened:
            Path(path).unlink()
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with lock_folder(tmp_path):
        monkeypatch.undo()
        assert len(opened) == 2
        with pytest.raises(BlockingIOError, match="in use"), lock_folder(tmp_path):
            pass


@pytest.mark.parametrize("error", [OSError(ENOLCK, "No locks available"), ImportError("fcntl")])
def test_a_system_without_locks_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    fcntl = pytest.importorskip("fcntl")

    def fail(*_: int) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", fail)
    with lock_folder(tmp_path):
        (tmp_path / "file").write_text("written")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Leftovers.


KILLED = """
import os, signal, sys
from pathlib import Path
from earmark._io import atomic_write
path, kind = Path(sys.argv[1]), sys.argv[2]
with atomic_write(path) as aside:
    if kind == "folder":
        aside.mkdir()
    (aside / "part" if kind == "folder" else aside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(path: Path, kind: str) -> Path:
    """Return what a process leaves that is killed while it writes."""
    before = {*path.parent.iterdir()}
    command = [sys.executable, "-c", KILLED, str(path), kind]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = {*path.parent.iterdir()} - before
    return left


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", ["answer", "objectnet-1.0", "[x]*.safetensors"])
def test_the_next_write_of_a_name_sweeps_what_was_left_of_it(tmp_path: Path, kind: str, name: str):
    left, other = leave(tmp_path / name, kind), leave(tmp_path / "other", kind)
    assert left.name.startswith(f".{name}.")

    with atomic_write(tmp_path / name) as aside:
        assert not left.exists()
        make(aside, kind, "whole")

    assert read(tmp_path / name) == "whole"
    assert {*tmp_path.iterdir()} == {tmp_path / name, other}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_sweeps_all_that_was_left(tmp_path: Path, kind: str):
    for name in ("a.safetensors", "b.json"):
        leave(tmp_path / name, kind)
    make(tmp_path / ".c.json.0123abcd", kind, "of an earlier earmark")

    with lock_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_what_others_write_is_not_swept(tmp_path: Path):
    """Files of this process, of a live one, of another machine, and of a person."""
    own, alive, elsewhere, old = (
        tmp_path / f".x.{name}-0123abcd"
        for name in (f"{_HOST}-{os.getpid()}", f"{_HOST}-1", "ffffff-1", "ffffff-2")
    )
    person = [tmp_path / name for name in (".x.y", ".gitignore", ".x.0123ABCD", "x.0123abcd")]
    for path in (own, alive, elsewhere, old, *person):
        path.write_text("half")
    hours_ago = time.time() - 7200
    for path in (own, alive, old):
        os.utime(path, (hours_ago, hours_ago))

    sweep_leftovers(tmp_path)

    assert {*tmp_path.iterdir()} == {own, alive, elsewhere, *person}


def test_what_cannot_be_swept_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left = leave(tmp_path / "answer", "file")

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(left)

    monkeypatch.setattr(Path, "unlink", fail)
    sweep_leftovers(tmp_path)

    assert left.exists()
