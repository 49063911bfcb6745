"""Rows as SQL: whole columns at a time, for that is where a driver's own `executemany` spends its time.

What needs no thought is written here; a text with a quote or a backslash is the driver's to write, who knows the mode.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any

from sqlalchemy import Column as AnyColumn
from sqlalchemy.engine import Dialect

from savepoints._databases import Fault
from savepoints._load.convert import Conversion
from savepoints._load.databases.mariadb.rules import Column, finite
from savepoints._load.intake import Row
from savepoints._load.reasons import Reason, reason

NULL = "NULL"
_NONE = type(None)

Cells = list[list[str]]
Refused = dict[int, list[Reason]]


class Literals:
    """Writes the values of a table's columns.

    Args:
        columns: The columns as the server has them, by name.
        driver: The driver's connection.
        dialect: SQLAlchemy's.
    """

    def __init__(self, columns: dict[str, Column], driver: Any, dialect: Dialect) -> None:
        self._columns = columns
        self._driver = driver
        self._dialect = dialect
        self._conversions: dict[str, Conversion] = {}
        self._encoding = str(getattr(driver, "encoding", None) or getattr(driver, "_encoding", None) or "utf-8")
        #: What text is sent in, if that has not all characters.
        self._narrow = None if self._encoding.lower().startswith("utf") else self._encoding
        self._ways: dict[type, Callable[[Any], str]] = {
            int: str,
            bool: lambda value: str(int(value)),
            float: _float,
            Decimal: _decimal,
            str: self._text,
            bytes: lambda value: f"x'{value.hex()}'",
            bytearray: lambda value: f"x'{value.hex()}'",
            datetime.date: lambda value: f"'{value}'",
            datetime.datetime: lambda value: f"'{value}'",
            datetime.time: lambda value: f"'{value}'",
            datetime.timedelta: self._by_driver,
        }

    def write(self, names: Sequence[str], rows: list[Row]) -> tuple[Cells, Refused]:
        """The values of rows by column, and why some of them cannot be written, or would not stay as they are."""
        refused: Refused = {}
        found = []
        for at, name in enumerate(names):
            done, unfit = self._column(name, list(map(itemgetter(at), rows)))
            found.append(done)
            for place, why in unfit.items():
                refused.setdefault(place, []).append(why)
        return found, refused

    def _column(self, name: str, cells: list[Any]) -> tuple[list[str], dict[int, Reason]]:
        column = self._columns.get(name)
        kinds = set(map(type, cells))
        refused: dict[int, Reason] = {}
        if column is not None:
            if str in kinds and column.kind is not None and not column.is_text:
                cells, refused = self._as_its_kind(column, cells)
                kinds = set(map(type, cells))
            if not kinds <= column.exact:
                cells = list(map(column.rounded, cells))
                refused |= _altered(column, cells)
                kinds = set(map(type, cells))
            if column.range is not None and not _all_in(column.range, cells, kinds):
                refused |= _out_of(column.range, column, cells)
        kinds.discard(_NONE)
        if len(kinds) == 1 and not refused:
            written = self._alike(kinds.pop(), cells)
            if written is not None:
                return written, refused
        return self._one_by_one(name, cells, refused)

    def _alike(self, kind: type, cells: list[Any]) -> list[str] | None:
        """Values of one class, NULLs among them: the usual case."""
        if kind is str:
            try:
                text = "".join(cells)
            except TypeError:
                text = "".join([cell for cell in cells if cell is not None])
            if self._narrow is None and "'" not in text and "\\" not in text and "\0" not in text:
                return [NULL if cell is None else f"'{cell}'" for cell in cells]
        if kind is int and None not in cells:
            return list(map(str, cells))
        if kind is datetime.date and None not in cells:
            return [f"'{text}'" for text in map(datetime.date.isoformat, cells)]
        return None

    def _one_by_one(
        self, name: str, cells: list[Any], refused: dict[int, Reason]
    ) -> tuple[list[str], dict[int, Reason]]:
        found = []
        for at, cell in enumerate(cells):
            try:
                found.append(NULL if cell is None or at in refused else self._way(type(cell))(cell))
            except Exception as error:  # the driver's own of some class
                found.append(NULL)
                refused[at] = reason(Fault.ENCODING if isinstance(error, UnicodeError) else Fault.TYPE, name)
        return found, refused

    def _way(self, kind: type) -> Callable[[Any], str]:
        way = self._ways.get(kind)
        if way is None:
            near = next((self._ways[base] for base in kind.__mro__ if base in self._ways), None)
            if near is None:
                raise TypeError(kind)
            self._ways[kind] = way = near
        return way

    def _text(self, value: str) -> str:
        if self._narrow is not None:
            value.encode(self._narrow)
        if "'" in value or "\\" in value or "\0" in value:
            return self._by_driver(str(value))
        return f"'{value}'"

    def _by_driver(self, value: Any) -> str:
        found: str | bytes = self._driver.escape(value)
        return found if isinstance(found, str) else found.decode(self._encoding)

    def _as_its_kind(self, column: Column, cells: list[Any]) -> tuple[list[Any], dict[int, Reason]]:
        """Text for a column that is none, whatever SQLAlchemy's Table says: the server would take a part of it."""
        conversion = self._conversions.get(column.name)
        if conversion is None:
            made: AnyColumn[Any] = AnyColumn(column.name, column.kind)
            conversion = Conversion(made, self._dialect, from_text=True, served=False)
            self._conversions[column.name] = conversion
        done, refused = conversion(cells)
        return list(done), refused


def _float(value: float) -> str:
    text = repr(value)
    if not text[-1].isdigit():
        raise ValueError(value)  # infinity, or no number
    return text if "e" in text else f"{text}e0"


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(value)
    return f"{value:f}"


def _all_in(of: tuple[int, int], cells: list[Any], kinds: set[type]) -> bool:
    """Whether all are whole numbers that fit, as is usual."""
    numbers = cells if _NONE not in kinds else [cell for cell in cells if cell is not None]
    return kinds <= {int, _NONE} and (not numbers or (of[0] <= min(numbers) and max(numbers) <= of[1]))


def _out_of(of: tuple[int, int], column: Column, cells: list[Any]) -> dict[int, Reason]:
    message = f"the value of {column.name} is out of the range of {column.type}"
    why = reason(Fault.TYPE, column.name, message=message, code="1264")
    numbers = ((at, cell) for at, cell in enumerate(cells) if isinstance(cell, (int, float, Decimal)))
    return {at: why for at, cell in numbers if not (finite(cell) and of[0] - 1 < cell < of[1] + 1)}


def _altered(column: Column, cells: list[Any]) -> dict[int, Reason]:
    """Values that the column would round or cut without a word."""
    message = f"{column.name} would not keep the value as it is: its type is {column.type}"
    why = reason(Fault.TYPE, column.name, message=message)
    return {at: why for at, cell in enumerate(cells) if cell is not None and not column.keeps(cell)}
