"""Two transactions want the same: deadlock (F6), serialization failure (F9), a busy database (F11)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from savepoints import TransactionFailed
from tests.behaviours.steps import fails
from tests.faults.rivals import OURS, THEIRS, A, B, Rival, two_rows
from tests.harness.world import Target, World


@pytest.mark.needs("many_writers")
@pytest.mark.lacks("deadlock_ends_all")
async def test_f6_deadlock_heals_by_rollback_to_the_savepoint(world: World, rival: Rival) -> None:
    """The rollback frees the locks of the savepoint, the other side goes on, and so do we."""
    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
        await world.insert(t, 3, "before")
        sp = await world.savepoint(t, "part")
        await t.execute(A, OURS)
        rival.wait_for_a()
        with pytest.raises(DBAPIError) as victim:
            await t.execute(B, OURS)
        error = victim.value
        assert world.code(error) == "40P01"
        assert [str(transaction.state), str(sp.state)] == ["failed", "failed"]
        with pytest.raises(TransactionFailed) as refused:
            await t.execute(text("SELECT 1"))
        assert refused.value.__cause__ is error
        await sp.rollback()
        assert [str(transaction.state), str(sp.state)] == ["open", "open"]
        rival.has_a()
        await t.execute(A, OURS)
        await t.execute(B, OURS)
    assert world.rows() == [(1, "a+theirs+ours"), (2, "b+theirs+ours"), (3, "before")]


@pytest.mark.needs("many_writers")
@pytest.mark.lacks("deadlock_ends_all")
async def test_f6_deadlock_leaves_a_block(world: World, rival: Rival) -> None:
    """The block that lost is undone by its end, and the transaction around it is kept."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 3, "before")
        async with world.savepoint(t, "part", suppress=DBAPIError) as sp:
            await t.execute(A, OURS)
            rival.wait_for_a()
            await t.execute(B, OURS)
        assert world.code(sp.error) == "40P01"
        rival.has_a()
        await world.insert(t, 4, "after")
    assert world.rows() == [(1, "a+theirs"), (2, "b+theirs"), (3, "before"), (4, "after")]


@pytest.mark.needs("many_writers")
@pytest.mark.lacks("deadlock_ends_all")
async def test_f6_deadlock_outside_any_savepoint(world: World, rival: Rival) -> None:
    """Nothing to go back to: the database's own error reaches the caller, and nothing is kept."""
    with fails(DBAPIError) as victim:
        async with world.transaction(world.source) as t:
            await world.insert(t, 3, "before")
            await t.execute(A, OURS)
            rival.wait_for_a()
            await t.execute(B, OURS)
    assert world.code(victim.value) == "40P01"
    rival.has_a()
    assert world.rows() == [(1, "a+theirs"), (2, "b+theirs")]


@pytest.mark.needs("serialization_failures")
async def test_f9_serialization_failure_at_a_statement(world: World) -> None:
    """What another transaction changed behind our snapshot: the savepoint heals, but the same again fails again."""
    two_rows(world)
    with fails(DBAPIError) as caught:
        async with world.transaction(world.source, isolation_level="REPEATABLE READ") as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 3, "before")
            sp = await world.savepoint(t, "part")
            with world.aside.begin() as other:
                other.execute(A, THEIRS)
            for _ in range(3):
                with pytest.raises(DBAPIError) as failed:
                    await t.execute(A, OURS)
                error = failed.value
                assert world.code(error) == "40001"
                assert str(transaction.state) == "failed"
                await sp.rollback()
                assert str(transaction.state) == "open"
            raise error
    assert caught.value is error
    assert world.rows() == [(1, "a+theirs"), (2, "b")]


@pytest.mark.needs("serialization_failures")
async def test_f9_serialization_failure_swallowed(world: World) -> None:
    """Swallowed without a rollback, it is not committed in silence."""
    two_rows(world)
    with fails(TransactionFailed) as caught:
        async with world.transaction(world.source, isolation_level="REPEATABLE READ") as t:
            await world.insert(t, 3, "before")
            with world.aside.begin() as other:
                other.execute(A, THEIRS)
            with pytest.raises(DBAPIError) as failed:
                await t.execute(A, OURS)
    assert caught.value.__cause__ is failed.value
    assert world.rows() == [(1, "a+theirs"), (2, "b")]


# One writer at a time: the second one is told at once, where it does not wait.


async def waits_for_nobody(t: Target) -> None:
    await t.execute(text("PRAGMA busy_timeout = 0"))


@pytest.mark.needs("one_writer")
async def test_f11_busy(world: World) -> None:
    """Only the statement failed: the same one again, when the other writer has left, and all is kept."""
    two_rows(world)
    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
        await waits_for_nobody(t)
        sp = await world.savepoint(t, "part")
        with world.aside.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(OperationalError, match="locked"):
                await t.execute(A, OURS)
            assert [str(transaction.state), str(sp.state)] == ["open", "open"]
            other.rollback()
        await t.execute(A, OURS)
        await sp.release()
    assert world.rows() == [(1, "a+ours"), (2, "b")]


@pytest.mark.needs("immediate")
async def test_f11_busy_at_the_beginning(world: World) -> None:
    """BEGIN IMMEDIATE is refused: no transaction is left behind, and no connection."""
    two_rows(world)
    async with world.open() as t:
        await waits_for_nobody(t)
        await t.rollback()
        with world.aside.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE")
            with fails(OperationalError, match="locked"):
                async with world.transaction(t, immediate=True):
                    raise AssertionError("not reached")
            assert world.current_transaction(t) is None
            other.rollback()
        async with world.transaction(t, immediate=True):
            await t.execute(A, OURS)
    assert world.rows() == [(1, "a+ours"), (2, "b")]


@pytest.mark.needs("one_writer")
async def test_f11_busy_snapshot(world: World) -> None:
    """WAL: a read that becomes a write behind another's write. A rollback to the savepoint is useless."""
    two_rows(world)
    with world.aside.connect() as aside:
        assert aside.scalar(text("PRAGMA journal_mode = wal")) == "wal"
    with fails(OperationalError, match="locked") as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            assert len(await world.seen(t)) == 2
            sp = await world.savepoint(t, "part")
            with world.aside.begin() as other:
                other.execute(A, THEIRS)
            for _ in range(3):
                with pytest.raises(OperationalError) as failed:
                    await t.execute(A, OURS)
                error: Any = failed.value
                assert error.orig.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
                assert [str(transaction.state), str(sp.state)] == ["open", "open"]
                await sp.rollback()
            raise error
    assert caught.value is error
    async with world.transaction(world.source) as t:
        await t.execute(A, OURS)
    assert world.rows() == [(1, "a+theirs+ours"), (2, "b")]


@pytest.mark.needs("one_writer")
async def test_f11_busy_snapshot_swallowed(world: World) -> None:
    """Nothing was written and nothing lost: the COMMIT is that of a read."""
    two_rows(world)
    with world.aside.connect() as aside:
        aside.execute(text("PRAGMA journal_mode = wal"))
    async with world.transaction(world.source) as t:
        assert len(await world.seen(t)) == 2
        with world.aside.begin() as other:
            other.execute(A, THEIRS)
        async with world.savepoint(t, "part", suppress=OperationalError) as sp:
            await t.execute(A, OURS)
        assert sp.error is not None
    assert world.rows() == [(1, "a+theirs"), (2, "b")]
