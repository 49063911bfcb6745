"""Ways to have a database refuse something, each by the code of its error: the real thing, not its name only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import text

from tests.faults.losses import full, interrupted, killed
from tests.faults.rivals import OURS, A, B, Rival, two_rows
from tests.harness.world import World

Provocation = Callable[[World], Awaitable[Any]]

TABLES = (
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE faulty (id INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE,"
    " p INTEGER REFERENCES parents (id), CONSTRAINT small CHECK (n < 100))",
    "INSERT INTO faulty (id, n) VALUES (1, 1)",
)


def prepare(world: World) -> None:
    with world.aside.begin() as aside:
        for statement in TABLES:
            aside.execute(text(statement))


async def inside(world: World, *statements: str, **options: Any) -> None:
    """Statements in a savepoint of a transaction; the last one is refused."""
    async with world.transaction(world.source, **options) as t:
        await world.insert(t, 1000, "before")
        async with world.savepoint(t):
            for statement in statements:
                await t.execute(text(statement))


def refused(*statements: str) -> Provocation:
    return partial(_inside, statements)


async def _inside(statements: tuple[str, ...], world: World) -> None:
    await inside(world, *statements)


# -- where only a rollback is taken after an error


def raised(code: str) -> Provocation:
    """The server itself raises the code: what cannot be had on one machine in a moment."""
    return refused(f"DO $$ BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{code}'; END $$")


async def serialization(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source, isolation_level="REPEATABLE READ") as t:
        await world.seen(t)
        with world.aside.begin() as other:
            other.execute(A, OURS)
        await t.execute(A, OURS)


async def deadlock(world: World) -> None:
    two_rows(world)
    rival = Rival(world)
    try:
        async with world.transaction(world.source) as t:
            await t.execute(A, OURS)
            rival.wait_for_a()
            await t.execute(B, OURS)
    finally:
        rival.has_a()
        rival.close()


async def lock_timeout(world: World) -> None:
    two_rows(world)
    with world.aside.connect() as other:
        other.execute(A, OURS)
        await inside(world, "SET LOCAL lock_timeout = '20ms'", "UPDATE item SET name = 'x' WHERE id = 1")


async def idle(world: World, setting: str = "idle_in_transaction_session_timeout") -> None:
    async with world.transaction(world.source) as t:
        await t.execute(text(f"SET LOCAL {setting} = '20ms'"))
        await asyncio.sleep(0.1)
        await t.execute(text("SELECT 1"))


async def lost(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        await killed(world, t)


async def in_failed_state(world: World) -> None:
    """What a program is told that goes on after an error, past us."""
    await world.run_sync_alone(_in_failed_state)


def _in_failed_state(connection: Any) -> None:
    driver = connection.connection.cursor()
    with suppress(Exception):
        driver.execute("SELECT no_such_column")
    driver.execute("SELECT 1")


async def no_savepoint(world: World) -> None:
    await inside(world, "ROLLBACK TO SAVEPOINT nowhere")


FAILED_STATE: dict[str, Provocation] = {
    "08": raised("08003"),
    "08007": raised("08007"),
    "0A": refused("SELECT count(*) FROM item FOR UPDATE"),
    "22": refused("SELECT 1/0"),
    "23": raised("23000"),
    "23502": refused("INSERT INTO faulty (id) VALUES (2)"),
    "23503": refused("INSERT INTO faulty VALUES (2, 2, 99)"),
    "23505": refused("INSERT INTO faulty VALUES (2, 1)"),
    "23514": refused("INSERT INTO faulty VALUES (2, 100)"),
    "23P01": refused(
        "CREATE TEMPORARY TABLE spans (span int4range, EXCLUDE USING gist (span WITH &&))",
        "INSERT INTO spans VALUES ('[1,3]'), ('[2,4]')",
    ),
    "25P02": in_failed_state,
    "25P03": idle,
    "25P04": partial(idle, setting="transaction_timeout"),
    "3B001": no_savepoint,
    "40001": serialization,
    "40003": raised("40003"),
    "40P01": deadlock,
    "42": refused("SELECT no_such_column FROM item"),
    "53100": raised("53100"),
    "53300": raised("53300"),
    "55P03": lock_timeout,
    "57014": refused("SET LOCAL statement_timeout = '20ms'", "SELECT pg_sleep(5)"),
    "57P01": lost,
    "57P02": raised("57P02"),
    "57P03": raised("57P03"),
    "57P05": raised("57P05"),
}

# -- one writer, in a file


async def busy(world: World) -> None:
    with world.aside.begin() as other:
        other.execute(text("INSERT INTO item VALUES (9, 'theirs')"))
        async with world.transaction(world.source) as t:
            await t.execute(text("PRAGMA busy_timeout = 0"))
            await world.insert(t, 1)


async def busy_snapshot(world: World) -> None:
    with world.aside.connect() as other:
        other.execute(text("PRAGMA journal_mode = wal"))
    async with world.transaction(world.source) as t:
        await world.seen(t)
        with world.aside.begin() as other:
            other.execute(text("INSERT INTO item VALUES (9, 'theirs')"))
        await world.insert(t, 1)


async def locked(world: World) -> None:
    """A table that another statement of the same connection is reading."""
    await world.run_sync_alone(_locked)


def _locked(connection: Any) -> None:
    connection.execute(text("INSERT INTO item VALUES (1, 'x'), (2, 'x'), (3, 'x')"))
    reading = connection.execute(text("SELECT * FROM item"), execution_options={"stream_results": True})
    reading.fetchone()
    try:
        connection.execute(text("DROP TABLE item"))
    finally:
        reading.close()


async def disk_full(world: World) -> None:
    async with world.transaction(world.source) as t:
        await full(world, t)


async def interrupt(world: World) -> None:
    async with world.transaction(world.source) as t:
        await interrupted(world, t)


ONE_WRITER: dict[str, Provocation] = {
    "SQLITE_BUSY": busy,
    "SQLITE_BUSY_SNAPSHOT": busy_snapshot,
    "SQLITE_LOCKED": locked,
    "SQLITE_FULL": disk_full,
    "SQLITE_INTERRUPT": interrupt,
    "SQLITE_CONSTRAINT": refused(
        "CREATE TEMPORARY TRIGGER no BEFORE INSERT ON faulty BEGIN SELECT RAISE(ABORT, 'no'); END",
        "INSERT INTO faulty VALUES (2, 2, NULL)",
    ),
    "SQLITE_CONSTRAINT_CHECK": refused("INSERT INTO faulty VALUES (2, 100, NULL)"),
    "SQLITE_CONSTRAINT_FOREIGNKEY": refused("INSERT INTO faulty VALUES (2, 2, 99)"),
    "SQLITE_CONSTRAINT_NOTNULL": refused("INSERT INTO faulty (id) VALUES (2)"),
    "SQLITE_CONSTRAINT_PRIMARYKEY": refused("INSERT INTO faulty VALUES (1, 2, NULL)"),
    "SQLITE_CONSTRAINT_ROWID": refused(
        "CREATE TEMPORARY TABLE bare (n integer)", "INSERT INTO bare (rowid, n) VALUES (1, 1), (1, 2)"
    ),
    "SQLITE_CONSTRAINT_UNIQUE": refused("INSERT INTO faulty VALUES (2, 1, NULL)"),
    "SQLITE_MISMATCH": refused("INSERT INTO faulty VALUES ('x', 2, NULL)"),
    "SQLITE_TOOBIG": refused("SELECT zeroblob(2000000000)"),
    "SQLITE_READONLY": refused("PRAGMA query_only = 1", "INSERT INTO faulty VALUES (2, 2, NULL)"),
    "SQLITE_ERROR": refused("SELECT no_such_column FROM item"),
}

PROVOCATIONS = FAILED_STATE | ONE_WRITER
