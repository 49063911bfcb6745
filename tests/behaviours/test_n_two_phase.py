"""Group N: two-phase transactions, SQLAlchemy's own and ours, and sessions on several databases."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, PendingRollbackError

from savepoints import (
    AlreadyInTransaction,
    CommitOutcomeUnknown,
    ImplicitCommit,
    NotSupported,
    OutOfOrder,
    Retry,
    TransactionLost,
)
from savepoints.testing import inject, instant_retries, lose_commit
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.test_l_losses import resolved
from tests.behaviours.tools import row
from tests.faults.losses import Loss, connection_of, deadlocked, killed
from tests.harness.face import bare
from tests.harness.models import Child, Item, Parent
from tests.harness.world import Target, World
from tests.proxy import Proxy

two_phase = pytest.mark.needs("two_phase")
ORPHAN = text("INSERT INTO child (id, parent_id) VALUES (1, 42)")  # refused when all constraints are looked at


@pytest.fixture
async def other(world: World) -> AsyncIterator[Any]:
    """A second engine of the same face."""
    engine = world.new_engine()
    yield engine
    disposed = engine.dispose()
    if disposed is not None:
        await disposed


def on_both(world: World, other: Any, **options: Any) -> Any:
    """A sessionmaker on two engines: items on the first, parents and children on the second."""
    maker = world.maker(binds={Item: world.engine, Parent: other, Child: other}, **options)
    maker.kw["bind"] = None
    return maker


def prepared(world: World) -> list[str]:
    """The names of what is prepared, whoever has asked for it."""
    with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as aside:
        return [gid.decode() if isinstance(gid, bytes) else str(gid) for gid in aside.recover_twophase()]


def end_prepared(world: World, end: str, gid: str) -> None:
    """COMMIT or ROLLBACK it, from another connection, once the server knows that its own has gone."""
    deadline = time.monotonic() + 10
    with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as aside:
        while True:
            try:
                getattr(aside, f"{end.lower()}_prepared")(gid, recover=True)
                return
            except DBAPIError:
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.fixture(autouse=True)
async def none_left(world: World) -> AsyncIterator[None]:
    """A prepared transaction outlives its connection, and would hold its locks for ever."""
    yield
    if "two_phase" in world.site.has:
        left = prepared(world)
        for gid in left:
            end_prepared(world, "ROLLBACK", gid)
        assert left == []


def phases(world: World) -> list[str]:
    words = ("BEGIN", "PREPARE", "COMMIT", "ROLLBACK", "XA")
    return [s.split("'")[0].strip() for s in world.transcript.sent() if s.startswith(words)]


# -- SQLAlchemy's own: nothing of ours stands in its way


async def prepare_with_a_bookmark(world: World) -> str:
    """A prepared transaction on a connection of the caller's; its name on the server."""
    async with world.open(world.engine) as connection:
        two = await world.run_sync(connection, lambda sync: sync.begin_twophase("it''s; odd"))
        await connection.execute(row(1, "kept"))
        sp = await world.savepoint(connection)
        await connection.execute(row(2, "undone"))
        await sp.rollback()
        async with world.savepoint(connection, suppress=Oops):
            await connection.execute(row(3, "undone"))
            raise Oops
        await world.run_sync(connection, lambda _: two.prepare())
        (gid,) = prepared(world)
        await connection.invalidate()
        return gid


@two_phase
@pytest.mark.needs("core")
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_n184_prepared_here_and_ended_there(world: World, end: str) -> None:
    gid = await prepare_with_a_bookmark(world)
    end_prepared(world, end, gid)
    assert world.rows() == ([(1, "kept")] if end == "COMMIT" else [])


@two_phase
@pytest.mark.needs("core")
async def test_n185_rolled_back_there_nothing_is_kept(world: World) -> None:
    """By a recovering connection of SQLAlchemy's own, as its documentation has it."""
    gid = await prepare_with_a_bookmark(world)
    end_prepared(world, "ROLLBACK", gid)
    assert world.rows() == []
    assert prepared(world) == []


