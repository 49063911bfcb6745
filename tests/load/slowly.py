"""The slow way that `load` must equal: each row in its order, in a savepoint of its own, failures left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Table
from sqlalchemy.exc import DBAPIError

from savepoints._databases import capabilities
from savepoints._load.convert import Conversion
from tests.harness.sites import POSTGRESQL_RESET

Row = tuple[Any, ...]


def emptied(engine: Engine) -> None:
    """Other tests on the same server leave their tables."""
    with engine.begin() as connection:
        POSTGRESQL_RESET.empty(connection, MetaData())


@dataclass
class Slow:
    """What became of the rows: the kind of error of each that was refused, and which duplicates were skipped."""

    refused: dict[int, str] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    updated: int = 0


def slowly(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    names: Sequence[str] = (),
    on_conflict: str = "reject",
    key: Sequence[str] = (),
) -> Slow:
    """Insert them, or update the row that has the same key.

    Where the database reads text for any type (psycopg sends it as such), a row goes there as it is; else values are
    converted first, as `load` does it.
    """
    names = list(names) or [column.name for column in table.columns]
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    insert = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"
    sets = ", ".join(f"{name} = {mark}" for name in names if name not in key)
    update = f"UPDATE {table.name} SET {sets} WHERE {' AND '.join(f'{name} = {mark}' for name in key)}"
    found = Slow()
    for number, given in enumerate(rows):
        values, unfit = _values(connection, table, names, given)
        if unfit is not None:
            found.refused[number] = unfit
            continue
        rest = [value for name, value in zip(names, values, strict=True) if name not in key]
        same = [values[names.index(name)] for name in key]
        nested = connection.begin_nested()
        try:
            if on_conflict == "update" and connection.exec_driver_sql(update, (*rest, *same)).rowcount:
                found.updated += 1
            else:
                connection.exec_driver_sql(insert, tuple(values))
        except (DBAPIError, UnicodeEncodeError, OverflowError) as error:
            nested.rollback()
            kind = _kind(connection, error)
            if on_conflict == "skip" and kind == "unique":
                found.skipped.append(number)
            else:
                found.refused[number] = kind
        else:
            nested.commit()
    return found


def _values(connection: Connection, table: Table, names: list[str], given: Row) -> tuple[list[Any], str | None]:
    """As the driver is to have them, or what is wrong with one."""
    if connection.dialect.paramstyle == "pyformat":
        return [None if cell is None else str(cell) for cell in given], None
    convert = [Conversion(table.c[name], connection.dialect, from_text=False, served=False) for name in names]
    done = [convert[at]((cell,)) for at, cell in enumerate(given)]
    unfit = [reasons[0].kind for _, reasons in done if reasons]
    return [cells[0] for cells, _ in done], unfit[0] if unfit else None


def _kind(connection: Connection, error: Exception) -> str:
    fault = capabilities(connection.dialect).fault(getattr(error, "orig", error))
    if fault is None:
        raise error
    return fault.value
