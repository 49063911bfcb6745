"""A table for rows that have none yet: its columns are those of the input, their types what the values fit."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Column, MetaData, Table, types

from savepoints import errors
from savepoints._load.sources import Broken, open_source

#: So many rows are looked at.
LOOKED_AT = 10_000

# Note [Types by their look]
# A type is chosen only where each text can be had back from the value: "007" and "1.10" stay text, and so does a time
# with an offset, which some databases would drop. A later value that does not fit rejects its row, and the report says
# so. All columns take NULL, and there is no key: the file does not tell.

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.(\d*[1-9]|0)")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_DIGITS = 15  # that a double holds for certain


def table_for(
    rows: Any,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    null: Sequence[str] | None = None,
) -> Table:
    """A table that the rows fit into, not made yet.

    Args:
        rows: The path of a file, or whatever else `load` takes and can be read twice.
        name: The table's name, with its schema if it has one.
        columns: The fields that are taken, with the names of their columns; all of them, if it is left out.
        encoding: Of a file of text.
        null: Texts of a file of text that stand for NULL; an empty one, if it is left out.

    Raises:
        BadInput: The input cannot be read, or tells no names of columns.
    """
    source = open_source(rows, encoding=encoding)
    try:
        taken = source.take(LOOKED_AT).rows
        typed, nulls = source.names is not None, source.null if null is None else null
        kinds = {
            column: _of_text(cells, nulls) if source.text else _of_values(cells, typed=typed)
            for column, cells in _by_column(_by_field(source.names, taken), columns)
        }
    finally:
        source.close()
    if not kinds:
        raise errors.BadInput("the input names no columns to make a table of", hint="create the table first")
    schema, _, table = name.rpartition(".")
    return Table(table, MetaData(), *(Column(*one) for one in kinds.items()), schema=schema or None)


Cells = list[tuple[str, list[Any]]]


def _by_column(fields: Cells, columns: Mapping[str, str] | None) -> Cells:
    if columns is None:
        return [(name, cells) for name, cells in fields if name]
    return [(columns[name], cells) for name, cells in fields if name in columns]


def _by_field(names: tuple[str, ...] | None, rows: list[Any]) -> Cells:
    """The cells of each field."""
    rows = [row for row in rows if not isinstance(row, Broken)]
    if names is not None:
        return [(name, [row[at] for row in rows if at < len(row)]) for at, name in enumerate(names)]
    found: dict[str, list[Any]] = {}
    for row in (row for row in rows if isinstance(row, Mapping)):
        for name, value in row.items():
            found.setdefault(str(name), []).append(value)
    return list(found.items())


def _whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None


def _decimal(text: str) -> bool:
    return _whole(text) or (_DECIMAL.fullmatch(text) is not None and len(text.lstrip("-0.")) <= _DIGITS + 1)


def _day(text: str) -> bool:
    return _DAY.fullmatch(text) is not None and _read(datetime.date.fromisoformat, text)


def _moment(text: str) -> bool:
    return _MOMENT.fullmatch(text) is not None and _read(datetime.datetime.fromisoformat, text)


def _read(parse: Callable[[str], Any], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


#: The first of them that all texts of a column fit; see Note [Types by their look].
_LOOKS: tuple[tuple[Callable[[str], bool], type[types.TypeEngine[Any]]], ...] = (
    (_whole, types.BigInteger),
    (_decimal, types.Double),
    (_day, types.Date),
    (_moment, types.DateTime),
)


def _of_text(cells: list[str], null: Sequence[str]) -> types.TypeEngine[Any]:
    given = [cell for cell in cells if cell not in null]
    for fits, kind in _LOOKS if given else ():
        if all(map(fits, given)):
            return kind()
    return types.Text()


_VALUES: dict[type, type[types.TypeEngine[Any]]] = {
    bool: types.Boolean,
    int: types.BigInteger,
    float: types.Double,
    Decimal: types.Numeric,
    datetime.date: types.Date,
    datetime.datetime: types.DateTime,
    datetime.time: types.Time,
    bytes: types.LargeBinary,
    UUID: types.Uuid,
    dict: types.JSON,
    list: types.JSON,
}


def _of_values(cells: list[Any], *, typed: bool) -> types.TypeEngine[Any]:
    """By the classes of values, as typed files and JSON have them."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if not typed and Decimal in kinds <= {int, Decimal}:  # numbers of JSON
        digits = (len(Decimal(cell).as_tuple().digits) for cell in cells if cell is not None)
        return types.Double() if max(digits) <= _DIGITS else types.Text()
    if kinds == {int, float}:
        kinds = {float}
    found = {_VALUES.get(kind, types.Text) for kind in kinds}
    if types.JSON in found:  # it takes the others as well
        return types.JSON()
    return found.pop()() if len(found) == 1 else types.Text()