@two_phase
@pytest.mark.needs("core")
async def test_n186_the_list_shows_names_as_they_are(world: World) -> None:
    gid = await prepare_with_a_bookmark(world)
    assert gid == "it''s; odd"
    end_prepared(world, "COMMIT", gid)
    assert world.rows() == [(1, "kept")]


@two_phase
@pytest.mark.needs("orm")
async def test_n187_what_a_savepoint_undid_is_not_in_it(world: World) -> None:
    async with world.open(world.maker(twophase=True)) as t:
        await world.insert(t, 1, "kept")
        async with world.savepoint(t, suppress=Oops):
            await world.insert(t, 2, "undone")
            raise Oops
        mark = await world.savepoint(t)
        await world.insert(t, 3, "undone")
        await mark.rollback()
        await mark.release()
        await world.run_sync(t, lambda session: session.prepare())
        assert world.rows() == []
        await t.commit()
    assert world.rows() == [(1, "kept")]


@two_phase
@pytest.mark.needs("orm")
async def test_n188_prepare_without_two_phase(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="not enabled"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await world.run_sync(t, lambda session: session.prepare())
    assert world.rows() == []


@two_phase
@pytest.mark.needs("core")
async def test_n192_given_back_between_prepare_and_commit(world: World) -> None:
    """What the pool rolls back is the connection's own transaction: the prepared one is the server's by then."""
    async with world.open(world.engine) as connection:
        two = await world.run_sync(connection, lambda sync: sync.begin_twophase())
        await connection.execute(row(1))
        await world.savepoint(connection)
        await world.run_sync(connection, lambda _: two.prepare())
        (gid,) = prepared(world)
        await connection.invalidate()
    assert prepared(world) == [gid]
    end_prepared(world, "COMMIT", gid)
    assert world.rows() == [(1, None)]


# -- ours


@two_phase
async def test_n_twophase_prepares_and_commits_with_savepoints_and_hooks(world: World) -> None:
    log: list[Any] = []
    async with world.transaction(world.source, twophase=True) as t:
        transaction = world.current_transaction(t)
        world.hook("before_commit", t, log.append, "before")
        world.hook("on_commit", t, lambda: log.append((world.rows(), prepared(world))))
        await world.insert(t, 1, "kept")
        async with world.savepoint(t, suppress=Oops):
            await world.insert(t, 2, "undone")
            raise Oops
        await world.savepoint(t, "open at the end")
        await world.insert(t, 3, "kept")
    kept = [(1, "kept"), (3, "kept")]
    assert log == ["before", (kept, [])]
    assert str(transaction.state) == "committed"
    assert world.rows() == kept


@two_phase
@pytest.mark.parametrize("how", ["error", "dry run", "signal"])
async def test_n_twophase_is_undone(world: World, how: str) -> None:
    log: list[str] = []
    with fails(Oops) if how == "error" else nullcontext():
        async with world.transaction(world.source, twophase=True, rollback=how == "dry run") as t:
            world.hook("on_rollback", t, log.append, "undone")
            await world.insert(t, 1)
            if how == "error":
                raise Oops
            if how == "signal":
                raise world.Rollback()
    assert log == ["undone"]
    assert world.rows() == []


@two_phase
@pytest.mark.needs("deferred")
async def test_n_twophase_refused_at_prepare(world: World) -> None:
    log: list[str] = []
    with fails(IntegrityError) as caught:
        async with world.transaction(world.source, twophase=True) as t:
            transaction = world.current_transaction(t)
            world.hook("on_rollback", t, log.append, "undone")
            await world.insert(t, 1)
            await t.execute(ORPHAN)
    assert (str(transaction.state), transaction.error, log) == ("rolled back", caught.value, ["undone"])
    assert world.rows() == []
    async with world.transaction(world.source) as t:
        await world.insert(t, 2)
    assert world.rows() == [(2, None)]


@two_phase
@pytest.mark.needs("implicit_commit")
async def test_n_twophase_whose_prepare_is_refused(world: World) -> None:
    """Somebody has ended it past us, by its name: the server refuses to end it again, so it was not prepared."""
    log: list[str] = []
    with fails(DBAPIError, "XAER_RMFAIL"):
        async with world.transaction(world.source, twophase=True) as t:
            transaction = world.current_transaction(t)
            for verb in ("on_commit", "on_rollback", "on_unknown"):
                world.hook(verb, t, log.append, verb)
            await world.insert(t, 1)
            await world.run_sync(t, end_by_name)
    assert (str(transaction.state), log) == ("rolled back", ["on_rollback"])
    async with world.transaction(world.source, twophase=True) as t:
        await world.insert(t, 1, "kept")
    assert world.rows() == [(1, "kept")]


def end_by_name(target: Any) -> None:
    connection = connection_of(target)
    connection.connection.cursor().execute("XA END %s", (connection.get_transaction().xid,))  # type: ignore[union-attr]


async def lost_and_used_again(world: World, loss: Loss) -> None:
    """A connection that lives is used again: nothing of the lost transaction is in its way."""
    log: list[str] = []
    with fails(TransactionLost):
        async with world.transaction(world.source, twophase=True) as t:
            world.hook("on_rollback", t, log.append, "undone")
            await world.insert(t, 1)
            with suppress(DBAPIError):
                async with world.savepoint(t):
                    await loss(world, t)
            with pytest.raises((TransactionLost, PendingRollbackError)):
                await world.insert(t, 2)
    assert (world.rows(), log) == ([], ["undone"])
    async with world.transaction(world.source, twophase=True) as t:
        await world.insert(t, 3, "next")
    assert world.rows() == [(3, "next")]


@two_phase
async def test_n_twophase_whose_connection_was_killed(world: World) -> None:
    await lost_and_used_again(world, killed)


@two_phase
@pytest.mark.needs("deadlock_ends_all")
async def test_n_twophase_that_lost_a_deadlock(world: World) -> None:
    await lost_and_used_again(world, deadlocked)


@two_phase
async def test_n_twophase_is_retried(world: World) -> None:
    async def work(session: Any) -> None:
        await world.insert(session, 1)
        async with world.savepoint(session):
            await world.insert(session, 2)

    with instant_retries(), inject(world.engine, "deadlock", statement=2) as fault:
        await world.decorated(work, twophase=True, retry=Retry(attempts=2))()
    assert fault.fired == 1
    assert world.rows() == [(1, None), (2, None)]


@two_phase
async def test_n_twophase_under_faults_on_demand(world: World) -> None:
    """A COMMIT is refused when it is prepared, and its answer is lost when it has been."""

    async def work(session: Any) -> None:
        await world.insert(session, 1)

    with instant_retries(), inject(world.engine, "deadlock", commit=1) as fault:
        await world.decorated(work, twophase=True, retry=Retry(attempts=2))()
    assert (fault.fired, world.rows()) == (1, [(1, None)])
    for id, stored in ((2, True), (3, False)):
        with lose_commit(world.engine, stored=stored) as lost, fails(CommitOutcomeUnknown):
            async with world.transaction(world.source, twophase=True) as t:
                await world.insert(t, id)
        assert lost.fired == 1
        assert ((id, None) in world.rows()) is stored
        for gid in prepared(world):
            assert not stored
            end_prepared(world, "ROLLBACK", gid)
    assert world.rows() == [(1, None), (2, None)]


@two_phase
@pytest.mark.needs("implicit_commit")
async def test_n_twophase_takes_no_statement_that_commits(world: World) -> None:
    """What we can see is refused before it is sent; what is hidden in a procedure, by the server."""
    with world.aside.begin() as aside:
        aside.execute(text("CREATE PROCEDURE hidden() CREATE TABLE other (id INTEGER)"))
    async with world.transaction(world.source, twophase=True) as t:
        await world.insert(t, 1)
        with refused(world, ImplicitCommit):
            await t.execute(text("CREATE TABLE other (id INTEGER)"))
        async with world.savepoint(t, suppress=DBAPIError):
            await world.insert(t, 2, "undone")
            await t.execute(text("CALL hidden()"))
        await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]


