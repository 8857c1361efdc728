"""High-level API: scan a model, run a study, and read the results of either."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from ._io import read_bytes
from ._progress import ProgressCallback, no_progress
from ._tabular import arrow_to_pandas
from .activations import Activations, EncodeConfig, cached_activations
from .activations import encode as encode_tensor
from .data.image_folder import list_folders, read_folder_for_head, read_unlabeled
from .data.image_set import ImageSet
from .data.imagenet import read_dataset as read_known_dataset
from .data.registry import DATASETS, class_ids
from .estimation.methods import DEFAULT_RANK_BY, RankBy
from .models.classifier import Classifier, Role
from .models.own_code import ModelFrom, read_model_from
from .records import SAMPLES_FOLDER, SCAN_FILE, Record, Records, read_records
from .signatures.effective_robustness import Baseline
from .study.baselines import load_baseline
from .study.config import StudyConfig, load_study_config
from .study.merge import LoadConfig
from .study.rank import RankConfig, RankResult
from .study.rank import rank_models as run_ranking
from .study.run import run_units
from .study.runner import Failure, RunConfig
from .study.scan import ScanConfig, scan_model
from .study.summary import SummaryRow, summarize_records

if TYPE_CHECKING:
    from .report.audit.audit import Audit
    from .report.figures.charts import Figure
    from .report.results_grid import ResultsGrid
    from .report.tables.table import Table

PathLike: TypeAlias = str | Path
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


class Summary(tuple[SummaryRow, ...]):
    """Summary of one model or more: a row for each number that a person looks at first."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``.

        Raises:
            ImportError: If pandas is not installed.
        """
        import pyarrow

        return arrow_to_pandas(pyarrow.Table.from_pylist([vars(row) for row in self]))

    def __repr__(self) -> str:
        return "\n".join("  ".join(cells) for cells in self._cells())

    def to_html(self) -> str:
        """Return the rows as an HTML table, as a notebook shows them."""
        from html import escape

        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell.strip())}</td>" for cell in cells) + "</tr>"
            for cells in self._cells()
        )
        return f"<table><tbody>{rows}</tbody></table>"

    _repr_html_ = to_html

    def _cells(self) -> list[tuple[str, ...]]:
        """Return model, name, value and interval of each row, in columns of one width."""
        rows = [
            (row.model, f"{row.section}: {row.title}", row.format_value(), row.format_interval())
            for row in self
        ]
        if len({row.model for row in self}) < 2:
            rows = [cells[1:] for cells in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            tuple(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            for cells in rows
        ]


@dataclass(frozen=True, repr=False)
class Study:
    """Results of a study or of a scan, read from its folder.

    Args:
        folder: Folder that `run_study`, `scan`, ``earmark study`` or ``earmark scan`` wrote.

    Raises:
        FileNotFoundError: If the folder holds no records.
        ValueError: If its records are malformed.
    """

    folder: Path
    failures: Sequence[Failure] = field(default=(), compare=False)
    """Tasks that failed, if the study was run in this process."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        _ = self.records

    @cached_property
    def records(self) -> Records:
        """Everything that was measured."""
        return read_records(self.folder)

    def summary(self) -> Summary:
        """Return the numbers that a person looks at first, model by model."""
        models = dict.fromkeys(record.model for record in self.records if record.model)
        return Summary(
            row for model in models for row in summarize_records(self.records.select(model=model))
        )

    def table(self, number: str) -> "Table":
        """Return a table of the report, such as ``"3"`` for the paper's Table 3.

        Raises:
            ValueError: If the records hold no such table.
        """
        return _table(self._grid, number)

    def figure(self, number: str) -> "Figure":
        """Return a figure of the report, such as ``"7"`` for the paper's Figure 7.

        Raises:
            ValueError: If the records hold no such figure.
        """
        return _figure(self._grid, number)

    def audit(self) -> "Audit":
        """Correlate every signature with effective robustness over the models."""
        from .report.audit.audit import audit

        return audit(self._grid)

    def report(self, *, progress: ProgressCallback = no_progress) -> Path:
        """Write tables, figures and ``report.html`` into the folder; return its path."""
        return write_folder_report(self.records, self.folder, progress=progress)

    @cached_property
    def _grid(self) -> "ResultsGrid":
        return _grid(self.records)

    def __repr__(self) -> str:
        return f"<Study {str(self.folder)!r}: {self.records!r}>"

    def _repr_html_(self) -> str:
        return self.summary().to_html()


