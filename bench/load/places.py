"""The databases that are loaded into: each with its table made anew for each load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, MetaData, Table, create_engine, event, func, select
from sqlalchemy.pool import StaticPool

from bench.load import rows
from bench.load.cost import of_family, of_process
from tests.servers import MariaDB, Postgres


class Place:
    """A database.

    Attributes:
        name: What it is called in tables.
        text: Rows are text, as a CSV reader gives them; else Python values that need no processing.
        begins: The driver begins a transaction by itself.
    """

    name: str
    text: bool
    begins = True
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

    def least(self, dirt: float) -> float:
        """The least ratio to the fastest way that is to be reached at a share of bad rows."""
        return 0.65

    def url(self) -> str:
        return self.engine.url.render_as_string(hide_password=False)


class Embedded(Place):
    """SQLite in memory, with foreign keys: its CPU is that of this process."""

    name = "SQLite in memory"
    text = False
    begins = False

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

    def least(self, dirt: float) -> float:
        return 0.65 if dirt > 0.01 else 0.75


class MariaServer(Place):
    """A MariaDB server, through PyMySQL."""

    name = "MariaDB"
    text = False

    def __init__(self, mariadb: MariaDB) -> None:
        super().__init__()
        self.engine = create_engine(mariadb.url())
        self._pid = int((mariadb.node.folder / "started.pid").read_text())

    def server(self) -> float:
        return of_process(self._pid)

    def least(self, dirt: float) -> float:
        return 0.6


@contextmanager
def _postgresql() -> Iterator[Place]:
    postgres = Postgres()
    try:
        place = Server(postgres)
        yield place
        place.engine.dispose()
    finally:
        postgres.stop()


@contextmanager
def _mariadb() -> Iterator[Place]:
    mariadb = MariaDB()
    try:
        place = MariaServer(mariadb)
        yield place
        place.engine.dispose()
    finally:
        mariadb.stop()


#: By the names of the command line.
PLACES: dict[str, Callable[[], AbstractContextManager[Place]]] = {
    "embedded": lambda: nullcontext(Embedded()),
    "server": _postgresql,
    "mariadb": _mariadb,
}


@contextmanager
def opened(name: str) -> Iterator[list[Place]]:
    """The database asked for, or all of them; a server runs as long as the benchmark."""
    with ExitStack() as stack:
        yield [stack.enter_context(open()) for asked, open in PLACES.items() if name in (asked, "all")]
