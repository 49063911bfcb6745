"""Rolling back, releasing, and who may do it where."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, ResourceClosedError, SAWarning

from savepoints import OutOfOrder, SavepointEnded, TransactionFailed
from tests.behaviours.steps import Oops, fails
from tests.faults.losses import connection_of
from tests.harness.world import Target, World

NO_SUCH_SAVEPOINT = r"no such savepoint|does not exist"
TWICE = text("INSERT INTO item VALUES (1, 'twice')")

# T17: rollback() inside a block goes to the root, commit() commits everything.


async def test_t17_plain_rollback_inside_a_block_undoes_everything(world: World) -> None:
    """In SQLAlchemy 1.x it undid the innermost level; now the block is left as if all were well.

    A failure means that the block's end tells, as ours does.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        async with t.begin_nested():
            await world.insert(t, 2)
            await t.rollback()
        await t.commit()
    assert world.rows() == [] or "no_begin" in world.site.has


async def test_t17_ours_block_tells_that_it_was_ended(world: World) -> None:
    with fails(OutOfOrder, match="rollback"):
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            with fails(OutOfOrder, match="rollback"):
                async with world.savepoint(t) as sp:
                    await world.insert(t, 2)
                    await t.rollback()
                    assert str(sp.state) == "gone"
                    with pytest.raises(OutOfOrder):
                        await t.execute(text("INSERT INTO item VALUES (3, 'beside')"))
    assert world.rows() == []


@pytest.mark.needs("core")
async def test_t17_plain_commit_inside_a_block_commits_everything(world: World) -> None:
    """It is told, but too late: all of it is durable.

    A failure means that it is refused before anything is sent, as by ours.
    """
    async with world.open() as t:
        await t.begin()
        await world.insert(t, 1)
        with fails(InvalidRequestError, match="Can't operate on closed transaction inside context manager"):
            async with t.begin_nested():
                await world.insert(t, 2)
                await t.commit()
                await world.insert(t, 3)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("orm")
async def test_t17_ours_commit_inside_a_block_is_refused(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t):
        await world.insert(t, 1)
        with pytest.raises(OutOfOrder):
            await t.commit()
        assert world.transcript.sent()[-1] != "COMMIT"
        assert world.rows() == []
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("core")
async def test_t17_ours_commit_of_a_connection_is_refused(world: World) -> None:
    """There the refusal leaves SQLAlchemy only a rollback, and the ends of the blocks say so."""
    with fails(OutOfOrder, match="commit"):
        async with world.transaction(world.source) as t:
            with fails(OutOfOrder, match="commit"):
                async with world.savepoint(t):
                    await world.insert(t, 1)
                    with pytest.raises(OutOfOrder):
                        await t.commit()
    assert "COMMIT" not in world.transcript.sent()
    assert world.rows() == []


# T21: SQLAlchemy sends no RELEASE after ROLLBACK TO: each failed block leaves its savepoint on the server.


def left_on_the_server(world: World) -> int:
    sent = world.transcript.sent()
    made = sum(statement.startswith("SAVEPOINT") for statement in sent)
    return made - sum(statement.startswith("RELEASE") for statement in sent)


async def fail_three_times(block: Any) -> None:
    for _ in range(3):
        with fails(Oops):
            async with block():
                raise Oops


@pytest.mark.needs("core")
async def test_t21_plain_savepoints_pile_up(world: World) -> None:
    """The server knows the first one still. A failure means that SQLAlchemy sends RELEASE: ours need not."""
    async with world.open() as t:
        await world.insert(t, 1)
        await fail_three_times(t.begin_nested)
        assert left_on_the_server(world) == 3
        first = next(sent for sent in world.transcript.sent() if sent.startswith("SAVEPOINT"))
        await t.execute(text(f"ROLLBACK TO {first}"))
        await t.rollback()


