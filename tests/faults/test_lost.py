"""The database has ended the transaction: nothing more is sent, nothing is kept, and the first cause is told.

Each scenario runs with each way to lose a transaction: F1 killed backend, F7 deadlock,
F10 full disk, F12 interrupt and OR ROLLBACK.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

import savepoints
from savepoints import TransactionLost
from tests.behaviours.steps import fails
from tests.faults.losses import Loss, closed, closed_unseen, deadlocked, full, interrupted, killed, or_rollback
from tests.harness.world import Target, World

Scenario = Callable[[World, Loss], Awaitable[None]]


async def nothing_kept(world: World) -> None:
    """Nothing of the lost transaction is there, and the next checkout works."""
    assert world.rows() == []
    async with world.transaction(world.source) as t:
        await world.insert(t, 100, "next")
    assert world.rows() == [(100, "next")]


async def passes_all_levels(world: World, loss: Loss) -> None:
    """Nobody catches the error: the outermost end turns it into TransactionLost, all levels are lost."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1, "before")
            mark = await world.savepoint(t, "mark")
            async with world.savepoint(t, "block") as block:
                inner = await world.savepoint(t, "inner")
                try:
                    await loss(world, t)
                except DBAPIError as error:
                    first = error
                    states = [str(level.state) for level in (transaction, mark, block, inner)]
                    raise
    assert states == ["lost"] * 4
    assert caught.value.__cause__ is first
    assert [str(level.state) for level in (mark, block, inner)] == ["lost"] * 3
    assert str(transaction.state) == "rolled back"
    assert "lost" in transaction.outcome
    assert "lost" in mark.outcome
    await nothing_kept(world)


async def swallowed_inside(world: World, loss: Loss) -> None:
    """The block goes on as if nothing were: each further step is refused, and both ends raise from the first error."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            await world.savepoint(t, "mark")
            with fails(TransactionLost) as at_the_block:
                async with world.savepoint(t, "block") as block:
                    with pytest.raises(DBAPIError) as first:
                        await loss(world, t)
                    await everything_is_refused(world, t, first.value)
                    with pytest.raises(TransactionLost) as at_the_handle:
                        await block.rollback()
            assert str(block.state) == "lost"
            await everything_is_refused(world, t, first.value)
    for refusal in (at_the_handle, at_the_block, caught):
        assert refusal.value.__cause__ is first.value
    await nothing_kept(world)


async def everything_is_refused(world: World, t: Target, first: BaseException) -> None:
    """No use of the target gets through to the database; each step is told the first cause."""
    world.transcript.clear()
    steps: list[Callable[[], Any]] = [
        lambda: world.savepoint(t, "another"),
        lambda: world.rollback_to(t, "mark"),
        lambda: world.release(t, "mark"),
    ]
    for step in steps:
        with pytest.raises(TransactionLost) as refused:
            await step()
        assert refused.value.__cause__ is first
    uses: list[Callable[[], Any]] = [
        lambda: world.insert(t, 2, "after"),
        lambda: t.execute(text("SELECT 1")),
        lambda: t.begin_nested(),
    ]
    for use in uses:
        with pytest.raises(
            (TransactionLost, PendingRollbackError)
        ):  # SQLAlchemy's own, where it discarded the connection
            await use()
    assert world.transcript.sent() == []


async def swallowed_outside(world: World, loss: Loss) -> None:
    """The code around the savepoint takes the error for one that the savepoint has undone."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with fails(DBAPIError) as first:
                async with world.savepoint(t, "block"):
                    await loss(world, t)
            with suppress(savepoints.SavepointsError):
                await world.insert(t, 2, "after")
    assert caught.value.__cause__ is first.value
    await nothing_kept(world)


async def suppressed(world: World, loss: Loss) -> None:
    """`suppress` swallows an error after its block was undone; here the block could not be."""
    reached = False
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            async with world.savepoint(t, "block", suppress=Exception) as block:
                await loss(world, t)
            reached = True
    assert not reached
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert block.error is caught.value.__cause__
    await nothing_kept(world)


async def joined(world: World, loss: Loss) -> None:
    """A joined block has no level of its own: the same as without it."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with fails(DBAPIError) as first:
                async with world.atomic(t, savepoint=False):
                    await loss(world, t)
    assert caught.value.__cause__ is first.value
    await nothing_kept(world)


async def own_error(world: World, loss: Loss) -> None:
    """An error of the code's own passes as it is, with a note that tells of the loss."""
    own = ValueError("mine")
    with fails(ValueError, match="mine") as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            async with world.savepoint(t, "block"):
                with suppress(DBAPIError):
                    await loss(world, t)
                raise own
    assert caught.value is own
    assert own.__cause__ is None
    assert any("nothing of transaction" in note for note in own.__notes__)
    await nothing_kept(world)


