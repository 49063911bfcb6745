"""Group N: one session on databases of different makers, each with its own rules, and one end for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from savepoints import CommitOutcomeUnknown, ImplicitCommit, NotSupported, Retry
from savepoints.testing import inject, lose_commit
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.tools import row
from tests.harness.models import Child, Item, Parent, tables
from tests.harness.sites import IMPLICIT_COMMIT_DRIVERS, MARIADB_RESET
from tests.harness.world import World
from tests.servers import Server

# Items are on the world's server, whose foreign keys can wait; parents and children on one where DDL commits.
pytestmark = [pytest.mark.needs("orm", "two_phase", "deferred")]

ORPHAN = text("INSERT INTO child (id, parent_id) VALUES (1, 42)")
PARENTS = {"bind_arguments": {"mapper": Parent}}
ITEMS = {"bind_arguments": {"mapper": Item}}


class Elsewhere:
    """The other server: an engine of the world's face, and a plain one to look from."""

    def __init__(self, world: World, server: Server) -> None:
        self.aside: Engine = create_engine(server.url(IMPLICIT_COMMIT_DRIVERS["sync"]), isolation_level="AUTOCOMMIT")
        with self.aside.connect() as connection:
            replace(MARIADB_RESET, alone=None).empty(connection, tables)
        create: Any = create_engine if world.site.face == "sync" else create_async_engine
        self.engine: Any = create(server.url(IMPLICIT_COMMIT_DRIVERS[world.site.face]))
        self.maker = world.maker(binds={Item: world.engine, Parent: self.engine, Child: self.engine})
        self.maker.kw["bind"] = None

    def parents(self) -> list[tuple[Any, ...]]:
        with self.aside.connect() as connection:
            return [tuple(found) for found in connection.execute(text("SELECT id, name FROM parent ORDER BY id"))]

    def prepared(self) -> list[Any]:
        with self.aside.connect() as connection:
            return connection.recover_twophase()

    async def close(self) -> None:
        disposed = self.engine.dispose()
        if disposed is not None:
            await disposed
        self.aside.dispose()


@pytest.fixture
async def elsewhere(world: World, mariadb: Server) -> AsyncIterator[Elsewhere]:
    found = Elsewhere(world, mariadb)
    yield found
    assert found.prepared() == []
    with world.aside.connect() as aside:
        assert aside.recover_twophase() == []
    await found.close()


@pytest.mark.parametrize("first", [Item, Parent], ids=["here first", "there first"])
async def test_n_both_are_stored_with_what_their_savepoints_kept(
    world: World, elsewhere: Elsewhere, first: type
) -> None:
    log: list[Any] = []
    second = Parent if first is Item else Item
    async with world.transaction(elsewhere.maker, twophase=True) as t:
        world.hook("on_commit", t, lambda: log.append((world.rows(), elsewhere.parents(), elsewhere.prepared())))
        for kind in (first, second):
            t.add(kind(id=1, name="kept"))
            await t.flush()
        async with world.savepoint(t, suppress=Oops):
            t.add_all([first(id=2, name="undone"), second(id=2, name="undone")])
            await t.flush()
            raise Oops
        mark = await world.savepoint(t)
        for one in (await t.get(first, 1), await t.get(second, 1)):
            one.name = "undone"
        await mark.rollback()
    kept = [(1, "kept")]
    assert log == [(kept, kept, [])]
    assert (world.rows(), elsewhere.parents()) == (kept, kept)


@pytest.mark.parametrize("first", [Item, Parent], ids=["here first", "there first"])
async def test_n_refused_by_one_undone_on_both(world: World, elsewhere: Elsewhere, first: type) -> None:
    """A constraint that waited for the end: where the other has prepared already, that is rolled back by its name."""
    with fails(IntegrityError):
        async with world.transaction(elsewhere.maker, twophase=True) as t:
            for kind in dict.fromkeys((first, Item, Parent)):
                t.add(kind(id=1))
                await t.flush()
            await t.execute(ORPHAN, **ITEMS)
    assert (world.rows(), elsewhere.parents()) == ([], [])
    async with world.transaction(elsewhere.maker, twophase=True) as t:
        t.add_all([Item(id=3), Parent(id=3)])
    assert (world.rows(), elsewhere.parents()) == ([(3, None)], [(3, None)])


async def test_n_one_is_gone_before_it_has_prepared(world: World, elsewhere: Elsewhere) -> None:
    """Whether it has prepared is not known then; the other's part is undone, so that nothing is kept by halves."""
    log: list[str] = []
    with fails(CommitOutcomeUnknown):
        async with world.transaction(elsewhere.maker, twophase=True) as t:
            for verb in ("on_commit", "on_rollback", "on_unknown"):
                world.hook(verb, t, log.append, verb)
            for kind in (Item, Parent):
                t.add(kind(id=1))
                await t.flush()
            number = await t.scalar(text("SELECT CONNECTION_ID()"), **PARENTS)
            with elsewhere.aside.connect() as aside:
                aside.execute(text("KILL :id"), {"id": number})
    assert log == ["on_unknown"]
    assert (world.rows(), elsewhere.parents()) == ([], [])


