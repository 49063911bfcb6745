"""The traps that plain code falls into, on every site, with the line and without it: what the database keeps.

Without the line, and where the repair is switched off, each test shows what SQLAlchemy does; with it, what it does not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, ProgrammingError

import savepoints
from savepoints import Repair, TransactionFailed, TransactionLost
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import BAD, notes, row
from tests.faults.losses import Loss, connection_of, full, interrupted, killed, or_rollback
from tests.harness.models import Base, item
from tests.harness.world import Target, World
from tests.installed.lines import Line, each_line, lay

child = Base.metadata.tables["child"]
ORPHAN = child.insert().values(id=1, name="orphan", parent_id=99)  # refused at COMMIT, unless the parent comes
TWICE = text("INSERT INTO item VALUES (1, 'twice')")


# T1: a refused COMMIT leaves the driver's transaction open, and the connection goes back to the pool.


def children(world: World) -> int:
    with world.aside.connect() as aside:
        return len(aside.execute(child.select()).all())


async def refused_commit(t: Target) -> None:
    await t.execute(ORPHAN)
    with pytest.raises(IntegrityError):
        await t.commit()


async def refused_commit_after_a_savepoint(t: Target) -> None:
    async with t.begin_nested():
        await t.execute(ORPHAN)
    with pytest.raises(IntegrityError):
        await t.commit()


async def commit_the_parent(world: World) -> None:
    """The next user of the connection."""
    async with world.open() as t:
        await t.execute(text("INSERT INTO parent (id) VALUES (99)"))
        await t.commit()


@pytest.mark.needs("deferred")
@pytest.mark.lacks("no_begin")
@each_line
@pytest.mark.needs("deferred")
async def test_t01_refused_commit(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.COMMIT)
    async with world.open() as t:
        await refused_commit(t)
    await commit_the_parent(world)
    assert children(world) == (1 if "one_writer" in world.site.has and not repaired else 0)


@pytest.mark.needs("deferred")
@pytest.mark.lacks("no_begin", "driver_begins")  # there the RELEASE is the COMMIT: T4
@each_line
@pytest.mark.needs("deferred")
async def test_t01_refused_commit_after_a_savepoint(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.COMMIT)
    async with world.open() as t:
        await refused_commit_after_a_savepoint(t)
    await commit_the_parent(world)
    assert children(world) == (1 if "one_writer" in world.site.has and not repaired else 0)


@pytest.mark.needs("deferred")
async def test_t01_refused_commit_after_a_savepoint_with_the_line(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await refused_commit_after_a_savepoint(t)
    await commit_the_parent(world)
    assert children(world) == 0


@pytest.mark.needs("deferred")
@pytest.mark.lacks("no_begin")
async def test_t01_rolled_back_and_tried_again_commits_one_try(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await refused_commit(t)
        await t.rollback()
        await t.execute(row(1))
        await t.commit()
    assert (children(world), world.rows()) == (0, [(1, None)])


# T3: the database ends the whole transaction. T31: so does a lost connection.

each_loss = pytest.mark.parametrize("loss", [full, interrupted, or_rollback], ids=lambda loss: loss.__name__)


@pytest.mark.needs("full", "interrupt", "whole_rollback")
@pytest.mark.lacks("no_begin", "always_in_transaction")
@each_loss
@each_line
async def test_t03_dropped_inside_a_savepoint(world: World, line: Line, loss: Loss) -> None:
    repaired = lay(world, line, Repair.LOST)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(DBAPIError) as seen:
            async with t.begin_nested():
                await loss(world, t)
        assert ("no such savepoint" in str(seen.value)) is not repaired
        if not repaired:
            await world.insert(t, 3, "after")
            await t.commit()
        else:
            world.transcript.clear()
            for call in (lambda: world.insert(t, 3, "after"), t.commit):
                with pytest.raises(TransactionLost) as lost:
                    await call()
                assert lost.value.__cause__ is seen.value
            assert not set(world.transcript.sent()) - {"ROLLBACK"}
    assert world.rows() == ([] if repaired else [(3, "after")])


@pytest.mark.needs("full", "interrupt", "whole_rollback")
@pytest.mark.lacks("no_begin", "always_in_transaction")
@each_loss
@each_line
async def test_t03_dropped_without_any_savepoint(world: World, line: Line, loss: Loss) -> None:
    repaired = lay(world, line, Repair.LOST)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with pytest.raises(DBAPIError):
            await loss(world, t)
        with suppress(TransactionLost):
            await world.insert(t, 3, "after")
        if repaired:
            with pytest.raises(TransactionLost):
                await t.commit()
            await t.rollback()
            await world.insert(t, 4, "again")
        await t.commit()
    assert world.rows() == ([(4, "again")] if repaired else [(3, "after")])


@pytest.mark.needs("whole_rollback")
@pytest.mark.lacks("no_begin")
async def test_t03_swallowed_inside_the_block(world: World) -> None:
    """Its end is the first to say so, by the error that was first."""
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.insert(t, 1, "before")
        with fails(TransactionLost) as lost:
            async with t.begin_nested():
                with pytest.raises(IntegrityError) as first:
                    await or_rollback(world, t)
        assert lost.value.__cause__ is first.value
        await t.rollback()
        async with t.begin_nested():
            await world.insert(t, 2, "again")
        await t.commit()
    assert world.rows() == [(2, "again")]


@pytest.mark.needs("whole_rollback")
async def test_t03_error_of_the_first_statement_loses_nothing(world: World) -> None:
    """No transaction of the driver was open before it, and it is nobody's business to refuse what follows."""
    savepoints.install(world.engine)
    async with world.open() as t:
        for statement in (BAD, text("INSERT INTO missing VALUES (1)"), text("SELEKT")):
            with pytest.raises(DBAPIError):
                await t.execute(statement)
        await world.insert(t, 1, "first")
        with pytest.raises(DBAPIError):
            await t.execute(BAD)
        await world.insert(t, 2, "second")
        await t.commit()
    assert world.rows() == [(1, "first"), (2, "second")]


