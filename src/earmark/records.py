"""Records: the one tidy row type of every result, and its Parquet file."""

from __future__ import annotations  # a field's type is its name, which the schema maps

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ._io import atomic_write, check_regular_file, has_seal, new_seal, write_seal
from ._records_v1 import convert_row
from ._tabular import arrow_to_pandas, html_table
from ._text import replace_surrogates
from .quantities import QUANTITIES, all_quantities

RECORDS_FILE = "records.parquet"
SCAN_FILE = "scan.json"
SAMPLES_FOLDER = "samples"  # of sheets of sample images
FORMAT_VERSION = 4
MAX_NUMBER = 1e50
"""Largest number of any record; the fourth power of a larger one may overflow."""
_KEY = "earmark key"
_VERSION = "earmark format"
_SEAL = "earmark seal"
_MAX_FILE_BYTES = 2**31
_MAX_ROWS = 2_000_000  # eight times those of the largest study
_MAX_TABLE_BYTES = 2**30  # ten times those of the largest study, with each text as often as it is


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
        group: For a family: the figures that show it (main, large or small). For a control: its
            kind.
        alpha: Share of the finetuned weights in an interpolated model (Wise-FT).
        baseline: Name of the baseline that effective robustness is measured from.
        basis: Basis of the directions: singular, neuron, random.
        seed: Seed of a random basis.
        threshold: Lowest average precision at which a concept counts as encoded.
        control: Control applied to a count of concepts; empty for the paper's count.
        width: Number of directions that a count is rarefied to.
        min_positives: Smallest number of positives of the counted concepts.
        preprocessing: What is done to each image before the model sees it.
        cluster: Cluster of a concept: those of one cluster may depend on each other.
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
    preprocessing: str = ""
    cluster: str = ""


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


def with_valid_text(records: Sequence[Record]) -> Records:
    """Return records whose text can be written: names of files need not be UTF-8."""
    return Records(
        replace(record, **changed) if (changed := _find_invalid_text(record)) else record
        for record in records
    )


def _find_invalid_text(record: Record) -> dict[str, Any]:
    """Return the fields with lone surrogates, with a mark in place of each."""
    texts = {name: value for name, value in vars(record).items() if isinstance(value, str)}
    return {
        name: replace_surrogates(value)
        for name, value in texts.items()
        if not value.isascii() and value != replace_surrogates(value)
    }


def select(records: Iterable[Record], **wanted: object) -> list[Record]:
    """Return the records whose fields have the wanted values, in their order."""
    if unknown := [name for name in wanted if name not in _FIELD_TYPES]:
        raise TypeError(f"Record has no field {unknown[0]!r}: it has {', '.join(_FIELD_TYPES)}.")
    return [
        record
        for record in records
        if all(getattr(record, field) == value for field, value in wanted.items())
    ]


_FIELD_TYPES = {field.name: str(field.type) for field in fields(Record)}


