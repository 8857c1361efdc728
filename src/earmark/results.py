"""One tidy record type: what was measured, of whom, on what, and how sure it is."""

from __future__ import annotations  # a field's type is its name, which the table maps

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .files import replacing

RECORDS = "records.parquet"
SCAN = "scan.json"
"""What a folder of results calls its records, and what was scanned."""
_KEY = b"earmark key"

QUANTITIES: Mapping[str, str] = MappingProxyType({
    "accuracy": "Top-1 on `dataset`; `setting` is baseline for a model that draws a line.",
    "effective_robustness": "Above the line named by `setting`.",
    "baseline_slope": "Of the line named by `item`, fitted on n models.",
    "baseline_intercept": "Of that line.",
    "baseline_r": "Pearson correlation of its models, on logit axes.",
    "baseline_id_low": "The lowest accuracy that it was fitted on.",
    "baseline_id_high": "The highest.",
    "activation_kurtosis": "Eq. 2 on `dataset`; `setting` is empty, or centred.",
    "singular_value": "Of direction `x`, from 0; `setting` is empty, or gauge-fixed.",
    "head_importance": "Of direction `x`: the first factor of Eq. 4.",
    "encoder_importance": "Of direction `x`: the second.",
    "importance": "Of direction `x`: Eq. 4.",
    "importance_ratio": "The largest importance over the mean importance.",
    "decision_share": "Of direction `x`: the share of it that can change a decision.",
    "flipped_predictions": "Share of `dataset` whose class changes without direction `x`.",
    "outlier_energy": "Share of direction `x` on the features of largest kurtosis.",
    "outlier_share": "Of the activation kurtosis, that of feature `item`, `x`-th from 0.",
    "spearman_sigma_importance": "Over the directions of one model.",
    "pruned_accuracy": "With a fraction `x` of directions removed, by `setting`.",
    "pruned_effective_robustness": "The same, above the line named by `item`.",
    "unique_concepts": "Eq. 5 in basis `setting`, from an average precision of `x`.",
    "polysemanticity": "Concepts encoded by a direction, on average; as above.",
    "unique_concepts_checked": "Of `unique_concepts`, what the check `item` makes of it.",
    "polysemanticity_checked": "Of `polysemanticity`, the same.",
    "best_average_precision": "Of concept `item`, over the directions of basis `setting`.",
    "cka": "Of layer `item`, the `x`-th from 0, with the family's zero-shot model.",
    "top_concept": "`item` is the `x`-th best of the most privileged direction.",
})
"""Every quantity that records hold, and what its other fields mean."""


@dataclass(frozen=True)
class Record:
    """One number that was measured; the rows of ``records.parquet``.

    Attributes:
        model: The model's id, such as ``lab:zero-shot``.
        backbone: Its architecture, as a table's first column shows it.
        pretraining: What it was pretrained on, as a table's second column shows it.
        role: zero-shot, finetuned, supervised, interpolated, soup or other.
        quantity: What was measured: one of `QUANTITIES`.
        value: The number itself; accuracies and effective robustness are fractions.
        dataset: On which images, such as ``imagenet``; ``shifts`` for the mean over shifts.
        setting: Which variant, such as the basis ``singular``, or empty.
        item: What within the model: a concept, a dataset, the number of a direction.
        x: The coordinate along a curve: a pruned fraction, a rank.
        low: The interval's lower end (95 %).
        high: The interval's upper end.
        n: How many images, or models, or concepts the number rests on.
        note: Why there is no interval, or what else a reader must know.
        group: Which group of figures the model's family belongs to in a pool, or which
            control the model is; empty outside of a pool.
        alpha: Of a model between two others of its family (Wise-FT), how far from the
            zero-shot one: above 0 and below 1.
    """

    model: str
    backbone: str
    pretraining: str
    role: str
    quantity: str
    value: float
    dataset: str = ""
    setting: str = ""
    item: str = ""
    x: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""
    group: str = ""
    alpha: float | None = None


def select(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records whose fields have the wanted values, in their order.

    Args:
        records: The records to choose from.
        **wanted: Field names of `Record` and their values.

    Returns:
        Those that have them all.

    Example:
        >>> record = Record("m", "RN50", "OpenAI", "zero-shot", "activation_kurtosis", 73.6)
        >>> [found.value for found in select([record], role="zero-shot")]
        [73.6]
    """
    return [
        record
        for record in records
        if all(getattr(record, field) == value for field, value in wanted.items())
    ]


def write_records(path: Path, records: Sequence[Record], *, key: str = "") -> None:
    """Write records as one Parquet file, aside and then renamed.

    Args:
        path: The file to make or replace, ``records.parquet`` by custom.
        records: The rows, in order.
        key: A hash of all that determines them, for `kept_key` to tell.

    Raises:
        ValueError: If a record's quantity is not one of `QUANTITIES`.
    """
    import pyarrow.parquet

    for record in records:
        if record.quantity not in QUANTITIES:
            near = get_close_matches(record.quantity, QUANTITIES, n=1)
            raise ValueError(f"No quantity {record.quantity!r}: did you mean {near}?")

    table = _table(records).replace_schema_metadata({_KEY: key.encode()} if key else None)
    with replacing(path) as aside:
        pyarrow.parquet.write_table(table, aside)


def kept_key(path: Path) -> str:
    """The key that a file of records was written with.

    Args:
        path: The Parquet file.

    Returns:
        The key; empty if there is none, no such file, or it is not one of records.
    """
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return ""
    return metadata.get(_KEY, b"").decode()


def read_records(path: Path) -> list[Record]:
    """Read records that `write_records` wrote.

    Args:
        path: The Parquet file.

    Returns:
        The records, in the order in which they were written.

    Raises:
        ValueError: If the file is not one of earmark's record files.
        FileNotFoundError: If there is none.
    """
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise FileNotFoundError(f"No records at {path}: run the study first.")
    try:
        table = pyarrow.parquet.read_table(path)
        return [Record(**row) for row in table.to_pylist()]
    except (pyarrow.ArrowException, TypeError) as error:
        raise ValueError(f"{path} holds no earmark records: {error}") from error


def _table(records: Sequence[Record]) -> Any:
    import pyarrow

    kinds = {"str": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    schema = pyarrow.schema([
        (field.name, kinds[str(field.type).split(" |")[0]]) for field in fields(Record)
    ])
    return pyarrow.Table.from_pylist([vars(record) for record in records], schema=schema)
