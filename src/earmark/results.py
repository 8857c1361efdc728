"""One tidy record type: what was measured, of whom, on what, and how sure it is."""

from __future__ import annotations  # a field's type is its name, which the table maps

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .files import replacing

RECORDS = "records.parquet"


@dataclass(frozen=True)
class Record:
    """One number that was measured; the rows of ``records.parquet``.

    Attributes:
        model: The model's id, such as ``lab:zero-shot``.
        backbone: Its architecture, as a table's first column shows it.
        pretraining: What it was pretrained on, as a table's second column shows it.
        role: zero-shot, finetuned, supervised, interpolated, soup or other.
        quantity: What was measured, such as ``activation_kurtosis``.
        value: The number itself; accuracies and effective robustness are fractions.
        dataset: On which images, such as ``imagenet``; ``shifts`` for the mean over shifts.
        setting: Which variant, such as the basis ``singular``, or empty.
        item: What within the model: a concept, a dataset, the number of a direction.
        x: The coordinate along a curve: a pruned fraction, a rank.
        low: The interval's lower end (95 %).
        high: The interval's upper end.
        n: How many images, or models, or concepts the number rests on.
        note: Why there is no interval, or what else a reader must know.
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


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records as one Parquet file, aside and then renamed.

    Args:
        path: The file to make or replace, ``records.parquet`` by custom.
        records: The rows, in order.
    """
    import pyarrow.parquet

    with replacing(path) as aside:
        pyarrow.parquet.write_table(_table(records), aside)


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