@two_phase
@pytest.mark.needs("read_only_begin")
async def test_n_twophase_cannot_be_read_only_there(world: World) -> None:
    with refused(world, NotSupported, "cannot be read-only"):
        async with world.transaction(world.source, twophase=True, read_only=True):
            pass


@two_phase
async def test_n_twophase_is_not_ended_by_plain_calls(world: World) -> None:
    async with world.open() as t:
        with fails(OutOfOrder):
            async with world.transaction(t, twophase=True):
                await world.insert(t, 1)
                await t.commit()
        assert world.rows() == []
        async with world.transaction(t, twophase=True):
            await world.insert(t, 2)
            if world.style == "core":
                with refused(world, OutOfOrder, "prepare"):
                    await world.run_sync(t, lambda connection: connection.get_transaction().prepare())
            await world.insert(t, 3)
    assert world.rows() == [(2, None), (3, None)]


@two_phase
@pytest.mark.needs("core")
@pytest.mark.parametrize("prepare", [True, False], ids=["in two steps", "in one"])
async def test_n_twophase_of_sqlalchemys_is_told_its_end(world: World, prepare: bool) -> None:
    async with world.open(world.engine) as t:
        two = await world.run_sync(t, lambda connection: connection.begin_twophase())
        await t.execute(row(1))
        mark = await world.savepoint(t)
        transaction = world.current_transaction(t)
        if prepare:
            await world.run_sync(t, lambda _: two.prepare())
        await world.run_sync(t, lambda _: two.commit())
        assert (str(transaction.state), str(mark.state)) == ("committed", "released")
    assert world.rows() == [(1, None)]


