"""The traps that plain code falls into, on every site, with the line and without it: what sessions make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

import savepoints
from savepoints import Repair
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import row
from tests.harness.face import bare
from tests.harness.models import tables
from tests.harness.world import Target, World
from tests.installed.lines import Line, each_line, lay

pytestmark = pytest.mark.needs("orm")

Item, Parent, Child = World.Item, World.Parent, World.Child

# T5: forgotten are values that were only refreshed inside, and rows that were first loaded or made there.


async def insert_past_the_session(t: Target) -> Any:
    """An object whose row came as text, and was then loaded."""
    await t.execute(text("INSERT INTO item VALUES (2, 'ghost')"))
    return await t.get(Item, 2)


async def insert_returning(t: Target) -> Any:
    """An object made by INSERT ... RETURNING."""
    return (await t.scalars(insert(Item).returning(Item), [{"id": 2, "name": "ghost"}])).one()


each_ghost = pytest.mark.parametrize(
    "make_ghost", [insert_past_the_session, insert_returning], ids=lambda make: make.__name__
)


@pytest.fixture
async def t(world: World) -> AsyncIterator[Target]:
    """A session; one item is there."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item (name) VALUES ('before')"))
    async with world.open() as t:
        yield t


async def write(t: Target) -> None:
    """Have the driver begin, where it waits for a write."""
    await t.execute(text("UPDATE item SET name = name"))


@each_line
async def test_t05_refreshed_value(world: World, t: Target, line: Line) -> None:
    repaired = lay(world, line, Repair.OBJECTS)
    await write(t)
    found = await t.get(Item, 1)
    nested = await t.begin_nested()
    await t.execute(text("UPDATE item SET name = 'inside' WHERE id = 1"))
    await t.refresh(found)
    await nested.rollback()
    assert await t.scalar(text("SELECT name FROM item")) == "before"
    if repaired:
        await t.refresh(found)
    assert found.name == ("before" if repaired else "inside")


@each_ghost
@pytest.mark.parametrize("begun", [True, False])
@each_line
async def test_t05_ghost(world: World, t: Target, line: Line, make_ghost: Any, begun: bool) -> None:
    repaired = lay(world, line, Repair.OBJECTS)
    if begun:
        await write(t)
    nested = await t.begin_nested()
    ghost = await make_ghost(t)
    await nested.rollback()
    assert await t.get(Item, 2) is (None if repaired else ghost)
    assert (ghost in t) is not repaired


@each_ghost
@each_line
async def test_t05_ghost_of_a_level_further_in(world: World, t: Target, line: Line, make_ghost: Any) -> None:
    repaired = lay(world, line, Repair.OBJECTS)
    await write(t)
    outer = await t.begin_nested()
    async with t.begin_nested():
        ghost = await make_ghost(t)
    await outer.rollback()
    assert await t.get(Item, 2) is (None if repaired else ghost)


# Descendants: what ends around an open nested transaction closes it, and its objects are not restored.


@pytest.mark.parametrize("root", [False, True], ids=["savepoint", "root"])
@each_line
async def test_rolled_back_over_an_open_inner_level(world: World, t: Target, line: Line, root: bool) -> None:
    repaired = lay(world, line, Repair.OBJECTS)
    await write(t)
    found = await t.get(Item, 1)
    gone = Item(id=7, name="deleted inside")
    t.add(gone)
    await t.flush()
    outer = None if root else await t.begin_nested()
    inner = await t.begin_nested()
    new = Item(id=2, name="new inside")
    t.add(new)
    found.name = "changed inside"
    await t.delete(gone)
    await t.flush()
    assert inner.is_active

    def roll_back(session: Session) -> None:
        transaction: Any = session.get_transaction() if root else bare(outer)
        getattr(transaction, "sync_transaction", transaction).rollback()

    await world.run_sync(t, roll_back)
    assert (new in t) is not repaired
    assert inspect(new).transient is repaired
    if root:
        return
    assert (gone in t) is repaired
    if repaired:
        await t.refresh(found)
        await t.flush()
        assert await world.seen(t) == [(1, "before"), (7, "deleted inside")]
    assert found.name == ("before" if repaired else "changed inside")


@pytest.mark.lacks("no_begin")
@each_line
async def test_closed_over_an_open_inner_level(world: World, t: Target, line: Line) -> None:
    """Nothing comes back into a session that is closed."""
    lay(world, line, Repair.OBJECTS)
    kept = Item(id=3, name="outside")
    t.add(kept)
    await t.flush()
    await t.begin_nested()
    new = Item(id=2, name="new inside")
    t.add(new)
    await t.delete(kept)
    await t.flush()
    await t.close()
    assert list(t.identity_map.values() if world.site.face == "sync" else t.sync_session.identity_map.values()) == []
    assert new not in t
    assert world.rows() == [(1, "before")]


# T6: Session.begin_nested() sends nothing until the session is asked for a connection.


async def insert_through(connection: Target, id: int) -> None:
    await connection.execute(text("INSERT INTO item VALUES (:id, 'through the connection')"), {"id": id})


