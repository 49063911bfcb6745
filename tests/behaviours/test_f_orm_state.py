"""F: a session's objects. After a rollback to a savepoint they are as they were at the savepoint."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, event, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import object_session
from sqlalchemy.orm.exc import FlushError, ObjectDeletedError

from savepoints import OutOfOrder, TransactionFailed, TransactionLost
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.tools import notes, row, verbs
from tests.harness.face import bare
from tests.harness.models import Child, Item, Parent
from tests.harness.world import Target, World

pytestmark = pytest.mark.needs("orm")


async def flushed(target: Target, *objects: Any) -> None:
    target.add_all(objects)
    await target.flush()


def flags(obj: Any) -> set[str]:
    """Which of SQLAlchemy's five states an object is in, and whether a session has it."""
    state = inspect(obj)
    names = ("transient", "pending", "persistent", "deleted", "detached")
    return {name for name in names if getattr(state, name)} | ({"in a session"} if object_session(obj) else set())


async def test_f83_new_object_flushed_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=7, name="new")
        sp = await world.savepoint(t)
        await flushed(t, obj)
        assert flags(obj) == {"persistent", "in a session"}
        await sp.rollback()
        assert flags(obj) == {"transient"}
        assert obj not in t
        assert inspect(obj).key is None
        assert (obj.id, obj.name) == (7, "new")
        assert await t.get(Item, 7) is None
    assert world.rows() == []


async def test_f84_object_added_inside_and_not_flushed(world: World) -> None:
    async with world.transaction(world.source) as t:
        before, inside = Item(id=1, name="before"), Item(id=2, name="inside")
        t.add(before)
        sp = await world.savepoint(t)  # flushes `before`
        t.add(inside)
        world.transcript.clear()
        await sp.rollback()
        assert "INSERT item" not in verbs(world)
        assert flags(inside) == {"transient"}
        assert (inside.id, inside.name) == (2, "inside")
        assert flags(before) == {"persistent", "in a session"}
        assert before.name == "before"
    assert world.rows() == [(1, "before")]


@pytest.mark.parametrize("sent", [True, False], ids=["flushed", "not flushed"])
async def test_f85_object_deleted_inside(world: World, sent: bool) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="kept")
        await flushed(t, obj)
        sp = await world.savepoint(t)
        await t.delete(obj)
        if sent:
            await t.flush()
            assert "deleted" in flags(obj)
        await sp.rollback()
        assert flags(obj) == {"persistent", "in a session"}
        assert obj.name == "kept"
        assert await t.get(Item, 1) is obj
        obj.name = "changed"  # and it can be written again
    assert world.rows() == [(1, "changed")]


async def test_f86_attribute_changed_before_the_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="old")
        await flushed(t, obj)
        obj.name = "changed before"
        world.transcript.clear()
        sp = await world.savepoint(t)
        assert verbs(world) == ["UPDATE item", "SAVEPOINT"]
        obj.name = "changed inside"
        await t.flush()
        await sp.rollback()
        assert obj.name == "changed before"
    assert world.rows() == [(1, "changed before")]


@pytest.mark.parametrize("sent", [True, False], ids=["flushed", "not flushed"])
async def test_f87_attribute_changed_inside(world: World, sent: bool) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="old")
        await flushed(t, obj)
        sp = await world.savepoint(t)
        for name in ("first", "second"):
            obj.name = name
            if sent:
                await t.flush()
            await sp.rollback()
            assert obj.name == "old"
    assert world.rows() == [(1, "old")]


async def test_f87_value_only_refreshed_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="old")
        await flushed(t, obj)
        sp = await world.savepoint(t)
        await t.execute(text("UPDATE item SET name = 'seen inside'"))
        await t.refresh(obj)
        assert obj.name == "seen inside"
        await sp.rollback()
        assert obj.name == "old"
    assert world.rows() == [(1, "old")]


async def test_f87_row_first_loaded_inside_is_no_ghost(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t):
            await t.execute(row(1, "ghost"))
            by_select = (await t.scalars(select(Item))).one()
            [by_returning] = (await t.scalars(insert(Item).returning(Item), [{"id": 2, "name": "ghost"}])).all()
            raise world.Rollback()
        assert await t.get(Item, 1) is None
        assert await t.get(Item, 2) is None
        for ghost in (by_select, by_returning):
            await pretends_not_to_be_there(world, t, ghost)
    assert world.rows() == []


async def pretends_not_to_be_there(world: World, t: Target, ghost: Any) -> None:
    """A row that is gone: its object has left the session, or says so when it is read."""
    if ghost in t:
        with pytest.raises(ObjectDeletedError):
            await world.run_sync(t, lambda session: ghost.name)


