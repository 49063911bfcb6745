"""What blocks send.

The lists are the specification: read them against the design before changing one. A list holds at every site that the
marks admit, so for both faces. `SAVEPOINT 1` is the one at depth 1, whatever its name.
"""

from __future__ import annotations

import pytest
from inline_snapshot import snapshot
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from savepoints import TransactionDoomed
from tests.harness.world import World
from tests.transcripts.wire import Boom, leaves, sent


async def test_transaction(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "COMMIT"])


async def test_transaction_left_by_an_error(world: World) -> None:
    with leaves(Boom):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            raise Boom
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "ROLLBACK"])


async def test_dry_run(world: World) -> None:
    async with world.transaction(world.source, rollback=True) as t:
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "ROLLBACK"])


async def test_dry_run_of_a_part(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, rollback=True):
            await world.insert(t, 1)
        await world.insert(t, 1)
    assert sent(world) == snapshot(
        ["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "INSERT item", "COMMIT"]
    )


async def test_savepoint_kept(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t):
            await world.insert(t, 2)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", "RELEASE 1", "COMMIT"])


async def test_savepoint_undone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with leaves(Boom):
            async with world.savepoint(t):
                await world.insert(t, 2)
                raise Boom
        await world.insert(t, 3)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "INSERT item",
            "SAVEPOINT 1",
            "INSERT item",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "INSERT item",
            "COMMIT",
        ]
    )


async def test_savepoint_suppresses(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t, suppress=Boom):
        await world.insert(t, 2)
        raise Boom
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])


async def test_error_through_two_levels(world: World) -> None:
    with leaves(Boom):
        async with world.transaction(world.source) as t, world.savepoint(t):
            await world.insert(t, 1)
            raise Boom
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "ROLLBACK"])


async def test_empty_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t):
        pass
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "RELEASE 1", "COMMIT"])


async def test_three_deep(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t), world.savepoint(t), world.savepoint(t):
        await world.insert(t, 1)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "SAVEPOINT 2",
            "SAVEPOINT 3",
            "INSERT item",
            "RELEASE 3",
            "RELEASE 2",
            "RELEASE 1",
            "COMMIT",
        ]
    )


async def test_one_after_the_other(world: World) -> None:
    """None is left behind by one that failed."""
    async with world.transaction(world.source) as t:
        for id in (1, 2, 3):
            async with world.savepoint(t, suppress=Boom):
                await world.insert(t, id)
                if id == 2:
                    raise Boom
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "INSERT item",
            "RELEASE 1",
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


async def test_rollback_to_an_outer_block(world: World) -> None:
    """Each block on the way is undone by its own end."""
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, "outer") as outer, world.savepoint(t, "inner"):
            await world.insert(t, 1)
            raise world.Rollback(outer)
        await world.insert(t, 2)
    assert sent(world) == snapshot(
        [
            "BEGIN",
            "SAVEPOINT 1",
            "SAVEPOINT 2",
            "INSERT item",
            "ROLLBACK TO 2",
            "RELEASE 2",
            "ROLLBACK TO 1",
            "RELEASE 1",
            "INSERT item",
            "COMMIT",
        ]
    )


async def test_rollback_to_the_transaction(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t):
        raise world.Rollback(world.current_transaction(t))
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "ROLLBACK TO 1", "RELEASE 1", "ROLLBACK"])


async def test_ended_by_hand_inside(world: World) -> None:
    """After a release the block's end has nothing left to do."""
    async with world.transaction(world.source) as t, world.savepoint(t) as sp:
        await world.insert(t, 1)
        await sp.release()
        await world.insert(t, 2)
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "RELEASE 1", "INSERT item", "COMMIT"])


@pytest.mark.needs("core")
async def test_rolled_back_by_hand_inside(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t) as sp:
        await world.insert(t, 1)
        await sp.rollback()
        await world.insert(t, 1)
    assert sent(world) == snapshot(
        ["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "INSERT item", "RELEASE 1", "COMMIT"]
    )


async def test_doomed_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t) as sp:
        await world.insert(t, 1)
        sp.doom("it was a trial")
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])


async def test_doomed_transaction(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        world.current_transaction(t).doom("it was a trial")
        await world.insert(t, 2)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "INSERT item", "ROLLBACK"])


# -- atomic


async def test_atomic_outermost(world: World) -> None:
    async with world.open() as t, world.atomic(t):
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "COMMIT"])


async def test_atomic_inside(world: World) -> None:
    async with world.transaction(world.source) as t, world.atomic(t):
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "SAVEPOINT 1", "INSERT item", "RELEASE 1", "COMMIT"])


async def test_atomic_joined(world: World) -> None:
    async with world.transaction(world.source) as t, world.atomic(t, savepoint=False):
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "COMMIT"])


async def test_joined_failure_dooms_the_transaction(world: World) -> None:
    with leaves(TransactionDoomed):
        async with world.transaction(world.source) as t:
            with leaves(Boom):
                async with world.atomic(t, savepoint=False):
                    await world.insert(t, 1)
                    raise Boom
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "ROLLBACK"])


