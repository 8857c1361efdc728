"""Ways of doing one piece of work, run in turn: their times, memory and results.

A ratio is the median over rounds of the ratio within a round, so that whatever else the
machine does in a round meets both sides alike.
"""

import ctypes
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

QUICK = 0.1  # seconds, under which a way is run in nine rounds where others are in five

Times = Mapping[str, float]
Results = Mapping[str, Any]


class Differs(ValueError):
    """A result is not the peer's, beyond rounding: the figures beside it mean nothing."""


@dataclass(frozen=True)
class Difference:
    """How far two results are from one another.

    Attributes:
        what: What was compared.
        found: The largest difference.
        allowed: The largest that rounding explains.
    """

    what: str
    found: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to do the work.

    Attributes:
        name: What is run, and of what sample.
        role: ``earmark``, of which each work has one; ``peer``, what a user would take
            instead; ``floor``, what can hardly be beaten; ``doubled``, earmark again with
            one size doubled; ``part``, a part of a peer.
        run: Does it once and returns what is compared. None where it cannot be run here, or
            its seconds follow from other ways'.
        seconds: What the seconds of a round, by way, make of it, where a sample stands for
            the whole. None takes its own.
        target: What is asked for: of earmark, at most so many seconds; that a peer takes at
            least so many times earmark's time; that earmark takes at most so many times the
            floor's time, and at most so many times its own time with a size doubled.
        memory: Finds the peak of memory, in bytes, where it is not that of `run` here.
        memory_target: Of earmark, at most so many bytes; of a peer, that earmark's peak is
            at most such a part of its peak.
    """

    name: str
    role: str
    run: Callable[[], Any] | None = None
    seconds: Callable[[Times], float] | None = None
    target: float | None = None
    memory: Callable[[], int | None] | None = None
    memory_target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """A piece of work, and the ways to do it.

    Attributes:
        name: What is done.
        conditions: Sizes, seed, types, batch, layout: what else the figures depend on.
        ways: The ways, in the order in which they take turns.
        compare: What the results, by way, differ by.
    """

    name: str
    conditions: str
    ways: tuple[Way, ...]
    compare: Callable[[Results], Iterable[Difference]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was found of one way.

    Attributes:
        work: The work's name.
        way: The way's.
        role: The way's.
        scaled: Whether a sample was run, and its seconds scaled to the whole.
        rounds: How many seconds it rests on.
        seconds: Their median; None where it was not run.
        least: The least of them.
        most: The most.
        ratio: Of seconds: a peer's over earmark's, or earmark's over the floor's, or of the
            doubled size over the size.
        target: The way's.
        met: Whether it is met; None where nothing was asked for, or nothing was found.
        memory: Bytes at the peak beyond what the process held before, or as the way says.
        memory_ratio: Earmark's peak over a peer's.
        memory_target: The way's.
        memory_met: Whether it is met.
    """

    work: str
    way: str
    role: str
    scaled: bool = False
    rounds: int = 0
    seconds: float | None = None
    least: float | None = None
    most: float | None = None
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None
    memory: int | None = None
    memory_ratio: float | None = None
    memory_target: float | None = None
    memory_met: bool | None = None


def measure(work: Work, *, rounds: int) -> list[Line]:
    """Run the ways once, compare the results, and then run them in turn for their times.

    Args:
        work: The work.
        rounds: How often; nine for five where a run of earmark takes milliseconds.

    Returns:
        A line for each way.

    Raises:
        Differs: If a result is not what it is compared with.
    """
    peaks = _compared(work)
    took = [_round(work)]
    if took[0][_earmark(work).name] < QUICK:
        rounds = ceil(rounds * 9 / 5)
    took += [_round(work) for _ in range(rounds - 1)]
    return lines(work, took, peaks)


def lines(work: Work, rounds: Sequence[Times], peaks: Mapping[str, int | None]) -> list[Line]:
    """What seconds and peaks say of each way.

    Args:
        work: The work.
        rounds: For each round, the seconds of each way that was run.
        peaks: The peak of memory of each way, in bytes, where it is known.

    Returns:
        A line for each way.
    """
    ours = _earmark(work)
    base = [ours.seconds(took) if ours.seconds else took[ours.name] for took in rounds]
    return [_line(work, way, rounds, base, peaks) for way in work.ways]


def observed(run: Callable[[], Any]) -> tuple[Any, int | None]:
    """Run, and watch the memory.

    Args:
        run: What to run.

    Returns:
        What it returns, and the bytes that the process held at the peak beyond what it held
        before; None where the system does not tell.
    """
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return run(), None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what was freed
    if trim:
        trim(0)
    clear.write_text("5")  # the peak starts from here
    before = held("VmRSS")
    result = run()
    return result, max(held("VmHWM") - before, 0)


def held(field: str) -> int:
    """Bytes of memory that Linux says this process holds.

    Args:
        field: ``VmRSS``, now; or ``VmHWM``, at the peak.

    Returns:
        The bytes.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def _compared(work: Work) -> dict[str, int | None]:
    """The peaks of memory, once the results are known to agree."""
    results: dict[str, Any] = {}
    peaks: dict[str, int | None] = {}
    for way in work.ways:
        if way.run:
            if way.role == "earmark":
                way.run()  # what is compiled and imported is none of the work's memory
            results[way.name], peaks[way.name] = observed(way.run)
        if way.memory:
            peaks[way.name] = way.memory()
    for one in work.compare(results):
        if not one.found <= one.allowed:  # NaN is not
            raise Differs(
                f"{work.name}: {one.what} differs by {one.found:.3g}, where rounding "
                f"explains {one.allowed:.3g}."
            )
    return peaks


def _round(work: Work) -> Times:
    gc.collect()
    return {way.name: _clocked(way.run) for way in work.ways if way.run}


def _clocked(run: Callable[[], Any]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _earmark(work: Work) -> Way:
    (ours,) = (way for way in work.ways if way.role == "earmark")
    return ours


def _line(
    work: Work,
    way: Way,
    rounds: Sequence[Times],
    base: Sequence[float],
    peaks: Mapping[str, int | None],
) -> Line:
    memory, ours = peaks.get(way.name), peaks.get(_earmark(work).name)
    share = ours / memory if way.role == "peer" and ours and memory else None
    known = Line(
        work=work.name,
        way=way.name,
        role=way.role,
        scaled=bool(way.run and way.seconds and not way.memory),
        target=way.target,
        memory=memory,
        memory_ratio=share,
        memory_target=way.memory_target,
        memory_met=_at_most(memory if way.role == "earmark" else share, way.memory_target),
    )
    if not (way.run or way.seconds):
        return known
    seconds = [way.seconds(took) if way.seconds else took[way.name] for took in rounds]
    ratio = _ratio(way.role, seconds, base)
    return replace(
        known,
        rounds=len(seconds),
        seconds=median(seconds),
        least=min(seconds),
        most=max(seconds),
        ratio=ratio,
        met=_met(way, median(seconds), ratio),
    )


def _ratio(role: str, seconds: Sequence[float], base: Sequence[float]) -> float | None:
    if role in {"earmark", "part"}:
        return None
    pairs = zip(seconds, base, strict=True)
    return median(ours / its if role == "floor" else its / ours for its, ours in pairs)


def _met(way: Way, seconds: float, ratio: float | None) -> bool | None:
    if way.role == "peer":
        return _at_most(way.target, ratio)
    return _at_most(seconds if way.role == "earmark" else ratio, way.target)


def _at_most(found: float | None, most: float | None) -> bool | None:
    return None if found is None or most is None else found <= most
