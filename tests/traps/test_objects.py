"""What a rollback to a savepoint makes of a session's objects, and what a flush that fails makes of the session."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError, MissingGreenlet, PendingRollbackError, StatementError
from sqlalchemy.orm.exc import StaleDataError

from savepoints import TransactionFailed
from tests.behaviours.steps import fails
from tests.faults.suspensions import clear_frames
from tests.harness.world import Target, World

pytestmark = pytest.mark.needs("orm")

Item = World.Item

# T5: forgotten are values that were only refreshed inside, and rows that were first loaded or made there.


async def update_past_the_session(world: World, t: Target) -> Any:
    """An object that was refreshed after an UPDATE as text."""
    found = await t.get(Item, 1)
    await t.execute(text("UPDATE item SET name = 'inside' WHERE id = 1"))
    await t.refresh(found)
    return found


async def insert_past_the_session(world: World, t: Target) -> Any:
    """An object whose row came as text, and was then loaded."""
    await t.execute(text("INSERT INTO item VALUES (2, 'ghost')"))
    return await t.get(Item, 2)


async def insert_returning(world: World, t: Target) -> Any:
    """An object made by INSERT ... RETURNING."""
    return (await t.scalars(insert(Item).returning(Item), [{"id": 2, "name": "ghost"}])).one()


each_ghost = pytest.mark.parametrize(
    "make_ghost", [insert_past_the_session, insert_returning], ids=lambda make: make.__name__
)


@pytest.fixture
async def t(world: World) -> AsyncIterator[Target]:
    """A session in a transaction that has sent its first statement; one item is there."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item (name) VALUES ('before')"))
    async with world.open() as t:
        await t.execute(text("UPDATE item SET name = name"))
        yield t


async def test_t05_plain_refreshed_value_stays(world: World, t: Target) -> None:
    """A failure means that SQLAlchemy expires what was refreshed inside: so need not we."""
    nested = await t.begin_nested()
    found = await update_past_the_session(world, t)
    await nested.rollback()
    assert found.name == "inside"
    assert await t.scalar(text("SELECT name FROM item")) == "before"


async def test_t05_ours_refreshed_value_is_the_old_one(world: World, t: Target) -> None:
    sp = await world.savepoint(t)
    found = await update_past_the_session(world, t)
    await sp.rollback()
    assert found.name == "before"


@each_ghost
async def test_t05_plain_ghost_stays(world: World, t: Target, make_ghost: Any) -> None:
    """The object of a row that is gone stays persistent, is found by get(), and fails at the next flush.

    A failure means that SQLAlchemy restores what was first loaded inside: so need not we.
    """
    nested = await t.begin_nested()
    ghost = await make_ghost(world, t)
    await nested.rollback()
    assert await t.get(Item, 2) is ghost
    assert await t.scalar(text("SELECT count(*) FROM item")) == 1
    ghost.name = "boo"
    with pytest.raises(StaleDataError, match=r"expected to update 1 row\(s\); 0 were matched"):
        await t.flush()


@each_ghost
async def test_t05_ours_ghost_is_gone(world: World, t: Target, make_ghost: Any) -> None:
    async with world.transaction(t):
        sp = await world.savepoint(t)
        ghost = await make_ghost(world, t)
        await sp.rollback()
        assert await t.get(Item, 2) is None
        assert ghost not in t
        await world.insert(t, 2, "again")
    assert world.rows() == [(1, "before"), (2, "again")]


# T25: begin_nested() flushes first, and what fails there undoes the level around.


@pytest.mark.lacks("no_begin")
async def test_t25_plain_bad_pending_object_undoes_everything_before(world: World, t: Target) -> None:
    """A mistake made before the savepoint raises at its opening, and takes the whole transaction along.

    A failure means that begin_nested() does not flush, or that what was before it stays.
    """
    await world.insert(t, 2, "before")
    t.add(Item(id=1, name="twice"))
    with pytest.raises(IntegrityError):
        await t.begin_nested()
    with pytest.raises(PendingRollbackError):
        await t.execute(text("SELECT 1"))
    await t.rollback()
    assert world.rows() == [(1, "before")]


async def test_t25_plain_bad_pending_object_undoes_the_savepoint_around(world: World, t: Target) -> None:
    """Inside a savepoint it is that one which is undone, although its block goes on."""
    outer = await t.begin_nested()
    await world.insert(t, 2, "inside")
    t.add(Item(id=1, name="twice"))
    with pytest.raises(IntegrityError):
        await t.begin_nested()
    assert not outer.is_active
    await outer.rollback()
    await t.commit()
    assert world.rows() == [(1, "before")]


async def test_t25_ours_error_before_the_savepoint_is_told_as_such(world: World, t: Target) -> None:
    """Nothing is left of the transaction, for SQLAlchemy has rolled it back; `suppress` has no say in it."""
    with fails(IntegrityError) as failed:
        async with world.transaction(t):
            transaction = world.current_transaction(t)
            await world.insert(t, 2, "before")
            t.add(Item(id=1, name="twice"))
            try:
                async with world.savepoint(t, suppress=IntegrityError):
                    raise AssertionError("not reached")
            finally:
                state = str(transaction.state)
    assert state == "lost"
    assert any("pending before the savepoint" in note for note in failed.value.__notes__)
    assert world.rows() == [(1, "before")]


