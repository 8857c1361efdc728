"""Run of a study: checked first, then unit by unit, resumed where it stopped."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from shutil import rmtree
from typing import TYPE_CHECKING, TypeAlias

from .._io import atomic_write, lock_folder
from .._progress import ProgressCallback, no_progress
from ..engine import map_units
from ..models.own_code import OwnCode
from ..records import RECORDS_FILE, SCAN_FILE, Record, Records, read_records, write_records
from .availability import find_unavailable_models
from .config import BaselineFit, to_toml
from .pool_baseline import PoolBaseline
from .runner import (
    INTERPOLATED_FOLDER,
    Failure,
    RunConfig,
    StudyRunner,
    UnitResult,
    interpolation_name,
)
from .units import StudyModel, StudyUnit, baseline_models, study_units

if TYPE_CHECKING:
    from .config import StudyConfig

CONFIG_FILE = "pool.toml"
INCOMPLETE_FILE = "records-incomplete.parquet"

_UnitWork: TypeAlias = Callable[[StudyRunner, StudyUnit], UnitResult]


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
    if (run_config.out / SCAN_FILE).exists():
        raise ValueError(f"{run_config.out} holds the results of a scan: give another folder.")
    check_models(run_config.study_config, run_config.model_from)
    units = study_units(run_config.study_config, run_config.data)
    with lock_folder(run_config.out):
        run_config = _fit_baseline(run_config, engine, progress)
        results = _run_units(run_config, units, engine, progress)
        rmtree(run_config.out / INTERPOLATED_FOLDER, ignore_errors=True)  # of killed runs
    failures = [failure for index in sorted(results) for failure in results[index].failures]
    vacant = [model for unit in units for model in unit.models if model.origin == "vacant"]
    return StudyOutput(_merge_records(results), failures, vacant)


def _fit_baseline(run_config: RunConfig, engine: str, progress: ProgressCallback) -> RunConfig:
    """Return the config with the baseline that the study fits on models, if it does."""
    study_config = run_config.study_config
    if not isinstance(study_config.baseline, BaselineFit):
        return run_config
    models = baseline_models(study_config, run_config.data)
    units = [StudyUnit(model) for model in models]
    setting = run_config, engine, "measure the baseline", progress
    results = dict(_map_units(StudyRunner.measure_accuracy, units, *setting))
    failures = [failure for result in results.values() for failure in result.failures]
    if failures:
        reasons = "".join(f"\n- cannot {failure.task}: {failure.reason}" for failure in failures)
        raise ValueError(
            "The baseline cannot be fitted. Repair these models, or leave them out of [baseline] "
            f"models:{reasons}"
        )
    baseline = PoolBaseline.from_records(
        study_config.baseline.name,
        {model.name: results[index].records for index, model in enumerate(models)},
        other_models=[model.name for model in models if not model.in_pool],
    )
    return replace(run_config, baseline=baseline)


def _run_units(
    run_config: RunConfig, units: Sequence[StudyUnit], engine: str, progress: ProgressCallback
) -> dict[int, UnitResult]:
    """Run all units, and write the records of those that are done after each."""
    results: dict[int, UnitResult] = {}
    writer = _RecordsWriter(run_config, units)
    setting = run_config, engine, "study the pool", progress
    for index, result in _map_units(StudyRunner.run_unit, units, *setting):
        results[index] = result
        if len(results) < len(units):  # for a report before the end
            writer.write_part(_merge_records(results))
    n_failures = sum(len(result.failures) for result in results.values())
    writer.write(_merge_records(results), n_failures)
    return results


def _map_units(
    work: _UnitWork,
    units: Sequence[StudyUnit],
    run_config: RunConfig,
    engine: str,
    task: str,
    progress: ProgressCallback,
) -> Iterator[tuple[int, UnitResult]]:
    """Yield the index and result of each unit as it is done, and repeat its warnings."""
    run_unit = partial(work, StudyRunner(run_config, progress))
    if engine != "local":
        run_unit = partial(_run_remote, run_config, work)
    gpus = int(run_config.device.startswith("cuda"))
    progress(task, 0, len(units))
    done = map_units(run_unit, units, engine=engine, gpus=gpus)
    for n_done, (index, result) in enumerate(done, 1):
        for text in result.warnings:
            warnings.warn(text, stacklevel=4)
        progress(task, n_done, len(units))
        yield index, result


class _RecordsWriter:
    """Writer of a study's records, which never replaces records by fewer of the same models."""

    def __init__(self, run_config: RunConfig, units: Sequence[StudyUnit]) -> None:
        self._run_config = run_config
        self._path = run_config.out / RECORDS_FILE
        self._names = _record_names(units, run_config.study_config.alphas)
        self._before = self._read_before()

    def _read_before(self) -> Records:
        if not self._path.exists():
            return Records()
        try:
            return read_records(self._path)
        except ValueError as error:
            warnings.warn(f"{error} This run replaces it.", stacklevel=5)
            return Records()

    def write_part(self, records: Records) -> None:
        """Write the records of some units, unless the file has others of the same models."""
        if not self._find_lost(records):
            write_records(self._path, records)

    def write(self, records: Records, n_failures: int) -> None:
        """Write the records of all units and the pool; after failures, next to fuller ones."""
        out, config = self._run_config.out, self._run_config.study_config
        if n_failures and (lost := self._find_lost(records)):
            write_records(out / INCOMPLETE_FILE, records)
            warnings.warn(
                f"{self._path} stays as it was, since {n_failures} tasks failed and it has "
                f"{len(lost):,} records that this run lacks. The records of this run are in "
                f"{out / INCOMPLETE_FILE}.",
                stacklevel=4,
            )
            return
        write_records(self._path, records)
        (out / INCOMPLETE_FILE).unlink(missing_ok=True)
        with atomic_write(out / CONFIG_FILE) as tmp_path:
            hashes = {f"{code.resolve()}": code.sha256 for code in self._run_config.model_from}
            config = config.with_absolute_paths()
            config = config.model_copy(update={"model_from": config.model_from | hashes})
            tmp_path.write_text(to_toml(config), encoding="utf-8")

    def _find_lost(self, records: Records) -> list[Record]:
        """Return the records from before whose model, quantity and images are not in these."""
        kinds = {_record_kind(record) for record in records}
        return [
            record
            for record in self._before
            if record.model in self._names and _record_kind(record) not in kinds
        ]


