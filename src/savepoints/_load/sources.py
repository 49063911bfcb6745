"""Where rows come from: anything to iterate over, files, data frames. All are read piece by piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from savepoints import errors
from savepoints._databases import Fault
from savepoints._load.reasons import Reject
from savepoints._load.rejects import Rejects


class Broken(NamedTuple):
    """A record that could not even be read into a row.

    Attributes:
        raw: What there was instead.
        fault: What is wrong with it.
        message: The same in words, without values.
        names: Of cells that are too few or too many: the names that they were to have.
    """

    raw: Any
    fault: Fault
    message: str
    names: tuple[str, ...] | None = None


class Taken(NamedTuple):
    """Some rows of a source, as given, in order."""

    rows: list[Any]
    numbers: Sequence[int]
    line: Callable[[int], int | None]  # of the row at an index of this piece


class Source(Protocol):
    """Rows, and what is known of them.

    Attributes:
        names: The names of the fields, where one header holds for all rows; else each row brings its own, or none.
        text: Cells are text, as a file without types has them.
        null: Texts that stand for NULL, if the caller names none.
        again: They are rejects of an earlier load.
    """

    names: tuple[str, ...] | None
    text: bool
    null: tuple[str, ...]
    again: bool

    def take(self, count: int) -> Taken:
        """The next rows, at most so many; none at the end."""

    def share(self) -> float | None:
        """How much has been read, from 0 to 1, where that is known."""

    def close(self) -> None:
        """Close what was opened here."""


def no_line(index: int) -> None:
    """Rows that come from no file of lines."""


class Iterated:
    """Rows of an iterable: mappings, sequences, dataclasses, named tuples, or rejects of an earlier load."""

    names: tuple[str, ...] | None = None

    def __init__(self, rows: Iterable[Any]) -> None:
        self.again = isinstance(rows, Rejects)
        self.text = isinstance(rows, Rejects) and rows.text
        self.null = null_of(text=self.text)
        self._size = len(rows) if isinstance(rows, Sized) else None
        self._rows: Iterator[Any] = iter(rows)
        self._read = 0

    def take(self, count: int) -> Taken:
        rows = list(islice(self._rows, count))
        first, self._read = self._read, self._read + len(rows)
        kinds = set(map(type, rows))
        if Reject in kinds:
            return _again(rows, first)
        if any(is_dataclass(kind) or hasattr(kind, "_fields") for kind in kinds):
            rows = [_as_mapping(row) for row in rows]
        return Taken(rows, range(first, self._read), no_line)

    def share(self) -> float | None:
        return self._read / self._size if self._size else None

    def close(self) -> None:
        """What somebody else has opened stays open."""


def _as_mapping(row: Any) -> Any:
    if is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in fields(row)}
    return dict(zip(row._fields, row, strict=True)) if hasattr(row, "_fields") else row


def _again(rows: list[Any], first: int) -> Taken:
    """Rejects are tried again under their first numbers."""
    found = [row if isinstance(row, Reject) else Reject(first + at, None, row, ()) for at, row in enumerate(rows)]
    return Taken([tried_again(one) for one in found], [one.number for one in found], lambda index: found[index].line)


def tried_again(reject: Reject) -> Any:
    """The row of a reject, with the names that it had then: columns may be asked for in another order now."""
    row = _as_mapping(reject.named)
    if isinstance(row, str):
        return Broken(row, Fault.STRUCTURE, reject.message or "the row is a line that could not be read")
    if reject.names is None or isinstance(row, Mapping):
        return row
    told = f"the row has {len(row)} columns where {len(reject.names)} columns are expected"
    return Broken(row, Fault.STRUCTURE, told if len(row) != len(reject.names) else reject.message, reject.names)


def null_of(*, text: bool) -> tuple[str, ...]:
    """What stands for NULL by default: an empty cell, where there are no types; else nothing but None."""
    return ("",) if text else ()


def open_source(rows: Any, *, encoding: str | None) -> Source:
    """A source of whatever was given.

    Raises:
        BadInput: A file that is not there, cannot be read, or is of another format than its name says.
        WrongArgument: Nothing that rows could come from.
    """
    if isinstance(rows, (str, os.PathLike)):
        from savepoints._load.files import open_file

        return open_file(rows, encoding=encoding)
    if hasattr(rows, "__arrow_c_stream__"):
        from savepoints._load.arrow import from_frame

        return from_frame(rows)
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable) or isinstance(rows, (bytes, bytearray)):
        raise errors.WrongArgument(
            f"rows are not {errors.kind_of(rows)}",
            hint="give an iterable of mappings, tuples or dataclasses, a data frame, or the path of a file",
        )
    return Iterated(rows)
