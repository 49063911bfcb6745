"""The databases that are loaded into: each with its table made anew for each load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, MetaData, Table, create_engine, event, func, select
from sqlalchemy.pool import StaticPool

from bench.load import rows
from bench.load.cost import of_family
from tests.servers import Postgres


class Place:
    """A database.

    Attributes:
        name: What it is called in tables.
        text: Rows are text, as a CSV reader gives them; else Python values that need no processing.
    """

    name: str
    text: bool
    engine: Engine

    def __init__(self) -> None:
        self.metadata, self.parent, self.item = rows.tables(typed=self.text)

    def fresh(self) -> None:
        """Empty tables, with all the parents."""
        self.make(self.metadata)
        with self.engine.begin() as connection:
            connection.execute(self.parent.insert(), [{"id": number} for number in range(rows.PARENTS)])

    def make(self, metadata: MetaData) -> None:
        """These tables anew."""
        with self.engine.begin() as connection:
            metadata.drop_all(connection)
            metadata.create_all(connection)

    def count(self, table: Table) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def server(self) -> float:
        """CPU seconds of the server so far."""
        return 0.0

    def url(self) -> str:
        return self.engine.url.render_as_string(hide_password=False)


class Embedded(Place):
    """SQLite in memory, with foreign keys: its CPU is that of this process."""

    name = "SQLite in memory"
    text = False

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(self.engine, "connect", self._on_connect)

    @staticmethod
    def _on_connect(connection: Any, record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")


class Server(Place):
    """A PostgreSQL server, through psycopg."""

    name = "PostgreSQL"
    text = True

    def __init__(self, postgres: Postgres) -> None:
        super().__init__()
        self.engine = create_engine(postgres.url())
        self._pid = int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])

    def server(self) -> float:
        return of_family(self._pid)


@contextmanager
def opened(names: str) -> Iterator[list[Place]]:
    """The databases asked for; a server runs as long as the benchmark."""
    if names == "embedded":
        yield [Embedded()]
        return
    postgres = Postgres()
    try:
        server = Server(postgres)
        yield [server] if names == "server" else [Embedded(), server]
        server.engine.dispose()
    finally:
        postgres.stop()
