"""Group L: the connection is lost, the server or the client crashes. More of it stands in `tests/faults`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError

from savepoints import CommitOutcomeUnknown, NotSupported, Outcome, TransactionLost, WrongArgument, classify
from savepoints.testing import lose_commit
from tests.behaviours.steps import fails, refused
from tests.faults.losses import full, killed
from tests.harness.world import World
from tests.proxy import Proxy


@pytest.mark.needs("kill")
async def test_l167_backend_terminated_in_a_savepoint(world: World) -> None:
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            async with world.savepoint(t):
                await world.insert(t, 2)
                try:
                    await killed(world, t)
                except DBAPIError as error:
                    first = error
                    raise
    assert caught.value.__cause__ is first
    assert world.rows() == []
    async with world.transaction(world.source) as t:
        await world.insert(t, 3)
    assert world.rows() == [(3, None)]


async def unanswered(world: World, proxy: Proxy, cut: str, **options: Any) -> CommitOutcomeUnknown:
    """A COMMIT that is cut off; the error is asked afterwards."""
    with fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, **options) as t:
            await world.insert(t, 1, "new")
            setattr(proxy, cut, b"COMMIT")
    setattr(proxy, cut, None)
    error: CommitOutcomeUnknown = caught.value
    return error


async def resolved(world: World, error: CommitOutcomeUnknown) -> Outcome:
    """What the database says; while its own side of the connection still hangs, it is asked again."""
    for _ in range(100):
        answer = error.resolve(world.engine)
        outcome: Outcome = answer if world.site.face == "sync" else await answer
        if outcome is not Outcome.IN_PROGRESS:
            return outcome
        await asyncio.sleep(0.05)
    raise AssertionError("it never ends")


@pytest.mark.needs("network", "commit_status")
async def test_l168_reset_before_commit_reaches_the_server(world: World, proxy: Proxy) -> None:
    error = await unanswered(world, proxy, "cut_before", track_commit=True)
    assert world.rows() == []
    assert await resolved(world, error) == "rolled back"


@pytest.mark.needs("network", "commit_status")
async def test_l169_reset_after_commit_has_reached_it(world: World, proxy: Proxy) -> None:
    error = await unanswered(world, proxy, "cut_after", track_commit=True)
    assert world.rows() == [(1, "new")]
    assert await resolved(world, error) == "committed"


@pytest.mark.needs("network", "commit_status")
async def test_l169_while_the_server_has_not_noticed(world: World) -> None:
    """Still at it: said as such. Another connection plays the one that hangs."""
    with lose_commit(world.engine, stored=False), fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, track_commit=True) as t:
            await world.insert(t, 1)
    tracker = caught.value.resolver.args[0]
    with world.aside.begin() as hanging:
        tracker._number = hanging.scalar(text("SELECT CAST(pg_current_xact_id() AS text)"))
        answer = caught.value.resolve(world.engine)
        assert (answer if world.site.face == "sync" else await answer) == "in progress"
    assert await resolved(world, caught.value) == "committed"


@pytest.mark.needs("commit_status")
async def test_l169_the_number_is_asked_for_just_before_commit(world: World) -> None:
    """Also for what a listener of somebody's writes as late as that; a transaction that wrote nothing has none."""
    async with world.transaction(world.source, track_commit=True) as t:
        await world.insert(t, 1)
    asked, last = world.transcript.sent()[-2:]
    assert asked.startswith("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
    assert last == "COMMIT"
    with lose_commit(world.engine, stored=True), fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, track_commit=True) as t:
            await world.seen(t)
    assert await resolved(world, caught.value) == "rolled back"


@pytest.mark.needs("commit_status", "orm")
async def test_l169_what_a_listener_writes_at_the_last_moment_counts(world: World) -> None:
    with lose_commit(world.engine, stored=True), fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source, track_commit=True) as t:
            await t.execute(text("SELECT 1"))
            target = getattr(getattr(t, "raw", t), "sync_session", getattr(t, "raw", t))
            event.listen(
                target, "before_commit", lambda session: session.execute(text("INSERT INTO item VALUES (1, 'late')"))
            )
    assert world.rows() == [(1, "late")]
    assert await resolved(world, caught.value) == "committed"


async def test_l169_without_tracking_nobody_can_tell(world: World) -> None:
    with lose_commit(world.engine, stored=True), fails(CommitOutcomeUnknown) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
    with pytest.raises(NotSupported, match="track_commit"):
        caught.value.resolve(world.engine)


