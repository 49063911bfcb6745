"""Rows in the text format of COPY: a line each, whole columns at a time."""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from itertools import compress, count
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from savepoints._databases import Fault
from savepoints._load.convert import encodes
from savepoints._load.intake import Batch, Row, kept
from savepoints._load.reasons import Reason, reason

#: So many rows are written into one message.
LINES = 2000
NULL = "\\N"

Write = Callable[[Any], str]


class Unwritable(ValueError):
    """A value that PostgreSQL cannot be told in text: a NUL in it, or a class that nobody knows."""


_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _interval(value: datetime.timedelta) -> str:
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


def bytes_text(value: Any) -> str:
    """Bytes, as PostgreSQL writes them."""
    return f"\\x{bytes(value).hex()}"


def range_text(value: Any) -> str:
    """A range of psycopg2 or asyncpg; psycopg has its own dumper."""
    if getattr(value, "isempty", False):
        return "empty"
    low, high = ("" if end is None else f'"{_quoted(str(end))}"' for end in (value.lower, value.upper))
    return f"{'[' if value.lower_inc else '('}{low},{high}{']' if value.upper_inc else ')'}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_WRITERS: dict[type, Write] = {
    str: str,
    bool: lambda value: "t" if value else "f",
    int: str,
    float: _float,
    Decimal: str,
    datetime.datetime: datetime.datetime.isoformat,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: _interval,
    UUID: str,
    bytes: bytes_text,
    bytearray: bytes_text,
    memoryview: bytes_text,
    **dict.fromkeys(_ADDRESSES, str),
}


