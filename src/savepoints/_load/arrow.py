"""Columns of Arrow: data frames, Parquet and Arrow files, by pyarrow, which the ``load`` extra installs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from savepoints import errors
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
    """Rows of record batches, made into Python values batch by batch."""

    text = False
    null = null_of(text=False)
    again = False

    def __init__(self, names: list[str], batches: Iterator[Any], total: int | None, file: IO[bytes] | None) -> None:
        self.names: tuple[str, ...] | None = tuple(names)
        self._rows = chain.from_iterable(map(_rows, batches))
        self._total = total
        self._file = file
        self._read = 0

    def take(self, count: int) -> Taken:
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
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def from_frame(frame: Any) -> Batches:
    """A data frame, or anything else with an Arrow C stream."""
    try:
        reader = pyarrow().RecordBatchReader.from_stream(frame)
    except ImportError as error:  # an old pandas asks for pyarrow by itself
        raise errors.BadInput(f"this data frame cannot be read: {error}", hint="install pyarrow") from error
    total = len(frame) if hasattr(frame, "__len__") else None
    return Batches(reader.schema.names, iter(reader), total, None)


def from_parquet(path: Path, raw: IO[bytes]) -> Batches:
    """A Parquet file."""
    pyarrow()
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(raw)
    except Exception as error:
        raise errors.BadInput(f"{path} is not a Parquet file", hint="give it the name of its format") from error
    return Batches(file.schema_arrow.names, file.iter_batches(10_000), file.metadata.num_rows, raw)


def from_ipc(path: Path, raw: IO[bytes]) -> Batches:
    """An Arrow file, with its footer or as a stream."""
    ipc = pyarrow().ipc
    try:
        file = ipc.open_file(raw)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        return Batches(file.schema.names, batches, None, raw)
    except pyarrow().ArrowInvalid:
        raw.seek(0)
    try:
        reader = ipc.open_stream(raw)
    except Exception as error:
        raise errors.BadInput(f"{path} is not an Arrow file", hint="give it the name of its format") from error
    return Batches(reader.schema.names, iter(reader), None, raw)