@two_phase
@pytest.mark.needs("orm", "deferred")
async def test_n189_failure_in_prepare_of_the_second_undoes_the_first(world: World, other: Any) -> None:
    log: list[str] = []
    async with world.transaction(on_both(world, other), twophase=True) as t:
        world.hook("on_commit", t, log.append, "both")
        t.add(Item(id=1, name="kept"))
        t.add(Parent(id=1, name="kept"))
        async with world.savepoint(t, suppress=Oops):
            t.add(Item(id=2, name="undone"))
            t.add(Parent(id=2, name="undone"))
            raise Oops
    assert log == ["both"]
    assert world.rows() == [(1, "kept")]
    with fails(IntegrityError):
        async with world.transaction(on_both(world, other), twophase=True) as t:
            t.add(Item(id=3))
            t.add(Child(id=1, parent_id=42))
    assert world.rows() == [(1, "kept")]
    with world.aside.connect() as aside:
        assert aside.execute(text("SELECT id, name FROM parent")).all() == [(1, "kept")]


@two_phase
@pytest.mark.needs("orm")
async def test_n_twophase_is_for_this_transaction_alone(world: World) -> None:
    async with world.open() as t:
        async with world.transaction(t, twophase=True):
            await world.insert(t, 1)
        world.transcript.clear()
        async with world.transaction(t):
            await world.insert(t, 2)
        assert not [word for word in phases(world) if "PREPARE" in word]
        assert bare_session(t).twophase is False
        await t.execute(text("SELECT 1"))
        with refused(world, AlreadyInTransaction, "before its first statement"):
            await world.transaction(t, twophase=True).__aenter__()
    assert world.rows() == [(1, None), (2, None)]


def bare_session(target: Target) -> Any:
    session = bare(target)
    return getattr(session, "sync_session", session)


@pytest.mark.lacks("two_phase")
async def test_n_twophase_is_refused_with_the_reason(world: World) -> None:
    with refused(world, NotSupported, "no two-phase transaction on"):
        async with world.transaction(world.source, twophase=True):
            pass
    async with world.open() as t:
        with refused(world, NotSupported, "no two-phase transaction on"):
            async with world.transaction(t, twophase=True):
                pass
        async with world.transaction(t):
            await world.insert(t, 1)
    assert world.rows() == [(1, None)]


