"""Group I: isolation levels, autocommit, and what BEGIN has to do with savepoints."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

import savepoints
from savepoints import AlreadyInTransaction, ImplicitCommit, NotSupported, OutOfOrder
from tests.behaviours.steps import Oops, connection_of, fails, refused
from tests.harness.face import bare
from tests.harness.models import item
from tests.harness.world import Source, Target, World


async def isolation(world: World, t: Target) -> str:
    level: str = await t.scalar(world.sql("isolation"))
    return level


@pytest.mark.needs("isolation_levels")
@pytest.mark.parametrize("error", [None, Oops()], ids=["kept", "undone"])
async def test_i134_an_isolation_level_is_set_for_one_transaction(world: World, error: Oops | None) -> None:
    async with world.open() as t:
        default = await isolation(world, t)
        await t.rollback()
        for source in (world.source, t):
            with fails(Oops):
                async with world.transaction(source, isolation_level="SERIALIZABLE") as inside:
                    assert await isolation(world, inside) == "serializable"
                    raise error or Oops
            async with world.transaction(source, isolation_level="REPEATABLE READ") as inside:
                assert await isolation(world, inside) == "repeatable read"
            async with world.transaction(source) as inside:
                assert await isolation(world, inside) == default
        assert await isolation(world, t) == default


async def test_i135_parts_take_no_isolation_level(world: World) -> None:
    """It belongs to the whole: no part has such an argument, and `atomic` inside goes by the level it finds."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        for verb in (savepoints.savepoint, savepoints.atomic):
            call: Any = verb
            with refused(world, TypeError, "isolation_level"):
                call(bare(t), isolation_level="SERIALIZABLE")
        async with world.atomic(t):
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("isolation_levels")
async def test_i135_atomic_inside_keeps_the_level_of_its_transaction(world: World) -> None:
    async with world.transaction(world.source, isolation_level="SERIALIZABLE") as t, world.atomic(t):
        assert await isolation(world, t) == "serializable"


@pytest.mark.needs("isolation_levels")
async def test_i136_options_in_mid_transaction_are_refused(world: World) -> None:
    async with world.open() as t:
        default = await isolation(world, t)
        await t.rollback()
        await world.insert(t, 1)
        options: list[dict[str, Any]] = [{"isolation_level": "SERIALIZABLE"}, {"read_only": True}]
        if "read_only" in world.site.has:
            options.append({"deferrable": True})
        for option in options:
            with refused(world, AlreadyInTransaction) as told:
                await world.transaction(t, **option).__aenter__()
            assert told.value.hint
        assert await isolation(world, t) == default
        await t.commit()  # the transaction has gone on as it was
    assert world.rows() == [(1, None)]


async def test_i136_a_change_of_isolation_level_in_a_block_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with refused(world, OutOfOrder, "isolation level"):
            await world.run_sync(t, set_isolation_level, "SERIALIZABLE")
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


def set_isolation_level(target: Any, level: str) -> None:
    connection_of(target).execution_options(isolation_level=level)


def autocommitting(world: World) -> Source:
    """A source like the world's, with every statement committed by itself."""
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    if world.style == "core":
        return engine
    maker = world.maker()
    maker.configure(bind=engine)
    return maker


@pytest.mark.lacks("always_in_transaction")  # there SQLAlchemy's AUTOCOMMIT does nothing
async def test_i137_a_target_in_autocommit_mode_is_refused_and_left_as_it_is(world: World) -> None:
    async with world.open(autocommitting(world)) as t:
        await world.insert(t, 1)
        assert world.rows() == [(1, None)]
        if world.style == "core":
            await t.rollback()  # a transaction that SQLAlchemy began on a Connection is refused for itself
        for verb in (world.transaction, world.savepoint, world.atomic):
            with refused(world, NotSupported, "AUTOCOMMIT") as told:
                await verb(t).__aenter__()
            assert "without isolation_level='AUTOCOMMIT'" in told.value.hint
        await world.insert(t, 2)
        assert world.rows() == [(1, None), (2, None)]  # the mode is as it was
        await t.rollback()


async def test_i137_a_source_in_autocommit_mode_is_refused(world: World) -> None:
    with fails(NotSupported, "AUTOCOMMIT"):
        async with world.transaction(autocommitting(world)) as t:
            await world.insert(t, 1)
    assert world.rows() == []


@pytest.mark.needs("implicit_commit")
async def test_i137_a_driver_in_autocommit_mode_is_refused(world: World) -> None:
    """The driver's own setting, of which SQLAlchemy does not know."""
    engine = world.new_engine()
    event.listen(getattr(engine, "sync_engine", engine), "connect", lambda dbapi, record: dbapi.autocommit(True))
    source = engine if world.style == "core" else world.maker(bind=engine)
    with fails(NotSupported, "AUTOCOMMIT"):
        async with world.transaction(source) as t:
            await world.insert(t, 1)
    async with world.open(source) as t:
        with fails(NotSupported, "AUTOCOMMIT"):
            await world.savepoint(t)
    assert world.rows() == []
    disposed = engine.dispose()
    if disposed is not None:
        await disposed


