"""The harness by itself, on plain SQLAlchemy: every site works, and its checks find what they are for."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.harness.sites import CAPABILITIES, SITES, STYLES
from tests.harness.transcript import in_short
from tests.harness.world import World
from tests.proxy import Proxy


@pytest.mark.lacks("no_begin")
async def test_insert_commit_and_read_back(world: World) -> None:
    async with world.open() as t:
        await world.insert(t, 1, "kept")
        assert world.rows() == []
        assert await world.seen(t) == [(1, "kept")]
        await t.commit()
        await world.insert(t, 2, "undone")
        await t.rollback()
    assert world.rows() == [(1, "kept")]
    assert world.transcript.short() == [
        *("BEGIN", "INSERT item", "SELECT item", "COMMIT"),
        *("BEGIN", "INSERT item", "ROLLBACK"),
    ]


async def test_plain_savepoint(world: World) -> None:
    t = await world.opened()
    await world.insert(t, 1, "kept")
    async with t.begin_nested():
        await world.insert(t, 2, "kept")
    nested = await t.begin_nested()
    await world.insert(t, 3, "undone")
    await nested.rollback()
    assert not nested.is_active
    await t.commit()
    await t.close()
    assert world.rows() == [(1, "kept"), (2, "kept")]


@pytest.mark.needs("orm")
async def test_related_objects(world: World) -> None:
    async with world.open() as t:
        parent = World.Parent(id=1, children=[World.Child(id=1), World.Child(id=2)])
        t.add(parent)
        assert parent in t
        await t.commit()
        assert len((await t.scalars(text("SELECT id FROM child"))).all()) == 2
        assert await world.run_sync(t, lambda session: session.get(World.Parent, 1) is parent)


async def test_open_transaction_is_found(world: World) -> None:
    t = await world.opened()
    await world.insert(t, 1)
    with pytest.raises(AssertionError, match="not given back"):
        world.check_pool()
    await t.close()


@pytest.mark.needs("sync")
@pytest.mark.lacks("always_in_transaction")
async def test_driver_left_in_a_transaction_is_found(world: World) -> None:
    connection = world.engine.raw_connection()
    connection.detach()  # the pool forgets it
    cursor = connection.cursor()
    cursor.execute("SAVEPOINT left_open")
    cursor.execute("INSERT INTO item (id) VALUES (1)")
    with pytest.raises(AssertionError, match="still in a transaction"):
        world.check_pool()
    connection.rollback()
    connection.close()


@pytest.mark.needs("network")
@pytest.mark.parametrize(("cut", "kept"), [("cut_before", []), ("cut_after", [(1, None)])])
async def test_connection_cut_at_commit(world: World, proxy: Proxy, cut: str, kept: list[tuple[int, None]]) -> None:
    async with world.open() as t:
        await world.insert(t, 1)
        asked = proxy.round_trips
        await t.execute(text("SELECT 1"))
        assert proxy.round_trips > asked
        setattr(proxy, cut, b"COMMIT")
        with pytest.raises(DBAPIError):
            await t.commit()
        setattr(proxy, cut, None)
        await t.rollback()
    assert proxy.cuts == 1
    assert world.rows() == kept


@pytest.mark.parametrize(
    ("statement", "short"),
    [
        ("SELECT item.id, item.name FROM item WHERE item.id = %(id)s", "SELECT item"),
        ("INSERT OR ROLLBACK INTO item VALUES (1)", "INSERT item"),
        ("UPDATE item SET name = (SELECT name FROM parent)", "UPDATE item"),
        ('DELETE FROM "item"', "DELETE item"),
        ("SAVEPOINT s1", "SAVEPOINT s1"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_transcript_in_short(statement: str, short: str) -> None:
    assert in_short(statement) == short


@pytest.mark.needs("driver_begins")
async def test_begin_sent_as_a_statement_stands_once(world: World) -> None:
    async with world.open() as t:
        await t.execute(text("BEGIN IMMEDIATE"))
        await t.rollback()
    assert world.transcript.sent() == ["BEGIN IMMEDIATE", "ROLLBACK"]


def test_sites_name_only_listed_capabilities() -> None:
    for site in SITES:
        for style in STYLES:
            assert site.capabilities(style) <= CAPABILITIES.keys()
