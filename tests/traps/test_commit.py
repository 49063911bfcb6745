"""What COMMIT says, and when it is believed."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError

from savepoints import CommitOutcomeUnknown, TransactionFailed
from tests.behaviours.steps import fails
from tests.harness.models import Base
from tests.harness.world import Target, World
from tests.proxy import Proxy

child = Base.metadata.tables["child"]
ORPHAN = child.insert().values(id=1, name="orphan", parent_id=99)  # refused at COMMIT, unless the parent comes
PARENT = text("INSERT INTO parent (id) VALUES (99)")


def children(world: World) -> int:
    with world.aside.connect() as aside:
        return len(aside.execute(child.select()).all())


# T1: a refused COMMIT leaves the driver's transaction open, and the connection goes back to the pool.


@pytest.mark.needs("one_writer")
@pytest.mark.lacks("no_begin")
async def test_t01_plain_refused_commit_is_kept_by_the_next_user(world: World) -> None:
    """The next user of the connection commits what was refused, together with his own.

    A failure means that SQLAlchemy or the driver cleans up: our rollback after a refused COMMIT is superfluous.
    """
    async with world.open() as t:
        await t.execute(ORPHAN)
        with pytest.raises(IntegrityError):
            await t.commit()
    async with world.open() as t:
        await t.execute(PARENT)
        await t.commit()
    assert children(world) == 1


@pytest.mark.needs("deferred")
async def test_t01_ours_refused_commit_is_rolled_back(world: World) -> None:
    with fails(IntegrityError):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(ORPHAN)
    assert str(transaction.state) == "rolled back"
    async with world.transaction(world.source) as t:
        await t.execute(PARENT)
    assert children(world) == 0


@pytest.mark.needs("deferred")
async def test_t01_ours_refused_plain_commit_over_a_bookmark_is_rolled_back(world: World) -> None:
    async with world.open() as t:
        await world.savepoint(t, "mark")
        transaction = world.current_transaction(t)
        await t.execute(ORPHAN)
        with pytest.raises(IntegrityError):
            await t.commit()
        assert str(transaction.state) == "rolled back"
    async with world.open() as t:
        await t.execute(PARENT)
        await t.commit()
    assert children(world) == 0


# T11: a session's after_commit does not mean committed.


async def hear_commits(world: World, t: Target, heard: list[str]) -> None:
    """Note each after_commit of the session."""

    def listen(session: Any) -> None:
        event.listen(session, "after_commit", lambda session: heard.append("heard"))

    await world.run_sync(t, listen)


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin", "driver_begins")
async def test_t11_plain_after_commit_fires_at_release(world: World) -> None:
    """It fires when a savepoint is released, and the work is undone afterwards.

    A failure means that the event tells the truth now, and hooks could hang on it.
    """
    heard: list[str] = []
    async with world.open() as t:
        await hear_commits(world, t, heard)
        async with t.begin_nested():
            await world.insert(t, 1)
        assert heard == ["heard"]
        await t.rollback()
    assert world.rows() == []


@pytest.mark.needs("orm")
async def test_t11_ours_released_is_not_committed(world: World) -> None:
    heard: list[str] = []
    with fails(ZeroDivisionError):
        async with world.transaction(world.source) as t:
            await hear_commits(world, t, heard)
            transaction = world.current_transaction(t)
            async with world.savepoint(t) as sp:
                await world.insert(t, 1)
            assert heard == ["heard"]
            assert [str(sp.state), str(transaction.state)] == ["released", "open"]
            raise ZeroDivisionError
    assert str(transaction.state) == "rolled back"
    assert world.rows() == []


# T12: a connection's commit event comes before the COMMIT, also before one that fails.


@pytest.mark.needs("core", "deferred")
@pytest.mark.lacks("no_begin")
async def test_t12_plain_commit_event_of_a_refused_commit(world: World) -> None:
    """A failure means that the event comes after the answer, and that hooks could hang on it."""
    heard: list[str] = []
    event.listen(world.sync_engine, "commit", lambda connection: heard.append("heard"))
    async with world.open() as t:
        await t.execute(ORPHAN)
        with pytest.raises(IntegrityError):
            await t.commit()
        assert heard == ["heard"]
        await world.run_sync(t, lambda connection: connection.invalidate())  # T1
    assert children(world) == 0


@pytest.mark.needs("deferred")
async def test_t12_ours_is_committed_by_the_answer_alone(world: World) -> None:
    heard: list[str] = []
    with fails(IntegrityError):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            event.listen(world.sync_engine, "commit", lambda connection: heard.append(str(transaction.state)))
            await t.execute(ORPHAN)
    assert heard in (["open"], ["committing"])  # by the order of the listeners
    assert str(transaction.state) == "rolled back"


# T13: close() with open work fires neither after_rollback nor after_soft_rollback.


@pytest.mark.needs("orm")
async def test_t13_plain_close_rolls_back_unheard(world: World) -> None:
    """A failure means that a rollback by close() can be heard by these events."""
    heard: list[str] = []
    t = await world.opened()

    def listen(session: Any) -> None:
        event.listen(session, "after_rollback", lambda session: heard.append("after_rollback"))
        event.listen(session, "after_soft_rollback", lambda session, level: heard.append("after_soft_rollback"))

    await world.run_sync(t, listen)
    async with t.begin_nested():
        await world.insert(t, 1)
    await t.close()
    assert heard == []


async def test_t13_ours_levels_end_with_close(world: World) -> None:
    t = await world.opened()
    mark = await world.savepoint(t, "mark")
    transaction = world.current_transaction(t)
    await world.insert(t, 1)
    await t.close()
    assert [str(transaction.state), str(mark.state)] == ["rolled back", "gone"]
    assert world.rows() == []


# T14: COMMIT of a failed transaction is answered without an error, and keeps nothing.


@pytest.mark.needs("failed_state")
async def test_t14_plain_commit_of_a_failed_transaction_keeps_nothing(world: World) -> None:
    """A failure means that the driver or SQLAlchemy reads the server's answer, which is ROLLBACK."""
    async with world.open() as t:
        await world.insert(t, 1)
        with pytest.raises(DBAPIError):
            await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
        await t.commit()
    assert world.rows() == []


