"""Execution of work units, one after another or in parallel on a Ray cluster."""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_WAIT = 5  # seconds without a result after which the cluster is asked whether it can give one


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
    from ray.exceptions import RayError, RayTaskError

    cores = 1 if gpus else os.cpu_count() or 1

    def task(item: Any) -> Any:  # Ray does not accept a functools.partial
        return work(item)

    with _connect_to_ray():
        submit: Any = ray.remote(num_cpus=cores, num_gpus=gpus)(task).remote
        pending = {submit(item): index for index, item in enumerate(items)}
        try:
            while pending:
                finished, _ = ray.wait([*pending], timeout=_WAIT)
                for reference in finished:
                    yield pending.pop(reference), ray.get(reference)
                if not finished:
                    _check_resources(cores, gpus)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise _lost_work_error(error) from error
        finally:
            with suppress(RayError):
                for unfinished in pending:
                    ray.cancel(unfinished)


@contextmanager
def _connect_to_ray() -> Generator[None]:
    """Join the cluster that runs, or start one for the length of the block."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise OSError(
            f"Ray did not start ({_first_line(error)}): check its cluster and RAY_ADDRESS, or use "
            "--engine local."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_resources(cores: int, gpus: int) -> None:
    """Raise a ValueError if no machine of the cluster could ever run a unit."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sizes = [(machine.get("CPU", 0), machine.get("GPU", 0)) for machine in machines]
    if not any(has_cores >= cores and has_gpus >= gpus for has_cores, has_gpus in sizes):
        there = "; ".join(_format_machine(*size) for size in sorted(set(sizes), reverse=True))
        raise ValueError(
            f"Each unit asks for {_format_machine(cores, gpus)} on one machine, and no machine of "
            f"the Ray cluster has as many ({there or 'it has none'}): start Ray with more, or use "
            "--engine local."
        )


def _format_machine(cores: int | float, gpus: int | float) -> str:
    return " and ".join(
        f"{number:g} {unit}{'s' * (number != 1)}"
        for number, unit in ((cores, "CPU"), (gpus, "GPU"))
    )


def _lost_work_error(error: Exception) -> OSError:
    return OSError(
        f"Ray lost a unit of work ({type(error).__name__}: {_first_line(error)}): run the same "
        "command again, which resumes, or use --engine local."
    )


def _first_line(error: Exception) -> str:
    return next(iter(f"{error}".strip().splitlines()), type(error).__name__).rstrip(".: ")