async def test_i138_a_change_to_autocommit_in_a_block_is_refused(world: World) -> None:
    async with world.open() as t, world.transaction(t):
        await world.insert(t, 1)
        async with world.savepoint(t):
            with refused(world, OutOfOrder):
                await world.run_sync(t, set_isolation_level, "AUTOCOMMIT")
            await world.insert(t, 2)
        assert world.rows() == []
    assert world.rows() == [(1, None), (2, None)]


async def test_i139_a_transaction_of_level_autocommit_is_refused(world: World) -> None:
    with refused(world, NotSupported, "AUTOCOMMIT"):
        await world.transaction(world.source, isolation_level="AUTOCOMMIT").__aenter__()
    async with world.open(autocommitting(world)) as t:
        await t.begin()
        await world.seen(t)
        for verb in (world.savepoint, world.atomic):
            with refused(world, NotSupported, "AUTOCOMMIT"):
                await verb(t).__aenter__()
        await t.rollback()


async def test_i140_what_is_open_is_rolled_back_before_the_pool_has_the_connection(world: World) -> None:
    t = await world.opened()
    sp = await world.savepoint(t)
    await world.insert(t, 1, "undone")
    await t.close()
    assert str(sp.state) == "gone"
    assert world.transcript.sent()[-1] == "ROLLBACK"
    world.check_pool()
    with world.aside.begin() as other:  # its lock is free
        other.execute(item.insert().values(id=1, name="other"))
    assert world.rows() == [(1, "other")]


async def test_i141_a_savepoint_outside_a_transaction_is_contained(world: World) -> None:
    async with world.open() as t:
        async with world.savepoint(t):
            await world.insert(t, 1)
        assert world.rows() == []
        await t.rollback()
        assert world.rows() == []
        sp = await world.savepoint(t)
        await world.insert(t, 2)
        await sp.release()
        assert world.rows() == []
        await t.rollback()
    assert world.rows() == []
    assert world.transcript.short()[0] == "BEGIN"
    assert "COMMIT" not in world.transcript.sent()


@pytest.mark.needs("one_writer")
@pytest.mark.lacks("always_in_transaction")
async def test_i142_no_savepoint_is_sent_outside_a_transaction_of_the_driver(world: World) -> None:
    """Where a SAVEPOINT outside of a transaction would be one, and its RELEASE a COMMIT."""
    begun = []

    @event.listens_for(world.sync_engine, "before_cursor_execute")
    def look(connection: Connection, cursor: Any, statement: str, *others: Any) -> None:
        if statement.startswith("SAVEPOINT"):
            begun.append(world.site.in_transaction(connection.connection.driver_connection))

    async with world.open() as t:
        for _ in range(2):  # for a transaction and the next one on the same connection
            async with world.savepoint(t):
                await world.insert(t, 1)
            assert world.rows() == []
            await t.rollback()
    assert begun == [True, True]
    assert world.rows() == []


async def test_i143_a_transaction_inside_a_transaction_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with refused(world, AlreadyInTransaction):
            await world.transaction(t).__aenter__()
        with refused(world, AlreadyInTransaction):
            await world.transaction(world.source).__aenter__()
        assert world.rows() == []
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.lacks("implicit_commit")
async def test_i143_begin_as_text_inside_a_transaction_commits_nothing(world: World) -> None:
    """The one sort of database answers with an error, the other with a warning."""
    with fails(Oops):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t) as sp:
                await world.insert(t, 2)
                if "one_writer" in world.site.has:
                    with pytest.raises(DBAPIError, match="within a transaction"):
                        await t.execute(text("BEGIN"))
                else:
                    await t.execute(text("BEGIN"))
                assert str(sp.state) == "open"
                assert world.rows() == []
                await sp.rollback()
                assert await world.seen(t) == [(1, None)]
            raise Oops
    assert world.rows() == []


@pytest.mark.needs("implicit_commit")
@pytest.mark.parametrize("statement", ["BEGIN", "START TRANSACTION", "SET autocommit = 1"])
async def test_i143_begin_as_text_is_refused_where_it_would_commit(world: World, statement: str) -> None:
    with fails(Oops):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t) as sp:
                await world.insert(t, 2)
                with refused(world, ImplicitCommit):
                    await t.execute(text(statement))
                assert str(sp.state) == "open"
                await sp.rollback()
                assert await world.seen(t) == [(1, None)]
            raise Oops
    assert world.rows() == []


async def test_i147_a_second_connection_sees_what_is_committed_alone(world: World) -> None:
    async with world.open() as t:
        async with world.transaction(t):
            await world.insert(t, 1)
            assert world.rows() == []
            async with world.savepoint(t, rollback=True):
                await world.insert(t, 2)
                assert world.rows() == []
            async with world.savepoint(t):
                await world.insert(t, 3)
            assert world.rows() == []
        assert world.rows() == [(1, None), (3, None)]
        with fails(Oops):
            async with world.transaction(t):
                await world.insert(t, 4)
                assert world.rows() == [(1, None), (3, None)]
                raise Oops
    assert world.rows() == [(1, None), (3, None)]
