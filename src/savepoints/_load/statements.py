"""The statements that rows are sent with, compiled once; values have passed SQLAlchemy's bind processors before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, insert, literal_column, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from savepoints._load.intake import Batch, Columns, Row


class Statement:
    """A compiled statement whose parameters are cells of a row, in whatever style the driver has them.

    Args:
        clause: The statement; values that stand in it are sent as they are.
        names: Which parameter each cell of a row is.
        options: SQLAlchemy's, for compiling.
    """

    def __init__(self, clause: ClauseElement, dialect: Dialect, names: Sequence[str], **options: Any) -> None:
        compiled: Any = clause.compile(dialect=dialect, **options)
        self.sql: str = str(compiled)
        place = {name: at for at, name in enumerate(names)}
        constant = {name: bind for name, bind in compiled.binds.items() if name not in place}
        self._constants = tuple(_bound(bind, dialect) for bind in constant.values())
        place |= {name: at for at, name in enumerate(constant, len(names))}
        order = list(compiled.positiontup) if compiled.positional else None
        self._order = None if order is None else [place[name] for name in order]
        self._as_is = self._order == list(range(len(names)))
        # as they stand in the statement: what a driver's style cannot have in a name is written otherwise
        self._by_name = {compiled.escaped_bind_names.get(name, name): place[name] for name in compiled.binds}

    def written(self, write: Callable[[Any], str]) -> Statement:
        """The same for rows that are SQL already: the values that stand in it are written, too."""
        found = copy(self)
        found._constants = tuple(map(write, self._constants))
        return found

    def parameters(self, rows: list[Row]) -> Any:
        """The parameters of many rows."""
        if self._as_is:
            return rows
        if self._constants:
            rows = [(*row, *self._constants) for row in rows]
        if self._order is None:
            return [{name: row[at] for name, at in self._by_name.items()} for row in rows]
        return [tuple(row[at] for at in self._order) for row in rows]

    def one(self, row: Row) -> Any:
        """The parameters of one row."""
        found = self.parameters([row])[0]
        return found if isinstance(found, dict) else tuple(found)


def _bound(bind: Any, dialect: Dialect) -> Any:
    """A value that stands in a statement, as the driver takes it."""
    processor = bind.type.dialect_impl(dialect).bind_processor(dialect)
    return bind.effective_value if processor is None else processor(bind.effective_value)


def wraps_values(table: Table) -> bool:
    """Whether SQLAlchemy puts SQL around the values of a column, which is a part of its own statements only."""
    return any(
        column.type.bind_expression(bindparam("value", type_=column.type)) is not None for column in table.columns
    )


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
    """UPDATE of the row with the same key; None where rows are nothing but their key, or do not tell it.

    Its parameters are those of `Batch.changed`. An ``onupdate`` that is SQL is part of it.
    """
    columns = batch.columns
    values = _named(columns)
    rest: dict[Column[Any], Any] = {column: values[column] for column in batch.given if column not in key}
    if not rest or not values.keys() >= set(key):
        return None
    changing = {column: bindparam(f"u{at}", type_=column.type) for at, column in enumerate(batch.changing)}
    names = [*(f"c{at}" for at in range(len(columns))), *(f"u{at}" for at in range(len(changing)))]
    return Statement(update(table).where(_where(key, values)).values(rest | changing), dialect, names)


def finding(table: Table, columns: Columns, key: Columns, dialect: Dialect) -> Statement:
    """SELECT the primary key of the row with the same values in some columns; 1 where the table has none."""
    names = [f"c{at}" for at in range(len(columns))]
    found: list[ColumnElement[Any]] = [*table.primary_key.columns] or [literal_column("1")]
    return Statement(select(*found).where(_where(key, _named(columns))), dialect, names)
