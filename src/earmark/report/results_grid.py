"""Records of a study, arranged as the rows and columns of the paper's tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from statistics import fmean

from .._text import replace_control_characters
from ..data.registry import dataset_title
from ..quantities import AP_THRESHOLD, MIN_POSITIVES, SINGULAR_COUNT
from ..records import Record, select
from ..signatures.effective_robustness import Baseline

ROLE_TITLES = {
    "zero-shot": "Zero-shot",
    "finetuned": "Finetuned",
    "supervised": "Supervised",
    "interpolated": "Interpolated",
    "soup": "Soup",
    "untrained": "Untrained",
    "other": "Other",
}
COMPARED_ROLES = ("zero-shot", "finetuned", "supervised")
ROLES_WITHOUT_PRETRAINING = ("supervised", "untrained", "other")
CONTROL_TITLES = {"no-clip": "NoCLIP", "captioned-id": "Captioned ID"}
"""Groups of models that stand in Table 8 and Figure 10 alone, as in the paper."""

# A family without a group is shown with those of the paper's main text.
MAIN_GROUPS = ("main", "")
LARGE_GROUPS = ("large",)
SMALL_GROUPS = ("small",)

SECOND_THRESHOLD = 0.85  # of the paper's footnote 4: its conclusions should hold there too
PRIVILEGED_RATIO = 10.0  # from this ratio to the mean on, a direction counts as privileged


@dataclass(frozen=True)
class FamilyRow:
    """One row of the paper's tables: a backbone with a pretraining, and its models."""

    backbone: str
    pretraining: str
    models: Mapping[str, str]  # by role; the supervised one is in each row of its backbone
    group: str = ""  # of figures; empty in a study without groups
    interpolations: Mapping[float, str] = field(default_factory=dict[float, str])  # by alpha

    @property
    def label(self) -> str:
        """Return backbone and pretraining in one line."""
        return " · ".join(part for part in (self.backbone, self.pretraining) if part)

    @property
    def alpha_path(self) -> tuple[tuple[float, str, str], ...]:
        """Return (alpha, role, model) from zero-shot to finetuned, if any lies between."""
        ends = ((0.0, "zero-shot"), (1.0, "finetuned"))
        path = [(at, role, self.models[role]) for at, role in ends if role in self.models]
        path += [(at, "interpolated", model) for at, model in self.interpolations.items()]
        return tuple(sorted(path)) if self.interpolations else ()


@dataclass(frozen=True)
class TopDirection:
    """A model's most important direction, compared with all of its directions."""

    direction: float | None  # from 0
    importance_record: Record  # Eq. 4
    mean: float  # over all directions of the activation space (the paper's)
    n_privileged: int  # directions of `PRIVILEGED_RATIO` times the mean or more
    decision_share: float | None  # share of its logits that differs between classes

    @property
    def importance(self) -> float:
        """Return its importance."""
        return self.importance_record.value

    @property
    def ratio(self) -> float:
        """Return its importance in multiples of the mean."""
        return self.importance / self.mean


_NAMES = ("model", "backbone", "pretraining", "dataset", "item", "note", "baseline")


def _without_control_characters(records: Sequence[Record]) -> Sequence[Record]:
    """Return records whose names can be drawn and printed."""
    names = {getattr(record, name) for record in records for name in _NAMES}
    marked = {text: shown for text in names if (shown := replace_control_characters(text)) != text}
    if not marked:
        return records
    return [
        replace(
            record, **{name: marked.get(text := getattr(record, name), text) for name in _NAMES}
        )
        for record in records
    ]


