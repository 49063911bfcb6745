"""COMMIT goes wrong: refused for certain (F9, F11), or its answer is lost (F2)."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from savepoints import CommitOutcomeUnknown, NoTransaction, SavepointEnded, TransactionLost
from tests.behaviours.steps import fails
from tests.harness.world import Row, World
from tests.proxy import Proxy

BEFORE_AND_AFTER = pytest.mark.parametrize(
    ("cut", "kept"), [("cut_before", []), ("cut_after", [(1, "new"), (2, "new")])], ids=["before", "after"]
)


@pytest.mark.needs("network")
@BEFORE_AND_AFTER
async def test_f2_answer_of_commit_lost(world: World, proxy: Proxy, cut: str, kept: list[Row]) -> None:
    """The database has stored the work or not; the driver cannot tell, and so our error is the same."""
    with fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1, "new")
            mark = await world.savepoint(t, "mark")
            await world.insert(t, 2, "new")
            setattr(proxy, cut, b"COMMIT")
    setattr(proxy, cut, None)
    assert proxy.cuts == 1
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert str(transaction.state) == "unknown"
    assert transaction.error is caught.value
    assert world.rows() == kept
    with pytest.raises(NoTransaction):
        transaction.doom("too late")
    with pytest.raises(SavepointEnded):
        await mark.rollback()
    assert "committed" not in mark.outcome
    async with world.transaction(world.source) as t:
        await world.insert(t, 3, "next")
    assert world.rows() == [*kept, (3, "next")]


@pytest.mark.needs("network")
@BEFORE_AND_AFTER
async def test_f2_answer_lost_under_a_target_of_the_callers(
    world: World, proxy: Proxy, cut: str, kept: list[Row]
) -> None:
    """The session or connection was the caller's before, and is usable again after the block."""
    async with world.open() as t:
        with fails(CommitOutcomeUnknown):
            async with world.atomic(t):
                await world.insert(t, 1, "new")
                await world.insert(t, 2, "new")
                setattr(proxy, cut, b"COMMIT")
        setattr(proxy, cut, None)
        assert world.current_transaction(t) is None
        async with world.transaction(t), world.savepoint(t, "again"):
            await world.insert(t, 3, "next")
    assert world.rows() == [*kept, (3, "next")]


@pytest.mark.needs("network")
@BEFORE_AND_AFTER
async def test_f2_answer_of_a_plain_commit_lost(world: World, proxy: Proxy, cut: str, kept: list[Row]) -> None:
    """SQLAlchemy's own commit() over bookmarks raises the driver's error; the state tells that nobody knows."""
    async with world.open() as t:
        await world.insert(t, 1, "new")
        await world.savepoint(t, "mark")
        await world.insert(t, 2, "new")
        transaction = world.current_transaction(t)
        setattr(proxy, cut, b"COMMIT")
        with pytest.raises((DBAPIError, CommitOutcomeUnknown)):
            await t.commit()
        setattr(proxy, cut, None)
        assert str(transaction.state) == "unknown"
        await t.rollback()
        assert str(transaction.state) == "unknown"
        await world.insert(t, 3, "next")
        await t.commit()
    assert world.rows() == [*kept, (3, "next")]


@pytest.mark.needs("network")
async def test_f2_cut_in_the_midst_of_the_work(world: World, proxy: Proxy) -> None:
    """Before COMMIT was sent there is no doubt: nothing was kept."""
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1, "before")
            async with world.savepoint(t, "block"):
                proxy.cut_after = b"cut here"
                await t.execute(text("INSERT INTO item VALUES (2, 'cut here')"))
    proxy.cut_after = None
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert str(transaction.state) == "rolled back"
    assert world.rows() == []


@pytest.mark.needs("serialization_failures")
async def test_f9_serialization_failure_at_commit(world: World) -> None:
    """Write skew: each reads what the other writes. The later COMMIT is refused, and that is certain."""
    with fails(DBAPIError) as caught:
        async with world.transaction(world.source, isolation_level="SERIALIZABLE") as t:
            transaction = world.current_transaction(t)
            with world.aside.connect().execution_options(isolation_level="SERIALIZABLE") as other:
                assert await world.seen(t) == []
                assert other.execute(text("SELECT * FROM item")).all() == []
                mark = await world.savepoint(t, "mark")
                await world.insert(t, 1, "ours")
                other.execute(text("INSERT INTO item VALUES (2, 'theirs')"))
                other.commit()
    error = caught.value
    assert world.code(error) == "40001"
    assert world.transcript.short()[-1] == "COMMIT"
    assert str(transaction.state) == "rolled back"
    assert "committed" not in mark.outcome
    assert transaction.error is error
    assert world.rows() == [(2, "theirs")]


@pytest.mark.needs("one_writer")
async def test_f11_commit_busy(world: World) -> None:
    """An open reader keeps COMMIT from the file: refused, and rolled back before anybody else has the connection."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'old'), (2, 'old')"))
    with world.aside.connect() as other:
        reading = other.execute(text("SELECT * FROM item"))
        reading.fetchone()  # the second row is still to come
        with fails(OperationalError, match="locked") as caught:
            async with world.transaction(world.source) as t:
                transaction = world.current_transaction(t)
                await t.execute(text("PRAGMA busy_timeout = 0"))
                mark = await world.savepoint(t, "mark")
                await world.insert(t, 3, "new")
        reading.close()
    assert str(transaction.state) == "rolled back"
    assert "committed" not in mark.outcome
    assert transaction.error is caught.value
    assert world.rows() == [(1, "old"), (2, "old")]
    async with world.transaction(world.source) as t:
        await world.insert(t, 4, "next")
    assert world.rows() == [(1, "old"), (2, "old"), (4, "next")]


@pytest.mark.needs("one_writer")
async def test_f11_plain_commit_busy(world: World) -> None:
    """The same with SQLAlchemy's own commit() over a bookmark: sent again later it finds nothing to commit."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'old'), (2, 'old')"))
    async with world.open() as t:
        await t.execute(text("PRAGMA busy_timeout = 0"))
        await world.savepoint(t, "mark")
        await world.insert(t, 3, "new")
        transaction = world.current_transaction(t)
        with world.aside.connect() as other:
            reading = other.execute(text("SELECT * FROM item"))
            reading.fetchone()
            with pytest.raises(OperationalError, match="locked"):
                await t.commit()
            reading.close()
        assert str(transaction.state) == "rolled back"
    assert world.rows() == [(1, "old"), (2, "old")]