async def rollback_signal(world: World, loss: Loss) -> None:
    """`raise Rollback` would leave the block quietly, but what it was to undo and what was to stay are both gone."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            async with world.savepoint(t, "block"):
                with pytest.raises(DBAPIError) as first:
                    await loss(world, t)
                raise world.Rollback()
    assert caught.value.__cause__ is first.value
    await nothing_kept(world)


async def doomed_before(world: World, loss: Loss) -> None:
    """A transaction that was to be undone anyway: its quiet end does not hide that it was lost."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source, rollback=True) as t:
            await world.insert(t, 1, "before")
            world.current_transaction(t).doom("only looking")
            with pytest.raises(DBAPIError) as first:
                await loss(world, t)
    assert caught.value.__cause__ is first.value
    await nothing_kept(world)


async def without_a_block(world: World, loss: Loss) -> None:
    """Bookmarks alone, ended by SQLAlchemy's own calls: the commit is refused, the rollback makes the target usable."""
    async with world.open() as t:
        mark = await world.savepoint(t, "mark")
        await world.insert(t, 1, "before")
        with pytest.raises(DBAPIError) as first:
            await loss(world, t)
        await everything_is_refused(world, t, first.value)
        with pytest.raises(TransactionLost) as at_the_commit:
            await t.commit()
        assert at_the_commit.value.__cause__ is first.value
        await t.rollback()
        assert str(mark.state) == "lost"
        assert world.current_transaction(t) is None
        await world.insert(t, 2, "again")
        await t.commit()
    assert world.rows() == [(2, "again")]


async def target_goes_on(world: World, loss: Loss) -> None:
    """The session or connection itself outlives a transaction on it that was lost."""
    async with world.open() as t:
        with fails(TransactionLost):
            async with world.transaction(t):
                await world.insert(t, 1, "before")
                await loss(world, t)
        async with world.transaction(t), world.savepoint(t, "block"):
            await world.insert(t, 2, "again")
    assert world.rows() == [(2, "again")]


SCENARIOS = [
    passes_all_levels,
    swallowed_inside,
    swallowed_outside,
    suppressed,
    joined,
    own_error,
    rollback_signal,
    doomed_before,
    without_a_block,
    target_goes_on,
]

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@pytest.mark.needs("kill")
@each_scenario
async def test_f1_killed_backend(world: World, scenario: Scenario) -> None:
    await scenario(world, killed)


@pytest.mark.needs("deadlock_ends_all")
@each_scenario
async def test_f7_deadlock(world: World, scenario: Scenario) -> None:
    await scenario(world, deadlocked)


@pytest.mark.needs("full")
@pytest.mark.parametrize("journal", ["delete", "wal"])
@each_scenario
async def test_f10_disk_full(world: World, scenario: Scenario, journal: str) -> None:
    with world.aside.connect() as aside:
        assert aside.scalar(text(f"PRAGMA journal_mode = {journal}")) == journal
    await scenario(world, full)
    with world.aside.connect() as aside:
        assert aside.scalar(text("PRAGMA integrity_check")) == "ok"


@pytest.mark.needs("interrupt")
@each_scenario
async def test_f12_interrupted(world: World, scenario: Scenario) -> None:
    await scenario(world, interrupted)


@pytest.mark.needs("whole_rollback")
@each_scenario
async def test_f12_or_rollback(world: World, scenario: Scenario) -> None:
    await scenario(world, or_rollback)


@each_scenario
async def test_connection_closed_by_the_program(world: World, scenario: Scenario) -> None:
    await scenario(world, closed)


@pytest.mark.parametrize("where", ["savepoint", "transaction"])
@pytest.mark.parametrize("way", ["well", "own error"])
async def test_connection_closed_unseen(world: World, where: str, way: str) -> None:
    """No statement finds out, but the end does: a close has stored nothing, so that hooks know what became of it."""
    own = None if way == "well" else ValueError("mine")
    log: list[str] = []
    with fails((TransactionLost, ValueError)) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            for verb in ("on_commit", "on_rollback", "on_unknown"):
                world.hook(verb, t, log.append, verb)
            if where == "transaction":
                await closed_unseen(world, t)
            else:
                async with world.savepoint(t, "block"):
                    await closed_unseen(world, t)
                    if own is not None:
                        raise own
            if own is not None:
                raise own
    told = str(caught.value)
    if own is not None:
        assert caught.value is own
        [told] = own.__notes__
    assert "the connection was closed at" in told
    assert log == ["on_rollback"]
    await nothing_kept(world)