@dataclass(frozen=True)
class ResultsGrid:
    """Models of a study, arranged as in the paper's tables, with their records."""

    rows: tuple[FamilyRow, ...]
    roles: tuple[str, ...]  # keys of `ROLE_TITLES` that have a model
    baseline_records: tuple[Record, ...]  # of baselines and of the models of their fits
    record_index: Mapping[tuple[str, str], Sequence[Record]]  # by model and quantity
    controls: tuple[Record, ...] = ()  # one record of each model of `CONTROL_TITLES`
    id_dataset: str = ""  # if not ImageNet; its records are found under ``imagenet``

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> "ResultsGrid":
        """Arrange records; raise ValueError if none is of a model."""
        records = _without_control_characters(records)
        if id_dataset := _find_id_dataset(records):
            records = [
                replace(r, dataset="imagenet") if r.dataset == id_dataset else r for r in records
            ]
        baselines = tuple(record for record in records if _is_baseline(record))
        models = {record.model: record for record in records if not _is_baseline(record)}
        if not models:
            raise ValueError(f"No model among {len(records)} records: run the study first.")
        index: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in records:
            index[record.model, record.quantity].append(record)
        controls = tuple(m for m in models.values() if m.group in CONTROL_TITLES)
        between = [m for m in models.values() if m.alpha is not None]
        members = [m for m in models.values() if m.group not in CONTROL_TITLES and m.alpha is None]
        rows = tuple(
            replace(row, interpolations=_match_interpolations(row, between))
            for row in _arrange_rows(members)
        )
        return cls(rows, _find_roles(rows), baselines, dict(index), controls, id_dataset)

    def filter_groups(self, groups: Sequence[str]) -> "ResultsGrid":
        """Return the grid of the families of some groups; it may have none."""
        rows = tuple(row for row in self.rows if row.group in groups)
        return replace(self, rows=rows, roles=_find_roles(rows))

    def select_roles(self, roles: Sequence[str]) -> "ResultsGrid":
        """Return the grid of the models of some roles."""
        rows = [
            replace(row, models={role: row.models[role] for role in shared})
            for row in self.rows
            if (shared := [role for role in row.models if role in roles])
        ]
        return replace(self, rows=tuple(rows), roles=_find_roles(rows))

    @property
    def id_title(self) -> str:
        """Return the title of the in-distribution images."""
        return dataset_title(self.id_dataset or "imagenet")

    @property
    def groups(self) -> frozenset[str]:
        """Return the groups of its families and controls."""
        groups = {row.group for row in self.rows}
        return frozenset(groups | {record.group for record in self.controls})

    def records(self, model: str, quantity: str, **fields: object) -> list[Record]:
        """Return the records of a quantity of a model that have these fields."""
        return select(self.record_index.get((model, quantity), ()), **fields)

    def first(self, model: str, quantity: str, **fields: object) -> Record | None:
        """Return the first such record, or None."""
        return next(iter(self.records(model, quantity, **fields)), None)

    def all_records(self, quantity: str, **fields: object) -> list[Record]:
        """Return the records of a quantity of every model that stands in a row."""
        by_model = (self.records(model, quantity, **fields) for _, _, model in self.models())
        return [record for records in by_model for record in records]

    def models(self) -> list[tuple[FamilyRow, str, str]]:
        """Return each model once: the first row that it stands in, its role, its id."""
        models: dict[str, tuple[FamilyRow, str, str]] = {}
        for row in self.rows:
            for role in self.roles:
                if role in row.models:
                    models.setdefault(row.models[role], (row, role, row.models[role]))
        return list(models.values())

    def baselines(self) -> list[Baseline]:
        """Return the baselines of the effective robustness, in the order of their use."""
        used = [record.baseline for record in self.all_records("effective_robustness")]
        baselines = map(self._read_baseline, dict.fromkeys(used))
        return [baseline for baseline in baselines if baseline]

    def _read_baseline(self, name: str) -> Baseline | None:
        records = {r.quantity: r for r in select(self.baseline_records, baseline=name)}
        slope, intercept = (records.get(f"baseline_{k}") for k in ("slope", "intercept"))
        if slope is None or intercept is None:
            return None
        defaults = {"baseline_r": nan, "baseline_id_low": 0.0, "baseline_id_high": 1.0}
        r, low, high = (
            records[name].value if name in records else value for name, value in defaults.items()
        )
        return Baseline(slope.value, intercept.value, r, slope.n or 0, name, (low, high))

    def has_rare_concepts(self) -> bool:
        """Return whether some concepts have fewer positives than `MIN_POSITIVES`."""
        counts = self.all_records("unique_concepts", **SINGULAR_COUNT)
        n_concepts = {record.model: record.n for record in counts}
        fields = {**SINGULAR_COUNT, "min_positives": MIN_POSITIVES}
        common = self.all_records("unique_concepts", **fields)
        return any(record.n != n_concepts.get(record.model) for record in common)

    def common_width(self) -> int | None:
        """Return the largest width that all models share; None if their widths are equal."""
        fields = {"basis": "singular", "threshold": AP_THRESHOLD, "variant": ""}
        widths: list[set[int]] = []
        for _, _, model in self.models():
            records = self.records(model, "unique_concepts", **fields)
            if any(record.control for record in records):
                widths.append({r.width for r in records if r.width is not None})
        if len({max(of_model, default=0) for of_model in widths}) < 2:
            return None
        return max(set[int].intersection(*widths), default=None)

    def encoded_concepts(
        self,
        model: str,
        *,
        threshold: float = AP_THRESHOLD,
        basis: str = "singular",
        control: str = "",
    ) -> frozenset[str] | None:
        """Return the concepts that a direction encodes; None if none was probed."""
        fields = {"basis": basis, "variant": "", "control": control}
        best = self.records(model, "best_average_precision", **fields)
        if not best:
            return None
        return frozenset(record.item for record in best if record.value >= threshold)

    def concept_clusters(self, model: str) -> dict[str, str]:
        """Return the cluster of each concept; a concept of none is one of its own."""
        best = self.records(model, "best_average_precision", variant="", control="")
        return {record.item: record.cluster or f"concept {record.item}" for record in best}

    def top_direction(self, model: str, *, variant: str = "") -> TopDirection | None:
        """Return the most important direction; None without an importance above 0."""
        records = self.records(model, "importance", variant=variant)
        top = max(records, key=lambda record: record.value, default=None)
        if top is None or top.value <= 0:
            return None
        fields = {"variant": variant, "coordinate": top.coordinate}
        share = self.first(model, "decision_share", **fields)
        ratio = self.first(model, "importance_ratio", variant=variant)
        mean = top.value / ratio.value if ratio else fmean(record.value for record in records)
        n_privileged = sum(record.value >= PRIVILEGED_RATIO * mean for record in records)
        return TopDirection(top.coordinate, top, mean, n_privileged, share.value if share else None)


