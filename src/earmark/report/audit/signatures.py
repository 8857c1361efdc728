"""The signatures that are audited, and their values in the records."""

from ...quantities import Quantity, Variant, all_quantities
from ...records import Record
from ..results_grid import ResultsGrid
from .contrasts import Signature


def audited_signatures() -> list[Signature]:
    """Return the audited variants of all quantities, those of plug-ins last."""
    return [
        Signature(
            f"{quantity.name}_{variant.key}" if variant.key else quantity.name,
            _title(quantity, variant),
            quantity.name,
            variant.fields,
            variant.audit,
            variant.reduction,
        )
        for quantity in all_quantities().values()
        for variant in quantity.variants
        if variant.audit
    ]


def _title(quantity: Quantity, variant: Variant) -> str:
    """Return the quantity's title, and what the label adds to that of the empty key."""
    label = variant.label
    for other in quantity.variants:
        if not other.key:
            label = label.removeprefix(other.label).removeprefix(", ")
    return f"{quantity.title}, {label}" if label else quantity.title


def read_signature(grid: ResultsGrid, model: str, signature: Signature) -> float | None:
    """Return a signature of a model, on in-distribution images; None if not measured."""
    records = grid.records(model, signature.quantity, **signature.fields)
    if "dataset" not in signature.fields:
        records = [record for record in records if record.dataset in {"", "imagenet"}]
    values = [record.value for record in records]
    match signature.reduction:
        case "largest over mean":
            return max(values) * len(values) / sum(values) if any(values) else None
        case "last":
            return max(records, key=_coordinate).value if records else None
        case "kept at 0.8":
            at = {round(_coordinate(record), 6): record.value for record in records}
            return at[0.8] / at[0.0] if at.get(0.0) and 0.8 in at else None
        case _:
            return values[0] if values else None


def _coordinate(record: Record) -> float:
    return -1.0 if record.coordinate is None else record.coordinate