@dataclass(frozen=True, repr=False)
class ScanResult:
    """Result of scanning one model.

    Attributes:
        model: Name of the model.
        role: Role of the model.
        summary: The numbers that a person looks at first.
        records: Everything that was measured.
        missing: Pairs of what could not be measured and the data that it needs.
        folder: Folder of the results, if one was given.
        preprocessing: What is done to each image before the model sees it, by setting.
    """

    model: str
    role: str
    summary: Summary
    records: Records
    missing: Sequence[tuple[str, str]]
    folder: Path | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def table(self, number: str) -> "Table":
        """Return a table of the report; as `Study.table`."""
        return _table(_grid(self.records), number)

    def figure(self, number: str) -> "Figure":
        """Return a figure of the report; as `Study.figure`."""
        return _figure(_grid(self.records), number)

    def report(
        self, out: PathLike | None = None, *, progress: ProgressCallback = no_progress
    ) -> Path:
        """Write tables, figures and ``report.html``; return the page.

        Args:
            out: Folder to write to; by default the folder of the scan.
            progress: Called as ``progress(task, done, total)``.

        Returns:
            Path of the page.

        Raises:
            ValueError: If neither this call nor the scan was given a folder.
        """
        folder = out or self.folder
        if folder is None:
            raise ValueError("The scan has no folder: give report(out=FOLDER).")
        return write_folder_report(
            self.records,
            Path(folder),
            title=f"Signatures of {self.model}",
            missing=self.missing,
            progress=progress,
        )

    def to_json(self) -> str:
        """Return the summary, the preprocessing and what is missing, as JSON."""
        content = {
            "model": self.model,
            "role": self.role,
            "preprocessing": self.preprocessing,
            "summary": [vars(row) for row in self.summary],
            "missing": [{"quantity": name, "needs": need} for name, need in self.missing],
        }
        return json.dumps(content, indent=2)

    def __repr__(self) -> str:
        return f"<ScanResult of {self.model} ({self.role}): {self.records!r}>"

    def _repr_html_(self) -> str:
        return self.summary.to_html()


def scan(  # noqa: PLR0913
    model: "PathLike | Classifier",
    data: PathLike,
    *,
    out: PathLike | None = None,
    shifts: Mapping[str, PathLike] | None = None,
    concepts: PathLike | None = None,
    baseline: str | Baseline | None = None,
    architecture: str | None = None,
    weights: Literal["ema", "plain"] | None = None,
    model_from: ModelFrom = None,
    role: Role | None = None,
    classnames: PathLike | None = None,
    templates: str | None = None,
    head: PathLike | None = None,
    head_normalizes: bool = False,
    probe: PathLike | None = None,
    objectnet_names: bool = False,
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "float32",
    activation_dtype: Precision = "float32",
    skip_unreadable: bool = False,
    progress: ProgressCallback = no_progress,
) -> ScanResult:
    """Measure, for one model, every signature that the data supports.

    Args:
        model: Id or path that `load_model` takes, or a `Classifier`.
        data: Folder of ImageNet and its shifts, of class folders, or of images without
            labels.
        out: Folder for activations, heads and records; without one, nothing is kept.
        shifts: Folders of own shifts by name, each of class folders.
        concepts: Folder of a concept set; by default one is looked for in ``data``.
        baseline: Baseline of effective robustness: its name, a file of results to fit one
            on, or a `Baseline`; by default those that ship, on ImageNet.
        architecture: Architecture of a weights file.
        weights: Weights to take of a file that holds averaged ones beside plain ones; None
            takes those of the model's own library, with a warning.
        model_from: Functions of your own code that may run, as `load_model` takes them.
        role: Role of the model; by default what its id implies.
        classnames: File of class names, for a zero-shot head.
        templates: Prompt templates: ``openai``, ``simple``, or a file.
        head: File of a head, in place of the model's own.
        head_normalizes: Whether that head reads normalized activations.
        probe: Folder of labeled training images to fit a linear head on.
        objectnet_names: Whether ObjectNet is classified among its own 113 names.
        device: Device of the model.
        batch_size: Images at a time; by default 32 on a CPU, 256 elsewhere.
        workers: Processes that decode images.
        precision: Precision of the forward pass.
        activation_dtype: Storage dtype of activations.
        skip_unreadable: Whether images that cannot be read are skipped and counted.
        progress: Called as ``progress(task, done, total)``.

    Returns:
        The records, their summary, and what could not be measured.

    Raises:
        ValueError: If the model, its head or the images cannot be used together.
        OSError: If a file is missing or the folder cannot be written to.
    """
    if isinstance(model, Classifier):
        source: str | Classifier = model
    else:
        source = str(model)
    with TemporaryDirectory() as temporary:
        config = ScanConfig(
            source,
            Path(data),
            Path(out or temporary),
            architecture=architecture,
            weights=weights,
            model_from=read_model_from(model_from),
            role=role,
            classnames=_path(classnames),
            templates=templates,
            head=_path(head),
            head_normalizes=head_normalizes,
            probe=_path(probe),
            shifts={name: Path(folder) for name, folder in (shifts or {}).items()},
            concepts=_path(concepts),
            baseline=load_baseline(baseline) if isinstance(baseline, str) else baseline,
            objectnet_names=objectnet_names,
            device=device,
            encoding=encode_config(
                device, batch_size, workers, precision, activation_dtype, skip_unreadable
            ),
        )
        output = scan_model(config, progress=progress)
    return ScanResult(
        output.model,
        output.role,
        Summary(output.summary),
        output.records,
        output.missing,
        Path(out) if out else None,
        output.preprocessing,
    )


