"""Rows as SQL: whole columns at a time, for that is where a driver's own `executemany` spends its time.

What needs no thought is written here; a text with a quote or a backslash is the driver's to write, who knows the mode.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Column as AnyColumn
from sqlalchemy.engine import Dialect

from savepoints._databases import Fault
from savepoints._load.convert import Conversion
from savepoints._load.databases.mariadb.columns import Column
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
            datetime.timedelta: _span,
            UUID: lambda value: f"'{value}'",
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

    def one(self, value: Any) -> str:
        """A value by itself."""
        return NULL if value is None else self._way(type(value))(value)

    def _column(self, name: str, cells: list[Any]) -> tuple[list[str], dict[int, Reason]]:
        column = self._columns.get(name)
        refused: dict[int, Reason] = {}
        if column is not None:
            if column.kind is not None:
                cells, refused = self._as_its_kind(column, cells)
            cells, unfit = column.kept(cells)
            refused = unfit | refused
        kinds = set(map(type, cells)) - {_NONE}
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
        if not any(issubclass(kind, str) for kind in set(map(type, cells))):
            return cells, {}
        texts = [at for at, cell in enumerate(cells) if isinstance(cell, str)]
        conversion = self._conversions.get(column.name)
        if conversion is None:
            made: AnyColumn[Any] = AnyColumn(column.name, column.kind)
            conversion = Conversion(made, self._dialect, from_text=True, served=False)
            self._conversions[column.name] = conversion
        done, refused = conversion([cells[at] for at in texts])
        found = list(cells)
        for at, cell in zip(texts, done, strict=True):
            found[at] = cell
        return found, {texts[at]: why for at, why in refused.items()}


def _float(value: float) -> str:
    text = float.__repr__(value)
    if not text[-1].isdigit():
        raise ValueError(value)  # infinity, or no number
    return text if "e" in text else f"{text}e0"


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(value)
    return f"{value:f}"


def _span(value: datetime.timedelta) -> str:
    """Not by the driver: of one below zero some take the hours, and the minutes that lead back."""
    minutes, rest = divmod(abs(value), datetime.timedelta(minutes=1))
    sign = "-" if value < datetime.timedelta() else ""
    return f"'{sign}{minutes // 60:02}:{minutes % 60:02}:{rest.seconds:02}.{rest.microseconds:06}'"