async def test_f87_reference_to_a_row_first_loaded_inside(world: World) -> None:
    """A many-to-one that is answered from the identity map fires no event."""
    async with world.transaction(world.source) as t:
        if "deferred" not in world.site.has:
            await t.execute(world.sql("no foreign keys"))
        await t.execute(text("INSERT INTO child (id, name, parent_id) VALUES (1, 'child', 5)"))
        child = await t.get(Child, 1)
        async with world.savepoint(t):
            await t.execute(text("INSERT INTO parent (id, name) VALUES (5, 'ghost')"))
            ghost = await t.get(Parent, 5)
            assert await world.run_sync(t, lambda session: child.parent) is ghost
            raise world.Rollback()
        assert await world.run_sync(t, lambda session: child.parent) is None
        await t.delete(child)
    assert world.rows() == []


async def test_f88_untouched_objects_are_not_expired(world: World) -> None:
    async with world.transaction(world.source) as t:
        objects = [Item(id=id, name=f"name {id}") for id in range(50)]
        await flushed(t, *objects)
        await t.execute(select(Item).execution_options(populate_existing=True))
        sp = await world.savepoint(t)
        objects[3].name = "touched"
        await t.flush()
        await sp.rollback()
        untouched = [obj for obj in objects if obj is not objects[3]]
        assert [obj for obj in untouched if inspect(obj).expired or "name" not in inspect(obj).dict] == []
        assert objects[3].name == "name 3"
        world.transcript.clear()
        assert [obj.name for obj in objects] == [f"name {id}" for id in range(50)]
        assert world.transcript.sent() == []


async def test_f88_objects_that_a_query_inside_returns(world: World) -> None:
    """They are not refreshed by it: SQLAlchemy keeps what is loaded."""
    async with world.transaction(world.source) as t:
        await flushed(t, *(Parent(id=id, name=f"name {id}") for id in range(5)))
        t.expunge_all()
        parents = (await t.scalars(select(Parent).order_by(Parent.id))).all()
        sp = await world.savepoint(t)
        assert (await t.scalars(select(Parent).order_by(Parent.id))).all() == parents
        await sp.rollback()
        world.transcript.clear()
        assert [parent.name for parent in parents] == [f"name {id}" for id in range(5)]
        assert world.transcript.sent() == []


@pytest.mark.parametrize("size", [1, 10, 100])
async def test_f88_cost_follows_what_was_touched(world: World, size: int) -> None:
    """The statements of a rollback, and of reading everything after it, are those of one touched object."""
    async with world.transaction(world.source) as t:
        objects = [Item(id=id, name="old") for id in range(size)]
        await flushed(t, *objects)
        sp = await world.savepoint(t)
        objects[0].name = "touched"
        await t.flush()
        world.transcript.clear()
        await sp.rollback()
        assert {obj.name for obj in objects} == {"old"}
        assert verbs(world) == ["ROLLBACK TO", "SELECT item"]


@pytest.mark.parametrize("how", ["evaluate", "fetch", "auto", False])
async def test_f89_bulk_update(world: World, how: Any) -> None:
    async with world.transaction(world.source) as t:
        objects = [Item(id=id, name="old") for id in range(4)]
        await flushed(t, *objects)
        sp = await world.savepoint(t)
        statement = update(Item).where(Item.id > 1).values(name="bulk")
        await t.execute(statement, execution_options={"synchronize_session": how})
        if how:
            assert [obj.name for obj in objects] == ["old", "old", "bulk", "bulk"]
        await sp.rollback()
        assert [obj.name for obj in objects] == ["old"] * 4
    assert world.rows() == [(id, "old") for id in range(4)]


@pytest.mark.parametrize("how", ["evaluate", "fetch", "auto"])
async def test_f89_bulk_delete(world: World, how: str) -> None:
    async with world.transaction(world.source) as t:
        objects = [Item(id=id, name="old") for id in range(4)]
        await flushed(t, *objects)
        sp = await world.savepoint(t)
        await t.execute(delete(Item).where(Item.id > 1), execution_options={"synchronize_session": how})
        assert objects[3] not in t
        await sp.rollback()
        assert [flags(obj) for obj in objects] == [{"persistent", "in a session"}] * 4
        assert [obj.name for obj in objects] == ["old"] * 4
    assert world.rows() == [(id, "old") for id in range(4)]


