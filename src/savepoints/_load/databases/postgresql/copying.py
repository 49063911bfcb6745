"""COPY FROM STDIN through each driver; the rest of the loader knows of none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from savepoints._core.raw import driver_work
from savepoints._load.databases.postgresql.sql import qualified, quote
from savepoints._load.databases.postgresql.text import Unwritable, Write, bytes_text, range_text


class Destination(NamedTuple):
    """A table to copy into; ``options`` is what stands behind FROM STDIN."""

    schema: str | None
    table: str
    columns: tuple[str, ...]
    options: str = ""

    def sql(self) -> str:
        """The statement."""
        columns = ", ".join(map(quote, self.columns))
        return f"COPY {qualified(self.schema, self.table)} ({columns}) FROM STDIN {self.options}"


class Driver(NamedTuple):
    """What a driver does its own way.

    Attributes:
        copy: Sends lines and gives how many rows the server says it took.
        options: Whether it lets COPY have options of one's own.
        adapt: Makes what writes a value of an unknown class, from the driver's connection.
    """

    copy: Callable[[Any, Destination, Iterable[bytes]], int]
    options: bool
    adapt: Callable[[Any], Write]


def copy_in(connection: Connection, driver: Driver, to: Destination, lines: Iterable[bytes]) -> int:
    """COPY lines into a table.

    Raises:
        sqlalchemy.exc.DBAPIError: The server refused them all.
    """
    with driver_work(connection, f"COPY {to.table}") as proxy:
        return driver.copy(proxy, to, lines)


def _psycopg(proxy: Any, to: Destination, lines: Iterable[bytes]) -> int:
    with proxy.dbapi_connection.cursor() as cursor:
        with cursor.copy(to.sql()) as copy:
            for some in lines:
                copy.write(some)
        return int(cursor.rowcount)


def _psycopg_async(proxy: Any, to: Destination, lines: Iterable[bytes]) -> int:
    async def run(connection: Any) -> int:
        async with connection.cursor() as cursor:
            async with cursor.copy(to.sql()) as copy:
                for some in lines:
                    await copy.write(some)
            return int(cursor.rowcount)

    count: int = proxy.dbapi_connection.run_async(run)
    return count


def _asyncpg(proxy: Any, to: Destination, lines: Iterable[bytes]) -> int:
    async def source() -> AsyncIterator[bytes]:
        for some in lines:
            yield some

    async def run(connection: Any) -> int:
        told = await connection.copy_to_table(
            to.table, source=source(), columns=list(to.columns), schema_name=to.schema, format="text"
        )
        return int(told.rpartition(" ")[2])

    count: int = proxy.dbapi_connection.run_async(run)
    return count


class _File:
    """What psycopg2 reads from; how much it wants at once is advice."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)

    def read(self, size: int) -> bytes:
        return next(self._lines, b"")


def _psycopg2(proxy: Any, to: Destination, lines: Iterable[bytes]) -> int:
    with proxy.dbapi_connection.cursor() as cursor:
        cursor.copy_expert(to.sql(), _File(lines))
        return int(cursor.rowcount)


def _by_psycopg(driver_connection: Any) -> Write:
    """By psycopg's own dumpers: ranges, addresses, JSON, and whatever the application has registered."""
    from psycopg.adapt import PyFormat, Transformer

    transformer = Transformer(driver_connection)

    def write(value: Any) -> str:
        try:
            written = transformer.get_dumper(value, PyFormat.TEXT).dump(value)
        except Exception as error:
            raise Unwritable from error
        return bytes(written or b"").decode()

    return write


def _by_shape(driver_connection: Any) -> Write:
    """Ranges and bytes of the driver's; it has no other values of its own that SQLAlchemy's types would make."""

    def write(value: Any) -> str:
        if isinstance(getattr(value, "adapted", None), bytes):
            return bytes_text(value.adapted)
        if not hasattr(value, "lower_inc"):
            raise Unwritable
        return range_text(value)

    return write


#: By the driver's name, and whether SQLAlchemy's async side drives it.
DRIVERS = {
    ("psycopg", False): Driver(_psycopg, True, _by_psycopg),
    ("psycopg", True): Driver(_psycopg_async, True, _by_psycopg),
    ("psycopg2", False): Driver(_psycopg2, True, _by_shape),
    ("asyncpg", True): Driver(_asyncpg, False, _by_shape),
}
