"""The databases that the benchmarks run on, and the counting of what is sent to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from tests.proxy import Proxy
from tests.servers import Postgres

TABLE = "CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, name VARCHAR(40))"
INSERT = "INSERT INTO item (id, name) VALUES ({mark}, {mark})"


class Embedded:
    """SQLite in memory: what it is asked to run is counted by its own trace, where counting is on."""

    name = "SQLite in memory"
    unit = "statements"
    driver, async_drivers = "sqlite", ("sqlite+aiosqlite",)

    def __init__(self, *, counting: bool = False) -> None:
        self.counting = counting
        self.sent = 0

    def url(self, driver: str) -> str:
        return f"{driver}://"

    def options(self) -> dict[str, Any]:
        """For `create_engine`: a database in memory lives as long as its one connection."""
        return {"poolclass": StaticPool}

    def watch(self, engine: Engine) -> None:
        """Count on each connection of an engine, a sync one or the sync side of an async one."""
        if self.counting:
            event.listen(engine, "connect", self._on_connect)

    def _on_connect(self, connection: Any, record: object) -> None:
        if hasattr(connection, "run_async"):
            connection.run_async(lambda driver: driver.set_trace_callback(self.count))
        else:
            connection.set_trace_callback(self.count)

    def count(self, statement: str) -> None:
        self.sent += 1


class Server:
    """A PostgreSQL server: round trips are counted by a proxy before it, where counting is on."""

    name = "PostgreSQL"
    unit = "round trips"
    driver, async_drivers = "postgresql+psycopg", ("postgresql+psycopg", "postgresql+asyncpg")

    def __init__(self, postgres: Postgres, proxy: Proxy | None = None) -> None:
        self.postgres = postgres
        self.proxy = proxy
        self.counting = proxy is not None

    @property
    def sent(self) -> int:
        return 0 if self.proxy is None else self.proxy.round_trips

    def url(self, driver: str) -> str:
        return self.postgres.url(driver, None if self.proxy is None else self.proxy.port)

    def options(self) -> dict[str, Any]:
        return {}

    def watch(self, engine: Engine) -> None:
        """The proxy counts."""

    def prepare(self) -> None:
        """Make the table, empty."""
        engine = create_engine(self.postgres.url())
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS item")
            connection.exec_driver_sql(TABLE)
        engine.dispose()


Place = Embedded | Server


@contextmanager
def counting(place: Place) -> Iterator[Place]:
    """The same database, with what is sent to it counted."""
    if isinstance(place, Embedded):
        yield Embedded(counting=True)
        return
    proxy = Proxy(place.postgres.port)
    try:
        yield Server(place.postgres, proxy)
    finally:
        proxy.close()