async def test_f90_kept_inside_and_rolled_back_outside(world: World) -> None:
    async with world.transaction(world.source) as t:
        parent = Parent(id=1, name="old", children=[Child(id=1, name="old")])
        await flushed(t, parent)
        async with world.savepoint(t, "level 1"):
            async with world.savepoint(t, "level 2"):
                parent.name = "flushed at level 2"
                parent.children[0].name = "flushed at level 2"
                await t.flush()
                new = Item(id=9)
                await flushed(t, new)
            raise world.Rollback()
        # In async code these would raise MissingGreenlet if they had to be loaded.
        assert parent.name == "old"
        assert [child.name for child in parent.children] == ["old"]
        assert flags(new) == {"transient"}
        assert str(world.current_transaction(t).state) == "open"


async def test_f90_levels_inside_are_open_at_the_rollback(world: World) -> None:
    """SQLAlchemy's own rollback of an outer level leaves the objects of the inner ones as they were there."""
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="old")
        await flushed(t, obj)
        outer = await world.savepoint(t, "outer")
        obj.name = "outer"
        await world.savepoint(t, "inner")
        obj.name = "inner"
        await t.begin_nested()
        obj.name = "plain level"
        new = Item(id=2)
        await flushed(t, new)
        await outer.rollback()
        assert obj.name == "old"
        assert flags(new) == {"transient"}
    assert world.rows() == [(1, "old")]


async def test_f91_collections_cascades_and_orphans(world: World) -> None:
    async with world.transaction(world.source) as t:
        stays, leaves = Child(id=1, name="stays"), Child(id=2, name="leaves")
        parent = Parent(id=1, children=[stays, leaves])
        await flushed(t, parent)
        sp = await world.savepoint(t)
        added = Child(id=3)
        parent.children.append(added)
        parent.children.remove(leaves)  # an orphan: deleted
        await t.flush()
        assert "deleted" in flags(leaves)
        await sp.rollback()
        assert {child.id for child in parent.children} == {1, 2}
        assert flags(leaves) == {"persistent", "in a session"}
        assert leaves.parent is parent
        assert flags(added) == {"transient"}

        await t.delete(parent)  # cascades to the children
        await t.flush()
        await sp.rollback()
        assert {flags(obj) == {"persistent", "in a session"} for obj in (parent, stays, leaves)} == {True}
        assert {child.id for child in parent.children} == {1, 2}
    with world.aside.connect() as other:
        assert other.execute(text("SELECT id, parent_id FROM child ORDER BY id")).all() == [(1, 1), (2, 1)]


@pytest.mark.parametrize("depth", [1, 2])
async def test_f92_primary_key_changed(world: World, depth: int) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="same")
        await flushed(t, obj)
        sp = await world.savepoint(t)
        for level in range(depth):
            async with world.savepoint(t, f"kept {level}"):
                obj.id += 10
                await t.flush()
        assert inspect(obj).identity == (1 + 10 * depth,)
        await sp.rollback()
        assert inspect(obj).identity == (1,)
        assert (obj.id, obj.name) == (1, "same")
        assert await t.get(Item, 1) is obj
        assert await t.get(Item, 1 + 10 * depth) is None
    assert world.rows() == [(1, "same")]


async def test_f93_key_taken_by_somebody_else_after_the_rollback(world: World) -> None:
    async with world.transaction(world.source) as t:
        ours = Item(id=1, name="ours")
        sp = await world.savepoint(t)
        await flushed(t, ours)
        await sp.rollback()
        await t.execute(row(1, "theirs"))
        found = await t.get(Item, 1)
        assert found is not ours
        assert found.name == "theirs"
        assert (flags(ours), ours.name) == ({"transient"}, "ours")
    assert world.rows() == [(1, "theirs")]


async def test_f93_old_key_of_a_changed_object_taken_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        ours = Item(id=1, name="ours")
        await flushed(t, ours)
        sp = await world.savepoint(t)
        ours.id = 2
        await t.flush()
        await t.execute(row(1, "theirs"))
        theirs = await t.get(Item, 1)
        assert (theirs is not ours, theirs.name) == (True, "theirs")
        await sp.rollback()
        assert await t.get(Item, 1) is ours
        assert ours.name == "ours"
        assert await t.get(Item, 2) is None
    assert world.rows() == [(1, "ours")]


async def test_f94_failing_flush_undoes_its_savepoint_alone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1, "in the way"))
        obj = Item(id=1, name="new")
        async with world.savepoint(t, suppress=IntegrityError) as sp:
            await t.execute(row(2, "undone with it"))
            t.add(obj)
            await t.flush()
        assert isinstance(sp.error, IntegrityError)
        assert str(sp.state) == "rolled back"
        assert flags(obj) == {"transient"}
        assert (obj.id, obj.name) == (1, "new")
        obj.id = 3
        async with world.savepoint(t):
            t.add(obj)
        assert flags(obj) == {"persistent", "in a session"}
    assert world.rows() == [(1, "in the way"), (3, "new")]


