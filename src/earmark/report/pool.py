"""Who was measured: the rows and columns of the paper's tables, and their numbers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..results import Record, select

COLUMNS = {
    "zero-shot": "Zero-shot",
    "finetuned": "Finetuned",
    "supervised": "Supervised",
    "interpolated": "Interpolated",
    "soup": "Soup",
    "untrained": "Untrained",
    "other": "Other",
}
SHARED = ("supervised", "untrained", "other")
"""Columns whose model has no pretraining in common with the others of its backbone."""


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables: a backbone with a pretraining, and its models.

    Attributes:
        backbone: As the first column shows it.
        pretraining: As the second column shows it.
        models: For each column of `COLUMNS` that has one, the model's id. A backbone's
            supervised model stands in each of its rows, since each is compared with it.
    """

    backbone: str
    pretraining: str
    models: Mapping[str, str]

    @property
    def label(self) -> str:
        """Backbone and pretraining in one line."""
        return " · ".join(part for part in (self.backbone, self.pretraining) if part)


@dataclass(frozen=True)
class Pool:
    """The models under study, arranged as in the paper's tables, with their records.

    Attributes:
        rows: In the order in which their first models were recorded.
        columns: Those keys of `COLUMNS` that hold a model.
        baselines: The records of the models that only draw the baseline's line.
        numbers: The records of each (model, quantity).
        own: What the in-distribution images are called where they are not ImageNet; their
            records stand under ``imagenet`` here, and the page says so.
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    baselines: tuple[Record, ...]
    numbers: Mapping[tuple[str, str], Sequence[Record]]
    own: str = ""

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Pool":
        """Arrange records.

        Args:
            records: All that a study wrote.

        Returns:
            The pool they describe.

        Raises:
            ValueError: If there is no record of a model.
        """
        own = _own(records)
        if own:
            records = [
                replace(record, dataset="imagenet") if record.dataset == own else record
                for record in records
            ]
        baselines = tuple(record for record in records if _is_baseline(record))
        models = {record.model: record for record in records if not _is_baseline(record)}
        if not models:
            raise ValueError(f"No model among {len(records)} records: run the study first.")
        numbers: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in records:
            numbers[record.model, record.quantity].append(record)
        rows = _rows(list(models.values()))
        held = {column for row in rows for column in row.models}
        columns = tuple(column for column in COLUMNS if column in held)
        return cls(rows, columns, baselines, dict(numbers), own)

    def all(self, model: str, quantity: str, **wanted: object) -> list[Record]:
        """The records of one quantity of one model.

        Args:
            model: Its id.
            quantity: What was measured.
            **wanted: Fields of `Record` and their values.

        Returns:
            The records that have them, in the order in which they were written.
        """
        return select(self.numbers.get((model, quantity), ()), **wanted)

    def one(self, model: str, quantity: str, **wanted: object) -> Record | None:
        """The first of `all`, or None where it was not measured."""
        return next(iter(self.all(model, quantity, **wanted)), None)

    def models(self) -> list[tuple[Row, str, str]]:
        """Each model once: the first row that it stands in, its column, its id."""
        seen: dict[str, tuple[Row, str, str]] = {}
        for row in self.rows:
            for column in self.columns:
                if column in row.models:
                    seen.setdefault(row.models[column], (row, column, row.models[column]))
        return list(seen.values())


def column_of(record: Record) -> str:
    """Where a record's model stands in the paper's tables.

    Args:
        record: Any record of the model.

    Returns:
        Its role; ``untrained`` for a control of role other whose id says so.

    Example:
        >>> column_of(Record("lab:untrained", "RN", "", "other", "accuracy", 0.01))
        'untrained'
    """
    if record.role == "other" and "untrained" in record.model.lower():
        return "untrained"
    return record.role if record.role in COLUMNS else "other"


def _own(records: Sequence[Record]) -> str:
    """The in-distribution images, which kurtosis is measured on, if not ImageNet."""
    kurtosis = select(records, quantity="activation_kurtosis")
    names = sorted({record.dataset for record in kurtosis})
    return names[0] if names and "imagenet" not in names else ""


def _is_baseline(record: Record) -> bool:
    drawn = record.quantity == "accuracy" and record.setting == "baseline"
    return drawn or record.quantity.startswith("baseline_")


def _rows(models: Sequence[Record]) -> tuple[Row, ...]:
    """Rows for each pretraining first; then the models that a backbone's rows share."""
    rows: list[tuple[str, str, dict[str, str]]] = []
    for record in sorted(models, key=lambda record: column_of(record) in SHARED):
        column = column_of(record)
        mates = [row for row in rows if row[0] == record.backbone]
        if column not in SHARED:
            mates = [row for row in mates if row[1] == record.pretraining]
        free = [row for row in mates if column not in row[2]]
        if mates and len(free) == len(mates):
            for row in free:
                row[2][column] = record.model
        else:
            label = (
                f"{record.pretraining} ({record.model})" if mates else record.pretraining
            )
            rows.append((record.backbone, label, {column: record.model}))
    return tuple(Row(*row) for row in rows)
