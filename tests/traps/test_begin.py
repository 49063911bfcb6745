"""What a savepoint covers, and who begins and commits the transaction around it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InvalidRequestError

import savepoints
from savepoints import AlreadyInTransaction, ImplicitCommit, NotSupported
from tests.behaviours.steps import fails
from tests.harness.world import Target, World

SELECT = text("SELECT * FROM item")

# T4: the driver sends BEGIN only before INSERT, UPDATE or DELETE.


@pytest.mark.needs("driver_begins")
async def test_t04_plain_savepoint_escapes_the_rollback(world: World) -> None:
    """An outermost SAVEPOINT opens the transaction itself, and its RELEASE commits.

    A failure means that SQLAlchemy or the driver now begins before SAVEPOINT: our own BEGIN may be superfluous.
    """
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1, "escaped")
        await t.rollback()
    assert world.rows() == [(1, "escaped")]


async def test_t04_ours_work_of_a_savepoint_stays_inside(world: World) -> None:
    async with world.open() as t:
        async with world.savepoint(t):
            await world.insert(t, 1, "undone")
        await t.rollback()
    with fails(ZeroDivisionError):
        async with world.transaction(world.source) as t:
            async with world.savepoint(t):
                await world.insert(t, 2, "undone")
            raise ZeroDivisionError
    assert world.rows() == []


# T6: Session.begin_nested() sends nothing until the session is asked for a connection.


async def insert_through(connection: Target, id: int) -> None:
    await connection.execute(text("INSERT INTO item VALUES (:id, 'through the connection')"), {"id": id})


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_t06_plain_connection_fetched_before_is_not_covered(world: World) -> None:
    """Its work goes out before any SAVEPOINT, so that the rollback of the savepoint does not undo it.

    A failure means that SAVEPOINT goes out at the call: ours need not ask for the connections any more.
    """
    async with world.open() as t:
        connection = await t.connection()
        nested = await t.begin_nested()
        await insert_through(connection, 1)
        await nested.rollback()
        await t.commit()
    assert world.rows() == [(1, "through the connection")]


@pytest.mark.needs("orm")
async def test_t06_ours_savepoint_covers_every_connection_use(world: World) -> None:
    async with world.transaction(world.source) as t:
        connection = await t.connection()
        sp = await world.savepoint(t)
        await insert_through(connection, 1)
        await sp.rollback()
        await insert_through(connection, 2)
    assert world.rows() == [(2, "through the connection")]


@pytest.mark.needs("orm", "failed_state")
async def test_t06_ours_failure_through_the_connection_is_contained(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        connection = await t.connection()
        async with world.savepoint(t, suppress=DBAPIError):
            await insert_through(connection, 1)
        await insert_through(connection, 2)
    assert world.rows() == [(1, "kept"), (2, "through the connection")]


# T7: a savepoint on a connection that commits each statement by itself.


async def in_autocommit(world: World) -> Target:
    """A connection in AUTOCOMMIT mode."""
    return await world.opened(world.engine.execution_options(isolation_level="AUTOCOMMIT"))


@pytest.mark.needs("core", "one_writer")
@pytest.mark.lacks("always_in_transaction")
async def test_t07_plain_savepoint_in_autocommit_commits(world: World) -> None:
    """SAVEPOINT is taken as a transaction of its own: what it released stays, whatever comes after.

    A failure means that SQLAlchemy refuses begin_nested() there, as we do.
    """
    t = await in_autocommit(world)
    async with t.begin_nested():
        await world.insert(t, 1, "stays")
    await t.rollback()
    await t.close()
    assert world.rows() == [(1, "stays")]


@pytest.mark.needs("core", "failed_state")
async def test_t07_plain_savepoint_in_autocommit_reaches_the_server(world: World) -> None:
    """SQLAlchemy lets it pass, and the server refuses it in words of its own. A failure means as above."""
    t = await in_autocommit(world)
    with pytest.raises(DBAPIError, match="SAVEPOINT can only be used in transaction blocks"):
        await t.begin_nested()
    await t.close()


@pytest.mark.needs("core", "implicit_commit")
async def test_t07_plain_savepoint_in_autocommit_makes_nothing(world: World) -> None:
    """The server says yes, and there is none: the row stays, and the rollback fails. A failure means as above."""
    t = await in_autocommit(world)
    nested = await t.begin_nested()
    await world.insert(t, 1, "stays")
    with pytest.raises(DBAPIError, match=r"SAVEPOINT .* does not exist"):
        await nested.rollback()
    await t.close()
    assert world.rows() == [(1, "stays")]


@pytest.mark.needs("core")
async def test_t07_ours_refuses_autocommit(world: World) -> None:
    t = await in_autocommit(world)
    with pytest.raises(NotSupported, match="AUTOCOMMIT"):
        await world.savepoint(t)
    with fails(NotSupported, match="AUTOCOMMIT"):
        async with world.transaction(t):
            pass
    await t.close()
    assert world.transcript.sent() == []


# T8, T18: a table made inside, or BEGIN, commits all that was done before, savepoints and all.

COMMITTING = pytest.mark.parametrize("statement", ["CREATE TABLE made (id INTEGER)", "BEGIN"], ids=["t08", "t18"])


@pytest.mark.needs("implicit_commit")
@COMMITTING
async def test_t08_t18_plain_statement_commits_everything(world: World, statement: str) -> None:
    """Nor does the caller see the error of his own: the savepoint's exit says "does not exist" in its place.

    A failure means that the database or SQLAlchemy refuses the statement.
    """
    async with world.open() as t:
        await world.insert(t, 1, "stays")
        with fails(DBAPIError, match="does not exist"):
            async with t.begin_nested():
                await t.execute(text(statement))
                raise ValueError
        await t.rollback()
    assert world.rows() == [(1, "stays")]


@pytest.mark.needs("implicit_commit")
@COMMITTING
async def test_t08_t18_ours_refuses_the_statement_before_it_is_sent(world: World, statement: str) -> None:
    with fails(ValueError):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "goes")
            async with world.savepoint(t):
                with fails(ImplicitCommit):
                    await t.execute(text(statement))
                raise ValueError
    assert world.rows() == []


# T16: begin_nested() where nothing was begun on purpose is released, and then nobody commits.


@pytest.mark.lacks("driver_begins", "no_begin")
async def test_t16_plain_released_but_never_committed(world: World) -> None:
    """The work is lost at close, without an error. (Where T4 holds, it stays instead.)

    A failure means that SQLAlchemy commits, warns or refuses: see what is left of `atomic` and `UncommittedWork`.
    """
    async with world.open() as t, t.begin_nested():
        await world.insert(t, 1, "lost")
    assert world.rows() == []


async def test_t16_ours_atomic_commits_what_it_began(world: World) -> None:
    async with world.open() as t, world.atomic(t):
        await world.insert(t, 1, "kept")
    assert world.rows() == [(1, "kept")]


async def test_t16_ours_savepoint_warns_when_nobody_commits(world: World) -> None:
    t = await world.opened()
    async with world.savepoint(t):
        await world.insert(t, 1, "lost")
    with pytest.warns(savepoints.UncommittedWork):
        await t.close()
    assert world.rows() == []


# T20: SAVEPOINT sent past SQLAlchemy, before the driver has begun.


@pytest.mark.needs("core", "driver_begins")
async def test_t20_plain_direct_savepoint_opens_the_transaction(world: World) -> None:
    """As T4, for whoever sends the statements himself.

    A failure means that the driver begins before SAVEPOINT.
    """
    async with world.open() as t:
        await t.exec_driver_sql("SAVEPOINT direct")
        await world.insert(t, 1, "escaped")
        await t.exec_driver_sql("RELEASE SAVEPOINT direct")
        await t.rollback()
    assert world.rows() == [(1, "escaped")]


@pytest.mark.needs("core")
async def test_t20_ours_begins_before_the_first_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t):
        await world.insert(t, 1, "kept")
    assert world.rows() == [(1, "kept")]
    begin, first, *_ = world.transcript.sent()
    assert (begin, first[:9]) == ("BEGIN", "SAVEPOINT")


# T30: a SELECT begins a session's transaction, and begin() then refuses.


@pytest.mark.needs("orm")
async def test_t30_plain_a_read_stands_in_the_way(world: World) -> None:
    """A failure means that begin() adopts what SQLAlchemy began by itself, as `transaction` does."""
    async with world.open() as t:
        await t.execute(SELECT)
        with pytest.raises(InvalidRequestError, match="already begun"):
            await t.begin()


@pytest.mark.needs("orm")
async def test_t30_ours_adopts_what_a_read_began(world: World) -> None:
    async with world.open() as t:
        await t.execute(SELECT)
        async with world.transaction(t):
            await world.insert(t, 1, "kept")
    assert world.rows() == [(1, "kept")]


@pytest.mark.lacks("no_begin")
async def test_t30_ours_refuses_what_was_begun_on_purpose(world: World) -> None:
    async with world.open() as t:
        await t.begin()
        with fails(AlreadyInTransaction):
            async with world.transaction(t):
                pass
        async with world.atomic(t):
            await world.insert(t, 1, "in a savepoint")
        await t.rollback()
    assert world.rows() == []


# T36: `create_engine(skip_autocommit_rollback=True)` where the application or the library sends BEGIN.


async def undo_a_row(world: World, engine: Any, begin: str | None = None) -> None:
    with fails(ZeroDivisionError):
        async with world.transaction(engine) if begin is None else world.open(engine) as t:
            if begin is not None:
                await t.execute(text(begin))
            await t.execute(text("INSERT INTO item VALUES (1, 'undone')"))
            raise ZeroDivisionError


async def seen_by_the_next(world: World, engine: Any) -> int:
    async with world.open(engine) as t:
        found: int = (await t.execute(text("SELECT count(*) FROM item"))).scalar_one()
        return found


@pytest.mark.needs("no_begin", "core")
async def test_t36_plain_rollback_is_left_out(world: World) -> None:
    """A failure means that SQLAlchemy asks the driver whether a transaction is open: the option may stay."""
    engine = world.new_engine(skip_autocommit_rollback=True)
    await undo_a_row(world, engine, begin="BEGIN")
    assert await seen_by_the_next(world, engine) == 1
    engine.dispose()


@pytest.mark.needs("no_begin", "core")
async def test_t36_ours_rollback_is_sent(world: World) -> None:
    engine = world.new_engine(skip_autocommit_rollback=True)
    await undo_a_row(world, engine)
    assert await seen_by_the_next(world, engine) == 0
    engine.dispose()