class Writer:
    """Writes values and rows.

    Args:
        adapt: How the driver writes a value of a class that is not known here.
    """

    def __init__(self, adapt: Write) -> None:
        self._adapt = adapt
        self._writers = dict(_WRITERS) | {list: self._array, tuple: self._array}

    def value(self, value: Any) -> str | None:
        """One value as text, before COPY's marks; None is NULL."""
        if value is None:
            return None
        text = self._writer(type(value))(value)
        if "\0" in text or not encodes(text):
            raise Unwritable
        return text

    def _writer(self, kind: type) -> Write:
        found = self._writers.get(kind)
        if found is None:
            known = (self._writers[base] for base in kind.__mro__ if base in self._writers)
            found = self._writers[kind] = next(known, self._adapt)
        return found

    def _array(self, value: Sequence[Any]) -> str:
        return f"{{{','.join(map(self._element, value))}}}"

    def _element(self, value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return self._array(value)
        text = self.value(value)
        if text is None:
            return "NULL"
        return f'"{_quoted(text)}"'

    def column(self, cells: Sequence[Any]) -> list[str]:
        """The cells of one column as COPY has them."""
        kinds = set(map(type, cells))
        if kinds == {int}:
            return list(map(str, cells))
        values: Sequence[str | None] = cells if kinds <= {str, type(None)} else [self.value(cell) for cell in cells]
        marks = _marks("".join([text for text in values if text is not None]))
        if not marks:
            return [NULL if text is None else text for text in values]
        return [NULL if text is None else _marked(text, marks) for text in values]

    def lines(self, rows: list[Row], width: int) -> list[str]:
        """Rows as lines, without their ends.

        Raises:
            Unwritable: One of them cannot be written; which, `unwritable` tells.
        """
        lines = self._of_text(rows, width)
        if lines is None:
            lines = self._of_columns(rows, width)
            if not encodes("".join(lines)):
                raise Unwritable
        return lines

    def _of_columns(self, rows: list[Row], width: int) -> list[str]:
        columns = [self.column(list(map(itemgetter(at), rows))) for at in range(width)]
        return list(map("\t".join, zip(*columns, strict=True))) if columns else [""] * len(rows)

    def _of_text(self, rows: list[Row], width: int) -> list[str] | None:
        """Rows of text, and a few that hold NULLs: joined as they are; None where there is something to escape."""
        if not {str, type(None)}.issuperset(map(type, rows[0])):
            return None
        few: dict[int, Row] = {}
        lines: list[str] = []
        left = iter(rows)
        while True:
            try:
                lines.extend(map("\t".join, left))
                break
            except TypeError:  # goes on behind that row
                few[len(lines)] = rows[len(lines)]
                lines.append("\t" * (width - 1))
        joined = "\n".join(lines)
        tabs, ends = len(rows) * (width - 1), len(rows) - 1
        if joined.count("\t") != tabs or joined.count("\n") != ends or any(char in joined for char in "\\\r\0"):
            return None
        if not (joined.isascii() or encodes(joined)):
            raise Unwritable
        if few:
            for at, line in zip(few, self._of_columns(list(few.values()), width), strict=True):
                lines[at] = line
        return lines

    def unwritable(self, rows: list[Row]) -> Iterator[tuple[int, int]]:
        """The index of each row that cannot be written, with each such column."""
        for at, row in enumerate(rows):
            for place, cell in enumerate(row):
                try:
                    self.value(cell)
                except Unwritable:
                    yield at, place


class Written(NamedTuple):
    """Rows as lines.

    Attributes:
        batch: Those that can be written.
        blocks: Their lines, so many together as go into one message.
        rest: The others, with NULL in place of what cannot be written.
        refused: Why not, by the index in ``rest``.
    """

    batch: Batch
    blocks: list[list[str]]
    rest: Batch
    refused: dict[int, list[Reason]]

    def messages(self) -> Iterator[bytes]:
        """All of them."""
        return map(_message, self.blocks)

    def numbered(self) -> Iterator[bytes]:
        """All of them, each with its index in front."""
        mark = "\t" if self.batch.columns else ""
        for start, block in zip(count(0, LINES), self.blocks, strict=False):
            yield _message([f"{number}{mark}{line}" for number, line in enumerate(block, start)])

    def without(self, out: Iterable[int]) -> Iterator[bytes]:
        """All but those at some indexes."""
        left_out = defaultdict(list)
        for at in out:
            left_out[at // LINES].append(at % LINES)
        for number, block in enumerate(self.blocks):
            if number in left_out:
                block = list(compress(block, kept(len(block), left_out[number])))
            if block:
                yield _message(block)


def _message(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def written(writer: Writer, batch: Batch) -> Written:
    """Rows as lines, without those that cannot be told in text: a NUL in a text, a class that nobody knows."""
    try:
        return Written(batch, _blocks(writer, batch), batch.part(0, 0), {})
    except Unwritable:
        bad: dict[int, dict[int, Reason]] = {}
        for at, place in writer.unwritable(batch.rows):
            bad.setdefault(at, {})[place] = unwritten(batch, at, place)
    batch, rest, refused = apart(batch, bad)
    return Written(batch, _blocks(writer, batch), rest, refused)


def unwritten(batch: Batch, at: int, place: int) -> Reason:
    """Why a value cannot be written."""
    fault = Fault.ENCODING if isinstance(batch.rows[at][place], str) else Fault.TYPE
    return reason(fault, batch.columns[place].name)


def apart(batch: Batch, bad: Mapping[int, Mapping[int, Reason]]) -> tuple[Batch, Batch, dict[int, list[Reason]]]:
    """Rows without those that are refused; and these, with NULL for each value that they are refused for, and why."""
    rest, refused = batch.only(bad), {}
    for at, number in enumerate(sorted(bad)):
        rest.rows[at] = [None if place in bad[number] else cell for place, cell in enumerate(rest.rows[at])]
        refused[at] = [bad[number][place] for place in sorted(bad[number])]
    return batch.without(bad), rest, refused


def _blocks(writer: Writer, batch: Batch) -> list[list[str]]:
    starts = range(0, len(batch.rows), LINES)
    return [writer.lines(batch.rows[start : start + LINES], len(batch.columns)) for start in starts]


#: What COPY's text format gives a meaning to, the escape character first.
_MARKS = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def _marks(joined: str) -> list[tuple[str, str]]:
    """What of it is there to be escaped."""
    if "\0" in joined:
        raise Unwritable
    return [(char, mark) for char, mark in _MARKS if char in joined]


def _marked(cell: str, marks: list[tuple[str, str]]) -> str:
    for char, mark in marks:
        cell = cell.replace(char, mark)
    return cell
