"""Ways to make the database end a transaction by itself. Each sends a statement on the target, which fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, text

from tests.harness.world import Target, World

Loss = Callable[[World, Target], Awaitable[Any]]


def connection_of(target: Any) -> Connection:
    """The connection of a sync session or connection."""
    return target if isinstance(target, Connection) else target.connection()


async def killed(world: World, t: Target) -> None:
    """Another connection ends this one's backend; the next statement finds out."""
    await killed_unseen(world, t)
    await t.execute(text("SELECT 1"))


async def killed_unseen(world: World, t: Target) -> None:
    """The same, and nobody has found out."""
    world.kill(await t.scalar(world.sql("own id")))


async def closed(world: World, t: Target) -> None:
    """The program itself closes the driver's connection; the next statement finds out."""
    await closed_unseen(world, t)
    await t.execute(text("SELECT 1"))


async def closed_unseen(world: World, t: Target) -> None:
    """The same, and nobody has found out."""
    await world.run_sync(t, lambda target: connection_of(target).connection.dbapi_connection.close())  # type: ignore[union-attr]


async def full(world: World, t: Target) -> None:
    """The database may grow by ten pages, and a row of 2 MB comes."""
    pages = await t.scalar(text("PRAGMA page_count"))
    await t.execute(text(f"PRAGMA max_page_count = {pages + 10}"))
    await t.execute(text("INSERT INTO item VALUES (1000, hex(zeroblob(1000000)))"))


async def interrupted(world: World, t: Target) -> None:
    """A long INSERT is interrupted in its midst: by a function that it calls itself, so at no time of chance."""
    await world.run_sync(t, _teach_to_stop, asyncio.get_running_loop())
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
    await t.execute(text(f"{numbers} INSERT INTO item SELECT i, stop(i) FROM n"))


def _teach_to_stop(target: Any, loop: asyncio.AbstractEventLoop) -> None:
    pooled = connection_of(target).connection
    driver: Any = pooled.driver_connection

    def stop(i: int) -> None:
        if i == 1010:
            interrupting = driver.interrupt()
            if interrupting is not None:  # the async driver works in a thread, while the loop waits for it
                asyncio.run_coroutine_threadsafe(interrupting, loop).result(10)

    pooled.dbapi_connection.create_function("stop", 1, stop)  # type: ignore[union-attr]


async def or_rollback(world: World, t: Target) -> None:
    """A duplicate of row 1, which is there, with the conflict clause that ends the transaction."""
    await t.execute(text("INSERT OR ROLLBACK INTO item VALUES (1, 'twice')"))


async def deadlocked(world: World, t: Target, first: str = "") -> None:
    """Two transactions want each other's row, and ours is the one that the server gives up.

    Args:
        first: A statement that goes before the one that meets the deadlock, in the same text.
    """
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO parent (id) VALUES (1001), (1002)"))
    with world.aside.connect() as rival, ThreadPoolExecutor(1) as thread:
        rival.execute(world.sql("outlives us"))
        rival.execute(text("UPDATE parent SET name = 'theirs' WHERE id = 1002"))
        number = rival.scalar(world.sql("own id"))
        await t.execute(text("UPDATE parent SET name = 'ours' WHERE id = 1001"))
        waiting = thread.submit(rival.execute, text("UPDATE parent SET name = 'theirs' WHERE id = 1001"))
        with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as asking:
            world.wait_until(asking, "waits", number)
        try:
            await t.execute(text(f"{first}UPDATE parent SET name = 'ours' WHERE id = 1002"))
        finally:
            waiting.result(20)  # our locks are gone
            rival.rollback()
