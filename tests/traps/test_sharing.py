"""One connection or session, and more than one who uses it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import Session

import savepoints
from savepoints import OutOfOrder, WrongTask
from tests.behaviours.steps import fails
from tests.harness.face import bare
from tests.harness.models import Item, item
from tests.harness.world import Target, World

# T28, T41: sessions on a connection of somebody else's. Plain sync sessions, on a connection of the site.


def joined(connection: Connection, mode: Any = "create_savepoint") -> Session:
    return Session(connection, join_transaction_mode=mode)


def insert(target: Connection | Session, id: int) -> None:
    target.execute(item.insert().values(id=id))


def ids(connection: Connection) -> list[int]:
    return list(connection.scalars(select(item.c.id).order_by(item.c.id)))


@pytest.mark.needs("sync", "core")
@pytest.mark.lacks("no_begin")
@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
async def test_t28_plain_one_session_destroys_the_savepoint_of_the_other(world: World) -> None:
    """The other's commit fails, and then the connection refuses everything, also to those who have done nothing.

    A failure means that SQLAlchemy keeps the two in order.
    """
    async with world.open() as t:
        connection: Connection = bare(t)
        insert(connection, 1)
        with joined(connection) as one, joined(connection) as two:
            insert(one, 2)
            insert(two, 3)
            one.rollback()
            with pytest.raises(DBAPIError, match=r"no such savepoint|does not exist"):
                two.commit()
            with pytest.raises(PendingRollbackError, match="until invalid savepoint transaction is rolled back"):
                insert(connection, 4)
    assert world.rows() == []


@pytest.mark.needs("sync", "core")
async def test_t28_ours_second_session_is_refused_while_the_first_has_a_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t:
        connection: Connection = bare(t)
        insert(connection, 1)
        with joined(connection) as one, joined(connection) as two:
            first = savepoints.savepoint(one, "first")
            insert(one, 2)
            world.transcript.clear()
            with pytest.raises(OutOfOrder, match="/first'"):
                savepoints.savepoint(two, "second")
            assert world.transcript.sent() == []
            one.rollback()
            assert str(first.state) == "gone"
            with savepoints.savepoint(two, "second"):
                insert(two, 3)
            two.commit()
        insert(connection, 4)
    assert world.rows() == [(1, None), (3, None), (4, None)]


@pytest.mark.needs("sync", "core")
@pytest.mark.lacks("no_begin")
async def test_t41_plain_session_rolls_the_callers_work_back(world: World) -> None:
    """By default a session that joins a transaction without a savepoint rolls back all of it.

    A failure means that the default of `join_transaction_mode` has changed.
    """
    async with world.open() as t:
        connection: Connection = bare(t)
        insert(connection, 1)
        with joined(connection, "conditional_savepoint") as session:
            insert(session, 2)
            session.rollback()
        assert not connection.in_transaction()
        assert ids(connection) == []


@pytest.mark.needs("sync", "core")
@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only"])
async def test_t41_ours_blocks_tell_who_rolled_back(world: World, mode: str) -> None:
    with fails(OutOfOrder, match="rollback"):
        async with world.transaction(world.source) as t:
            connection: Connection = bare(t)
            insert(connection, 1)
            with joined(connection, mode) as session:
                insert(session, 2)
                session.rollback()
    assert world.rows() == []


@pytest.mark.needs("sync", "core")
async def test_t41_ours_outer_transaction_decides(world: World) -> None:
    """With `create_savepoint` the session commits and rolls back its own part, and the outermost block the whole."""
    async with world.transaction(world.source) as t:
        connection: Connection = bare(t)
        insert(connection, 1)
        with joined(connection) as session:
            insert(session, 2)
            session.commit()
            insert(session, 3)
            session.rollback()
        assert ids(connection) == [1, 2]
        assert world.rows() == []
    assert world.rows() == [(1, None), (2, None)]
    async with world.transaction(world.source, rollback=True) as t:
        with joined(bare(t)) as session:
            insert(session, 4)
            session.commit()
    assert world.rows() == [(1, None), (2, None)]


# T29: tasks that share one session.


async def in_a_savepoint(t: Target, block: Any, id: int, errors: list[Exception]) -> None:
    try:
        async with block:
            t.add(Item(id=id))
            await t.flush()
    except Exception as error:
        errors.append(error)


@pytest.mark.needs("async", "orm")
async def test_t29_plain_tasks_on_one_session_cross(world: World) -> None:
    """Somewhere in the middle of it SQLAlchemy notices.

    A failure means that a session can be shared by tasks, or refuses the second one at once, as ours.
    """
    errors: list[Exception] = []
    t = await world.opened()
    await asyncio.gather(*(in_a_savepoint(t, t.begin_nested(), id, errors) for id in (1, 2, 3)))
    assert any(isinstance(error, InvalidRequestError) for error in errors), errors
    await world.run_sync(t, lambda session: session.invalidate())


@pytest.mark.needs("async")
async def test_t29_ours_second_task_is_refused_and_the_first_one_kept(world: World) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first(t: Target) -> None:
        async with world.savepoint(t, "first"):
            await world.insert(t, 1)
            inside.set()
            await go_on.wait()

    async def second(t: Target) -> None:
        await inside.wait()
        world.transcript.clear()
        with fails(WrongTask, match="/first'"):
            async with world.savepoint(t, "second"):
                pass
        assert world.transcript.sent() == []
        go_on.set()

    async with world.transaction(world.source) as t:
        await asyncio.gather(first(t), second(t))
    assert world.rows() == [(1, None)]


# T47: a fork inherits its parent's connection.


def exit_code_of(work: Callable[[], object]) -> int:
    """Fork; the child does the work and exits, with 1 where it fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
