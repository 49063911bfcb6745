"""Three units of work that faults strike at each of their points: kept as a whole, or not at all.

Each says so in `done` when it has been told that its work is stored. Rows called "undone" are never to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.behaviours.steps import Oops, rename
from tests.harness.world import Row, World

Unit = Callable[[World, list[str]], Coroutine[Any, Any, None]]


async def blocks(world: World, done: list[str]) -> None:
    """Savepoint blocks: one is kept, one fails in the database, one by an error of the code."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        async with world.savepoint(t, "kept"):
            await world.insert(t, 2, "kept")
        async with world.savepoint(t, "refused", suppress=IntegrityError):
            await world.insert(t, 3, "undone")
            await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
        with suppress(Oops):
            async with world.savepoint(t, "outer"):
                await world.insert(t, 4, "undone")
                async with world.savepoint(t, "inner"):
                    await world.insert(t, 5, "undone")
                raise Oops
        await world.insert(t, 3, "kept")
    done.append("stored")


async def bookmarks(world: World, done: list[str]) -> None:
    """One bookmark rolled back by handle and by name, with objects to restore; one inside it, released."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        mark = await world.savepoint(t, "mark")
        await rename(world, t, 1, "undone")
        await mark.rollback()
        await world.insert(t, 2, "undone")
        await world.rollback_to(t, "mark")
        inner = await world.savepoint(t, "inner")
        await world.insert(t, 2, "kept")
        await inner.release()
        await rename(world, t, 2, "kept")
        await world.insert(t, 3, "kept")
    done.append("stored")


async def atomics(world: World, done: list[str]) -> None:
    """Code that can be called either way, on a target of the caller's; one part joins, another is undone."""
    async with world.open() as t:
        async with world.atomic(t):
            await world.insert(t, 1, "kept")
            async with world.atomic(t, savepoint=False):
                await world.insert(t, 2, "kept")
            with suppress(Oops):
                async with world.atomic(t):
                    await world.insert(t, 3, "undone")
                    await t.begin_nested()
                    await rename(world, t, 1, "undone")
                    raise Oops
            async with world.atomic(t, rollback=True):
                await world.insert(t, 3, "undone")
            async with world.atomic(t):
                await world.insert(t, 3, "kept")
        done.append("stored")


UNITS: list[Unit] = [blocks, bookmarks, atomics]

WHOLE: list[Row] = [(1, "kept"), (2, "kept"), (3, "kept")]


def start_empty(world: World) -> None:
    with world.aside.begin() as aside:
        aside.execute(text("DELETE FROM item"))


def check(world: World, done: list[str]) -> None:
    """All or nothing; all, where the unit was told so. No connection was left with work open on it."""
    rows = world.rows()
    assert rows == WHOLE if done else rows in ([], WHOLE)
    world.check_pool()
