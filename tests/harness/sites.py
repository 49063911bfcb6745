"""Where test bodies run: one row per database, driver and way of connecting.

This is the only place of the tests that knows databases by name (beside `tests/servers.py`, which starts
them). A test says what it needs: `@pytest.mark.needs("failed_state")`, or `lacks(...)`; further
capabilities of every site are its face ("sync", "async") and its style ("core", "orm").
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Face = Literal["sync", "async"]
Style = Literal["core", "orm"]

CAPABILITIES = {
    "sync": "the sync face",
    "async": "the async face",
    "core": "targets are connections",
    "orm": "targets are sessions",
    "failed_state": "after a refused statement the server takes only a rollback",
    "transactional_ddl": "CREATE TABLE in a transaction is undone by a rollback",
    "whole_rollback": "INSERT OR ROLLBACK ends the whole transaction",
    "interrupt": "the driver's connection has interrupt(), which ends the whole transaction",
    "full": "PRAGMA max_page_count makes the disk full",
    "immediate": "BEGIN IMMEDIATE takes the write lock",
    "one_writer": "a second writer is told that the database is busy",
    "many_writers": "two transactions can write at a time, and deadlock",
    "isolation_levels": "READ COMMITTED, REPEATABLE READ and SERIALIZABLE, per transaction",
    "read_only": "SET TRANSACTION READ ONLY, DEFERRABLE",
    "settings_undone": "SET in a savepoint is undone with it",
    "untyped": "ordinary tables take a value of any type and length into any column",
    "keys_reused": "generated keys are given again after a rollback",
    "kill": "another connection can end this one: pg_terminate_backend",
    "network": "reached through TCP: the fixture `proxy` can cut the connection",
    "commit_status": "the outcome of a lost COMMIT can be asked for",
    "two_phase": "PREPARE TRANSACTION",
    "driver_begins": "the driver itself sends BEGIN, and only before INSERT, UPDATE or DELETE",
    "no_begin": "plain SQLAlchemy autocommits here: neither it nor the driver sends BEGIN",
    "always_in_transaction": "the driver's connection says it is in a transaction at all times",
}

SQLITE = {
    "transactional_ddl", "whole_rollback", "interrupt", "full", "immediate", "one_writer", "keys_reused", "untyped",
}  # fmt: skip
POSTGRESQL = {
    "failed_state", "transactional_ddl", "many_writers", "isolation_levels", "read_only", "settings_undone",
    "kill", "network", "commit_status", "two_phase",
}  # fmt: skip


def sqlite_in_transaction(connection: Any) -> bool:
    try:
        return bool(connection.in_transaction)
    except ValueError:  # aiosqlite: closed
        return False
    except sqlite3.ProgrammingError:  # closed, or just being closed
        return False


def psycopg_in_transaction(connection: Any) -> bool:
    return connection.info.transaction_status.name in ("ACTIVE", "INTRANS", "INERROR")


def asyncpg_in_transaction(connection: Any) -> bool:
    return not connection.is_closed() and connection.is_in_transaction()


def sqlite_on_connect(connection: Any) -> None:
    """Foreign keys as on other databases; no waiting for the disk, which the tests never pull out."""
    explicit = getattr(connection, "autocommit", None) is False
    if explicit:  # a PRAGMA for foreign keys does nothing inside a transaction
        connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()
    if explicit:
        connection.autocommit = False


# Locks of a test that failed must not stop the next one.
POSTGRESQL_RESET = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "DROP SCHEMA public CASCADE",
    "CREATE SCHEMA public",
)


@dataclass(frozen=True)
class Site:
    name: str
    face: Face
    driver: str  # of the URL: dialect+driver
    plain_driver: str  # the sync driver of the second connection
    server: str | None  # the fixture that starts the server; None: a file of the test's own
    has: Iterable[str]
    in_transaction: Callable[[Any], bool]  # asked of the driver's own connection
    on_connect: Callable[[Any], None] = lambda connection: None  # given SQLAlchemy's DBAPI connection
    reset: tuple[str, ...] = ()  # statements that empty the database before a test
    lock_all: str | None = None  # a statement that is refused while anybody holds a lock
    connect_args: Mapping[str, Any] = field(default_factory=dict)
    python: tuple[int, int] = (3, 11)  # the site exists from this Python on

    def capabilities(self, style: Style) -> set[str]:
        return {*self.has, self.face, style}


SITES = [
    Site(
        name="sqlite3",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"driver_begins"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        lock_all="BEGIN EXCLUSIVE",
    ),
    Site(
        name="sqlite3-isolation-none",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"no_begin"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        lock_all="BEGIN EXCLUSIVE",
        connect_args={"isolation_level": None},
    ),
    Site(
        name="sqlite3-autocommit-false",
        face="sync",
        driver="sqlite+pysqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"always_in_transaction"},
        in_transaction=lambda connection: False,  # it always is; what counts is that it holds no lock
        on_connect=sqlite_on_connect,
        lock_all="BEGIN EXCLUSIVE",
        connect_args={"autocommit": False},
        python=(3, 12),
    ),
    Site(
        name="aiosqlite",
        face="async",
        driver="sqlite+aiosqlite",
        plain_driver="sqlite+pysqlite",
        server=None,
        has=SQLITE | {"driver_begins"},
        in_transaction=sqlite_in_transaction,
        on_connect=sqlite_on_connect,
        lock_all="BEGIN EXCLUSIVE",
    ),
    Site(
        name="psycopg",
        face="sync",
        driver="postgresql+psycopg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL,
        in_transaction=psycopg_in_transaction,
        reset=POSTGRESQL_RESET,
    ),
    Site(
        name="psycopg-async",
        face="async",
        driver="postgresql+psycopg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL,
        in_transaction=psycopg_in_transaction,
        reset=POSTGRESQL_RESET,
    ),
    Site(
        name="asyncpg",
        face="async",
        driver="postgresql+asyncpg",
        plain_driver="postgresql+psycopg",
        server="postgres",
        has=POSTGRESQL,
        in_transaction=asyncpg_in_transaction,
        reset=POSTGRESQL_RESET,
    ),
]

STYLES: list[Style] = ["core", "orm"]


def places(needs: set[str], lacks: set[str]) -> list[tuple[Site, Style]]:
    """The sites and styles where a test with these marks runs."""
    if unknown := (needs | lacks) - CAPABILITIES.keys():
        raise ValueError(f"unknown capabilities: {', '.join(sorted(unknown))}")
    return [
        (site, style)
        for site in SITES
        for style in STYLES
        if sys.version_info >= site.python
        and needs <= site.capabilities(style)
        and not lacks & site.capabilities(style)
    ]