async def test_t25_ours_savepoint_around_is_recorded_as_undone(world: World, t: Target) -> None:
    async with world.transaction(t):
        await world.insert(t, 2, "kept")
        with fails(TransactionFailed) as told:
            async with world.savepoint(t, "outer") as outer:
                await world.insert(t, 3, "undone")
                t.add(Item(id=1, name="twice"))
                with pytest.raises(IntegrityError) as first:
                    await world.savepoint(t, "inner")
                assert str(outer.state) == "undone"
        assert told.value.__cause__ is first.value
    assert world.rows() == [(1, "before"), (2, "kept")]


# T26: after a failed flush the one call that heals looks needless.


async def fail_to_flush(t: Target) -> BaseException:
    t.add(Item(id=1, name="twice"))
    with pytest.raises(IntegrityError) as failed:
        await t.flush()
    return failed.value


async def test_t26_plain_is_active_is_false_although_rollback_is_needed(world: World, t: Target) -> None:
    """`if nested.is_active: nested.rollback()` skips it, and the session refuses everything.

    A failure means that is_active tells whether rollback() is needed.
    """
    nested = await t.begin_nested()
    await fail_to_flush(t)
    assert not nested.is_active
    with pytest.raises(PendingRollbackError, match="due to a previous exception during flush"):
        await t.execute(text("SELECT 1"))
    await nested.rollback()
    assert await t.scalar(text("SELECT count(*) FROM item")) == 1


async def test_t26_ours_rollback_always_heals(world: World, t: Target) -> None:
    async with world.transaction(t):
        sp = await world.savepoint(t)
        await world.insert(t, 2, "undone")
        await fail_to_flush(t)
        assert str(sp.state) == "undone"
        await sp.rollback()
        assert str(sp.state) == "open"
        await world.insert(t, 2, "kept")
    assert world.rows() == [(1, "before"), (2, "kept")]


async def test_t26_ours_without_a_rollback_nothing_is_kept_in_silence(world: World, t: Target) -> None:
    with fails(TransactionFailed) as told:
        async with world.transaction(t):
            await world.savepoint(t)
            await world.insert(t, 2, "undone")
            first = await fail_to_flush(t)
    assert told.value.__cause__ is first
    assert world.rows() == [(1, "before")]


# T38: what the rollback expired must be loaded again, which in async code an attribute cannot do.


async def change_and_flush(t: Target) -> Any:
    found = await t.get(Item, 1)
    found.name = "inside"
    await t.flush()
    return found


@pytest.mark.needs("async")
async def test_t38_plain_attribute_after_the_rollback_raises(world: World, t: Target) -> None:
    """`expire_on_commit=False` does not help. A failure means that SQLAlchemy keeps or reloads the old value."""
    await t.rollback()
    async with world.maker(expire_on_commit=False)() as t:
        nested = await t.begin_nested()
        found = await change_and_flush(t)
        await nested.rollback()
        with pytest.raises((StatementError, MissingGreenlet), match="greenlet_spawn has not been called") as raised:
            found.name  # noqa: B018
        with warnings.catch_warnings(action="ignore"):  # a coroutine was never awaited
            clear_frames(raised.value)


async def test_t38_ours_attribute_after_the_rollback_is_the_old_value(world: World, t: Target) -> None:
    sp = await world.savepoint(t)
    found = await change_and_flush(t)
    await sp.rollback()
    assert found.name == "before"
    async with world.savepoint(t, rollback=True):
        await change_and_flush(t)
    assert found.name == "before"


# T39: what was new inside becomes transient, and keeps the key that the database had made.


async def new_inside(t: Target) -> Any:
    new = Item(name="new")
    t.add(new)
    await t.flush()
    return new


async def test_t39_plain_undone_object_keeps_its_key(world: World, t: Target) -> None:
    """Added again, it claims a key that the generator may give to another.

    A failure means that the key is taken back.
    """
    nested = await t.begin_nested()
    new = await new_inside(t)
    await nested.rollback()
    assert inspect(new).transient
    assert new.id is not None


@pytest.mark.lacks("keys_reused")
async def test_t39_ours_key_cleared_and_added_again_gets_a_new_one(world: World, t: Target) -> None:
    """Ours has it, too: the values of an undone object are the caller's. Clear the key before adding it again."""
    async with world.transaction(t):
        sp = await world.savepoint(t)
        new = await new_inside(t)
        await sp.rollback()
        assert inspect(new).transient
        undone, new.id = new.id, None
        t.add(new)
        await t.flush()
        assert new.id == undone + 1


@pytest.mark.needs("keys_reused")
async def test_t39_ours_key_cleared_and_added_again_gets_the_same(world: World, t: Target) -> None:
    async with world.transaction(t):
        sp = await world.savepoint(t)
        new = await new_inside(t)
        await sp.rollback()
        assert inspect(new).transient
        undone, new.id = new.id, None
        t.add(new)
        await t.flush()
        assert new.id == undone