def write_records(path: Path, records: Sequence[Record], *, key: str = "") -> None:
    """Write records as one Parquet file with a checksum, atomically.

    Args:
        path: The file to make or replace.
        records: The rows, in order.
        key: Hash of everything that determines them, for `read_keyed_records`.

    Raises:
        ValueError: If a record's quantity is in no registry, or a number of it is not finite
            or larger than any of its kind.
    """
    import pyarrow.parquet

    known = all_quantities()
    for record in records:
        if record.quantity not in known:
            near = get_close_matches(record.quantity, known, n=1)
            raise ValueError(f"No quantity {record.quantity!r}: did you mean {near}?")
    table, seal = _table(records), new_seal()
    _check_numbers(table)
    metadata = {_VERSION: str(FORMAT_VERSION), _SEAL: seal} | ({_KEY: key} if key else {})
    with atomic_write(path) as tmp_path:
        with pyarrow.parquet.ParquetWriter(tmp_path, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(metadata)
        write_seal(tmp_path, seal)


def read_records(path: Path | str) -> Records:
    """Read the records of a study or a scan.

    Files of the format before (version 1) are converted. Files of an earlier earmark have no
    checksum, and are read without one.

    Args:
        path: A ``records.parquet``, or the folder that holds it.

    Returns:
        The records, in the order in which they were written.

    Raises:
        ValueError: If the file is damaged, or holds no earmark records, or those of a newer
            earmark.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    path = path / RECORDS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"No records at {path}: run `earmark scan` or `earmark study` first."
        )
    try:
        table, metadata = _read_table(path)
        version = _read_version(path, metadata)
        if version <= FORMAT_VERSION:
            return _to_records(path, table, version)
    except ValueError as error:
        raise ValueError(f"{error} Run the scan or study again, which makes it anew.") from error
    raise ValueError(
        f"{path} has record format {version}, and this earmark reads up to "
        f"{FORMAT_VERSION}: update earmark."
    )


def read_keyed_records(path: Path, key: str) -> Records | None:
    """Read the records that were written with a key, if a file holds them.

    Args:
        path: A file of `write_records`; it need not exist.
        key: Key that they were written with.

    Returns:
        The records; None if the file is missing, has another key, or has no checksum.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.exists():
        return None
    table, metadata = _read_table(path)
    if _SEAL.encode() not in metadata or metadata.get(_KEY.encode()) != key.encode():
        return None
    return _to_records(path, table, _read_version(path, metadata))


def _read_table(path: Path) -> tuple[Any, dict[bytes, bytes]]:
    """Read the table of a Parquet file, after its checksum, and its metadata."""
    import pyarrow.parquet

    check_regular_file(path, max_bytes=_MAX_FILE_BYTES)
    is_sealed = has_seal(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            metadata: dict[bytes, bytes] = file.metadata.metadata or {}
            names = _check_layout(file)
        # A text that repeats takes its bytes once in the file, and here.
        with pyarrow.parquet.ParquetFile(path, read_dictionary=names) as file:
            table = _read_columns(file, names)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _foreign_file_error(path, error) from error
    if _SEAL.encode() in metadata and not is_sealed:
        raise ValueError(f"{path} is damaged: its checksum cannot be read.")
    return table, metadata


def _check_layout(file: Any) -> list[str]:
    """Return the names of a file's columns, once its footer tells that they can be read."""
    layout = file.metadata
    names: list[str] = file.schema.names
    if layout.num_rows > _MAX_ROWS:
        raise ValueError(f"it has {layout.num_rows:,} rows, more than the {_MAX_ROWS:,} of any")
    columns = [file.schema.column(number) for number in range(len(names))]
    if any(column.max_repetition_level for column in columns) or not all(
        name.isidentifier() and column.path == name
        for name, column in zip(names, columns, strict=True)
    ):
        raise ValueError("a column of it holds lists or tables")
    groups = (layout.row_group(number) for number in range(layout.num_row_groups))
    if (n_bytes := sum(group.total_byte_size for group in groups)) > _MAX_TABLE_BYTES:
        raise ValueError(f"it unpacks to {n_bytes:,} bytes, more than those of any")
    return names


def _read_columns(file: Any, names: Sequence[str]) -> Any:
    """Read columns one by one, up to the limit of bytes."""
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute
    columns: dict[str, Any] = {}
    n_bytes = 0
    for name in names:
        columns[name] = column = file.read(columns=[name])[name]
        n_bytes += column.nbytes
        for chunk in column.chunks if pyarrow.types.is_dictionary(column.type) else ():
            lengths = compute.binary_length(chunk.dictionary).cast(pyarrow.int64())
            n_bytes += compute.sum(lengths.take(chunk.indices)).as_py() or 0
        if n_bytes > _MAX_TABLE_BYTES:
            raise ValueError(f"its columns up to {name} take {n_bytes:,} bytes, too many for any")
    return pyarrow.table(columns)


def _read_version(path: Path, metadata: Mapping[bytes, bytes]) -> int:
    try:
        return int(metadata.get(_VERSION.encode(), b"1"))
    except ValueError as error:
        raise _foreign_file_error(path, error) from error


def _to_records(path: Path, table: Any, version: int) -> Records:
    """Convert a table of any format; a ValueError says what in it is no record."""
    import pyarrow

    try:
        if version > 1:
            schema = _schema()
            table = table.cast(pyarrow.schema([schema.field(name) for name in table.column_names]))
        else:
            table = _table([Record(**convert_row(row)) for row in table.to_pylist()])
        _check_cells(table)
        _check_numbers(table)
        return Records(Record(**row) for row in table.to_pylist())
    except (pyarrow.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _foreign_file_error(path, error) from error


def _foreign_file_error(path: Path, error: Exception) -> ValueError:
    reason = " ".join(f"{error}".split()).rstrip(".")
    return ValueError(f"{path} holds no earmark records: {reason}.")


def _check_cells(table: Any) -> None:
    for name in table.column_names:
        if table[name].null_count and not _FIELD_TYPES[name].endswith("None"):
            raise ValueError(f"a cell of its column {name} is empty")


def _check_numbers(table: Any) -> None:
    """Raise a ValueError for a number that is not finite, or larger than any of its kind."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported
    quantities = table["quantity"].combine_chunks().dictionary_encode()
    for name in table.column_names:
        if not _FIELD_TYPES[name].startswith("float"):
            continue
        limits = [_largest_number(quantity, name) for quantity in quantities.dictionary.to_pylist()]
        row_limits = pyarrow.array(limits, pyarrow.float64()).take(quantities.indices)
        is_sound = compute.less_equal(compute.abs(table[name]), row_limits)  # false for nan
        if (row := compute.index(is_sound, False).as_py()) >= 0:
            (record,) = table.slice(row, 1).to_pylist()
            raise ValueError(
                f"A record of {record['quantity']} for {record.get('model')!r} has the {name} "
                f"{record[name]}, which must be finite and at most {row_limits[row].as_py():g} in "
                "size: check the weights and the images."
            )


def _largest_number(quantity: str, name: str) -> float:
    """Return a bound of a field beyond any measurement, and within what figures can draw."""
    is_pruned_fraction = name == "coordinate" and quantity.startswith("pruned_")
    if name in {"alpha", "threshold"} or is_pruned_fraction:
        return 10.0
    if name == "coordinate":
        return 1e9
    unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
    return {"fraction": 10.0, "points": 10.0, "count": 1e12}.get(unit, MAX_NUMBER)


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
        "required": [*_FIELD_TYPES],
        "additionalProperties": False,
    }


def _table(records: Sequence[Record]) -> Any:
    import pyarrow

    schema = _schema()
    try:
        return pyarrow.Table.from_pylist([vars(record) for record in records], schema=schema)
    except UnicodeEncodeError:
        return _table(with_valid_text(records))


def _schema() -> Any:
    import pyarrow

    types = {"str": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    return pyarrow.schema([
        (name, types[kind.split(" |")[0]]) for name, kind in _FIELD_TYPES.items()
    ])
