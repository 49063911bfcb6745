"""The database has ended the transaction, or its connection is gone, and the blocks go on as if nothing were."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from savepoints import TransactionLost
from tests.behaviours.steps import fails
from tests.faults.losses import Loss, connection_of, deadlocked, full, interrupted, or_rollback
from tests.harness.world import Target, World

# T2: a deadlock ends the whole transaction, savepoints and all. (tests/faults/test_lost.py has ours at length.)


@pytest.mark.needs("deadlock_ends_all")
async def test_t02_plain_half_of_the_transaction_is_committed(world: World) -> None:
    """The savepoint's exit fails with "does not exist", which hides the deadlock; what comes after is committed alone.

    A failure means that SQLAlchemy notices that the transaction has ended.
    """
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(DBAPIError) as seen:
            async with t.begin_nested():
                await deadlocked(world, t)
        assert world.code(seen.value) == "1305"
        await world.insert(t, 3, "after")
        await t.commit()
    assert world.rows() == [(3, "after")]


@pytest.mark.needs("deadlock_ends_all")
async def test_t02_ours_tells_the_deadlock_and_keeps_nothing(world: World) -> None:
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with fails(DBAPIError) as seen:
                async with world.savepoint(t):
                    await deadlocked(world, t)
            assert world.code(seen.value) == "1213"
            with suppress(TransactionLost):
                await world.insert(t, 3, "after")
    assert lost.value.__cause__ is seen.value
    assert "deadlock 1213" in str(lost.value)
    assert world.rows() == []


# T3: disk full, interrupt and OR ROLLBACK end the whole transaction. (tests/faults/test_lost.py has ours at length.)

each_loss = pytest.mark.parametrize("loss", [full, interrupted, or_rollback], ids=lambda loss: loss.__name__)


@pytest.mark.needs("full", "interrupt", "whole_rollback")
@pytest.mark.lacks("no_begin", "always_in_transaction")
@each_loss
async def test_t03_plain_half_of_the_transaction_is_committed(world: World, loss: Loss) -> None:
    """The savepoint's exit says "no such savepoint"; who swallows that commits what comes after, without the rest.

    A failure means that SQLAlchemy notices that the transaction has ended.
    """
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(DBAPIError) as seen:
            async with t.begin_nested():
                await loss(world, t)
        assert "no such savepoint" in str(seen.value)
        await world.insert(t, 3, "after")
        await t.commit()
    assert world.rows() == [(3, "after")]


@pytest.mark.needs("full", "interrupt", "whole_rollback")
@each_loss
async def test_t03_ours_tells_the_first_cause_and_keeps_nothing(world: World, loss: Loss) -> None:
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with fails(DBAPIError) as seen:
                async with world.savepoint(t):
                    await loss(world, t)
            assert "no such savepoint" not in str(seen.value)
            with suppress(TransactionLost):
                await world.insert(t, 3, "after")
    assert lost.value.__cause__ is seen.value
    assert world.rows() == []


# T9: a time-out of the client inside a savepoint. (tests/faults/test_cancellation.py has ours at length.)


async def times_out(world: World, t: Target) -> None:
    """A statement whose time is over as soon as it waits."""
    async with asyncio.timeout(None) as limit:
        limit.reschedule(0)
        await t.execute(text("SELECT 1"))


@pytest.mark.needs("async")
async def test_t09_plain_timeout_inside_a_savepoint_takes_the_outer_work_along(world: World) -> None:
    """Whoever waits only for the part finds the whole transaction gone, and an error about reconnecting.

    A failure means that a cancelled statement is recoverable by the savepoint.
    """
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(TimeoutError):
            async with t.begin_nested():
                await times_out(world, t)
        with pytest.raises(PendingRollbackError, match="until invalid transaction is rolled back"):
            await world.insert(t, 2, "after")
        await t.rollback()
    assert world.rows() == []


@pytest.mark.needs("async")
async def test_t09_ours_timeout_is_told_as_the_cause_of_the_loss(world: World) -> None:
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with fails(TimeoutError):
                async with world.savepoint(t) as sp:
                    await times_out(world, t)
            assert str(sp.state) == "lost"
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    assert world.rows() == []


@pytest.mark.needs("failed_state")
async def test_t09_ours_timeout_of_the_server_is_healed_by_the_savepoint(world: World) -> None:
    """The way to limit a part; the setting itself is undone with it."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        async with world.savepoint(t, suppress=DBAPIError) as sp:
            await t.execute(text("SET LOCAL statement_timeout = 50"))
            await t.execute(text("SELECT pg_sleep(60)"))
        assert sp.error is not None
        assert await t.scalar(text("SHOW statement_timeout")) == "0"
    assert world.rows() == [(1, "before")]


# T10: cancelled once more while the exit sends ROLLBACK TO.


async def cancelled_twice(world: World, t: Target, block: object) -> None:
    """A savepoint block, cancelled where it sleeps, and again as soon as its exit waits for the database."""
    task = asyncio.current_task()
    assert task is not None
    with suppress(asyncio.CancelledError):
        async with block:  # type: ignore[attr-defined]
            await world.insert(t, 2, "inside")
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(task.cancel)  # while the exit waits
            raise asyncio.CancelledError
    while task.uncancel():
        pass


@pytest.mark.needs("async")
async def test_t10_plain_second_cancel_destroys_the_outer_transaction(world: World) -> None:
    """The ROLLBACK TO is interrupted, and with it the connection is thrown away.

    A failure means that SQLAlchemy shields the exit of a nested transaction, as it does that of a session.
    """
    async with world.open() as t:
        await world.insert(t, 1, "before")
        await cancelled_twice(world, t, t.begin_nested())
        with pytest.raises((PendingRollbackError, DBAPIError)):
            await t.commit()
        await t.rollback()
    assert world.rows() == []


@pytest.mark.needs("async")
async def test_t10_ours_exit_that_has_begun_is_finished(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        await cancelled_twice(world, t, world.savepoint(t))
        await world.insert(t, 3, "after")
    assert world.rows() == [(1, "before"), (3, "after")]


# T31: the connection is gone inside a savepoint.


async def invalidate(world: World, t: Target) -> None:
    """Throw the connection away, as a listener of the pool or a monitoring tool may do."""
    await world.run_sync(t, lambda target: connection_of(target).invalidate())


@pytest.mark.needs("core")
@pytest.mark.lacks("no_begin")
async def test_t31_plain_each_level_must_be_rolled_back_by_hand(world: World) -> None:
    """Nested, then root, and each use before that raises an error about reconnecting.

    A failure means that one rollback is enough.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        nested = await t.begin_nested()
        await invalidate(world, t)
        with pytest.raises(PendingRollbackError, match="until invalid savepoint transaction is rolled back"):
            await world.insert(t, 2)
        await nested.rollback()
        with pytest.raises(PendingRollbackError, match="until invalid transaction is rolled back"):
            await world.insert(t, 2)
        await t.rollback()
    assert world.rows() == []


async def test_t31_ours_one_error_tells_it(world: World) -> None:
    with fails(TransactionLost, match="nothing of transaction"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t) as sp:
                await invalidate(world, t)
                await world.insert(t, 2)
    assert str(sp.state) == "lost"
    assert world.rows() == []


async def test_t31_ours_swallowed_it_is_told_at_the_end(world: World) -> None:
    with fails(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with suppress(Exception):
                async with world.savepoint(t):
                    await invalidate(world, t)
                    await world.insert(t, 2)
    assert world.rows() == []


async def test_t31_ours_invalidated_and_not_used_again(world: World) -> None:
    with fails(TransactionLost):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await invalidate(world, t)
    assert world.rows() == []