async def test_f94_failing_flush_swallowed_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with fails(TransactionFailed) as left:
            async with world.savepoint(t) as sp:
                t.add(Item(id=1))
                with pytest.raises(IntegrityError) as first:
                    await t.flush()
                assert str(sp.state) == "undone"
        assert left.value.__cause__ is first.value
        async with world.savepoint(t) as sp:
            t.add(Item(id=1))
            with pytest.raises(IntegrityError):
                await t.flush()
            await sp.rollback()
            assert str(sp.state) == "open"
            t.add(Item(id=2))
    assert world.rows() == [(1, None), (2, None)]


async def test_f95_flags_after_a_rollback(world: World) -> None:
    async with world.transaction(world.source) as t:
        persistent, deleted, detached = (Item(id=id, name="old") for id in (1, 2, 3))
        await flushed(t, persistent, deleted, detached)
        before = flags(persistent)
        sp = await world.savepoint(t)
        added, new = Item(id=4), Item(id=5)
        persistent.name = "changed"
        await t.delete(deleted)
        await flushed(t, new)
        t.add(added)
        t.expunge(detached)
        await sp.rollback()
        assert flags(persistent) == flags(deleted) == before == {"persistent", "in a session"}
        assert flags(added) == flags(new) == {"transient"}
        assert flags(detached) == {"detached"}  # what was expunged inside stays out
        assert detached.name == "old"
        assert {id: obj for id, obj in enumerate([persistent, deleted], 1) if await t.get(Item, id) is not obj} == {}
    assert world.rows() == [(1, "old"), (2, "old"), (3, "old")]


async def test_f96_same_object_saved_in_two_levels(world: World) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="before")
        await flushed(t, obj)
        outer = await world.savepoint(t, "outer")
        obj.name = "outer"
        inner = await world.savepoint(t, "inner")
        obj.name = "inner"
        await t.flush()
        await inner.rollback()
        assert obj.name == "outer"
        obj.name = "inner again"
        await inner.release()
        await outer.rollback()
        assert obj.name == "before"
    assert world.rows() == [(1, "before")]


async def test_f96_new_object_saved_in_two_levels(world: World) -> None:
    async with world.transaction(world.source) as t:
        obj = Item(id=1, name="first")
        outer = await world.savepoint(t, "outer")
        await flushed(t, obj)
        async with world.savepoint(t, "inner"):
            obj.name = "second"
        await outer.rollback()
        assert flags(obj) == {"transient"}
        assert obj.id == 1
        t.add(obj)
        obj.name = "third"
    assert world.rows() == [(1, "third")]


async def test_f97_values_after_commit_without_a_query(world: World) -> None:
    async with world.transaction(world.maker(expire_on_commit=False)) as t:
        touched, untouched = Item(id=1, name="old"), Item(id=2, name="same")
        await flushed(t, touched, untouched)
        async with world.savepoint(t, rollback=True):
            await flushed(t, Item(id=3))
        async with world.savepoint(t):
            touched.name = "changed"
    world.transcript.clear()
    assert (touched.id, touched.name) == (1, "changed")
    assert (untouched.id, untouched.name) == (2, "same")
    assert world.transcript.sent() == []
    assert world.rows() == [(1, "changed"), (2, "same")]


async def listen(world: World, t: Target, name: str, listener: Any) -> None:
    await world.run_sync(t, lambda session: event.listen(session, name, listener))


def adds_again_and_again(session: Any, context: Any) -> None:
    session.add(Item())


@pytest.mark.parametrize("level", ["transaction", "savepoint"])
async def test_f98_flush_that_adds_work_again_and_again(world: World, level: str) -> None:
    with fails(FlushError, match="subsequent flushes"):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1000))
            async with world.savepoint(t) as sp:
                if level == "savepoint":
                    await listen(world, t, "after_flush", adds_again_and_again)
                    t.add(Item())
            await listen(world, t, "after_flush", adds_again_and_again)
            t.add(Item())
    assert str(sp.state) == ("rolled back" if level == "savepoint" else "released")
    assert str(transaction.state) == "rolled back"
    assert world.rows() == []


def uses_the_session(session: Any, *_: Any) -> None:
    session.execute(text("SELECT 1"))


async def test_f99_sql_in_after_commit(world: World) -> None:
    """Refused by SQLAlchemy, after the COMMIT: what was committed is told as committed."""
    with fails(InvalidRequestError, match="'committed' state"):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            await listen(world, t, "after_commit", uses_the_session)
    assert world.rows() == [(1, None)]
    assert str(transaction.state) == "committed"


