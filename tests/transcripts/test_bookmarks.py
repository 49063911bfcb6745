"""What bookmarks send: made, rolled back to again and again, released, ended with what is around them."""

from __future__ import annotations

import pytest
from inline_snapshot import snapshot
from sqlalchemy import text, update

import savepoints
from savepoints import OutOfOrder, SavepointEnded, TransactionDoomed, UnknownSavepoint
from tests.harness.models import item
from tests.harness.world import World
from tests.transcripts.wire import leaves, sent, styled

RENAME = update(item).values(name="Jane")


async def test_rolled_back_twice_then_committed(world: World) -> None:
    """One statement for each rollback. SQLAlchemy releases its nested transactions before COMMIT."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "John")
        mark = await world.savepoint(t)
        await t.execute(RENAME)
        await mark.rollback()
        await t.execute(RENAME)
        await mark.rollback()
    rollbacks = ["BEGIN", "INSERT item", "SAVEPOINT 1", "UPDATE item", "ROLLBACK TO 1", "UPDATE item", "ROLLBACK TO 1"]
    assert sent(world) == styled(world, core=[*rollbacks, "COMMIT"], orm=[*rollbacks, "RELEASE 1", "COMMIT"])


async def test_released(world: World) -> None:
    async with world.transaction(world.source) as t:
        mark = await world.savepoint(t)
        await world.insert(t, 1)
        await mark.release()
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "RELEASE 1", "COMMIT"])


async def test_outer_rolled_back(world: World) -> None:
    """The statement of the outer one ends the inner ones; nested transactions must each be told."""
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t)
        await world.savepoint(t)
        await world.savepoint(t)
        await t.execute(RENAME)
        await outer.rollback()
        await outer.release()
    assert sent(world) == styled(
        world,
        core=snapshot(
            [
                "BEGIN",
                "SAVEPOINT 1",
                "SAVEPOINT 2",
                "SAVEPOINT 3",
                "UPDATE item",
                "ROLLBACK TO 1",
                "RELEASE 1",
                "COMMIT",
            ]
        ),
        orm=snapshot(
            [
                "BEGIN",
                "SAVEPOINT 1",
                "SAVEPOINT 2",
                "SAVEPOINT 3",
                "UPDATE item",
                "ROLLBACK TO 3",
                "ROLLBACK TO 2",
                "ROLLBACK TO 1",
                "RELEASE 1",
                "COMMIT",
            ]
        ),
    )


async def test_outer_released(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t)
        await world.savepoint(t)
        await world.insert(t, 1)
        await outer.release()
    assert sent(world) == styled(
        world,
        core=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "RELEASE 1", "COMMIT"]),
        orm=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "RELEASE 2", "RELEASE 1", "COMMIT"]),
    )


async def test_inside_a_block_kept(world: World) -> None:
    """Bookmarks made inside a block end with it."""
    async with world.transaction(world.source) as t, world.savepoint(t):
        await world.savepoint(t)
        await world.insert(t, 1)
    assert sent(world) == styled(
        world,
        core=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "RELEASE 1", "COMMIT"]),
        orm=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "RELEASE 2", "RELEASE 1", "COMMIT"]),
    )


async def test_names_that_shadow(world: World) -> None:
    """The nearest open one of a name is meant; the older shows again when it is gone."""
    async with world.transaction(world.source) as t:
        await world.savepoint(t, "x")
        await world.savepoint(t, "x")
        await t.execute(RENAME)
        await world.rollback_to(t, "x")
        await world.release(t, "x")
        await t.execute(RENAME)
        await world.rollback_to(t, "x")
        await world.release(t, "x")
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "SAVEPOINT 2",
            "UPDATE item",
            "ROLLBACK TO 2",
            "RELEASE 2",
            "UPDATE item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "COMMIT",
        ]
    )


async def test_open_at_commit(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.savepoint(t)
        await world.savepoint(t)
        await world.insert(t, 1)
    assert sent(world) == styled(
        world,
        core=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "COMMIT"]),
        orm=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "RELEASE 2", "RELEASE 1", "COMMIT"]),
    )


async def test_open_at_rollback(world: World) -> None:
    """The ROLLBACK undoes all, but SQLAlchemy restores the objects of a session level by level."""
    async with world.transaction(world.source, rollback=True) as t:
        await world.savepoint(t)
        await world.savepoint(t)
        await world.insert(t, 1)
    assert sent(world) == styled(
        world,
        core=snapshot(["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "ROLLBACK"]),
        orm=snapshot(
            ["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "INSERT item", "ROLLBACK TO 2", "ROLLBACK TO 1", "ROLLBACK"]
        ),
    )


async def test_doomed_at_commit(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        mark = await world.savepoint(t)
        await world.savepoint(t)
        await t.execute(RENAME)
        mark.doom("it was a trial")
    assert sent(world) == styled(
        world,
        core=snapshot(
            [
                "BEGIN",
                "INSERT item",
                "SAVEPOINT 1",
                "SAVEPOINT 2",
                "UPDATE item",
                "ROLLBACK TO 1",
                "RELEASE 1",
                "COMMIT",
            ]
        ),
        orm=snapshot(
            [
                "BEGIN",
                "INSERT item",
                "SAVEPOINT 1",
                "SAVEPOINT 2",
                "UPDATE item",
                "ROLLBACK TO 2",
                "ROLLBACK TO 1",
                "RELEASE 1",
                "COMMIT",
            ]
        ),
    )


async def test_misuse_sends_nothing(world: World) -> None:
    async with world.transaction(world.source) as t:
        mark = await world.savepoint(t, "mark")
        ended = await world.savepoint(t, "ended")
        await ended.release()
        with leaves(SavepointEnded):
            await ended.rollback()
        with leaves(SavepointEnded):
            await ended.release()
        with leaves(UnknownSavepoint):
            await world.rollback_to(t, "ended")
        async with world.savepoint(t, "block"):
            with leaves(OutOfOrder):
                await mark.rollback()
            with leaves(OutOfOrder):
                await mark.release()
        await mark.release()
    assert sent(world) == snapshot(
        ["BEGIN", "SAVEPOINT 1", "SAVEPOINT 2", "RELEASE 2", "SAVEPOINT 2", "RELEASE 2", "RELEASE 1", "COMMIT"]
    )


# -- without a block around, and beside plain SQLAlchemy


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_plain_ends(world: World, end: str) -> None:
    async with world.open() as t:
        await world.savepoint(t)
        await world.insert(t, 1)
        await getattr(t, end)()
    ends = {
        "commit": styled(world, core=["COMMIT"], orm=["RELEASE 1", "COMMIT"]),
        "rollback": styled(world, core=["ROLLBACK"], orm=["ROLLBACK TO 1", "ROLLBACK"]),
    }
    assert sent(world) == ["BEGIN", "SAVEPOINT 1", "INSERT item", *ends[end]]


async def test_plain_commit_refused(world: World) -> None:
    """Nothing of the refused commit is sent, not even the RELEASE of the bookmark; ROLLBACK ends it.

    On a connection we roll back at once on the driver, past the events that the transcript follows.
    """
    async with world.open() as t:
        mark = await world.savepoint(t)
        await world.insert(t, 1)
        mark.doom("it was a trial")
        with leaves(TransactionDoomed):
            await t.commit()
        await t.rollback()
    assert sent(world) == styled(
        world,
        core=snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item"]),
        orm=snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "ROLLBACK"]),
    )


async def test_plain_commit_refused_inside_a_block(world: World) -> None:
    with leaves(OutOfOrder):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await t.commit()
    assert sent(world) == styled(
        world, core=snapshot(["BEGIN", "INSERT item"]), orm=snapshot(["BEGIN", "INSERT item", "ROLLBACK"])
    )


async def test_plain_nested_between_ours(world: World) -> None:
    """A level like any other, in order."""
    async with world.transaction(world.source) as t, world.savepoint(t):
        async with t.begin_nested():
            await world.insert(t, 1)
            async with world.savepoint(t):
                await world.insert(t, 2)
        await world.insert(t, 3)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "SAVEPOINT 2",
            "INSERT item",
            "SAVEPOINT 3",
            "INSERT item",
            "RELEASE 3",
            "RELEASE 2",
            "INSERT item",
            "RELEASE 1",
            "COMMIT",
        ]
    )


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_the_founding_story(world: World) -> None:
    """`story.py`, statement for statement."""
    make = savepoints.Session if "sync" in world.site.capabilities(world.style) else savepoints.AsyncSession
    async with world.open(world.maker(class_=make)) as session:
        await session.begin()
        await session.execute(text("INSERT INTO item (id, name) VALUES (1, 'John Doe')"))
        bookmark = await session.savepoint("before the new name")
        await session.execute(text("UPDATE item SET name = 'Jane Doe' WHERE id = 1"))
        await bookmark.rollback()
        await session.execute(text("UPDATE item SET name = 'Jane Roe' WHERE id = 1"))
        await bookmark.rollback()
        await session.commit()
    assert world.rows() == [(1, "John Doe")]
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "INSERT item",
            "SAVEPOINT 1",
            "UPDATE item",
            "ROLLBACK TO 1",
            "UPDATE item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "COMMIT",
        ]
    )
