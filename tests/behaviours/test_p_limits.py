"""Group P: many, deep, long."""

from __future__ import annotations

import gc
import weakref
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text

from savepoints import BadName, TransactionFailed
from savepoints._model.levels import Level
from tests.behaviours.steps import Oops, connection_of, fails, refused
from tests.harness.face import bare
from tests.harness.world import Target, World

# Many enough to show growth; `bench/` makes 100,000.
MANY = 200


async def failed_blocks(world: World, t: Target, first: int) -> None:
    for id in range(first, first + MANY):
        async with world.savepoint(t, suppress=Oops):
            await world.insert(t, id)
            raise Oops


def tracked_objects() -> int:
    """Without weak references: the driver sqlite3 keeps one for each cursor and sweeps now and then."""
    gc.collect()
    return sum(type(one) is not weakref.ref for one in gc.get_objects())


def level_objects() -> int:
    return sum(isinstance(one, Level) for one in gc.get_objects())


@pytest.mark.slow
async def test_p200_each_failed_savepoint_costs_the_same(world: World) -> None:
    async with world.transaction(world.source) as t:
        await failed_blocks(world, t, 0)  # fills the caches
        objects, sent, levels = tracked_objects(), len(world.transcript.sent()), level_objects()
        await failed_blocks(world, t, MANY)
        assert tracked_objects() - objects < MANY / 2
        assert len(world.transcript.sent()) - sent == 4 * MANY  # SAVEPOINT, INSERT, ROLLBACK TO, RELEASE
        assert world.current_transaction(t).savepoints == ()
        assert level_objects() < levels + 10
    assert world.rows() == []


def live(target: Any, names: set[str]) -> list[str]:
    """Which of these names the server takes a rollback to. Asked on the driver, past the library."""
    connection = connection_of(target)
    cursor = connection.connection.cursor()
    found = []
    for name in names:
        cursor.execute("SAVEPOINT probe")
        try:
            cursor.execute(f"ROLLBACK TO SAVEPOINT {name}")
            found.append(name)  # and the probe went with it
        except connection.dialect.dbapi.Error:  # type: ignore[union-attr]
            cursor.execute("ROLLBACK TO SAVEPOINT probe")
            cursor.execute("RELEASE SAVEPOINT probe")
    return found


async def test_p200_failed_savepoints_leave_none_on_the_server(world: World) -> None:
    async with world.transaction(world.source) as t:
        await failed_blocks(world, t, 0)
        still_open = await world.savepoint(t)
        made = [sent.split()[-1] for sent in world.transcript.sent() if sent.startswith("SAVEPOINT")]
        assert len(made) == MANY + 1
        assert await world.run_sync(t, live, set(made)) == [made[-1]]
        await still_open.release()
        assert await world.run_sync(t, live, set(made)) == []
    assert world.rows() == []


@pytest.mark.needs("subtransactions")
async def test_p200_the_server_counts_no_failed_savepoint(world: World) -> None:
    """It counts those that have written, up to 64, and says whether there were more."""
    query = text(
        "SELECT (pg_stat_get_backend_subxact(id)).* FROM pg_stat_get_backend_idset() AS id"
        " WHERE pg_stat_get_backend_pid(id) = :pid"
    )
    async with world.transaction(world.source) as t:
        pid = await t.scalar(text("SELECT pg_backend_pid()"))
        await failed_blocks(world, t, 0)
        async with world.savepoint(t):
            await world.insert(t, 0)
            with world.aside.connect() as connection:
                assert connection.execute(query, {"pid": pid}).all() == [(1, False)]
    assert world.rows() == [(0, None)]


DEEP = 1000


@pytest.mark.slow
async def test_p201_a_thousand_nested_bookmarks(world: World) -> None:
    async with world.transaction(world.source) as t:
        marks = []
        for id in range(DEEP):
            marks.append(await world.savepoint(t))
            if id % 100 == 0:
                await world.insert(t, id)
        assert marks[-1].depth == DEEP
        assert len(world.current_transaction(t).savepoints) == DEEP
        await marks[500].rollback()
        assert [str(marks[at].state) for at in (0, 500, 501, -1)] == ["open", "open", "gone", "gone"]
        await marks[250].release()
    assert str(marks[0].state) == "released"
    assert [id for id, _ in world.rows()] == [0, 100, 200, 300, 400]


@pytest.mark.slow
async def test_p201_a_thousand_nested_blocks(world: World) -> None:
    """The inner half is undone, the outer half kept."""
    async with world.transaction(world.source) as t:
        async with AsyncExitStack() as blocks:
            levels = []
            for id in range(DEEP):
                levels.append(await blocks.enter_async_context(world.savepoint(t)))
                if id % 100 == 0:
                    await world.insert(t, id)
            raise world.Rollback(levels[500])
        assert [str(levels[at].state) for at in (0, 499, 500, -1)] == [*["released"] * 2, *["rolled back"] * 2]
        assert world.current_transaction(t).savepoints == ()
    assert [id for id, _ in world.rows()] == [0, 100, 200, 300, 400]


async def test_p203_a_label_of_over_200_characters_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        for verb in (world.savepoint, world.atomic):
            with refused(world, BadName, "201 characters"):
                await verb(t, "é" * 201).__aenter__()
        with refused(world, BadName, "201 characters"):
            await world.rollback_to(t, "é" * 201)
        sp = await world.savepoint(t, "é" * 200)
        await world.insert(t, 2)
        await world.rollback_to(t, "é" * 200)
        assert sp.rollbacks == 1
    assert world.rows() == [(1, None)]


@pytest.mark.needs("pipeline", "sync")
async def test_p204_a_failure_in_pipeline_mode_is_told_right_after_the_sync(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        sp = await world.savepoint(t)
        connection = connection_of(bare(t))
        driver = connection.connection.driver_connection
        with fails(connection.dialect.dbapi.IntegrityError), driver.pipeline():  # type: ignore[union-attr]
            await t.execute(text("INSERT INTO item VALUES (1)"))
        assert str(sp.state) == "failed"
        with refused(world, TransactionFailed):
            await world.savepoint(t)
        with refused(world, TransactionFailed):
            await sp.release()
        await sp.rollback()
        assert str(sp.state) == "open"
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


async def test_p206_the_text_of_a_level_tells_its_state_path_and_connection(world: World) -> None:
    async with world.open() as t:
        async with world.transaction(t, name="orders"):
            transaction = world.current_transaction(t)
            mark = await world.savepoint(t, "mark")
            gone = await world.savepoint(t, "gone")
            await mark.rollback()
            assert repr(mark).startswith("<")
            for level, words in (
                (transaction, "'orders' open, connection in transaction"),
                (mark, "'orders/mark' open, connection in transaction"),
                (gone, "'orders/mark/gone' gone, connection in transaction"),
            ):
                assert words in repr(level)
            async with world.savepoint(t, "doomed") as doomed:
                doomed.doom("for the test")
                assert "'orders/mark/doomed' doomed" in repr(doomed)
            assert "'orders/mark/doomed' rolled back" in repr(doomed)
            await mark.release()
            assert "'orders/mark' released" in repr(mark)
        assert "'orders' committed" in repr(transaction)
        assert "connection in transaction" not in repr(transaction)
