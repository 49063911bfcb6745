"""Ways to have a database refuse something, each by the code of its error: the real thing, not its name only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import text

from tests.faults.losses import full, interrupted, killed
from tests.faults.rivals import OURS, THEIRS, A, B, Rival, two_rows, waits_in_vain
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


async def too_long(world: World) -> None:
    """Since PostgreSQL 17."""
    if "transaction_timeout" in world.site.has:
        await idle(world, "transaction_timeout")
    else:
        await raised("25P04")(world)


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
    "25006": refused("SET TRANSACTION READ ONLY", "INSERT INTO faulty VALUES (2, 2)"),
    "25P02": in_failed_state,
    "25P03": idle,
    "25P04": too_long,
    "28": raised("28000"),
    "3B001": no_savepoint,
    "3D": raised("3D000"),
    "40001": serialization,
    "40003": raised("40003"),
    "40P01": deadlock,
    "42": refused("SELECT no_such_column FROM item"),
    "53100": raised("53100"),
    "53200": refused("SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 200000) AS n"),
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
    "SQLITE_CANTOPEN": refused("ATTACH DATABASE '/no such directory/other.db' AS other"),
    "SQLITE_ERROR": refused("SELECT no_such_column FROM item"),
}

# -- where a refused statement is undone alone, or the server ends all by itself


def signalled(code: int) -> Provocation:
    """The server itself raises the code: what cannot be had on one machine in a moment."""
    return refused(f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'provoked'")


def ended(code: int) -> Provocation:
    """The same where the server has rolled everything back before it says so."""
    signal = f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'provoked'"
    return refused(f"BEGIN NOT ATOMIC ROLLBACK; {signal}; END")


async def changed_since(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source, isolation_level="REPEATABLE READ") as t:
        await t.execute(text("SET innodb_snapshot_isolation = ON"))
        await world.seen(t)
        with world.aside.begin() as other:
            other.execute(A, THEIRS)
        await t.execute(A, OURS)


async def waited_in_vain(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source) as t, world.savepoint(t):
        raise await waits_in_vain(world, t)


async def denied(world: World) -> None:
    """A procedure that works with the rights of somebody who has none on the table."""
    with world.aside.begin() as aside:
        aside.execute(text("CREATE USER IF NOT EXISTS nobody@localhost"))
        aside.execute(text("GRANT EXECUTE ON test.* TO nobody@localhost"))
        aside.execute(text("CREATE DEFINER = nobody@localhost PROCEDURE denied() SELECT * FROM item"))
    await inside(world, "CALL denied()")


async def query_killed(world: World) -> None:
    """Another connection ends the statement, and leaves the connection alone."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        number = await t.scalar(world.sql("own id"))
        with ThreadPoolExecutor(1) as thread:
            killing = thread.submit(_kill_query, world, number)
            try:
                await t.execute(text("SELECT SLEEP(20)"))
            finally:
                killing.result(20)


def _kill_query(world: World, number: int) -> None:
    with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        asked = text("SELECT count(*) FROM information_schema.processlist WHERE id = :id AND info LIKE '%SLEEP%'")
        deadline = time.monotonic() + 10
        while not other.scalar(asked, {"id": number}):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        other.execute(text("KILL QUERY :id"), {"id": number})


UNDONE_ALONE: dict[str, Provocation] = {
    "1020": changed_since,
    "1021": signalled(1021),
    "1040": signalled(1040),
    "1045": signalled(1045),
    "1047": ended(1047),
    "1048": refused("INSERT INTO faulty VALUES (2, NULL, NULL)"),
    "1049": refused("USE no_such_database"),
    "1053": ended(1053),
    "1054": refused("SELECT no_such_column FROM item"),
    "1062": refused("INSERT INTO faulty VALUES (2, 1, NULL)"),
    "1064": refused("SELEKT"),
    "1114": refused(
        "SET SESSION max_heap_table_size = 16384",
        "CREATE TEMPORARY TABLE small_one (n INTEGER) ENGINE = MEMORY",
        "INSERT INTO small_one SELECT seq FROM seq_1_to_10000",
    ),
    "1142": denied,
    "1146": refused("SELECT * FROM no_such_table"),
    "1180": ended(1180),
    "1203": signalled(1203),
    "1205": waited_in_vain,
    "1213": deadlock,
    "1216": signalled(1216),
    "1217": signalled(1217),
    "1226": signalled(1226),
    "1264": refused("INSERT INTO faulty VALUES (2, 99999999999, NULL)"),
    "1265": refused("CREATE TEMPORARY TABLE sizes (size ENUM('s', 'm'))", "INSERT INTO sizes VALUES ('xl')"),
    "1292": refused("CREATE TEMPORARY TABLE days (day DATE)", "INSERT INTO days VALUES ('2026-02-30')"),
    "1317": query_killed,
    "1364": refused("INSERT INTO faulty (id) VALUES (2)"),
    "1366": refused("INSERT INTO faulty VALUES (2, 'two', NULL)"),
    "1406": refused("INSERT INTO item VALUES (2, REPEAT('x', 300))"),
    "1451": refused(
        "INSERT INTO parents VALUES (1)", "INSERT INTO faulty VALUES (2, 2, 1)", "DELETE FROM parents WHERE id = 1"
    ),
    "1452": refused("INSERT INTO faulty VALUES (2, 2, 99)"),
    "1586": signalled(1586),
    "1614": ended(1614),
    "1927": refused("KILL CONNECTION_ID()"),
    "1969": refused("SET STATEMENT max_statement_time = 0.05 FOR SELECT SLEEP(5)"),
    "2002": ended(2002),
    "2003": ended(2003),
    "2005": ended(2005),
    "2006": ended(2006),
    "2013": lost,
    "2055": ended(2055),
    "3024": signalled(3024),
    "3572": signalled(3572),
    "3819": signalled(3819),
    "4025": refused("INSERT INTO faulty VALUES (2, 100, NULL)"),
    "4031": ended(4031),
}

PROVOCATIONS = FAILED_STATE | ONE_WRITER | UNDONE_ALONE