@pytest.mark.needs("one_writer")
@pytest.mark.parametrize("kept", [True, False])
async def test_t03_ended_as_text(world: World, kept: bool) -> None:
    """Nobody knows whether it was committed: to run it again would be wrong advice."""
    savepoints.install(world.engine)
    async with world.open() as t:
        nested = await t.begin_nested()
        await world.insert(t, 1)
        await t.execute(text("COMMIT"))
        with pytest.raises(DBAPIError, match="no such savepoint"):
            await (nested.commit() if kept else nested.rollback())
        with pytest.raises((TransactionLost, PendingRollbackError)) as lost:
            await t.commit()
        if isinstance(lost.value, TransactionLost):
            assert "Look in the database before you do the work again" in str(lost.value)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("kill")
async def test_t31_connection_lost_inside_a_savepoint(world: World) -> None:
    savepoints.install(world.engine)
    t = await world.opened()
    await world.insert(t, 1)
    with fails(DBAPIError) as seen:
        async with t.begin_nested():
            await killed(world, t)
    assert seen.value.connection_invalidated
    with pytest.raises(PendingRollbackError):  # SQLAlchemy's own: it knows of a lost connection
        await t.execute(row(2))
    with pytest.raises(PendingRollbackError):
        await t.commit()
    await t.rollback()
    await t.execute(row(3))  # the same object, with a new connection
    await t.commit()
    await t.close()
    assert world.rows() == [(3, None)]


# T4: the driver sends BEGIN only before INSERT, UPDATE or DELETE. T20: so it is for a savepoint that is deeper, too.


@each_line
@pytest.mark.parametrize("depth", [1, 2])
async def test_t04_savepoint_before_any_write(world: World, line: Line, depth: int) -> None:
    repaired = lay(world, line, Repair.BEGIN, Repair.WARN)
    async with world.open() as t:
        async with t.begin_nested():
            if depth == 2:
                async with t.begin_nested():
                    await world.insert(t, 1, "inside")
            else:
                await world.insert(t, 1, "inside")
        await t.rollback()
    escapes = world.site.has & {"driver_begins", "no_begin"} if isinstance(world.site.has, set) else set()
    assert world.rows() == ([(1, "inside")] if escapes and not repaired else [])


@each_line
async def test_t04_what_is_committed_is_kept(world: World, line: Line) -> None:
    lay(world, line, Repair.BEGIN)
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1, "inside")
        with fails(Oops):
            async with t.begin_nested():
                await world.insert(t, 2, "undone")
                raise Oops
        await t.commit()
    assert world.rows() == [(1, "inside")]


# T7: autocommit connections are left as they are.


@pytest.mark.needs("core", "one_writer")
@pytest.mark.lacks("always_in_transaction")
async def test_t07_autocommit_is_left_alone(world: World) -> None:
    savepoints.install(world.engine)
    t = await world.opened(world.engine.execution_options(isolation_level="AUTOCOMMIT"))
    async with t.begin_nested():
        await world.insert(t, 1, "stays")
    with fails(Oops):
        async with t.begin_nested():
            await world.insert(t, 2, "undone")
            raise Oops
    with pytest.raises(DBAPIError):
        await t.execute(BAD)
    await world.insert(t, 3, "stays")  # without the RELEASE it would be thrown away
    await t.close()
    assert world.rows() == [(1, "stays"), (3, "stays")]


@pytest.mark.needs("sync", "core", "pipeline")  # this driver takes it when it connects
async def test_t07_autocommit_of_the_driver_is_left_alone(world: World) -> None:
    """Asked for past SQLAlchemy, which does not know."""
    engine = create_engine(world.url, connect_args={"autocommit": True}, plugins=["savepoints"])
    with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="SAVEPOINT can only be used in transaction blocks"):
            connection.begin_nested()
        connection.execute(row(1))
        with pytest.raises(DBAPIError):
            connection.execute(BAD)
        connection.execute(row(2))
        with pytest.raises(savepoints.NotSupported):
            savepoints.savepoint(connection)
    engine.dispose()
    assert world.rows() == [(1, None), (2, None)]