def table_role(record: Record) -> str:
    """Return the role whose column a model stands in; untrained controls have their own.

    >>> table_role(Record("lab:untrained", "RN", "", "other", "accuracy", 0.01))
    'untrained'
    """
    is_named = "untrained" in record.model.lower()
    if record.group == "untrained" or (record.role == "other" and is_named):
        return "untrained"
    return record.role if record.role in ROLE_TITLES else "other"


def _find_roles(rows: Sequence[FamilyRow]) -> tuple[str, ...]:
    roles = {role for row in rows for role in row.models}
    return tuple(role for role in ROLE_TITLES if role in roles)


def _find_id_dataset(records: Sequence[Record]) -> str:
    """Return the in-distribution images, on which kurtosis is measured, if not ImageNet."""
    kurtosis = select(records, quantity="activation_kurtosis")
    names = {record.dataset for record in kurtosis} - {"shifts"}
    if "imagenet" in names:
        return ""
    if len(names) > 1:  # shifts are there too, but never centered, and never pruned
        pruned = select(records, quantity="pruned_accuracy")
        names &= {record.dataset for record in (*select(kurtosis, variant="centered"), *pruned)}
    return min(names, default="")


def _is_baseline(record: Record) -> bool:
    is_fitted_to = record.quantity == "accuracy" and record.variant == "baseline"
    return is_fitted_to or record.quantity.startswith("baseline_")


def _match_interpolations(row: FamilyRow, candidates: Sequence[Record]) -> dict[float, str]:
    family = (row.backbone, row.pretraining)
    members = [r for r in candidates if (r.backbone, r.pretraining) == family]
    return dict(sorted((r.alpha, r.model) for r in members if r.alpha))


def _arrange_rows(models: Sequence[Record]) -> tuple[FamilyRow, ...]:
    """Make rows for each pretraining first; then add the models that they share."""
    rows: list[tuple[str, str, dict[str, str], str]] = []
    for record in sorted(models, key=lambda m: table_role(m) in ROLES_WITHOUT_PRETRAINING):
        role = table_role(record)
        siblings = [row for row in rows if row[0] == record.backbone]
        if role not in ROLES_WITHOUT_PRETRAINING:
            siblings = [row for row in siblings if row[1] == record.pretraining]
        free = [row for row in siblings if role not in row[2]]
        if siblings and len(free) == len(siblings):
            for row in free:
                row[2][role] = record.model
        else:
            label = record.pretraining + (f" ({record.model})" if siblings else "")
            rows.append((record.backbone, label, {role: record.model}, record.group))
    order = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    return tuple(FamilyRow(*row) for row in rows)