@pytest.mark.needs("sync")
async def test_t47_plain_fork_uses_the_transaction_of_its_parent(world: World) -> None:
    """Nobody hinders it. A failure means that SQLAlchemy or the driver notices the fork."""
    async with world.open() as t:
        await world.insert(t, 1)
        target = bare(t)
        assert exit_code_of(lambda: target.execute(text("SELECT 1")).all()) == 0
        await t.rollback()


@forks
@pytest.mark.needs("sync")
async def test_t47_ours_fork_is_refused_and_the_parent_goes_on(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        target = bare(t)

        def refused() -> None:
            with pytest.raises(WrongTask, match="fork"):
                savepoints.savepoint(target)

        assert exit_code_of(refused) == 0
        async with world.savepoint(t):
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


# T48: a generator that is closed or collected inside a block. Upstream is right here, and so must we be.


def plainly(world: World) -> Iterator[None]:
    with bare(world.source).begin() as target, target.begin_nested():
        target.execute(item.insert().values(id=1))
        yield


def in_our_blocks(world: World) -> Iterator[None]:
    with savepoints.transaction(bare(world.source)) as target, savepoints.savepoint(target):
        target.execute(item.insert().values(id=1))
        yield


def leave_unfinished(generator: Iterator[None], end: str) -> None:
    next(generator)
    if end == "closed":
        generator.close()  # type: ignore[attr-defined]
    del generator
    gc.collect()


each_end = pytest.mark.parametrize("end", ["closed", "collected"])


@pytest.mark.needs("sync")
@pytest.mark.lacks("no_begin")
@each_end
async def test_t48_plain_unfinished_generator_is_rolled_back(world: World, end: str) -> None:
    """A failure means that the trap exists after all."""
    leave_unfinished(plainly(world), end)
    assert world.rows() == []


@pytest.mark.needs("sync")
@each_end
async def test_t48_ours_unfinished_generator_is_rolled_back(world: World, end: str) -> None:
    leave_unfinished(in_our_blocks(world), end)
    assert world.rows() == []
