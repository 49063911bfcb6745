"""A lock that was waited for in vain (F8), and errors that end the transaction on some servers only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from savepoints import TransactionLost
from tests.behaviours.steps import fails
from tests.conftest import require, started
from tests.faults.rivals import OURS, THEIRS, A, two_rows, waits_in_vain
from tests.harness.sites import Site, Style, places
from tests.harness.world import World
from tests.servers import MariaDB

ASKED = "SELECT @@in_transaction"


@pytest.mark.needs("deadlock_ends_all")
async def test_f8_the_savepoint_stays_and_the_statement_can_be_sent_again(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source) as t:
        transaction = world.current_transaction(t)
        await world.insert(t, 3, "before")
        sp = await world.savepoint(t, "part")
        await world.insert(t, 4, "inside")
        await waits_in_vain(world, t)
        assert world.transcript.sent()[-1] == ASKED  # once, after the error that can mean either
        assert [str(transaction.state), str(sp.state)] == ["open", "open"]
        await t.execute(A, OURS)
        await sp.release()
    assert world.transcript.sent().count(ASKED) == 1
    assert world.rows() == [(1, "a+ours"), (2, "b"), (3, "before"), (4, "inside")]


@pytest.mark.needs("deadlock_ends_all")
async def test_f8_a_block_is_undone_and_the_rest_is_kept(world: World) -> None:
    two_rows(world)
    async with world.transaction(world.source) as t:
        await world.insert(t, 3, "before")
        async with world.savepoint(t, suppress=DBAPIError) as sp:
            await world.insert(t, 4, "inside")
            raise await waits_in_vain(world, t)
        assert sp.error is not None
        await world.insert(t, 5, "after")
    assert world.rows() == [(1, "a"), (2, "b"), (3, "before"), (5, "after")]


@pytest.mark.needs("deadlock_ends_all")
async def test_a_changed_record_ends_the_transaction_where_the_snapshot_is_strict(world: World) -> None:
    """1020 with innodb_snapshot_isolation: the server has rolled back all, and says so when it is asked."""
    two_rows(world)
    with fails(TransactionLost, "serialization failure 1020") as lost:
        async with world.transaction(world.source, isolation_level="REPEATABLE READ") as t:
            await t.execute(text("SET innodb_snapshot_isolation = ON"))
            await world.insert(t, 3, "before")
            sp = await world.savepoint(t, "part")
            await world.seen(t)
            with world.aside.begin() as other:
                other.execute(A, THEIRS)
            with fails(DBAPIError) as first:
                await t.execute(A, OURS)
            assert str(sp.state) == "lost"
            with fails(TransactionLost):
                await world.insert(t, 4, "alone")
    assert lost.value.__cause__ is first.value
    assert world.rows() == [(1, "a+theirs"), (2, "b")]


# A server on which the same error means the other thing

DRIVERS = places({"deadlock_ends_all", "core"}, set())


@pytest.fixture(scope="module")
def strict_server() -> Iterator[MariaDB]:
    yield from started(lambda: MariaDB("innodb-rollback-on-timeout = ON\n"))


@pytest.fixture(params=DRIVERS, ids=[site.name for site, _ in DRIVERS])
async def strict(request: pytest.FixtureRequest, strict_server: MariaDB) -> AsyncIterator[World]:
    site: Site
    style: Style
    site, style = request.param
    require(site)
    aside = create_engine(strict_server.url())
    world = World(site, style, strict_server.url(site.driver), aside)
    world.prepare()
    yield world
    await world.close()
    aside.dispose()


@pytest.mark.slow
async def test_f8_a_lock_waited_for_in_vain_loses_all_where_the_server_is_set_so(strict: World) -> None:
    two_rows(strict)
    with fails(TransactionLost, "lock timeout 1205") as lost:
        async with strict.transaction(strict.source) as t:
            await strict.insert(t, 3, "before")
            sp = await strict.savepoint(t, "part")
            first = await waits_in_vain(strict, t)
            assert str(sp.state) == "lost"
            with fails(TransactionLost):
                await strict.insert(t, 4, "alone")
    assert lost.value.__cause__ is first
    assert strict.rows() == [(1, "a"), (2, "b")]