def rank_models(  # noqa: PLR0913
    models: "Sequence[PathLike | Classifier]",
    data: PathLike,
    target: PathLike,
    *,
    rank_by: RankBy = DEFAULT_RANK_BY,
    out: PathLike | None = None,
    shifts: Mapping[str, PathLike] | None = None,
    target_labels: PathLike | None = None,
    model_from: ModelFrom = None,
    device: str = "cpu",
    batch_size: int | None = None,
    skip_unreadable: bool = False,
    progress: ProgressCallback = no_progress,
) -> RankResult:
    """Estimate the accuracy of models on images without labels, and choose among them.

    Args:
        models: Ids or paths that `load_model` takes, or classifiers, of the same classes;
            ``A..B`` is the Wise-FT path between two. One model gets estimates alone.
        data: Folder of labeled in-distribution images: class folders, or ImageNet and its
            shifts.
        target: Folder of images without labels.
        rank_by: Method whose estimate decides, or ``id-accuracy``.
        out: Folder for activations and tables; without one, nothing is kept.
        shifts: Folders of labeled shifts of your own by name, each of class folders.
        target_labels: File of labels of some target images: lines ``IMAGE,CLASS``.
        model_from: Functions of your own code that may run, as `load_model` takes them.
        device: Device of the models.
        batch_size: Images at a time; by default 32 on a CPU, 256 elsewhere.
        skip_unreadable: Whether images that cannot be read are skipped.
        progress: Called as ``progress(task, done, total)``.

    Returns:
        Estimates by every method, the choice, and the images to label if there is none.

    Raises:
        ValueError: If the models differ in their classes, a model has no head, the ID
            images have no labels, or the labels of the target are malformed.
        OSError: If a file is missing or the folder cannot be written to.
    """
    encoding = encode_config(device, batch_size, None, "float32", "float32", skip_unreadable)
    with TemporaryDirectory() as temporary:
        load_config = LoadConfig(
            Path(out or temporary),
            model_from=read_model_from(model_from),
            device=device,
            encoding=encoding,
        )
        config = RankConfig(
            [m if isinstance(m, Classifier) else str(m) for m in models],
            Path(data),
            Path(target),
            load_config,
            rank_by=rank_by,
            shifts={name: Path(folder) for name, folder in (shifts or {}).items()},
            target_labels=_path(target_labels),
        )
        return run_ranking(config, progress=progress)