async def test_t21_ours_none_is_left(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        await fail_three_times(lambda: world.savepoint(t))
        assert left_on_the_server(world) == 0
    with fails(DBAPIError, match=NO_SUCH_SAVEPOINT):
        async with world.transaction(world.source) as t:
            await world.insert(t, 2)
            await fail_three_times(lambda: world.savepoint(t))
            first = next(sent for sent in world.transcript.sent() if sent.startswith("SAVEPOINT"))
            await t.execute(text(f"ROLLBACK TO {first}"))
    assert world.rows() == [(1, None)]


# T22: a rolled-back savepoint cannot be used again, although SQL keeps it.


@pytest.mark.needs("core")
async def test_t22_plain_second_rollback_sends_nothing(world: World) -> None:
    """Only a warning tells that what was done since the first one stays.

    A failure means that a nested transaction can be rolled back again and again, as our handle.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        nested = await t.begin_nested()
        await nested.rollback()
        await world.insert(t, 2)
        with pytest.warns(SAWarning, match="already deassociated"):
            await nested.rollback()
        with pytest.raises(InvalidRequestError, match="is inactive"):
            await nested.commit()
        await t.commit()
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("orm")
async def test_t22_plain_second_rollback_is_refused(world: World) -> None:
    """A failure means as above."""
    async with world.open() as t:
        nested = await t.begin_nested()
        await world.insert(t, 1)
        await nested.rollback()
        with pytest.raises(ResourceClosedError, match="This transaction is closed"):
            await nested.rollback()


async def test_t22_ours_rolls_back_again_and_again(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        sp = await world.savepoint(t)
        for n in range(1, 4):
            await world.insert(t, 2)
            await sp.rollback()
            assert (sp.rollbacks, str(sp.state)) == (n, "open")
        await world.insert(t, 3)
        await sp.release()
    assert world.rows() == [(1, None), (3, None)]


# T24: an error swallowed inside the block.


@pytest.mark.needs("failed_state")
async def test_t24_plain_next_statement_hides_the_first_error(world: World) -> None:
    """Only "current transaction is aborted" is told, and the same again at the end of the block.

    A failure means that SQLAlchemy names the statement that failed.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        with fails(DBAPIError, match="current transaction is aborted"):
            async with t.begin_nested():
                with pytest.raises(IntegrityError):
                    await t.execute(TWICE)
                with pytest.raises(DBAPIError, match="current transaction is aborted"):
                    await t.execute(text("SELECT 1"))
        await t.rollback()


@pytest.mark.needs("failed_state", "orm")
async def test_t24_plain_session_driven_by_hand_stays_aborted(world: World) -> None:
    """Its commit() fails and undoes nothing, so that the server goes on refusing.

    A failure means that a failed release rolls back.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        nested = await t.begin_nested()
        with pytest.raises(IntegrityError):
            await t.execute(TWICE)
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await nested.commit()
        with pytest.raises((DBAPIError, InvalidRequestError)):
            await t.execute(text("SELECT 1"))
        await t.rollback()


@pytest.mark.needs("failed_state")
async def test_t24_ours_names_the_first_error_and_rolls_back(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with fails(TransactionFailed, match="INSERT INTO item") as at_the_end:
            async with world.savepoint(t) as sp:
                with pytest.raises(IntegrityError) as first:
                    await t.execute(TWICE)
                assert str(sp.state) == "failed"
                with pytest.raises(TransactionFailed, match="INSERT INTO item") as at_the_next:
                    await t.execute(text("SELECT 1"))
        assert at_the_end.value.__cause__ is at_the_next.value.__cause__ is first.value
        await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.lacks("failed_state")
async def test_t24_ours_goes_on_where_the_database_does(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t) as sp:
            with pytest.raises(IntegrityError):
                await t.execute(TWICE)
            assert str(sp.state) == "open"
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


# T27: Core lets an outer savepoint end under an inner one.


@pytest.mark.needs("core")
async def test_t27_plain_inner_one_lives_on(world: World) -> None:
    """It calls itself active, and its commit fails on the server.

    A failure means that Core ends the inner ones with the outer, as the ORM does.
    """
    async with world.open() as t:
        await world.insert(t, 1)
        outer = await t.begin_nested()
        inner = await t.begin_nested()
        with warnings.catch_warnings(action="ignore"):
            await outer.rollback()
        assert inner.is_active
        with pytest.raises(DBAPIError, match=NO_SUCH_SAVEPOINT):
            await inner.commit()
        await t.rollback()


async def test_t27_ours_inner_one_is_gone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        outer = await world.savepoint(t, "outer")
        inner = await world.savepoint(t, "inner")
        await world.insert(t, 2)
        await outer.rollback()
        assert [str(outer.state), str(inner.state)] == ["open", "gone"]
        world.transcript.clear()
        with pytest.raises(SavepointEnded, match=r"'transaction/outer/inner'.* undone by the rollback of .*/outer'"):
            await inner.release()
        assert world.transcript.sent() == []
        await world.insert(t, 3)
    assert world.rows() == [(1, None), (3, None)]


async def test_t27_ours_outer_one_waits_for_the_block_inside(world: World) -> None:
    async with world.transaction(world.source) as t:
        outer = await world.savepoint(t, "outer")
        async with world.savepoint(t, "inner"):
            await world.insert(t, 1)
            world.transcript.clear()
            with pytest.raises(OutOfOrder):
                await outer.rollback()
            with pytest.raises(OutOfOrder):
                await outer.release()
            assert world.transcript.sent() == []
    assert world.rows() == [(1, None)]


# T45: one name twice, and names in another case.


async def savepoints_of(world: World, t: Target, *names: str) -> list[Any]:
    return [await world.savepoint(t, name) for name in names]


async def test_t45_plain_name_in_mixed_case_is_missed(world: World) -> None:
    """SQLAlchemy quotes it, handwritten SQL does not: on some servers these are two names.

    A failure means that names on the wire could be the user's after all.
    """
    async with world.open() as t:
        await world.insert(t, 1)

        def mark(target: Any) -> None:
            connection = connection_of(target)
            connection.dialect.do_savepoint(connection, "MixedCase")

        await world.run_sync(t, mark)
        quoted = world.sync_engine.dialect.identifier_preparer.quote("MixedCase")
        assert quoted != "MixedCase"
        assert world.transcript.sent()[-1] == f"SAVEPOINT {quoted}"
        if "failed_state" in world.site.has:
            with pytest.raises(DBAPIError, match="does not exist"):
                await t.execute(text("ROLLBACK TO SAVEPOINT MixedCase"))
        else:
            await t.execute(text("ROLLBACK TO SAVEPOINT MixedCase"))
        await t.rollback()


async def test_t45_ours_wire_names_are_unique_among_the_open_ones(world: World) -> None:
    async with world.transaction(world.source) as t:
        same, other, again = await savepoints_of(world, t, "Mark", "mark", "Mark")
        made = [sent for sent in world.transcript.sent() if sent.startswith("SAVEPOINT")]
        assert len(set(made)) == 3
        assert not any("mark" in sent.lower() for sent in made)
        await world.insert(t, 1)
        await world.rollback_to(t, "Mark")
        assert [sp.rollbacks for sp in (same, other, again)] == [0, 0, 1]
        await again.release()
        await world.insert(t, 1)
        await world.rollback_to(t, "Mark")
        assert [sp.rollbacks for sp in (same, other, again)] == [1, 0, 1]
        assert str(other.state) == "gone"
    assert world.rows() == []
