"""A pool's whole study: checked first, then part by part, resumed where it stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import run
from ..files import replacing
from ..models.loading import load_model
from ..results import RECORDS, Record, write_records
from .bench import Bench, Done, Failure, Setting
from .members import Member, Part, parts_of
from .pools import pool_problems, pool_toml
from .pools.ids import split_file
from .progress import Tell, silent

if TYPE_CHECKING:
    from .pools import Pool

POOL = "pool.toml"


@dataclass(frozen=True)
class Studied:
    """What a study came to.

    Attributes:
        records: All that was measured, in the order of the pool.
        failures: What could not be done.
        vacant: Controls that the pool leaves to the user.
    """

    records: list[Record]
    failures: list[Failure]
    vacant: list[Member]


def run_study(setting: Setting, *, engine: str = "local", tell: Tell = silent) -> Studied:
    """Measure every model of a pool, and write the records.

    Nothing is done until all models of the pool are known to load. What an earlier run
    kept under the same key is used again: a key holds the weights, the images, the
    settings and the versions that determine records. A part that fails leaves the others
    to be done.

    Args:
        setting: The pool, the folders, and how it runs.
        engine: Where its parts run: ``local``, or ``ray``, several at a time; all must
            see the same folders.
        tell: Told of progress.

    Returns:
        The records, which ``records.parquet`` in the folder holds too, and what failed.

    Raises:
        ValueError: If models cannot be loaded: all of them are named.
        FileNotFoundError: If there is no folder of images.
        OSError: If the study's folder cannot be written to.
    """
    if not setting.data.is_dir():
        raise FileNotFoundError(f"No folder {setting.data}: give the folder of the images.")
    parts = parts_of(setting.pool)
    check_models(setting.pool, parts, setting.device, tell)
    work = Bench(setting, tell).do if engine == "local" else partial(_apart, setting)
    found: dict[int, Done] = {}
    finished = (setting.out / POOL).exists()  # what it left stays until all is done again
    tell("study the pool", 0, len(parts))
    gpus = int(setting.device.startswith("cuda"))
    for place, done in run(work, parts, engine=engine, gpus=gpus):
        found[place] = done
        tell("study the pool", len(found), len(parts))
        if not finished and len(found) < len(parts):  # for a report before the end
            write_records(setting.out / RECORDS, _joined(found))
    records = _joined(found)
    write_records(setting.out / RECORDS, records)
    keep_pool(setting.out, setting.pool)
    failures = [one for place in sorted(found) for one in found[place].failures]
    vacant = [member for member in _members(parts) if member.made == "vacant"]
    return Studied(records, failures, vacant)


def _apart(setting: Setting, part: Part) -> Done:
    """A part in a process of its own, where Ray shows no GPU but the part's."""
    device = setting.device.partition(":")[0]
    return Bench(replace(setting, device=device)).do(part)


def check_models(
    pool: "Pool", parts: Sequence[Part], device: str, tell: Tell = silent
) -> None:
    """Load every model of a pool once, its head left out, so that all faults are told.

    That the published ones must be downloaded for it is no loss: the study needs them.

    Args:
        pool: The pool.
        parts: Its parts.
        device: Where the models will run.
        tell: Told of progress.

    Raises:
        ValueError: If some cannot be loaded: all of them are named, with the reason.
    """
    problems = pool_problems(pool)
    if not problems:
        members = [one for one in _members(parts) if one.made in {"loaded", "finetuned"}]
        sources = list(dict.fromkeys(member.source for member in members))
        sources = [one for one in sources if not split_file(one, pool.base)[1]]
        for place, source in enumerate(sources):
            tell("check that the models load", place, len(sources))
            try:
                load_model(source, prompts=None, device=device)
            except (ValueError, OSError, RuntimeError) as error:
                problems.append(f"{source}: {' '.join(str(error).split())}")
        tell("check that the models load", len(sources), len(sources))
    if problems:
        told = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{len(problems)} models of the pool cannot be had:{told}")


def _members(parts: Sequence[Part]) -> list[Member]:
    return [member for part in parts for member in part.members]


def _joined(found: Mapping[int, Done]) -> list[Record]:
    """In the order of the pool, each record once: parts that share a line each bring it."""
    records = [record for place in sorted(found) for record in found[place].records]
    return list(dict.fromkeys(records))


def keep_pool(out: Path, pool: "Pool") -> None:
    """Put a pool's file beside its results, its models' paths as they are found from here.

    Args:
        out: The study's folder.
        pool: The pool.
    """
    with replacing(out / POOL) as aside:
        aside.write_text(pool_toml(pool.placed()), encoding="utf-8")