async def test_joined_failure_dooms_the_savepoint(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with leaves(TransactionDoomed):
            async with world.savepoint(t):
                with leaves(Boom):
                    async with world.atomic(t, savepoint=False):
                        await world.insert(t, 2)
                        raise Boom
    assert sent(world) == snapshot(
        ["BEGIN", "INSERT item", "SAVEPOINT 1", "INSERT item", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"]
    )


# -- adoption, options


@pytest.mark.needs("orm")
@pytest.mark.lacks("driver_begins", "no_begin")
async def test_adopted_session(world: World) -> None:
    """SQLAlchemy began by itself with the SELECT."""
    async with world.open() as t:
        await world.seen(t)
        async with world.transaction(t):
            await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "SELECT item", "INSERT item", "COMMIT"])


@pytest.mark.needs("orm", "driver_begins")
async def test_adopted_session_where_nothing_has_begun_on_the_wire(world: World) -> None:
    """The driver waits for a write: we begin when the transaction is opened, in the second line."""
    async with world.open() as t:
        await world.seen(t)
        async with world.transaction(t):
            await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "SELECT item", "BEGIN", "INSERT item", "COMMIT"])


@pytest.mark.needs("immediate")
@pytest.mark.lacks("always_in_transaction")
async def test_immediate(world: World) -> None:
    async with world.transaction(world.source, immediate=True) as t:
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN IMMEDIATE", "INSERT item", "COMMIT"])


@pytest.mark.lacks("immediate")
async def test_immediate_means_nothing_elsewhere(world: World) -> None:
    async with world.transaction(world.source, immediate=True) as t:
        await world.insert(t, 1)
    assert sent(world) == snapshot(["BEGIN", "INSERT item", "COMMIT"])


@pytest.mark.needs("isolation_levels")
async def test_isolation_level(world: World) -> None:
    """The driver puts it into its BEGIN, or SQLAlchemy sets it on the connection: no statement of ours."""
    async with world.transaction(world.source, isolation_level="SERIALIZABLE") as t:
        assert (await t.execute(world.sql("isolation"))).scalar() == "serializable"
    assert sent(world) == ["BEGIN", world.site.sql["isolation"], "COMMIT"]


@pytest.mark.needs("read_only")
async def test_read_only_and_deferrable(world: World) -> None:
    async with world.transaction(world.source, isolation_level="SERIALIZABLE", read_only=True, deferrable=True) as t:
        assert (await t.execute(text("SHOW transaction_read_only"))).scalar() == "on"
        assert (await t.execute(text("SHOW transaction_deferrable"))).scalar() == "on"
    assert sent(world) == snapshot(["BEGIN", "SHOW transaction_read_only", "SHOW transaction_deferrable", "COMMIT"])


@pytest.mark.needs("read_only_setting")
@pytest.mark.lacks("always_in_transaction")
async def test_read_only_by_a_setting(world: World) -> None:
    """It belongs to the connection: it is taken back before the next user has it."""
    async with world.transaction(world.source, read_only=True) as t:
        await world.seen(t)
    assert sent(world) == snapshot(["BEGIN", "PRAGMA query_only = 1", "SELECT item", "PRAGMA query_only = 0", "COMMIT"])


@pytest.mark.needs("read_only_begin")
async def test_read_only_by_a_begin_of_its_own(world: World) -> None:
    """It ends with the transaction: nothing is to be taken back."""
    with leaves(DBAPIError):
        async with world.transaction(world.source, isolation_level="READ COMMITTED", read_only=True) as t:
            assert (await t.execute(world.sql("isolation"))).scalar() == "read committed"
            await world.insert(t, 1)
    assert sent(world) == ["START TRANSACTION READ ONLY", world.site.sql["isolation"], "INSERT item", "ROLLBACK"]
    async with world.transaction(world.source) as t:
        await world.insert(t, 2)
    assert world.rows() == [(2, None)]


# -- the names themselves


@pytest.mark.needs("core")
async def test_names_on_a_connection(world: World) -> None:
    """By depth, so that a driver which prepares statements sees few; labels never reach SQL."""
    async with world.transaction(world.source) as t:
        for label in ("a", "b"):
            async with world.savepoint(t, label), world.savepoint(t, "c"):
                pass
    first, second = "SAVEPOINT savepoints_1", "SAVEPOINT savepoints_2"
    round = [first, second, f"RELEASE {second}", f"RELEASE {first}"]
    assert world.transcript.sent() == ["BEGIN", *round, *round, "COMMIT"]


@pytest.mark.needs("orm")
async def test_names_on_a_session(world: World) -> None:
    """SQLAlchemy's own, which are counted up."""
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, "a"):
            pass
        async with world.savepoint(t, "b"):
            pass
    assert world.transcript.sent() == snapshot(
        [
            "BEGIN",
            "SAVEPOINT sa_savepoint_1",
            "RELEASE SAVEPOINT sa_savepoint_1",
            "SAVEPOINT sa_savepoint_2",
            "RELEASE SAVEPOINT sa_savepoint_2",
            "COMMIT",
        ]
    )