@pytest.mark.lacks("no_begin")
@pytest.mark.parametrize("depth", [1, 2])
@each_line
async def test_t06_connection_fetched_before(world: World, t: Target, line: Line, depth: int) -> None:
    repaired = lay(world, line, Repair.COVER)
    connection = await t.connection()
    nested = [await t.begin_nested() for _ in range(depth)]
    await insert_through(connection, 2)
    await nested[-1].rollback()
    await insert_through(connection, 3)
    if depth == 2:
        await nested[0].rollback()
    await t.commit()
    undone = [] if repaired else [(2, "through the connection")]
    kept = [(3, "through the connection")] if depth == 1 or not repaired else []
    assert world.rows() == [(1, "before"), *undone, *kept]


@pytest.mark.needs("failed_state")
@each_line
async def test_t06_failure_through_the_connection(world: World, t: Target, line: Line) -> None:
    repaired = lay(world, line, Repair.COVER)
    await write(t)
    connection = await t.connection()
    with fails(DBAPIError):
        async with t.begin_nested():
            await insert_through(connection, 1)
    if repaired:
        await insert_through(connection, 2)
        await t.commit()
    else:
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await insert_through(connection, 2)
        await t.rollback()
    assert world.rows() == [(1, "before"), *([(2, "through the connection")] if repaired else [])]


@pytest.mark.lacks("no_begin")
async def test_t06_savepoint_of_the_connection_inside_one_of_the_session(world: World, t: Target) -> None:
    """SQLAlchemy's own comes first, or the two would cross."""
    savepoints.install(world.engine)
    await write(t)
    connection = await t.connection()
    nested = await t.begin_nested()
    async with connection.begin_nested():
        await insert_through(connection, 2)
    await nested.rollback()
    await t.commit()
    assert world.rows() == [(1, "before")]


async def test_t06_listener_that_sends_while_the_session_takes_its_connection(world: World, t: Target) -> None:
    """As those that set a variable for row-level security: it is not the session's first use that they are."""
    savepoints.install(world.engine)
    heard: list[bool] = []

    def listen(session: Session) -> None:
        def after_begin(session: Session, transaction: Any, connection: Any) -> None:
            connection.execute(text("SELECT 1"))
            heard.append(transaction.nested)

        event.listen(session, "after_begin", after_begin)

    await world.run_sync(t, listen)
    async with t.begin_nested():
        await t.execute(row(2))
    async with t.begin_nested():
        await t.execute(row(3))
    await t.commit()
    assert heard == [False, True, True]
    assert world.rows() == [(1, "before"), (2, None), (3, None)]


# A flush that fails.


async def test_flush_that_fails_inside_undoes_its_level_alone(world: World, t: Target) -> None:
    savepoints.install(world.engine)
    t.add(Item(id=5, name="outside"))
    await t.flush()
    with fails(IntegrityError):
        async with t.begin_nested():
            await t.execute(row(6))
            ghost = await t.get(Item, 6)
            t.add(Item(id=1, name="twice"))
            await t.flush()
    assert await t.get(Item, 6) is None
    assert ghost not in t
    t.add(Item(id=2, name="after"))
    await t.commit()
    assert world.rows() == [(1, "before"), (2, "after"), (5, "outside")]


@pytest.mark.lacks("no_begin")
async def test_flush_that_fails_outside_ends_the_transaction_as_ever(world: World, t: Target) -> None:
    savepoints.install(world.engine)
    await t.execute(row(5))
    async with t.begin_nested():
        await t.execute(row(6))
    t.add(Item(id=1, name="twice"))
    with pytest.raises(IntegrityError):
        await t.flush()
    with pytest.raises(Exception, match="rolled back due to a previous exception during flush"):
        await t.execute(row(7))
    await t.rollback()
    async with t.begin_nested():
        await t.execute(row(8))
    await t.commit()
    assert world.rows() == [(1, "before"), (8, None)]


async def test_relationships_are_restored(world: World, t: Target) -> None:
    savepoints.install(world.engine)
    parent = Parent(id=1, name="parent", children=[Child(id=1, name="first")])
    t.add(parent)
    await t.commit()
    await t.refresh(parent, ["children"])
    with fails(Oops):
        async with t.begin_nested():
            parent.children.append(Child(id=2, name="second"))
            await t.flush()
            await t.execute(text("INSERT INTO child (id, name, parent_id) VALUES (3, 'third', 1)"))
            await t.refresh(parent, ["children"])
            assert [child.id for child in parent.children] == [1, 2, 3]
            raise Oops
    await t.refresh(parent, ["children"])
    assert [child.id for child in parent.children] == [1]
    assert await t.get(Child, 3) is None


@pytest.mark.needs("sync", "driver_begins")
async def test_two_databases_in_one_session(world: World, tmp_path: Any) -> None:
    """Each is repaired as it needs, also where the first is another's."""
    engines = [world.engine, create_engine(f"sqlite:///{tmp_path}/second.db")]
    tables.create_all(engines[1])
    for engine in engines:
        savepoints.install(engine)
    with Session(binds={Item: engines[0], Parent: engines[1], Child: engines[1]}) as session:
        with session.begin_nested():
            session.add_all([Item(id=1), Parent(id=1)])
        with session.begin_nested() as nested:
            session.add_all([Item(id=2), Parent(id=2)])
            session.flush()
            nested.rollback()
        assert [one.id for one in session.scalars(select(Item))] == [1]
        assert [one.id for one in session.scalars(select(Parent))] == [1]
        session.rollback()
        assert session.get(Item, 1) is None
        assert session.get(Parent, 1) is None
    engines[1].dispose()
