"""Run of a study: checked first, then unit by unit, resumed where it stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from .._io import atomic_write
from .._progress import ProgressCallback, no_progress
from ..engine import map_units
from ..records import RECORDS_FILE, Records, write_records
from .availability import find_unavailable_models
from .config import to_toml
from .runner import Failure, RunConfig, StudyRunner, UnitResult
from .units import StudyModel, StudyUnit, study_units

if TYPE_CHECKING:
    from .config import StudyConfig

CONFIG_FILE = "pool.toml"


@dataclass(frozen=True)
class StudyOutput:
    """Result of running a study."""

    records: Records  # in the order of the config
    failures: list[Failure]
    missing_controls: list[StudyModel]  # that the config leaves to the user


def run_units(
    run_config: RunConfig, *, engine: str = "local", progress: ProgressCallback = no_progress
) -> StudyOutput:
    """Measure every model of a study, once all are known to exist, and write the records."""
    if not run_config.data.is_dir():
        raise FileNotFoundError(f"No folder {run_config.data}: give the folder of images.")
    check_models(run_config.study_config)
    units = study_units(run_config.study_config)
    run_unit = StudyRunner(run_config, progress).run_unit
    if engine != "local":
        run_unit = partial(_run_remote, run_config)
    results: dict[int, UnitResult] = {}
    # The records of a finished run stay until all is done again.
    is_finished = (run_config.out / CONFIG_FILE).exists()
    progress("study the pool", 0, len(units))
    gpus = int(run_config.device.startswith("cuda"))
    for index, result in map_units(run_unit, units, engine=engine, gpus=gpus):
        results[index] = result
        progress("study the pool", len(results), len(units))
        if not is_finished and len(results) < len(units):  # for a report before the end
            write_records(run_config.out / RECORDS_FILE, _merge_records(results))
    records = _merge_records(results)
    write_records(run_config.out / RECORDS_FILE, records)
    config = run_config.study_config.with_absolute_paths()
    with atomic_write(run_config.out / CONFIG_FILE) as tmp_path:
        tmp_path.write_text(to_toml(config), encoding="utf-8")
    failures = [failure for index in sorted(results) for failure in results[index].failures]
    vacant = [model for unit in units for model in unit.models if model.origin == "vacant"]
    return StudyOutput(records, failures, vacant)


def _run_remote(run_config: RunConfig, unit: StudyUnit) -> UnitResult:
    """Run a unit in a process of its own, where Ray shows no GPU but the unit's."""
    device = run_config.device.partition(":")[0]
    return StudyRunner(replace(run_config, device=device)).run_unit(unit)


def check_models(config: "StudyConfig") -> None:
    """Raise a ValueError that names all models of a study that do not exist."""
    if problems := find_unavailable_models(config):
        lines = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{len(problems)} models of the pool are not available:{lines}")


def _merge_records(results: Mapping[int, UnitResult]) -> Records:
    """Join records in the order of the config; those that units share come once."""
    records = (record for index in sorted(results) for record in results[index].records)
    return Records(dict.fromkeys(records))
