"""What is sent when something fails: a statement, a flush, the COMMIT, or the whole transaction."""

from __future__ import annotations

import pytest
from inline_snapshot import snapshot
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from savepoints import TransactionFailed, TransactionLost
from tests.harness.models import Child, Item
from tests.harness.world import World
from tests.transcripts.wire import Boom, leaves, sent

BAD = text("SELECT * FROM missing")

# -- a statement


async def test_statement_fails_in_a_block(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, suppress=DBAPIError):
            await t.execute(BAD)
        await world.insert(t, 2)
    assert sent(world) == snapshot(
        ["BEGIN", "INSERT item", "SAVEPOINT 1", "SELECT missing", "ROLLBACK TO 1", "RELEASE 1", "INSERT item", "COMMIT"]
    )


async def test_failed_statement_healed(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t) as sp:
        with leaves(DBAPIError):
            await t.execute(BAD)
        await sp.rollback()
        await t.execute(text("SELECT 1"))
    assert sent(world) == snapshot(
        ["BEGIN", "SAVEPOINT 1", "SELECT missing", "ROLLBACK TO 1", "SELECT 1", "RELEASE 1", "COMMIT"]
    )


@pytest.mark.needs("failed_state")
async def test_nothing_is_sent_to_a_failed_server(world: World) -> None:
    with leaves(TransactionFailed):
        async with world.transaction(world.source) as t:
            with leaves(DBAPIError):
                await t.execute(BAD)
            with leaves(TransactionFailed):
                await t.execute(text("SELECT 1"))
            with leaves(TransactionFailed):
                await world.savepoint(t)
    assert sent(world) == snapshot(["BEGIN", "SELECT missing", "ROLLBACK"])


@pytest.mark.needs("failed_state")
async def test_failed_block_is_undone(world: World) -> None:
    async with world.transaction(world.source) as t:
        with leaves(TransactionFailed):
            async with world.savepoint(t):
                with leaves(DBAPIError):
                    await t.execute(BAD)
        await world.insert(t, 1)
    assert sent(world) == snapshot(
        ["BEGIN", "SAVEPOINT 1", "SELECT missing", "ROLLBACK TO 1", "RELEASE 1", "INSERT item", "COMMIT"]
    )


@pytest.mark.lacks("failed_state")
async def test_swallowed_statement_error_is_harmless_elsewhere(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t):
        with leaves(DBAPIError):
            await t.execute(BAD)
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "SELECT missing", "INSERT item", "RELEASE 1", "COMMIT"])


# -- a flush


@pytest.mark.needs("orm")
async def test_flush_before_the_savepoint_fails(world: World) -> None:
    """What was pending is the caller's earlier work, and so is its error: no SAVEPOINT goes out."""
    with leaves(IntegrityError):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            t.expunge_all()
            t.add(Item(id=1))
            async with world.savepoint(t, suppress=IntegrityError):
                raise AssertionError("not entered")
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "INSERT item", "ROLLBACK"])


@pytest.mark.needs("orm")
async def test_flush_before_an_inner_savepoint_fails(world: World) -> None:
    """The level around is undone, as its block's end finds: one ROLLBACK TO."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        t.expunge_all()
        async with world.savepoint(t, suppress=IntegrityError):
            t.add(Item(id=1))
            await world.savepoint(t)
        await world.insert(t, 2)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "INSERT item",
            "SAVEPOINT 1",
            "INSERT item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "INSERT item",
            "COMMIT",
        ]
    )


@pytest.mark.needs("orm")
async def test_flush_inside_fails(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        t.expunge_all()
        async with world.savepoint(t, suppress=IntegrityError):
            await world.insert(t, 1)
    assert sent(world) == snapshot(
        ["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"]
    )


@pytest.mark.needs("orm")
async def test_flush_at_the_end_of_a_block_fails(world: World) -> None:
    """It is the body's error."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        t.expunge_all()
        async with world.savepoint(t, suppress=IntegrityError):
            t.add(Item(id=1))
    assert sent(world) == snapshot(
        ["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"]
    )


@pytest.mark.needs("orm")
async def test_failed_flush_healed(world: World) -> None:
    """SQLAlchemy has undone the savepoint; healing releases it and makes a new one."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        t.expunge_all()
        async with world.savepoint(t) as sp:
            with leaves(IntegrityError):
                await world.insert(t, 1)
            await sp.rollback()
            await world.insert(t, 2)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "INSERT item",
            "SAVEPOINT 1",
            "INSERT item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "SAVEPOINT 1",
            "INSERT item",
            "RELEASE 1",
            "COMMIT",
        ]
    )


@pytest.mark.needs("orm")
async def test_flush_outside_any_savepoint_fails(world: World) -> None:
    with leaves(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            t.expunge_all()
            with leaves(IntegrityError):
                await world.insert(t, 1)
            with leaves(TransactionLost):
                await world.savepoint(t)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "INSERT item", "ROLLBACK"])


@pytest.mark.needs("orm")
async def test_error_leaves_with_something_pending(world: World) -> None:
    """It is not flushed on the way out."""
    async with world.transaction(world.source) as t, world.savepoint(t, suppress=Boom):
        t.add(Item(id=1))
        raise Boom
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])


# -- the COMMIT


@pytest.mark.needs("deferred")
async def test_commit_refused(world: World) -> None:
    """Rolled back at once on the driver, past the events that the transcript follows: see the pool's check."""
    with leaves(IntegrityError):
        async with world.transaction(world.source) as t:
            await t.execute(Child.__table__.insert().values(id=1, parent_id=99))  # type: ignore[attr-defined]
    assert sent(world) == snapshot(["BEGIN", "INSERT child", "COMMIT"])


# -- the whole transaction


@pytest.mark.needs("whole_rollback")
async def test_nothing_is_sent_after_a_loss(world: World) -> None:
    """The last ROLLBACK is SQLAlchemy's word to the driver, which has nothing to roll back and sends nothing.

    One that has to be given a transaction for it (SQLite with `autocommit=False`) gets an empty one.
    """
    with leaves(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t) as sp:
                with leaves(DBAPIError):
                    await t.execute(text("INSERT OR ROLLBACK INTO item (id) VALUES (1)"))
                with leaves(TransactionLost):
                    await t.execute(text("SELECT 1"))
                with leaves(TransactionLost):
                    await sp.rollback()
                with leaves(TransactionLost):
                    await world.savepoint(t)
    last = ["ROLLBACK", "BEGIN"] if "always_in_transaction" in world.site.has else ["ROLLBACK"]
    assert sent(world) == ["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", *last]


@pytest.mark.needs("kill")
async def test_nothing_is_sent_on_a_lost_connection(world: World) -> None:
    """As above: the last ROLLBACK is SQLAlchemy's word, on a connection that is no more."""
    with leaves(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t, suppress=Boom):
                await t.execute(world.sql("kill itself"))
    assert sent(world) == ["BEGIN", "INSERT item", "SAVEPOINT 1", world.site.sql["kill itself"], "ROLLBACK"]