@pytest.mark.needs("failed_state")
async def test_t14_ours_refuses_to_commit_a_failed_transaction(world: World) -> None:
    with fails(TransactionFailed, match="INSERT INTO item") as refused:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with pytest.raises(DBAPIError) as first:
                await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
    assert refused.value.__cause__ is first.value
    assert "COMMIT" not in world.transcript.sent()


@pytest.mark.needs("failed_state")
async def test_t14_ours_refuses_a_plain_commit_over_a_bookmark(world: World) -> None:
    async with world.open() as t:
        await world.insert(t, 1)
        await world.savepoint(t, "mark")
        with pytest.raises(DBAPIError):
            await t.execute(text("INSERT INTO item VALUES (1, 'twice')"))
        with pytest.raises(TransactionFailed):
            await t.commit()
        await t.rollback()
    assert "COMMIT" not in world.transcript.sent()


# T15: the answer of COMMIT never comes. (tests/faults/test_commit.py has ours at length.)


@pytest.mark.needs("network")
@pytest.mark.parametrize(("cut", "kept"), [("cut_before", []), ("cut_after", [(1, None)])])
async def test_t15_plain_lost_answer_is_an_error_like_any_other(
    world: World, proxy: Proxy, cut: str, kept: list[Any]
) -> None:
    """The same error, whether the work is stored or not, and the same as for any lost connection.

    A failure means that the error can tell the two apart, and so could our CommitOutcomeUnknown.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        setattr(proxy, cut, b"COMMIT")
        with pytest.raises(DBAPIError) as lost:
            await t.commit()
        setattr(proxy, cut, None)
        await t.rollback()
    assert lost.value.connection_invalidated
    assert world.rows() == kept


@pytest.mark.needs("network")
async def test_t15_ours_says_that_nobody_knows(world: World, proxy: Proxy) -> None:
    with fails(CommitOutcomeUnknown):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1)
            proxy.cut_after = b"COMMIT"
    proxy.cut_after = None
    assert str(transaction.state) == "unknown"


# T32: an after_commit listener that raises.


class Boom(Exception):
    """An error of a listener."""


async def listen_badly(world: World, t: Target) -> None:
    def raise_boom(session: Any) -> None:
        if not session.in_nested_transaction():
            raise Boom

    await world.run_sync(t, lambda session: event.listen(session, "after_commit", raise_boom))


@pytest.mark.needs("orm")
@pytest.mark.lacks("no_begin")
async def test_t32_plain_failing_listener_leaves_the_session_stuck(world: World) -> None:
    """The row is stored, and neither SQL nor rollback() is taken any more; only close() helps.

    A failure means that the session gets out of it by itself.
    """
    async with world.open() as t:
        await listen_badly(world, t)
        await world.insert(t, 1)
        with pytest.raises(Boom):
            await t.commit()
        with pytest.raises(InvalidRequestError, match="'committed' state"):
            await t.rollback()
    assert world.rows() == [(1, None)]


@pytest.mark.needs("orm")
async def test_t32_ours_committed_is_committed(world: World) -> None:
    """What a foreign listener raises passes; the state tells the truth, and the session is usable again."""
    async with world.open() as t:
        with fails(Boom):
            async with world.transaction(t):
                transaction = world.current_transaction(t)
                await listen_badly(world, t)
                await world.insert(t, 1)
        assert str(transaction.state) == "committed"
        assert len(await world.seen(t)) == 1
    assert world.rows() == [(1, None)]