@pytest.mark.lacks("commit_status")
async def test_l169_where_the_database_cannot_be_asked(world: World) -> None:
    with refused(world, NotSupported, "cannot be asked"):
        async with world.transaction(world.source, track_commit=True):
            pass
    for stored, outcome in ((True, "committed"), (False, "rolled back")):
        with lose_commit(world.engine, stored=stored), fails(CommitOutcomeUnknown) as caught:
            async with world.transaction(world.source, track_commit=lambda connection: stored) as t:  # noqa: B023
                await world.insert(t, 1 + stored)
        assert await resolved(world, caught.value) == outcome
        with pytest.raises(WrongArgument, match="resolve asks on"):
            wrong = caught.value.resolve("engine")
            await wrong


@pytest.mark.needs("settings_undone")
async def test_l171_the_servers_limit_for_an_idle_transaction(world: World) -> None:
    await ended_by(world, "idle_in_transaction_session_timeout")


@pytest.mark.needs("transaction_timeout")
async def test_l171_the_servers_limit_for_a_whole_transaction(world: World) -> None:
    await ended_by(world, "transaction_timeout")


@pytest.mark.needs("read_only_begin")
async def test_l171_the_servers_limit_for_an_idle_transaction_in_seconds(world: World) -> None:
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(text("SET idle_transaction_timeout = 1"))
            await world.insert(t, 1)
            async with world.savepoint(t):
                await asyncio.sleep(1.5)
                await world.insert(t, 2)
    assert classify(caught.value).kind == "connection lost"
    assert world.rows() == []


async def ended_by(world: World, setting: str) -> None:
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            await t.execute(text(f"SET LOCAL {setting} = '50ms'"))
            async with world.savepoint(t):
                await asyncio.sleep(0.2)
                await world.insert(t, 2)
    assert classify(caught.value).kind == "connection lost"
    assert world.rows() == []


@pytest.mark.needs("settings_undone")
@pytest.mark.parametrize(
    ("setting", "statement", "kind"),
    [
        ("statement_timeout", "SELECT pg_sleep(5)", "statement timeout"),
        ("lock_timeout", "UPDATE item SET name = 'x' WHERE id = 9", "lock timeout"),
    ],
)
async def test_l172_time_limits_of_a_statement_in_a_savepoint(
    world: World, setting: str, statement: str, kind: str
) -> None:
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (9, 'theirs')"))
    with world.aside.connect() as other:
        other.execute(text("UPDATE item SET name = 'held' WHERE id = 9"))
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            sp = await world.savepoint(t)
            for _ in range(2):  # the rollback undoes the setting as well
                await t.execute(text(f"SET LOCAL {setting} = '20ms'"))
                with pytest.raises(DBAPIError) as caught:
                    await t.execute(text(statement))
                assert (classify(caught.value).kind, classify(caught.value).retry_from) == (kind, "the savepoint")
                await sp.rollback()
                assert await t.scalar(text(f"SHOW {setting}")) == "0"
    assert world.rows() == [(1, "before"), (9, "theirs")]


@pytest.mark.needs("read_only_begin")
async def test_l172_a_time_limit_of_a_statement_undoes_it_alone(world: World) -> None:
    """Where a failed statement fails nothing else, the savepoint need not even be rolled back."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        sp = await world.savepoint(t)
        await world.insert(t, 2, "inside")
        for _ in range(2):
            with pytest.raises(DBAPIError) as caught:
                await t.execute(text("SET STATEMENT max_statement_time = 0.05 FOR SELECT SLEEP(5)"))
            assert (classify(caught.value).kind, str(sp.state)) == ("statement timeout", "open")
        await sp.rollback()
        await world.insert(t, 3, "after")
    assert world.rows() == [(1, "before"), (3, "after")]


@pytest.mark.needs("full")
async def test_l173_disk_full(world: World) -> None:
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with suppress(OperationalError):
                await full(world, t)
            with refused(world, TransactionLost):
                await t.execute(text("INSERT INTO item VALUES (2, 'would be committed at once')"))
    assert classify(caught.value).kind == "disk full"
    assert world.rows() == []


@pytest.mark.needs("kill")
async def test_l175_a_lost_connection_is_not_handed_out_again(world: World) -> None:
    with suppress(TransactionLost):
        async with world.transaction(world.source) as t:
            first = await t.scalar(world.sql("own id"))
            await killed(world, t)
    async with world.transaction(world.source) as t:
        assert await t.scalar(world.sql("own id")) != first