async def test_f99_sql_in_after_rollback(world: World) -> None:
    error = Oops("first")
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            await listen(world, t, "after_rollback", uses_the_session)
            raise error
    assert caught.value is error
    assert "failed as well" in notes(error)
    assert str(transaction.state) == "rolled back"
    assert world.rows() == []


async def test_f99_sql_in_before_commit(world: World) -> None:
    async with world.transaction(world.source) as t:
        await listen(world, t, "before_commit", lambda session: session.execute(row(2, "in before_commit")))
        async with world.savepoint(t):
            await t.execute(row(1))
            await t.execute(delete(Item).where(Item.id == 2))
        await t.execute(delete(Item).where(Item.id == 2))
    assert world.rows() == [(1, None), (2, "in before_commit")]


def session_on(world: World, connection: Target, mode: str) -> Any:
    """A session that joins the transaction of a connection: to be entered."""
    return world.open(lambda: world.maker(join_transaction_mode=mode)(bind=bare(connection)))


MODES = ["conditional_savepoint", "rollback_only", "create_savepoint", "control_fully"]


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("outer_rolls_back", [True, False])
async def test_f100_commit_of_a_joined_session(world: World, mode: str, outer_rolls_back: bool) -> None:
    async with world.transaction(world.engine, rollback=outer_rolls_back) as connection:
        await connection.execute(row(1))
        async with session_on(world, connection, mode) as session:
            await flushed(session, Item(id=2))
            async with world.savepoint(session, rollback=True):
                await flushed(session, Item(id=3))
            await session.commit()
        assert world.rows() == []
        await connection.execute(row(4))
    assert world.rows() == ([] if outer_rolls_back else [(1, None), (2, None), (4, None)])


async def test_f100_rollback_of_a_joined_session_with_a_savepoint(world: World) -> None:
    async with world.transaction(world.engine) as connection:
        await connection.execute(row(1))
        async with session_on(world, connection, "create_savepoint") as session:
            await flushed(session, Item(id=2))
            await world.savepoint(session)
            await session.rollback()
            await flushed(session, Item(id=3))
            await session.commit()
        assert str(world.current_transaction(connection).state) == "open"
    assert world.rows() == [(1, None), (3, None)]


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully"])
async def test_f100_rollback_of_a_joined_session_without_a_savepoint(world: World, mode: str) -> None:
    """It rolls the outer transaction back, and that one's block is told."""
    with fails(OutOfOrder):
        async with world.transaction(world.engine) as connection:
            await connection.execute(row(1))
            async with session_on(world, connection, mode) as session:
                await flushed(session, Item(id=2))
                await session.rollback()
            with pytest.raises(OutOfOrder):
                await connection.execute(row(3))
    assert world.rows() == []


async def test_f100_commit_of_a_session_that_controls_the_outer_transaction(world: World) -> None:
    with fails(OutOfOrder):
        async with world.transaction(world.engine) as connection:
            await connection.execute(row(1))
            async with session_on(world, connection, "control_fully") as session:
                await flushed(session, Item(id=2))
                with pytest.raises(OutOfOrder):
                    await session.commit()
                assert world.rows() == []
    assert world.rows() == []


@pytest.mark.parametrize("raised_again", [False, True], ids=["swallowed", "raised"])
async def test_f101_flush_fails_outside_any_savepoint(world: World, raised_again: bool) -> None:
    with fails(IntegrityError if raised_again else TransactionLost) as outermost:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            t.add(Item(id=1))
            with pytest.raises(IntegrityError) as first:
                await t.flush()
            assert str(transaction.state) == "lost"
            with pytest.raises((TransactionLost, PendingRollbackError), match="flush"):
                await t.execute(row(2))
            with refused(world, TransactionLost, "flush") as next_use:
                await world.savepoint(t)
            assert next_use.value.__cause__ is first.value
            if raised_again:
                raise first.value
    assert first.value in (outermost.value, outermost.value.__cause__)
    assert world.rows() == []


async def test_f101_flush_fails_with_a_transaction_of_the_callers(world: World) -> None:
    async with world.open() as t:
        async with world.savepoint(t):
            await t.execute(row(1))
        t.add(Item(id=1))
        with pytest.raises(IntegrityError):
            await t.flush()
        assert str(world.current_transaction(t).state) == "lost"
        with pytest.raises((TransactionLost, PendingRollbackError), match="flush"):
            await t.execute(row(3))
        await t.rollback()
        await t.execute(row(4))
        await t.commit()
    assert world.rows() == [(4, None)]
