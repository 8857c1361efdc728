"""Execution of work units, one after another or in parallel on a Ray cluster."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_units(
    work: Callable[[Item], Result], items: Sequence[Item], *, engine: str = "local", gpus: int = 0
) -> Iterator[tuple[int, Result]]:
    """Run ``work`` on each item; yield the item's index and its result as it finishes."""
    # Ray joins a running cluster or starts one here; its processes need the same files.
    # An item takes `gpus` GPUs or, with 0, all cores of a machine, because torch uses them.
    check_engine(engine)
    yield from (_map_locally if engine == "local" else _map_on_ray)(work, items, gpus)


def check_engine(engine: str) -> None:
    """Raise a ValueError if the engine is unknown or not installed."""
    if engine not in {"local", "ray"}:
        raise ValueError(f"engine must be 'local' or 'ray', got {engine!r}.")
    if engine == "ray" and find_spec("ray") is None:
        raise ValueError("Ray is not installed: pip install 'earmark[ray]', or use --engine local.")


def _map_locally(
    work: Callable[[Any], Any], items: Sequence[Any], _gpus: int
) -> Iterator[tuple[int, Any]]:
    for index, item in enumerate(items):
        yield index, work(item)


def _map_on_ray(
    work: Callable[[Any], Any], items: Sequence[Any], gpus: int
) -> Iterator[tuple[int, Any]]:
    import ray

    is_own_cluster = not ray.is_initialized()
    if is_own_cluster:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    cores = 1 if gpus else os.cpu_count() or 1

    def task(item: Any) -> Any:  # Ray does not accept a functools.partial
        return work(item)

    submit: Any = ray.remote(num_cpus=cores, num_gpus=gpus)(task).remote
    pending = {submit(item): index for index, item in enumerate(items)}
    try:
        while pending:
            (finished, *_), _rest = ray.wait([*pending])
            yield pending.pop(finished), ray.get(finished)
    finally:
        for unfinished in pending:
            ray.cancel(unfinished)
        if is_own_cluster:
            ray.shutdown()