def run_study(  # noqa: PLR0913
    config: "PathLike | StudyConfig",
    *,
    data: PathLike | None = None,
    out: PathLike,
    engine: str = "local",
    model_from: ModelFrom = None,
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "float32",
    activation_dtype: Precision = "float32",
    skip_unreadable: bool = False,
    progress: ProgressCallback = no_progress,
) -> Study:
    """Train the missing models of a study, measure all, and write the records.

    A run that was interrupted resumes where it stopped. A model that fails is in
    `Study.failures`; the others are measured.

    Args:
        config: Name of a built-in pool (``paper-v1``, ``paper-v1-fixed``, ``paper-v2``,
            ``lab``), path of a TOML file, or a config that was loaded.
        data: Folder of ImageNet, its shifts and Broden; the built-in pool ``lab`` renders
            its own images without one.
        out: Folder to write to.
        engine: ``local``, or ``ray`` for several units at a time on a cluster.
        model_from: Functions of your own code that may run, as `load_model` takes them. The
            config's own references to code make none run.
        device: Device of the models.
        batch_size: Images at a time; by default 32 on a CPU, 256 elsewhere.
        workers: Processes that decode images.
        precision: Precision of the forward pass.
        activation_dtype: Storage dtype of activations.
        skip_unreadable: Whether images that cannot be read are skipped and counted.
        progress: Called as ``progress(task, done, total)``.

    Returns:
        The study, to read its records, tables and figures.

    Raises:
        ValueError: If the config is not valid, or names models that do not exist.
        OSError: If a folder is missing or cannot be written to.
    """
    from .engine import check_engine
    from .training.distributed import check_device

    out = Path(out).resolve()
    study = config
    if not isinstance(study, StudyConfig):
        study = load_study_config(study, base=out)
    if data is None and not study.renders_data:
        raise ValueError(f"A study of {study.name} needs data=FOLDER.")
    check_engine(engine)
    check_device(device)
    if data is None:
        from .lab.pool import prepare_lab

        folder = prepare_lab(out, device=device, progress=progress)
    else:
        folder = Path(data).resolve()
    run_config = RunConfig(
        study.model_copy(update={"base": study.base.resolve()}),  # for workers elsewhere
        folder,
        out,
        device,
        encode_config(device, batch_size, workers, precision, activation_dtype, skip_unreadable),
        cache_images=data is None,  # the lab's are small
        model_from=tuple(code.resolve() for code in read_model_from(model_from)),
    )
    output = run_units(run_config, engine=engine, progress=progress)
    return Study(out, output.failures)


