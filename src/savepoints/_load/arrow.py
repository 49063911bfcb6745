"""Columns of Arrow: data frames, Parquet and Arrow files, by pyarrow, which the ``load`` extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from savepoints import errors
from savepoints._load.exact import Unreadable
from savepoints._load.files import reading
from savepoints._load.sources import Taken, no_line, null_of


def pyarrow() -> Any:
    """The reader.

    Raises:
        BadInput: It is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise errors.BadInput("this input needs pyarrow", hint="pip install 'savepoints[load]'") from error
    return pyarrow


class Batches:
    """Rows of record batches, made into Python values batch by batch.

    Args:
        names: Of the columns.
        batches: What is read.
        total: How many rows there are, where that is known.
        path: Of the file that they are read from.
        file: The same, open.
    """

    text = False
    null = null_of(text=False)
    again = False

    def __init__(
        self,
        names: list[str],
        batches: Iterator[Any],
        total: int | None = None,
        path: Path | None = None,
        file: IO[bytes] | None = None,
    ) -> None:
        self.names: tuple[str, ...] | None = tuple(names)
        self._rows = chain.from_iterable(map(_rows, batches))
        self._total = total
        self._path = path
        self._file = file
        self._read = 0

    def take(self, count: int) -> Taken:
        with nullcontext() if self._path is None else reading(self._path):
            rows = list(islice(self._rows, count))
        first, self._read = self._read, self._read + len(rows)
        return Taken(rows, range(first, self._read), no_line)

    def share(self) -> float | None:
        return self._read / self._total if self._total else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _rows(batch: Any) -> Iterator[tuple[Any, ...]]:
    for start in range(0, batch.num_rows, 10_000):
        part = batch.slice(start, 10_000)
        yield from zip(*map(_cells, part.columns), strict=True)


#: What pyarrow raises for a value that Python has none for.
_NONE_SUCH = (ValueError, ArithmeticError)


def _cells(column: Any) -> list[Any]:
    """The values of a column; where Python has none for one, that is an `Unreadable`."""
    kind = _in_microseconds(column.type)
    try:
        found: list[Any] = column.cast(kind).to_pylist() if kind is not column.type else column.to_pylist()
    except _NONE_SUCH:
        return [_cell(scalar, kind) for scalar in column]
    return found


def _cell(scalar: Any, kind: Any) -> Any:
    try:
        return scalar.cast(kind).as_py()
    except _NONE_SUCH:
        return Unreadable(_text(scalar))


def _in_microseconds(kind: Any) -> Any:
    """The same type in the unit that Python's have: with pandas, pyarrow gives classes of that for nanoseconds."""
    types = pyarrow().types
    if types.is_list(kind):
        inner = _in_microseconds(kind.value_type)
        return kind if inner is kind.value_type else pyarrow().list_(inner)
    if getattr(kind, "unit", None) != "ns":
        return kind
    if types.is_timestamp(kind):
        return pyarrow().timestamp("us", kind.tz)
    return pyarrow().time64("us") if types.is_time(kind) else pyarrow().duration("us")


def _text(scalar: Any) -> str:
    types = pyarrow().types
    if types.is_date(scalar.type) or getattr(scalar.type, "unit", None) == "ns":
        return str(scalar.cast(pyarrow().string()).as_py())
    return f"{getattr(scalar, 'value', 'a value')} ({scalar.type})"


def from_frame(frame: Any) -> Batches:
    """A data frame, or anything else with an Arrow C stream."""
    try:
        reader = pyarrow().RecordBatchReader.from_stream(frame)
    except ImportError as error:  # an old pandas asks for pyarrow by itself
        raise errors.BadInput(f"this data frame cannot be read: {error}", hint="install pyarrow") from error
    total = len(frame) if hasattr(frame, "__len__") else None
    return Batches(reader.schema.names, iter(reader), total)


def from_parquet(path: Path, raw: IO[bytes]) -> Batches:
    """A Parquet file."""
    pyarrow()
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(raw)
    except Exception as error:
        raise errors.BadInput(f"{path} is not a Parquet file", hint="give it the name of its format") from error
    return Batches(file.schema_arrow.names, file.iter_batches(10_000), file.metadata.num_rows, path, raw)


def from_ipc(path: Path, raw: IO[bytes]) -> Batches:
    """An Arrow file, with its footer or as a stream."""
    ipc = pyarrow().ipc
    try:
        file = ipc.open_file(raw)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        return Batches(file.schema.names, map(_valid, batches), None, path, raw)
    except pyarrow().ArrowInvalid:
        raw.seek(0)
    try:
        reader = ipc.open_stream(raw)
    except Exception as error:
        raise errors.BadInput(f"{path} is not an Arrow file", hint="give it the name of its format") from error
    return Batches(reader.schema.names, map(_valid, reader), None, path, raw)


def _valid(batch: Any) -> Any:
    """An Arrow file is memory as it is: in a damaged one, lengths may point anywhere."""
    batch.validate(full=True)
    return batch
