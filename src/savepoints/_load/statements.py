"""The statements that rows are sent with, compiled once; values have passed SQLAlchemy's bind processors before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, insert, literal_column, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from savepoints._load.intake import Batch, Columns, Row


class Statement:
    """A compiled statement whose parameters are cells of a row, in whatever style the driver has them."""

    def __init__(self, clause: ClauseElement, dialect: Dialect, names: Sequence[str], **options: Any) -> None:
        compiled: Any = clause.compile(dialect=dialect, **options)
        self.sql: str = str(compiled)
        self._names = [compiled.bind_names[bind] for bind in compiled.binds.values()]
        order = list(compiled.positiontup) if compiled.positional else None
        place = {name: at for at, name in enumerate(names)}
        self._order = None if order is None else [place[name] for name in order]
        self._as_is = self._order == list(range(len(names)))
        self._by_name = {name: place[name] for name in compiled.binds if name in place}

    def parameters(self, rows: list[Row]) -> Any:
        """The parameters of many rows."""
        if self._order is None:
            return [{name: row[at] for name, at in self._by_name.items()} for row in rows]
        return rows if self._as_is else [tuple(row[at] for at in self._order) for row in rows]

    def one(self, row: Row) -> Any:
        """The parameters of one row."""
        found = self.parameters([row])[0]
        return found if isinstance(found, dict) else tuple(found)


def insertion(table: Table, columns: Columns, dialect: Dialect) -> Statement:
    """INSERT of one row with these columns; defaults that are SQL are part of it."""
    names = [column.key for column in columns]
    # inline: no RETURNING of keys that the database makes, for nobody would fetch them
    return Statement(insert(table).inline(), dialect, names, column_keys=names)


def _named(columns: Columns) -> dict[Column[Any], Any]:
    return {column: bindparam(f"c{at}", type_=column.type) for at, column in enumerate(columns)}


def _where(key: Columns, values: dict[Column[Any], Any]) -> Any:
    return and_(*(column == values[column] for column in key))


def overwriting(table: Table, batch: Batch, key: Columns, dialect: Dialect) -> Statement | None:
    """UPDATE of the row with the same key; None where rows are nothing but their key, or do not tell it."""
    columns = batch.columns
    values = _named(columns)
    rest = {column.name: values[column] for column in batch.given if column not in key}
    if not rest or not values.keys() >= set(key):
        return None
    names = [f"c{at}" for at in range(len(columns))]
    return Statement(update(table).where(_where(key, values)).values(rest), dialect, names)


def finding(table: Table, columns: Columns, key: Columns, dialect: Dialect) -> Statement:
    """SELECT the primary key of the row with the same values in some columns; 1 where the table has none."""
    names = [f"c{at}" for at in range(len(columns))]
    found: list[ColumnElement[Any]] = [*table.primary_key.columns] or [literal_column("1")]
    return Statement(select(*found).where(_where(key, _named(columns))), dialect, names)
