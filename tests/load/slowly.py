"""The slow way that `load` must equal: each row in its order, in a savepoint of its own, failures left out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError

from savepoints._databases import capabilities
from savepoints._load.convert import Conversion

Row = tuple[Any, ...]


def slowly(connection: Connection, table: Table, rows: list[Row]) -> dict[int, str]:
    """Insert them; the kind of error of each row that was refused, by its number.

    Where the database reads text for any type (psycopg sends it as such), a row goes there as it is; else values are
    converted first, as `load` does it.
    """
    row = capabilities(connection.dialect)
    names = [column.name for column in table.columns]
    served = connection.dialect.paramstyle == "pyformat"
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"
    convert = [Conversion(column, connection.dialect, from_text=False, served=False) for column in table.columns]
    refused: dict[int, str] = {}
    for number, given in enumerate(rows):
        values: list[Any] = [None if cell is None else str(cell) for cell in given] if served else []
        if not served:
            done = [convert[at]((cell,)) for at, cell in enumerate(given)]
            unfit = [reasons[0] for _, reasons in done if reasons]
            if unfit:
                refused[number] = unfit[0].kind
                continue
            values = [cells[0] for cells, _ in done]
        nested = connection.begin_nested()
        try:
            connection.exec_driver_sql(statement, tuple(values))
        except (DBAPIError, UnicodeEncodeError, OverflowError) as error:
            nested.rollback()
            kind = row.fault(getattr(error, "orig", error))
            if kind is None:
                raise
            refused[number] = kind.value
        else:
            nested.commit()
    return refused
