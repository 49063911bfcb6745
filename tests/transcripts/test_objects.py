"""What a session sends around its objects: flushes at the edges of levels, and what async code loads again."""

from __future__ import annotations

import pytest
from inline_snapshot import snapshot

from tests.harness.models import Item
from tests.harness.world import World
from tests.transcripts.wire import sent

pytestmark = pytest.mark.needs("orm")


def reloading(world: World, *statements: str) -> list[str]:
    """What was loaded before and got expired: async code loads it at once, sync code where it is asked for."""
    return list(statements) if world.site.face == "async" else []


async def two_items(world: World, t: object) -> tuple[Item, Item]:
    one, two = Item(id=1, name="one"), Item(id=2, name="two")
    t.add_all([one, two])  # type: ignore[attr-defined]
    await t.flush()  # type: ignore[attr-defined]
    world.transcript.clear()
    return one, two


async def test_pending_work_is_flushed_before_the_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t:
        t.add(Item(id=1))
        async with world.savepoint(t):
            t.add(Item(id=2))
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", "RELEASE 1", "COMMIT"])


async def test_pending_change_is_flushed_outside_too(world: World) -> None:
    async with world.transaction(world.source) as t:
        one, _ = await two_items(world, t)
        one.name = "changed"
        sp = await world.savepoint(t)
        await sp.rollback()
        assert one.name == "changed"
    assert sent(world) == snapshot(["UPDATE item", "SAVEPOINT 1", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])


async def test_changed_object_rolled_back(world: World) -> None:
    """One statement: SQLAlchemy's nested transaction is kept."""
    async with world.transaction(world.source) as t:
        one, _ = await two_items(world, t)
        sp = await world.savepoint(t)
        one.name = "changed"
        await t.flush()
        await sp.rollback()
    assert sent(world) == [
        *["SAVEPOINT 1", "UPDATE item", "ROLLBACK TO 1"],
        *reloading(world, "SELECT item"),
        *["RELEASE 1", "COMMIT"],
    ]


async def test_added_object_rolled_back(world: World) -> None:
    """SQLAlchemy's own rollback takes it out of the session, and ends the nested transaction: a new one is begun."""
    async with world.transaction(world.source) as t:
        sp = await world.savepoint(t)
        await world.insert(t, 1)
        await sp.rollback()
        await world.insert(t, 1)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "INSERT item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "SAVEPOINT 1",
            "INSERT item",
            "RELEASE 1",
            "COMMIT",
        ]
    )


async def test_changed_added_and_deleted_rolled_back(world: World) -> None:
    async with world.transaction(world.source) as t:
        one, two = await two_items(world, t)
        sp = await world.savepoint(t)
        one.name = "changed"
        t.add(Item(id=3))
        await t.delete(two)
        await t.flush()
        await sp.rollback()
        assert (one.name, two.name) == ("one", "two")
        assert two in t
    assert sent(world) == [
        *["SAVEPOINT 1", "UPDATE item", "INSERT item", "DELETE item"],
        *["ROLLBACK TO 1", "RELEASE 1", "SAVEPOINT 1"],
        *(["SELECT item"] if world.site.face == "async" else ["SELECT item", "SELECT item"]),
        *["RELEASE 1", "COMMIT"],
    ]


async def test_undone_block_reloads_once(world: World) -> None:
    """Both objects by one SELECT."""
    async with world.transaction(world.source) as t:
        one, two = await two_items(world, t)
        async with world.savepoint(t, rollback=True):
            one.name, two.name = "changed", "changed"
    assert sent(world) == [
        *["SAVEPOINT 1", "UPDATE item", "ROLLBACK TO 1", "RELEASE 1"],
        *reloading(world, "SELECT item"),
        "COMMIT",
    ]


async def test_untouched_objects_are_left_alone(world: World) -> None:
    async with world.transaction(world.source) as t:
        one, two = await two_items(world, t)
        sp = await world.savepoint(t)
        await sp.rollback()
        assert (one.name, two.name) == ("one", "two")
    assert sent(world) == snapshot(["SAVEPOINT 1", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])