# T14: COMMIT of a failed transaction is answered without an error, and keeps nothing.


@pytest.mark.needs("failed_state")
@pytest.mark.parametrize("nested", [False, True])
@each_line
async def test_t14_commit_of_a_failed_transaction(world: World, line: Line, nested: bool) -> None:
    repaired = lay(world, line, Repair.LOST)
    async with world.open() as t:
        if nested:
            async with t.begin_nested():
                await world.insert(t, 2)
        await world.insert(t, 1)
        with pytest.raises(DBAPIError) as first:
            await t.execute(TWICE)
        if repaired:
            with pytest.raises(TransactionFailed, match="INSERT INTO item") as refused:
                await t.commit()
            assert refused.value.__cause__ is first.value
            assert "COMMIT" not in world.transcript.sent()
            await t.rollback()
            await world.insert(t, 3)
        await t.commit()
    assert world.rows() == ([(3, None)] if repaired else [])


@pytest.mark.needs("failed_state")
async def test_t14_the_database_says_by_itself_that_it_takes_nothing(world: World) -> None:
    """Its error is one that the code may expect: it stays what it is."""
    savepoints.install(world.engine)
    async with world.open() as t:
        with pytest.raises(DBAPIError):
            await t.execute(BAD)
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await t.execute(text("SELECT 1"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            async with t.begin_nested():
                await t.execute(text("SELECT 1"))
        await t.rollback()
        await world.insert(t, 1)
        await t.commit()
    assert world.rows() == [(1, None)]


# T16: released, and never committed.


@each_line
async def test_t16_released_and_thrown_away(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.WARN)
    t = await world.opened()
    async with t.begin_nested():
        await world.insert(t, 1, "lost")
    if repaired:
        with pytest.warns(savepoints.UncommittedWork):
            await t.close()
    else:
        await t.close()
    kept = line == "without" and world.site.has & {"driver_begins", "no_begin"}  # type: ignore[operator]
    assert world.rows() == ([(1, "lost")] if kept else [])


async def test_t16_no_warning_where_there_is_nothing_to_lose(world: World) -> None:
    savepoints.install(world.engine)
    t = await world.opened()
    async with t.begin_nested():
        await world.seen(t)
    await t.close()
    t = await world.opened()
    async with t.begin_nested():
        await world.insert(t, 1)
    await t.commit()
    await t.close()
    t = await world.opened()
    async with t.begin_nested():
        await world.insert(t, 2)
    await t.rollback()
    await t.close()
    assert world.rows() == [(1, None)]


# T21: SQLAlchemy sends no RELEASE after ROLLBACK TO.


def left_on_the_server(world: World) -> int:
    sent = world.transcript.sent()
    made = sum(statement.startswith("SAVEPOINT") for statement in sent)
    return made - sum(statement.startswith("RELEASE") for statement in sent)


@pytest.mark.lacks("no_begin")
@each_line
async def test_t21_savepoints_pile_up(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.RELEASE)
    async with world.open() as t:
        await world.insert(t, 1)
        for _ in range(3):
            with fails(Oops):
                async with t.begin_nested():
                    await t.execute(row(2))
                    raise Oops
        assert left_on_the_server(world) == (0 if repaired else 3)
        await t.commit()
    assert world.rows() == [(1, None)]


# T24: an error is swallowed inside the block, whose RELEASE is then refused.


@pytest.mark.needs("failed_state")
@each_line
async def test_t24_swallowed_inside_the_block(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.RELEASE)
    async with world.open() as t:
        await world.insert(t, 1, "outside")
        with fails(DBAPIError, match="current transaction is aborted") as seen:
            async with t.begin_nested():
                await t.execute(row(2))
                with pytest.raises(DBAPIError):
                    await t.execute(TWICE)
        assert ("INSERT INTO item" in notes(seen.value)) is (line != "without")
        if repaired:
            await world.insert(t, 3, "after")
            await t.commit()
        else:
            with pytest.raises(DBAPIError):
                await t.execute(row(3))
            await t.rollback()
    assert world.rows() == ([(1, "outside"), (3, "after")] if repaired else [])


# T33: `stream_results` on the connection makes a cursor of SAVEPOINT.


@pytest.mark.needs("network")
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*was deleted while still open:ResourceWarning")
@each_line
async def test_t33_savepoint_on_a_streaming_connection(world: World, line: Line) -> None:
    repaired = lay(world, line, Repair.STREAM)
    async with world.open() as t:
        await t.execute(row(1))
        await world.run_sync(t, lambda target: connection_of(target).execution_options(stream_results=True))

        def nested(target: Any) -> None:
            for error in (None, Oops):
                with suppress(Oops), target.begin_nested():
                    assert target.execute(select(item.c.id)).all() == [(1,)]
                    if error is not None:
                        raise error

        breaks = world.site.name == "psycopg" or "psycopg" in world.site.driver
        if repaired or not breaks:
            await world.run_sync(t, nested)
        else:
            with pytest.raises(ProgrammingError, match="syntax error"):
                await world.run_sync(t, nested)
        await t.rollback()