async def both(world: World, elsewhere: Elsewhere, log: list[str], **options: Any) -> None:
    async with world.transaction(elsewhere.maker, **options) as t:
        for verb in ("on_commit", "on_rollback", "on_unknown"):
            world.hook(verb, t, log.append, verb)
        t.add_all([Item(id=1), Parent(id=1)])


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("stored", [True, False])
async def test_n_all_have_promised_and_all_are_told_to_commit(
    world: World, elsewhere: Elsewhere, where: str, stored: bool
) -> None:
    """One gives no answer: the other is committed, whichever comes first, for nothing may be stored by halves."""
    log: list[str] = []
    with lose_commit(world.engine if where == "here" else elsewhere.engine, stored=stored), fails(CommitOutcomeUnknown):
        await both(world, elsewhere, log, twophase=True)
    assert log == ["on_unknown"]
    aside = world.aside if where == "here" else elsewhere.aside
    with aside.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        left = connection.recover_twophase()
        assert len(left) == (not stored)
        for xid in left:  # its promise stands: whoever watches over them ends it by its name
            connection.commit_prepared(xid, recover=True)
    assert (world.rows(), elsewhere.parents()) == ([(1, None)], [(1, None)])


@pytest.mark.parametrize("where", ["here", "there"])
async def test_n_one_refuses_after_another_has_stored(world: World, elsewhere: Elsewhere, where: str) -> None:
    """Without two phases it is not known to be undone: it is stored by halves, and nothing is tried again."""
    log: list[str] = []
    engine = world.engine if where == "here" else elsewhere.engine
    with inject(engine, "deadlock", commit=1), fails((DBAPIError, CommitOutcomeUnknown)) as caught:
        await both(world, elsewhere, log)
    unknown = isinstance(caught.value, CommitOutcomeUnknown)
    assert log == ["on_unknown" if unknown else "on_rollback"]
    assert sorted([world.rows(), elsewhere.parents()]) == [[], [(1, None)] if unknown else []]
    assert not unknown or "an answer of one of them" in str(caught.value)
    world.check_pool()


async def test_n_one_commit_is_followed_not_two(world: World, elsewhere: Elsewhere) -> None:
    log: list[str] = []
    with fails(NotSupported, "sends one to each of several databases"):
        await both(world, elsewhere, log, track_commit=lambda connection: True)
    assert log == ["on_rollback"]
    assert (world.rows(), elsewhere.parents()) == ([], [])


async def test_n_the_server_that_was_to_commit_is_asked(world: World, elsewhere: Elsewhere) -> None:
    """Not the one that the sessionmaker names for what it has no other for."""
    asked: list[Any] = []

    def is_there(connection: Any) -> bool:
        asked.append(connection.engine.url)
        return False

    elsewhere.maker.kw["bind"] = elsewhere.engine
    numbers: list[int] = []

    async def work(session: Any) -> None:
        numbers.append(1)
        session.add(Item(id=len(numbers)))

    with lose_commit(world.engine, stored=False):
        await world.decorated(work, source=elsewhere.maker, track_commit=is_there, retry=Retry(wait=0))()
    assert asked == [world.engine.url]
    assert world.rows() == [(2, None)]


@pytest.mark.parametrize("first", [Item, Parent], ids=["here first", "there first"])
@pytest.mark.parametrize("twophase", [True, False], ids=["two phases", "one"])
async def test_n_statements_are_judged_by_their_own_database(
    world: World, elsewhere: Elsewhere, first: type, twophase: bool
) -> None:
    """DDL commits on one of them, and is an ordinary statement on the other, whichever was used first."""
    create = text("CREATE TABLE made (id INTEGER)")
    async with world.transaction(elsewhere.maker, twophase=twophase) as t:
        for kind in dict.fromkeys((first, Item, Parent)):
            t.add(kind(id=1))
            await t.flush()
        with refused(world, ImplicitCommit):
            await t.execute(create, **PARENTS)
        async with world.savepoint(t, suppress=Oops):
            await t.execute(create, **ITEMS)
            raise Oops
        await t.execute(create, **ITEMS)
        await t.execute(row(2), **ITEMS)
    assert (world.rows(), elsewhere.parents()) == ([(1, None), (2, None)], [(1, None)])


async def test_n_each_is_loaded_in_its_own_way(world: World, elsewhere: Elsewhere) -> None:
    """The algorithm and the errors are those of the table's database, not of the one that the session used first."""
    rows = [(1, "first"), (1, "again"), (2, "last")]
    async with world.transaction(elsewhere.maker) as t:
        for kind in (Item, Parent):
            report = await world.load(t, kind, rows)
            assert (report.loaded, [one.kind for one in report.rejects]) == (2, ["unique"])
    assert world.rows() == elsewhere.parents() == [(1, "first"), (2, "last")]
