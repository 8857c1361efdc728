"""Records: the one tidy row type of every result, and its Parquet file."""

from __future__ import annotations  # a field's type is its name, which the schema maps

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._io import atomic_write
from ._records_v1 import convert_row
from ._tabular import arrow_to_pandas, html_table
from .quantities import QUANTITIES, all_quantities

if TYPE_CHECKING:
    pass

RECORDS_FILE = "records.parquet"
SCAN_FILE = "scan.json"
SAMPLES_FOLDER = "samples"  # of sheets of sample images
FORMAT_VERSION = 2
_KEY = b"earmark key"
_VERSION = b"earmark format"


@dataclass(frozen=True)
class Record:
    """One measured number: a row of ``records.parquet``.

    Attributes:
        model: Id of the model, such as ``lab:zero-shot``.
        backbone: Architecture, as the first column of a table shows it.
        pretraining: Pretraining data, as the second column of a table shows it.
        role: zero-shot, finetuned, supervised, interpolated, soup or other.
        quantity: Name of the quantity, one of `all_quantities`.
        value: The number itself; accuracies and effective robustness are fractions.
        dataset: Id of the images, such as ``imagenet``; ``shifts`` for the mean over the shifts.
        variant: Variant of the quantity; empty for the paper's own.
        item: Name of the part that is measured: a concept, a layer or a feature.
        coordinate: Position along a curve: a pruned fraction, a rank, a layer's number.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n: Number of images, models, concepts or directions that the value rests on.
        note: Reason for a missing interval, or what else a reader must know.
        group: Group of figures of the model's family in a study, or kind of control.
        alpha: Share of the finetuned weights in an interpolated model (Wise-FT).
        baseline: Name of the baseline that effective robustness is measured from.
        basis: Basis of the directions: singular, neuron, random.
        seed: Seed of a random basis.
        threshold: Lowest average precision at which a concept counts as encoded.
        control: Control applied to a count of concepts; empty for the paper's count.
        width: Number of directions that a count is rarefied to.
        min_positives: Smallest number of positives of the counted concepts.
    """

    model: str
    backbone: str
    pretraining: str
    role: str
    quantity: str
    value: float
    dataset: str = ""
    variant: str = ""
    item: str = ""
    coordinate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""
    group: str = ""
    alpha: float | None = None
    baseline: str = ""
    basis: str = ""
    seed: int | None = None
    threshold: float | None = None
    control: str = ""
    width: int | None = None
    min_positives: int | None = None


class Records(tuple[Record, ...]):
    """Immutable sequence of records, with selection and conversion to tables."""

    __slots__ = ()

    def select(self, **wanted: object) -> Records:
        """Return the records whose fields have the wanted values, in their order.

        Args:
            **wanted: Field names of `Record` and their values.

        Returns:
            Those that have them all.

        Raises:
            TypeError: If a name is no field of `Record`.

        Example:
            >>> record = Record("m", "RN50", "OpenAI", "zero-shot", "accuracy", 0.6)
            >>> Records([record]).select(role="zero-shot")[0].value
            0.6
        """
        return Records(select(self, **wanted))

    def to_arrow(self) -> Any:
        """Return the records as a ``pyarrow.Table``, one column for each field."""
        return _table(self)

    def to_pandas(self) -> Any:
        """Return the records as a ``pandas.DataFrame``, one column for each field.

        Raises:
            ImportError: If pandas is not installed.
        """
        return arrow_to_pandas(self.to_arrow())

    def __repr__(self) -> str:
        models = len({record.model for record in self if record.model})
        quantities = len({record.quantity for record in self})
        return f"<Records: {len(self):,} of {models} models, {quantities} quantities>"

    def _repr_html_(self) -> str:
        names = ("model", "role", "quantity", "dataset", "variant", "value", "low", "high", "n")
        return html_table({name: [getattr(r, name) for r in self] for name in names})


def select(records: Iterable[Record], **wanted: object) -> list[Record]:
    """Return the records whose fields have the wanted values, in their order."""
    if unknown := [name for name in wanted if name not in _FIELDS]:
        raise TypeError(f"Record has no field {unknown[0]!r}: it has {', '.join(_FIELDS)}.")
    return [
        record
        for record in records
        if all(getattr(record, field) == value for field, value in wanted.items())
    ]


_FIELDS = tuple(field.name for field in fields(Record))


def write_records(path: Path, records: Sequence[Record], *, key: str = "") -> None:
    """Write records as one Parquet file, atomically.

    Args:
        path: The file to make or replace.
        records: The rows, in order.
        key: Hash of everything that determines them, for `read_key`.

    Raises:
        ValueError: If a record's quantity is in no registry.
    """
    import pyarrow.parquet

    known = all_quantities()
    for record in records:
        if record.quantity not in known:
            near = get_close_matches(record.quantity, known, n=1)
            raise ValueError(f"No quantity {record.quantity!r}: did you mean {near}?")

    metadata = {_VERSION: str(FORMAT_VERSION).encode()} | ({_KEY: key.encode()} if key else {})
    with atomic_write(path) as tmp_path:
        pyarrow.parquet.write_table(_table(records).replace_schema_metadata(metadata), tmp_path)


def read_key(path: Path) -> str:
    """Return the key that a file of records was written with; empty if there is none."""
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return ""
    return metadata.get(_KEY, b"").decode() if _VERSION in metadata else ""


def read_records(path: Path | str) -> Records:
    """Read the records of a study or a scan.

    Files of the format before (version 1) are converted.

    Args:
        path: A ``records.parquet``, or the folder that holds it.

    Returns:
        The records, in the order in which they were written.

    Raises:
        ValueError: If the file holds no earmark records, or those of a newer earmark.
        FileNotFoundError: If there is no such file.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    path = path / RECORDS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"No records at {path}: run `earmark scan` or `earmark study` first."
        )
    try:
        table = pyarrow.parquet.read_table(path)
        version = int((table.schema.metadata or {}).get(_VERSION, b"1"))
    except (pyarrow.ArrowException, ValueError) as error:
        raise ValueError(f"{path} holds no earmark records: {error}") from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has record format {version}, and this earmark reads up to "
            f"{FORMAT_VERSION}: update earmark."
        )
    try:
        return Records(Record(**row) for row in _current_rows(table.to_pylist(), version))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no earmark records: {error}") from error


def _current_rows(rows: list[dict[str, Any]], version: int) -> Iterator[dict[str, Any]]:
    return (convert_row(row) for row in rows) if version == 1 else iter(rows)


def json_schema() -> dict[str, object]:
    """Return the JSON schema of one record, as published in ``docs``."""
    kinds = {"str": "string", "float": "number", "int": "integer"}
    properties: dict[str, object] = {}
    for field in fields(Record):
        kind, *optional = str(field.type).split(" | ")
        properties[field.name] = {"type": [kinds[kind], "null"] if optional else kinds[kind]}
    properties["quantity"] = {
        "type": "string",
        "anyOf": [
            *(
                {"const": quantity.name, "description": quantity.description}
                for quantity in QUANTITIES.values()
            ),
            {"pattern": "^[A-Za-z0-9_.-]+:", "description": "quantity of a plug-in"},
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"earmark record, format {FORMAT_VERSION}",
        "type": "object",
        "properties": properties,
        "required": [*_FIELDS],
        "additionalProperties": False,
    }


def _table(records: Sequence[Record]) -> Any:
    import pyarrow

    kinds = {"str": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    schema = pyarrow.schema([
        (field.name, kinds[str(field.type).split(" |")[0]]) for field in fields(Record)
    ])
    return pyarrow.Table.from_pylist([vars(record) for record in records], schema=schema)