@pytest.mark.lacks("two_phase")
@pytest.mark.needs("orm")
async def test_n_twophase_where_one_of_several_cannot(world: World, other: Any) -> None:
    with refused(world, NotSupported, "no two-phase transaction on"):
        async with world.transaction(on_both(world, other), twophase=True):
            pass


@pytest.mark.needs("two_phase", "network")
@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_n_twophase_without_an_answer_to_commit(world: World, proxy: Proxy, cut: str) -> None:
    """COMMIT PREPARED was sent, and nobody knows; a transaction that is still prepared can be ended by anybody."""
    log: list[str] = []
    with fails(CommitOutcomeUnknown):
        async with world.transaction(world.source, twophase=True) as t:
            for verb in ("on_commit", "on_rollback", "on_unknown"):
                world.hook(verb, t, log.append, verb)
            await world.insert(t, 1)
            setattr(proxy, cut, b"COMMIT")
    setattr(proxy, cut, None)
    assert log == ["on_unknown"]
    left = prepared(world)  # none where the COMMIT has reached the server
    assert len(left) == 1 or cut == "cut_after"
    for gid in left:
        end_prepared(world, "COMMIT", gid)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("two_phase", "network")
async def test_n_twophase_that_is_prepared_is_not_taken_for_undone(world: World, proxy: Proxy) -> None:
    """The work is not there, and anybody may commit it: to run it again could store it twice."""

    def is_there(connection: Any) -> bool:
        return connection.execute(text("SELECT 1 FROM item WHERE id = 1")).first() is not None

    with fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, twophase=True, track_commit=is_there) as t:
            await world.insert(t, 1)
            proxy.cut_before = b"COMMIT"
    proxy.cut_before = None
    assert await resolved(world, caught.value) == "unknown"
    (gid,) = prepared(world)
    end_prepared(world, "COMMIT", gid)
    assert await resolved(world, caught.value) == "committed"


@pytest.mark.needs("two_phase", "network", "commit_status")
async def test_n_twophase_that_is_prepared_is_in_progress(world: World, proxy: Proxy) -> None:
    with fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, twophase=True, track_commit=True) as t:
            await world.insert(t, 1)
            proxy.cut_before = b"COMMIT"
    proxy.cut_before = None
    answer = caught.value.resolve(world.engine)
    assert (answer if world.site.face == "sync" else await answer) == "in progress"
    (gid,) = prepared(world)
    end_prepared(world, "ROLLBACK", gid)
    assert await resolved(world, caught.value) == "rolled back"


# -- several databases, without two phases


@pytest.mark.needs("orm")
async def test_n190_one_of_them_has_no_savepoints(world: World, other: Any) -> None:
    """An engine in autocommit mode: refused before the first SAVEPOINT goes out on any."""
    maker = on_both(world, other.execution_options(isolation_level="AUTOCOMMIT"))
    async with world.open(maker) as t:
        await t.get(Item, 1)
        await t.get(Parent, 1)
        world.transcript.clear()
        with pytest.raises(NotSupported, match="AUTOCOMMIT"):
            await world.savepoint(t)
        assert not [s for s in world.transcript.sent() if s.startswith("SAVEPOINT")]


@pytest.mark.needs("orm", "many_writers")
async def test_n191_a_database_that_joined_after_the_savepoint(world: World, other: Any) -> None:
    async with world.transaction(on_both(world, other)) as t:
        t.add(Item(id=1, name="before"))
        mark = await world.savepoint(t)
        t.add(Item(id=2, name="undone"))
        t.add(Parent(id=1, name="undone"))
        await t.flush()
        await mark.rollback()
        t.add(Item(id=3, name="after"))
        t.add(Parent(id=2, name="after"))
    assert world.rows() == [(1, "before"), (3, "after")]
    with world.aside.connect() as aside:
        assert aside.execute(text("SELECT id, name FROM parent")).all() == [(2, "after")]
