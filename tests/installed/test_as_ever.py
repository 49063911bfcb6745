"""What plain code with the line goes on with as ever: SQLAlchemy's own ways, and its own words."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, SAWarning

import savepoints
from savepoints import TransactionFailed, UncommittedWork
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import BAD, row
from tests.faults.losses import connection_of, killed
from tests.harness.world import Target, World

#: SQLAlchemy never closes what was detached from the pool of an async driver.
detached = pytest.mark.lacks("async")


@detached
async def test_a_connection_detached_from_its_pool(world: World) -> None:
    """The pool tells its driver's connection no more."""
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.run_sync(t, lambda target: connection_of(target).detach())
        async with t.begin_nested():
            await t.execute(row(1))
        with fails(Oops):
            async with t.begin_nested():
                await t.execute(row(2))
                raise Oops
        await t.commit()
    assert world.rows() == [(1, None)]


@detached
@pytest.mark.parametrize("verb", ["transaction", "savepoint"])
async def test_blocks_on_a_connection_detached_from_its_pool(world: World, verb: str) -> None:
    async with world.open() as t:
        await world.run_sync(t, lambda target: connection_of(target).detach())
        await t.rollback()
        if verb == "transaction":
            async with world.transaction(t):
                await t.execute(row(1))
        else:
            with fails(Oops):
                async with world.savepoint(t):
                    await t.execute(row(2))
                    raise Oops
            await t.execute(row(1))
            await t.commit()
    assert world.rows() == [(1, None)]


# Objects


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
@pytest.mark.parametrize("end", ["released", "undone", "left open"])
async def test_an_object_that_is_undone_keeps_its_values(world: World, end: str) -> None:
    """A relationship of it was loaded inside: that says nothing of its own row, and it can be added again."""
    savepoints.install(world.engine)
    async with world.open() as t:
        parent = world.Parent(id=1, name="kept")
        t.add(parent)
        await t.flush()
        nested = await t.begin_nested()
        assert await world.run_sync(t, lambda session: parent.children) == []
        if end != "left open":
            await (nested.commit() if end == "released" else nested.rollback())
        await t.rollback()
        assert (parent.id, parent.name) == (1, "kept")
        t.add(parent)
        await t.commit()
    with world.aside.connect() as aside:
        assert aside.execute(text("SELECT id, name FROM parent")).all() == [(1, "kept")]


# What SQLAlchemy or the database refuses by itself, it refuses in its own words.


@pytest.mark.needs("orm")
async def test_flush_after_a_failed_flush(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.insert(t, 1)
        nested = await t.begin_nested()
        with pytest.raises(IntegrityError):
            await world.insert(t, 1)
        t.add(world.Item(id=2))
        for call in (t.flush, lambda: t.execute(text("SELECT 1")), t.commit):
            with pytest.raises(PendingRollbackError, match="previous exception during flush"):
                await call()
        with pytest.warns(SAWarning, match="this state will be discarded"):
            await nested.rollback()
        await world.insert(t, 3)
        await t.commit()
    assert world.rows() == [(1, None), (3, None)]


@pytest.mark.needs("orm", "failed_state")
@pytest.mark.parametrize("inside", [False, True])
async def test_flush_in_a_failed_transaction(world: World, inside: bool) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.insert(t, 1)
        if inside:
            await t.begin_nested()
        with pytest.raises(DBAPIError):
            await t.execute(BAD)
        t.add(world.Item(id=2))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await t.flush()
        with pytest.raises(PendingRollbackError, match="previous exception during flush"):
            await t.commit()
        await t.rollback()
        await world.insert(t, 3)
        await t.commit()
    assert world.rows() == [(3, None)]


@pytest.mark.needs("kill")
@pytest.mark.parametrize("nested", [False, True])
async def test_commit_and_flush_after_a_lost_connection(world: World, nested: bool) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        with fails(DBAPIError):
            if nested:
                async with t.begin_nested():
                    await world.insert(t, 1)
                    await killed(world, t)
            else:
                await world.insert(t, 1)
                await killed(world, t)
        for call in (lambda: world.insert(t, 2), t.commit):
            with pytest.raises(PendingRollbackError):
                await call()
        await t.rollback()
        await world.insert(t, 3)
        await t.commit()
    assert world.rows() == [(3, None)]


# Work that was released and never committed: the warning is for a close that says nothing.


@pytest.fixture
def no_warning() -> Iterator[None]:
    """In the middle of a rollback the warning is never an error, so that it has to be looked for."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UncommittedWork)
        yield
    assert not [str(warning.message) for warning in seen]


@pytest.mark.usefixtures("no_warning")
async def test_no_warning_where_an_error_leaves_the_block(world: World) -> None:
    savepoints.install(world.engine)
    with fails(Oops):
        async with world.open() as t:
            async with t.begin_nested():
                await world.insert(t, 1)
            raise Oops
    assert world.rows() == []


@asynccontextmanager
async def dependency(world: World) -> AsyncIterator[Target]:
    """As a web framework has them."""
    async with world.open() as t:
        yield t


@pytest.mark.usefixtures("no_warning")
async def test_no_warning_where_an_error_leaves_a_generator(world: World) -> None:
    savepoints.install(world.engine)
    with fails(Oops):
        async with dependency(world) as t:
            async with t.begin_nested():
                await world.insert(t, 1)
            raise Oops
    assert world.rows() == []


@pytest.mark.usefixtures("no_warning")
@pytest.mark.needs("orm")
async def test_no_warning_after_an_error_of_the_commit(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1)
        t.add(world.Item(id=1))
        with pytest.raises(IntegrityError):
            await t.commit()
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 2)
        await t.execute(row(3))
        with pytest.raises(IntegrityError):
            await world.insert(t, 3)
    assert world.rows() == []


@pytest.mark.usefixtures("no_warning")
@pytest.mark.needs("failed_state")
async def test_no_warning_after_a_refused_commit(world: World) -> None:
    savepoints.install(world.engine)
    async with world.open() as t:
        async with t.begin_nested():
            await world.insert(t, 1)
        with pytest.raises(DBAPIError):
            await t.execute(BAD)
        with pytest.raises(TransactionFailed):
            await t.commit()
    assert world.rows() == []


@pytest.mark.usefixtures("no_warning")
@pytest.mark.needs("core", "two_phase")
@pytest.mark.lacks("async")
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_no_warning_after_two_phases(world: World, end: str) -> None:
    savepoints.install(world.engine)
    with world.sync_engine.connect() as connection:
        transaction = connection.begin_twophase()
        with connection.begin_nested():
            connection.execute(row(1))
        transaction.prepare()
        getattr(transaction, end)()
    assert world.rows() == ([(1, None)] if end == "commit" else [])


@pytest.mark.needs("async")
@pytest.mark.parametrize("generator", [False, True])
async def test_the_warning_names_the_block(world: World, generator: bool) -> None:
    """SQLAlchemy ends it in a task of its own."""
    savepoints.install(world.engine)
    with pytest.warns(UncommittedWork, match=r"__aexit__\(\) at .*test_as_ever\.py"):
        async with world.open() as t, t.begin_nested():
            await world.insert(t, 1)
