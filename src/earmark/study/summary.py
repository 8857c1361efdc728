"""Summary of a scan: the numbers that a person looks at first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.registry import dataset_title
from ..quantities import TOP_DIRECTION, Quantity, Unit, Variant, all_quantities
from ..records import Record, select
from .baselines import N_SHOWN_BASELINES


@dataclass(frozen=True)
class SummaryRow:
    """Row of the summary of a scan."""

    section: str
    title: str
    value: float  # accuracies and effective robustness are fractions
    unit: Unit = ""
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    n: int | None = None  # images, concepts or directions that it rests on
    note: str = ""
    model: str = ""
    decimals: int | None = 2  # as in `Quantity`

    def format_value(self) -> str:
        """Return the value as a person reads it, with its unit."""
        return self._format(self.value)

    def format_interval(self) -> str:
        """Return the interval as a person reads it; empty if there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"{self._format(self.low)} to {self._format(self.high)}"

    def _format(self, value: float) -> str:
        match self.unit, self.decimals:
            case "count", _:
                is_whole = abs(value - round(value)) < 0.05
                return f"{value:,.0f}" if is_whole else f"{value:,.1f}"
            case _, None:
                return f"{value:.3g}"
            case "fraction", digits:
                return f"{100 * value:.{digits}f} %"
            case "points", digits:
                return f"{100 * value:+z.{digits}f}"
            case _, digits:
                return f"{value:.{digits}f}"


def summarize_records(records: Sequence[Record]) -> list[SummaryRow]:
    """Return the rows of the summary of one model, in the order of the quantities."""
    of_model = [record for record in records if record.model]
    importance = select(of_model, quantity="importance", variant="")
    top = max(importance, key=lambda record: record.value, default=None)
    return [
        row
        for quantity in all_quantities().values()
        for variant in quantity.variants
        if variant.summary
        for row in _summarize_variant(quantity, variant, of_model, top.coordinate if top else None)
    ]


def _summarize_variant(
    quantity: Quantity, variant: Variant, records: Sequence[Record], top_direction: float | None
) -> list[SummaryRow]:
    fields = dict(variant.fields)
    if fields.get("coordinate") == TOP_DIRECTION:
        fields["coordinate"] = top_direction
    selected = select(records, quantity=quantity.name, **fields)
    if quantity.name == "effective_robustness":
        selected = selected[:N_SHOWN_BASELINES]
    if fields.get("min_positives") and not _has_rare_concepts(records):
        return []
    if variant.reduction == "largest over mean":
        return _largest_over_mean(quantity, variant, selected)
    return [
        SummaryRow(
            quantity.section,
            variant.label.format(dataset=dataset_title(record.dataset), baseline=record.baseline),
            record.value,
            quantity.unit,
            record.low,
            record.high,
            record.n,
            record.note,
            record.model,
            quantity.decimals,
        )
        for record in selected
    ]


def _has_rare_concepts(records: Sequence[Record]) -> bool:
    """Return whether the counts without rare concepts are of fewer concepts."""
    counts = select(records, quantity="unique_concepts", basis="singular", variant="")
    return len({record.n for record in counts if record.control == ""}) > 1


def _largest_over_mean(
    quantity: Quantity, variant: Variant, records: Sequence[Record]
) -> list[SummaryRow]:
    values = [record.value for record in records]
    if not any(values):
        return []
    ratio = max(values) * len(values) / sum(values)
    note, model, section = records[0].note, records[0].model, quantity.section
    return [SummaryRow(section, variant.label, ratio, n=len(values), note=note, model=model)]
