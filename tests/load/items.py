"""A small table in memory, for what has nothing to do with the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, create_engine, select

from savepoints import rejects_table

metadata = MetaData()
item: Table = Table(
    "item",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(20), nullable=False),
    Column("size", Integer),
)
rejects: Table = rejects_table(metadata)


@contextmanager
def in_memory(tables: MetaData = metadata) -> Iterator[Connection]:
    """A connection to a database with these tables."""
    engine = create_engine("sqlite://")
    tables.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def rows_of(connection: Connection, table: Table = item) -> list[Any]:
    """What is in the table, by its first column."""
    return [tuple(row) for row in connection.execute(select(table).order_by(next(iter(table.columns))))]
