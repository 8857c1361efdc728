"""Scan of the pickles in files of weights, before torch reads them.

torch's restricted reader runs no code, but a pickle of some bytes can still make it allocate any
memory, or hash a tuple that holds itself many times over.
"""

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from ._quiet import one_line

MAX_PICKLE_BYTES = 2**26
_MAX_DEPTH, _MAX_REPEATED = 100, 10_000_000
_LEGACY_PICKLES = 5  # of torch.save before its archives: three headers, content, storages' keys
_BUILDING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ", "BINPERSID"}
_MARK = pickletools.markobject


class _Shape(NamedTuple):
    """Number of parts of an object, each counted as often as it occurs, and their depth."""

    size: int = 1
    depth: int = 1


class _Scan:
    """The stack of a pickle, with the shapes of its objects alone."""

    def __init__(self) -> None:
        self.stack: list[_Shape | None] = []  # None is a mark
        self.memo: dict[int, _Shape] = {}
        self.n_repeated = 0

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> str:
        """Follow an operation; return why it is refused, or ""."""
        name = opcode.name
        if name == "GLOBAL" and str(argument).endswith("bytearray"):
            return "asks for memory that its bytes do not fill"
        if name in {"BINPUT", "LONG_BINPUT", "PUT"}:
            self.memo[argument] = self.stack[-1] or _Shape()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1] or _Shape()
        elif name in {"BINGET", "LONG_BINGET", "GET"}:
            shape = self.memo[argument]
            self.stack.append(shape)
            self.n_repeated += shape.size
        else:
            parts = self._pop(opcode)
            shape = _join(parts) if name in _BUILDING else _Shape()
            pushed = opcode.stack_after
            self.stack += [None if part is _MARK else shape for part in pushed]
            if shape.depth > _MAX_DEPTH:
                return "holds objects that are nested too deep"
        if self.n_repeated > _MAX_REPEATED:
            return "holds objects that repeat each other without end"
        return ""

    def _pop(self, opcode: pickletools.OpcodeInfo) -> list[_Shape]:
        """Take what an operation takes, down to the last mark where it does so."""
        parts: list[_Shape] = []
        for kind in reversed(opcode.stack_before):
            if kind is pickletools.stackslice:
                while self.stack[-1] is not None:
                    parts.append(cast("_Shape", self.stack.pop()))
            else:
                part = self.stack.pop()
                parts += [] if part is None else [part]
        return parts


def find_pickle_problem(path: Path, *, is_archive: bool) -> str:
    """Return why torch should not read the pickles of a file, or ""."""
    try:
        return _find_archive_problem(path) if is_archive else _find_legacy_problem(path)
    except Exception as error:  # noqa: BLE001 # what cannot be followed is not read
        return f"is damaged or not a checkpoint ({one_line(error)})"


def _find_archive_problem(path: Path) -> str:
    import torch

    # torch's own reader, so that no other file than the one torch reads is scanned
    reader: Any = torch._C.PyTorchFileReader(str(path))  # pyright: ignore[reportPrivateUsage]
    content: bytes = reader.get_record("data.pkl")
    if len(content) > MAX_PICKLE_BYTES:
        return f"has a pickle of {len(content):,} bytes, over the limit of {MAX_PICKLE_BYTES:,}"
    return _scan(pickletools.genops(content))


def _find_legacy_problem(path: Path) -> str:
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            if not file.peek(1):  # one pickle alone, which torch refuses
                return ""
            if problem := _scan(_bounded(file)):
                return problem
    return ""


def _bounded(file: IO[bytes]) -> Iterator[Any]:
    """Return the operations of one pickle, up to the limit of bytes."""
    for opcode, argument, place in pickletools.genops(file):
        if file.tell() > MAX_PICKLE_BYTES:
            yield None, None, None
            return
        yield opcode, argument, place


def _scan(operations: Iterator[Any]) -> str:
    scan = _Scan()
    for opcode, argument, _ in operations:
        if opcode is None:
            return f"has a pickle over the limit of {MAX_PICKLE_BYTES:,} bytes"
        if problem := scan.step(opcode, argument):
            return problem
    return ""


def _join(parts: list[_Shape]) -> _Shape:
    size = 1 + sum(part.size for part in parts)
    return _Shape(size, 1 + max((part.depth for part in parts), default=0))