def read_dataset(
    folder: PathLike, *, name: str | None = None, classes: Sequence[str] | None = None
) -> ImageSet:
    """Read a folder of images: a known dataset, class folders, or images without labels.

    Args:
        folder: The folder; of a known dataset, the one that holds it in its usual layout.
        name: Id of a known dataset, such as ``imagenet`` or ``imagenet-r``; or a name of
            your own.
        classes: Classes of the head, in order; by default ImageNet's of a known dataset,
            else the class folders, sorted.

    Returns:
        The images, with labels if there are class folders.

    Raises:
        ValueError: If the folder does not fit the classes or holds no image.
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    if name is not None and name in DATASETS:
        return read_known_dataset(
            folder, name, classes=classes if classes is not None else class_ids("imagenet")
        )
    name = name or folder.resolve().name
    if classes is None:
        classes = list_folders(folder) if folder.is_dir() else ()
    if classes:
        return read_folder_for_head(folder, name=name, classes=tuple(classes))
    return read_unlabeled(folder, name=name)


def encode(  # noqa: PLR0913
    classifier: Classifier,
    dataset: ImageSet,
    *,
    cache: PathLike | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "float32",
    progress: ProgressCallback = no_progress,
) -> Activations:
    """Compute the activations of a dataset, before any normalization.

    Args:
        classifier: The model.
        dataset: The images, from `read_dataset`.
        cache: Folder to keep activations in: an interrupted call resumes from it, and a
            second one reads it.
        batch_size: Images at a time; by default 32.
        workers: Processes that decode images.
        precision: Precision of the forward pass.
        progress: Called as ``progress(task, done, total)``.

    Returns:
        Activations of shape (image, feature), in batches; ``.tensor()`` joins them.

    Raises:
        ValueError: If an image cannot be read, or activations are not finite.
        OSError: If the cache cannot be written to.
    """
    task = f"encode {classifier.name}"
    if cache is None:
        tensor = encode_tensor(
            classifier,
            dataset,
            batch_size=batch_size or 32,
            workers=workers,
            precision=precision,
            progress=lambda done, total: progress(task, done, total),
        )
        return Activations((tensor,))
    return cached_activations(
        classifier,
        dataset,
        Path(cache),
        encoding=EncodeConfig(batch_size=batch_size or 32, workers=workers, precision=precision),
        progress=lambda done, total: progress(task, done, total),
    )


def encode_config(
    device: str,
    batch_size: int | None,
    workers: int | None,
    precision: Precision,
    activation_dtype: Precision,
    skip_unreadable: bool,  # noqa: FBT001
) -> EncodeConfig:
    """Return how activations are computed, with the default batch size of the device."""
    return EncodeConfig(
        batch_size=batch_size or (32 if device == "cpu" else 256),
        workers=workers,
        precision=precision,
        kept_as=activation_dtype,
        skip_unreadable=skip_unreadable,
    )


def write_folder_report(
    records: Sequence[Record],
    folder: Path,
    *,
    title: str = "",
    missing: Iterable[tuple[str, str]] = (),
    progress: ProgressCallback = no_progress,
) -> Path:
    """Write the report of records into a folder, with what the folder says of a scan."""
    from .report import write_report

    if not title and (folder / SCAN_FILE).is_file():
        scan_file = _read_scan_file(folder / SCAN_FILE)
        title = f"Signatures of {scan_file.model}"
        missing = [(entry.quantity, entry.needs) for entry in scan_file.missing]
    sheets = sorted((folder / SAMPLES_FOLDER).glob("*.png"))
    progress("write the report", 0, 1)
    page = write_report(
        records,
        folder,
        samples={path.stem.partition(" ")[2]: read_bytes(path) for path in sheets},
        missing=[f"{name.capitalize()}: needs {need}." for name, need in missing],
        **({"title": title} if title else {}),
    )
    progress("write the report", 1, 1)
    return page


class _MissingEntry(BaseModel):
    quantity: str
    needs: str


class _ScanFile(BaseModel):
    """Content of ``scan.json`` that a report needs."""

    model: str
    missing: list[_MissingEntry] = Field(
        default=[], validation_alias=AliasChoices("missing", "lacking")
    )


def _read_scan_file(path: Path) -> _ScanFile:
    try:
        return _ScanFile.model_validate_json(read_bytes(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "all of it"
        raise ValueError(
            f"{path} is not what a scan writes ({place}: {problem['msg']}): scan again, or "
            "remove the file."
        ) from error


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _grid(records: Sequence[Record]) -> "ResultsGrid":
    from .report.results_grid import ResultsGrid

    return ResultsGrid.from_records(records)


def _table(grid: "ResultsGrid", number: str) -> "Table":
    from .report.tables.table import Table

    return _exhibit(grid, f"table-{number}", Table)


def _figure(grid: "ResultsGrid", number: str) -> "Figure":
    from .report.figures.charts import Figure

    return _exhibit(grid, figure_id(number), Figure)


def figure_id(number: str) -> str:
    """Return the id of a figure, such as ``fig-04b`` for ``"4b"``."""
    digits = number.rstrip("abc")
    return f"fig-{digits:0>2}{number.removeprefix(digits)}"


_Exhibit = TypeVar("_Exhibit")


def _exhibit(grid: "ResultsGrid", exhibit_id: str, kind: type[_Exhibit]) -> _Exhibit:
    """Build one exhibit; a ValueError names those that the records have."""
    from .report.exhibits import build_exhibits

    built = build_exhibits(grid, exhibit_id).get(exhibit_id)
    if isinstance(built, kind):
        return built
    word, prefix = kind.__name__.lower(), exhibit_id.partition("-")[0]
    numbers = ", ".join(exhibit.number for exhibit in build_exhibits(grid, prefix).values())
    number = exhibit_id.partition("-")[2].lstrip("0")
    raise ValueError(f"No {word} {number}: these records have {word}s {numbers}.")
