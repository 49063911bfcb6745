"""Streams, server-side cursors, and other people's listeners."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError, ResourceClosedError

from savepoints import SavepointsError, TransactionLost
from tests.behaviours.steps import Oops, fails
from tests.faults.losses import connection_of
from tests.faults.suspensions import clear_frames
from tests.harness.models import item
from tests.harness.world import Target, World

pytestmark = pytest.mark.needs("cursors", "network")

IDS = select(item.c.id).order_by(item.c.id)

# T33: `stream_results` on the connection makes a cursor of SAVEPOINT.


async def stream(world: World, t: Target, on: bool) -> None:
    """Have the connection stream all its results from now on, or no more."""
    await world.run_sync(t, lambda target: connection_of(target).execution_options(stream_results=on))


@pytest.mark.needs("sync", "core")
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted while still open:ResourceWarning")
async def test_t33_plain_savepoint_becomes_a_cursor(world: World) -> None:
    """DECLARE ... CURSOR FOR SAVEPOINT is a syntax error.

    A failure means that control statements are sent with the option off: so need not we.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        await stream(world, t, True)
        with pytest.raises(ProgrammingError, match='syntax error at or near "SAVEPOINT"') as failed:
            await t.begin_nested()
        await t.rollback()
    clear_frames(failed.value)
    gc.collect()  # the cursor warns here and not in a later test


async def test_t33_ours_savepoint_on_a_streaming_connection(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        await stream(world, t, True)
        mark = await world.savepoint(t, "mark")
        async with world.savepoint(t, "block"):
            assert await world.run_sync(t, lambda target: target.execute(IDS).all()) == [(1,)]
        await mark.rollback()
        await mark.release()
        options = await world.run_sync(t, lambda target: connection_of(target).get_execution_options())
        assert options["stream_results"] is True
        await stream(world, t, False)
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


# T34: a cursor on the server that was opened inside dies with the savepoint.


async def streamed(world: World, t: Target) -> Any:
    """All items, of which the first two were fetched from the server."""
    options = {"stream_results": True, "max_row_buffer": 2}
    result = await world.run_sync(t, lambda target: target.execute(IDS, execution_options=options))
    assert await fetch(world, t, result, 2) == [1, 2]
    return result


async def fetch(world: World, t: Target, result: Any, count: int) -> list[int]:
    return [id for (id,) in await world.run_sync(t, lambda target: result.fetchmany(count))]


def many_items(world: World) -> None:
    """More than any driver fetches at a time."""
    with world.aside.begin() as aside:
        aside.execute(item.insert(), [{"id": id} for id in range(1, 1001)])


async def test_t34_plain_reading_on_breaks_the_transaction(world: World) -> None:
    """The server says that the cursor does not exist, and takes only a rollback from then on.

    A failure means that SQLAlchemy closes results with the savepoint in which they were opened.
    """
    many_items(world)
    async with world.open() as t:
        nested = await t.begin_nested()
        result = await streamed(world, t)
        await nested.rollback()
        with pytest.raises(Exception, match="does not exist"):
            await fetch(world, t, result, 998)
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await t.execute(text("SELECT 1"))
        await t.rollback()


async def test_t34_ours_result_is_closed_with_its_savepoint(world: World) -> None:
    many_items(world)
    async with world.transaction(world.source) as t:
        before = await streamed(world, t)
        sp = await world.savepoint(t)
        inside = await streamed(world, t)
        await sp.rollback()
        with pytest.raises((ResourceClosedError, SavepointsError)):
            await fetch(world, t, inside, 998)
        assert str(world.current_transaction(t).state) == "open"
        assert await fetch(world, t, before, 998) == list(range(3, 1001))
        await world.run_sync(t, lambda target: before.close())


# T35: a listener that runs SQL before each statement, also before a ROLLBACK TO.


def ask_before_each_statement(world: World) -> None:
    """As monitoring tools do: a query of its own on the same connection, by a cursor of its own."""

    def ask(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        own = connection.connection.cursor()
        try:
            own.execute("SELECT 'asked'")
        finally:
            own.close()

    event.listen(world.sync_engine, "before_cursor_execute", ask)


async def test_t35_plain_listener_keeps_the_rollback_from_the_server(world: World) -> None:
    """It fails in the failed transaction, so that ROLLBACK TO never goes out, and its error is all the caller sees.

    A failure means that errors of listeners do not hinder a rollback.
    """
    ask_before_each_statement(world)
    async with world.open() as t:
        await world.insert(t, 1)
        with fails(Exception, match="current transaction is aborted"):
            async with t.begin_nested():
                await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
        await t.rollback()


async def test_t35_ours_first_error_wins_and_nothing_half_done_is_kept(world: World) -> None:
    """The savepoint cannot be undone: all is lost, and told from the first error; the listener's stands in a note."""
    ask_before_each_statement(world)
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with fails(DBAPIError, match="twice|duplicate key") as first:
                async with world.savepoint(t):
                    await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
            assert any("failed as well" in note for note in first.value.__notes__)
            # refused by us, or by the listener, who comes first, and whose error SQLAlchemy 2.0 does not wrap
            with pytest.raises(Exception, match=r"lost|aborted"):
                await world.insert(t, 2)
    assert lost.value.__cause__ is first.value
    assert world.rows() == []


async def test_t35_ours_listener_that_fails_by_itself(world: World) -> None:
    """Every ROLLBACK TO is refused: the error under way passes, and nothing is committed."""

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("ROLLBACK TO"):
            raise RuntimeError("the listener's own")

    own = Oops("mine")
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            event.listen(world.sync_engine, "before_cursor_execute", refuse)
            await world.insert(t, 1)
            async with world.savepoint(t):
                await world.insert(t, 2)
                raise own
    assert caught.value is own
    assert any("RuntimeError" in note for note in own.__notes__)
    assert world.rows() == []
