"""SQLAlchemy's own calls and modes beside ours: what holds is kept, what cannot is told with its own cause."""

from __future__ import annotations

import asyncio
import warnings

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ResourceClosedError

from savepoints import OutOfOrder, Rollback, TransactionLost, WrongTask
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import row
from tests.faults.losses import killed_unseen
from tests.harness.face import bare
from tests.harness.world import Target, World


@pytest.mark.needs("orm", "sync")
@pytest.mark.lacks("no_begin")
@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("verb", ["transaction", "atomic"])
async def test_session_that_works_in_a_savepoint_of_its_connection(world: World, verb: str, used_before: bool) -> None:
    """As test suites have it: its transactions end, and the outer one decides."""
    with world.engine.connect() as connection, connection.begin() as outer:
        connection.execute(row(1))
        session = world.maker(join_transaction_mode="create_savepoint")(bind=connection)
        if used_before:
            session.execute(row(2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with getattr(world, verb)(session) as t:
                await t.execute(row(3))
                async with world.savepoint(session):
                    await t.execute(row(4))
                mark = await world.savepoint(session, "mark")
                await t.execute(row(5))
                await mark.rollback()
            with fails(Oops):
                async with getattr(world, verb)(session) as t:
                    await t.execute(row(6))
                    raise Oops
        session.close()
        kept = [1, 2, 3, 4] if used_before else [1, 3, 4]
        assert list(connection.scalars(text("SELECT id FROM item ORDER BY id"))) == kept
        outer.rollback()
    assert world.rows() == []


@pytest.mark.needs("async")
async def test_sibling_task_may_not_open_a_plain_nested_transaction_in_our_block(world: World) -> None:
    entered, wrote = asyncio.Event(), asyncio.Event()

    async def sibling(t: Target) -> None:
        await entered.wait()
        try:
            with pytest.raises(WrongTask, match=r"cannot begin_nested\(\) from task"):
                async with t.begin_nested():
                    await t.execute(row(9))
        finally:
            wrote.set()

    async with world.transaction(world.source) as t:

        async def owner() -> str:
            async with world.savepoint(t, "ours") as sp:
                await t.execute(row(1))
                entered.set()
                await wrote.wait()
                await t.execute(row(2))
            return str(sp.state)

        state, _ = await asyncio.gather(owner(), sibling(t))
        assert state == "released"
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("core")
async def test_bookmark_is_rolled_back_inside_a_plain_nested_block(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        mark = await world.savepoint(t, "mark")
        await t.execute(row(2))
        async with t.begin_nested():
            await t.execute(row(3))
            await mark.rollback()
            assert (str(mark.state), mark.rollbacks) == ("open", 1)
        await t.execute(row(4))
    assert world.rows() == [(1, None), (4, None)]


@pytest.mark.needs("orm", "sync")
@pytest.mark.parametrize("call", ["rollback", "close"])
async def test_connection_of_a_session_is_ended_inside_the_block(world: World, call: str) -> None:
    with fails(OutOfOrder) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            getattr(bare(await t.connection()), call)()
            with pytest.raises((OutOfOrder, ResourceClosedError), match=f"Connection.{call}|is closed"):
                await t.execute(row(2))
    assert f"rolled back by Connection.{call}() at {__file__}" in str(caught.value)
    assert world.rows() == []


async def test_plain_block_that_fails_needs_no_warning(world: World) -> None:
    """It would have committed by itself; what it threw away was to be undone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fails(Oops):
            async with world.open() as t, t.begin():
                async with world.savepoint(t):
                    await t.execute(row(1))
                raise Oops
    assert world.rows() == []


@pytest.mark.parametrize("command", ["COMMIT", "ROLLBACK"])
async def test_ended_as_text_it_is_not_said_that_nothing_was_kept(world: World, command: str) -> None:
    with fails(TransactionLost) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            await t.execute(text(command))
            assert str(transaction.state) == "lost"
    assert str(transaction.state) == "unknown"
    assert transaction.outcome.startswith("unknown, stored or not: the transaction was ended by a statement past")
    assert "was committed or rolled back behind the library" in str(caught.value)
    assert "Look in the database before you do the work again" in str(caught.value)


@pytest.mark.needs("kill", "orm")
async def test_loss_that_the_end_finds_is_a_loss(world: World) -> None:
    """By the RELEASE that goes before the COMMIT."""
    with fails(TransactionLost):
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            await world.savepoint(t, "open bookmark")
            await killed_unseen(world, t)
    assert world.rows() == []


async def test_rollback_in_a_joined_block_undoes_what_it_joined(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t, "outer") as outer:
            await t.execute(row(2))
            async with world.atomic(t, savepoint=False):
                await t.execute(row(3))
                raise Rollback
            pytest.fail("the code after was run")
        assert str(outer.state) == "rolled back"
    assert world.rows() == [(1, None)]
