"""Where work runs: here, one item after another, or on a Ray cluster, side by side."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    engine: str = "local",
    gpus: int = 0,
) -> Iterator[tuple[int, Result]]:
    """Do the same work with every item.

    Args:
        work: What is done with one item; on Ray it is sent to another process, with all
            that it holds, and must find the same files there.
        items: What it is done with.
        engine: ``local``; or ``ray``: a cluster that is running, or else one on this
            machine.
        gpus: How many GPUs an item takes on Ray; without any it takes a whole machine's
            cores, since that is what torch uses.

    Yields:
        The place of an item and its result, as they are done.

    Raises:
        ValueError: If there is no such engine, or Ray is not installed.

    Example:
        >>> list(run(abs, [-1, 2]))
        [(0, 1), (1, 2)]
    """
    check_engine(engine)
    yield from (_here if engine == "local" else _on_ray)(work, items, gpus)


def check_engine(engine: str) -> None:
    """See that an engine is there before anything is done.

    Args:
        engine: Its name.

    Raises:
        ValueError: If there is no such engine, or Ray is not installed.
    """
    if engine not in {"local", "ray"}:
        raise ValueError(f"There is no engine {engine!r}: take local or ray.")
    if engine == "ray" and find_spec("ray") is None:
        raise ValueError(
            "Ray is not installed: pip install 'earmark[ray]', or take the engine local."
        )


def _here(
    work: Callable[[Any], Any], items: Sequence[Any], _: int
) -> Iterator[tuple[int, Any]]:
    for place, item in enumerate(items):
        yield place, work(item)


def _on_ray(
    work: Callable[[Any], Any], items: Sequence[Any], gpus: int
) -> Iterator[tuple[int, Any]]:
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    cores = 1 if gpus else os.cpu_count() or 1

    def task(item: Any) -> Any:  # Ray takes no partial
        return work(item)

    send: Any = ray.remote(num_cpus=cores, num_gpus=gpus)(task).remote
    waiting = {send(item): place for place, item in enumerate(items)}
    try:
        while waiting:
            (done, *_), _left = ray.wait([*waiting])
            yield waiting.pop(done), ray.get(done)
    finally:
        for unfinished in waiting:
            ray.cancel(unfinished)
        if started:
            ray.shutdown()
