"""Who was measured: the rows and columns of the paper's tables, and their numbers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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

CONTROLS = {"no-clip": "NoCLIP", "captioned-id": "Captioned ID"}
"""Groups of models that stand in Table 8 and Figure 10 alone, as in the paper."""

MAIN = ("main", "")
LARGE = ("large",)
SMALL = ("small",)
"""Groups of families, as the paper's figures part them: shown in its main text, pretrained
on large public sets, on small ones. A family of no group is shown in the main text."""


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables: a backbone with a pretraining, and its models.

    Attributes:
        backbone: As the first column shows it.
        pretraining: As the second column shows it.
        models: For each column of `COLUMNS` that has one, the model's id. A backbone's
            supervised model stands in each of its rows, since each is compared with it.
        group: Which figures the family stands in; empty outside of a pool with groups.
        between: For each alpha, ascending, the model that far from the zero-shot to the
            finetuned one.
    """

    backbone: str
    pretraining: str
    models: Mapping[str, str]
    group: str = ""
    between: Mapping[float, str] = field(default_factory=dict[float, str])

    @property
    def label(self) -> str:
        """Backbone and pretraining in one line."""
        return " · ".join(part for part in (self.backbone, self.pretraining) if part)

    @property
    def path(self) -> tuple[tuple[float, str, str], ...]:
        """Each alpha, its model's column and id, from the zero-shot model to the finetuned.

        Empty where no model between the two was measured.
        """
        ends = ((0.0, "zero-shot"), (1.0, "finetuned"))
        held = [(at, name, self.models[name]) for at, name in ends if name in self.models]
        held += [(at, "interpolated", model) for at, model in self.between.items()]
        return tuple(sorted(held)) if self.between else ()


@dataclass(frozen=True)
class Pool:
    """The models under study, arranged as in the paper's tables, with their records.

    Attributes:
        rows: In the order in which their first models were recorded.
        columns: Those keys of `COLUMNS` that hold a model.
        baselines: The records of the models that only draw the baseline's line.
        numbers: The records of each (model, quantity).
        controls: A record of each model of the groups in `CONTROLS`.
        own: What the in-distribution images are called where they are not ImageNet; their
            records stand under ``imagenet`` here, and the page says so.
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    baselines: tuple[Record, ...]
    numbers: Mapping[tuple[str, str], Sequence[Record]]
    controls: tuple[Record, ...] = ()
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
        controls = tuple(one for one in models.values() if one.group in CONTROLS)
        rows = _rows([
            one
            for one in models.values()
            if one.group not in CONTROLS and one.alpha is None
        ])
        between = [one for one in models.values() if one.alpha is not None]
        rows = tuple(replace(row, between=_between(row, between)) for row in rows)
        return cls(rows, _columns(rows), baselines, dict(numbers), controls, own)

    def only(self, groups: Sequence[str]) -> "Pool":
        """The same records, of the families of some groups alone.

        Args:
            groups: Of `MAIN`, `LARGE` and `SMALL`.

        Returns:
            A pool of those rows; it may have none.
        """
        rows = tuple(row for row in self.rows if row.group in groups)
        return replace(self, rows=rows, columns=_columns(rows))

    def of_columns(self, columns: Sequence[str]) -> "Pool":
        """The same rows, with the models of some columns alone.

        Args:
            columns: Keys of `COLUMNS`.

        Returns:
            A pool of the rows that have one of them.
        """
        rows = [
            replace(row, models={name: row.models[name] for name in held})
            for row in self.rows
            if (held := [name for name in row.models if name in columns])
        ]
        return replace(self, rows=tuple(rows), columns=_columns(rows))

    @property
    def groups(self) -> frozenset[str]:
        """The groups of its families and of its controls."""
        held = {row.group for row in self.rows}
        return frozenset(held | {record.group for record in self.controls})

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
        Its role; ``untrained`` for a control of role other whose group or id says so.

    Example:
        >>> column_of(Record("lab:untrained", "RN", "", "other", "accuracy", 0.01))
        'untrained'
    """
    named = "untrained" in record.model.lower()
    if record.group == "untrained" or (record.role == "other" and named):
        return "untrained"
    return record.role if record.role in COLUMNS else "other"


def _columns(rows: Sequence[Row]) -> tuple[str, ...]:
    held = {column for row in rows for column in row.models}
    return tuple(column for column in COLUMNS if column in held)


def _own(records: Sequence[Record]) -> str:
    """The in-distribution images, which kurtosis is measured on, if not ImageNet."""
    # On the shifts too: but there nothing is centred, and no direction is removed.
    kurtosis = select(records, quantity="activation_kurtosis")
    names = {record.dataset for record in kurtosis} - {"shifts"}
    if "imagenet" in names:
        return ""
    if len(names) > 1:
        told = [
            *select(kurtosis, setting="centred"),
            *select(records, quantity="pruned_accuracy"),
        ]
        names &= {record.dataset for record in told}
    return min(names, default="")


def _is_baseline(record: Record) -> bool:
    drawn = record.quantity == "accuracy" and record.setting == "baseline"
    return drawn or record.quantity.startswith("baseline_")


def _between(row: Row, interpolated: Sequence[Record]) -> dict[float, str]:
    whose = (row.backbone, row.pretraining)
    held = [one for one in interpolated if (one.backbone, one.pretraining) == whose]
    return {one.alpha: one.model for one in sorted(held, key=_alpha) if one.alpha}


def _alpha(record: Record) -> float:
    return record.alpha or 0.0


def _rows(models: Sequence[Record]) -> tuple[Row, ...]:
    """Rows for each pretraining first; then the models that a backbone's rows share."""
    rows: list[tuple[str, str, dict[str, str], str]] = []
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
            rows.append((record.backbone, label, {column: record.model}, record.group))
    order = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    return tuple(Row(*row) for row in rows)