def _record_kind(record: Record) -> tuple[str, ...]:
    return record.model, record.quantity, record.dataset, record.variant


def _record_names(units: Sequence[StudyUnit], alphas: Sequence[float]) -> set[str]:
    """Return the names under which the records of some units stand."""
    names = {model.name for unit in units for model in unit.models}
    families = [unit for unit in units if unit.second is not None]
    return names | {interpolation_name(unit, alpha) for unit in families for alpha in alphas}


def _run_remote(run_config: RunConfig, work: _UnitWork, unit: StudyUnit) -> UnitResult:
    """Run a unit in a process of its own, where Ray shows no GPU but the unit's."""
    device = run_config.device.partition(":")[0]
    with warnings.catch_warnings(record=True) as caught:
        result = work(StudyRunner(replace(run_config, device=device)), unit)
    result.warnings.extend(dict.fromkeys(str(warning.message) for warning in caught))
    return result


def check_models(config: "StudyConfig", codes: Sequence[OwnCode] = ()) -> None:
    """Raise a ValueError that names all models of a study that do not exist, or need other code."""
    if problems := find_unavailable_models(config, codes):
        lines = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"{len(problems)} models of the pool are not available:{lines}")


def _merge_records(results: Mapping[int, UnitResult]) -> Records:
    """Join records in the order of the config; those that units share come once."""
    records = (record for index in sorted(results) for record in results[index].records)
    return Records(dict.fromkeys(records))
