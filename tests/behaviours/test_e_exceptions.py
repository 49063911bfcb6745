"""E: exceptions. The first error wins, as the same object; what follows from it is a note."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    PendingRollbackError,
    StatementError,
)

from savepoints import (
    CommitOutcomeUnknown,
    TransactionDoomed,
    TransactionFailed,
    TransactionLost,
    UnknownSavepoint,
)
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.tools import BAD, notes, refused_once, row, verbs, wire_name
from tests.harness.models import item
from tests.harness.world import Target, World


async def swallowed(target: Target, statement: Any = BAD) -> DBAPIError:
    """Send a statement that fails, and go on."""
    with pytest.raises(DBAPIError) as caught:
        await target.execute(statement)
    return caught.value


@pytest.mark.needs("failed_state")
async def test_e66_error_caught_inside_the_block_without_a_rollback(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with fails(TransactionFailed, match="no_such_column") as left:
            async with world.savepoint(t) as sp:
                await t.execute(row(2))
                first = await swallowed(t)
                assert str(sp.state) == "failed"
                with pytest.raises(TransactionFailed, match="no_such_column") as next_use:
                    await t.execute(row(3))
                assert next_use.value.__cause__ is first
                assert str(sp.state) == "failed"
        assert left.value.__cause__ is first
        assert str(world.current_transaction(t).state) == "open"
        await t.execute(row(4))
    assert world.rows() == [(1, None), (4, None)]


@pytest.mark.lacks("failed_state")
async def test_e66_error_that_leaves_the_transaction_usable(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t) as sp:
        await t.execute(row(1))
        await swallowed(t)
        assert str(sp.state) == "open"
        await t.execute(row(2))
    assert world.rows() == [(1, None), (2, None)]


async def test_e67_rollback_to_a_savepoint_heals(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        sp = await world.savepoint(t)
        await t.execute(row(2))
        await swallowed(t, row(1))
        await sp.rollback()
        assert (str(sp.state), str(world.current_transaction(t).state)) == ("open", "open")
        await t.execute(row(3))
        await sp.release()
    assert world.rows() == [(1, None), (3, None)]


@pytest.mark.lacks("implicit_commit")  # its drivers write any object as text
async def test_an_error_of_the_driver_leaves_a_transaction_that_it_has_not_begun(world: World) -> None:
    """One that is made before anything was sent: there was nothing that could have been lost."""
    async with world.transaction(world.source) as t:
        for _ in range(2):
            with pytest.raises(StatementError):
                await t.execute(text("INSERT INTO item (id, name) VALUES (1, :name)"), {"name": object()})
        assert str(world.current_transaction(t).state) == "open"
        await t.execute(row(2))
    assert world.rows() == [(2, None)]


@pytest.mark.needs("failed_state")
async def test_e68_savepoint_and_release_while_failed(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        sp = await world.savepoint(t, "made before")
        first = await swallowed(t)
        with refused(world, TransactionFailed, "no_such_column") as making:
            await world.savepoint(t, "never made")
        with refused(world, TransactionFailed, "no_such_column") as releasing:
            await sp.release()
        assert making.value.__cause__ is releasing.value.__cause__ is first
        assert [level.name for level in world.current_transaction(t).savepoints] == ["made before"]
        with refused(world, UnknownSavepoint):
            await world.rollback_to(t, "never made")
        await sp.rollback()
    assert world.rows() == [(1, None)]


@pytest.mark.needs("failed_state")
async def test_e69_end_of_a_failed_transaction_block(world: World) -> None:
    with fails(TransactionFailed, match="no_such_column") as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            transaction = world.current_transaction(t)
            first = await swallowed(t)
            assert str(transaction.state) == "failed"
    assert caught.value.__cause__ is first
    assert str(transaction.state) == "rolled back"
    assert verbs(world)[-1] == "ROLLBACK"
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []


@pytest.mark.needs("failed_state")
async def test_e69_commit_of_a_failed_transaction_by_hand(world: World) -> None:
    async with world.open() as t:
        await t.execute(row(1))
        mark = await world.savepoint(t)
        first = await swallowed(t)
        with pytest.raises(TransactionFailed, match="no_such_column") as caught:
            await t.commit()
        assert caught.value.__cause__ is first
        await t.rollback()
        assert not mark.is_open
        await t.execute(row(2))
        await t.commit()
    assert world.rows() == [(2, None)]


async def test_e70_rollback_fails_while_an_error_is_under_way(world: World) -> None:
    error = Oops("first")
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            with fails(Oops) as inner:
                async with world.savepoint(t) as sp:
                    await t.execute(row(2))
                    await t.execute(text(f"RELEASE SAVEPOINT {wire_name(world)}"))
                    raise error
            assert inner.value is error
            assert sp.error is error
            assert str(sp.state) == "lost"
            raise inner.value
    assert caught.value is error
    assert "failed as well" in notes(error)
    assert world.rows() == []


@pytest.mark.needs("kill")
async def test_e71_connection_dies_while_an_error_is_under_way(world: World) -> None:
    error = Oops("first")
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            transaction = world.current_transaction(t)
            async with world.savepoint(t) as sp:
                world.kill(await t.scalar(world.sql("own id")))
                raise error
    assert caught.value is error
    assert "nothing of" in notes(error)
    assert str(sp.state) == "lost"
    assert transaction.outcome.startswith("lost")
    assert world.rows() == []
    async with world.transaction(world.source) as t:
        await t.execute(row(2))
    assert world.rows() == [(2, None)]


# Refused at COMMIT, since the foreign key is deferred.
ORPHAN = text("INSERT INTO child (id, parent_id) VALUES (1, 99)")


@pytest.mark.needs("deferred")
@pytest.mark.parametrize("way", ["block", "by hand"])
async def test_e72_commit_is_refused(world: World, way: str) -> None:
    """The next user of the same connection must not commit what was refused."""
    with fails(IntegrityError) as caught:
        if way == "block":
            async with world.transaction(world.source) as t:
                await t.execute(row(1))
                await t.execute(ORPHAN)
        else:
            async with world.open() as t:
                await world.savepoint(t)
                await t.execute(row(1))
                await t.execute(ORPHAN)
                await t.commit()
    assert type(caught.value.orig).__name__ != "OutOfOrder"
    world.check_pool()
    async with world.transaction(world.source) as t:
        await t.execute(row(2))
    assert world.rows() == [(2, None)]


async def test_e73_release_fails(world: World) -> None:
    error = Oops("RELEASE was stopped")
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with fails(TransactionDoomed) as around:
            async with world.savepoint(t, "outer") as outer:
                await t.execute(row(2))
                with refused_once(world, "RELEASE", error), pytest.raises(Oops) as caught:
                    async with world.savepoint(t, "inner") as inner:
                        await t.execute(row(3))
                assert caught.value is error
                assert inner.error is error
                assert str(inner.state) == "rolled back"
                assert str(outer.state) == "doomed"
        assert around.value.__cause__ is error
        await t.execute(row(4))
    assert world.rows() == [(1, None), (4, None)]


async def test_e73_release_directly_in_the_transaction_fails(world: World) -> None:
    error = Oops("RELEASE was stopped")
    with fails(TransactionDoomed) as around:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            with refused_once(world, "RELEASE", error), pytest.raises(Oops):
                async with world.savepoint(t):
                    await t.execute(row(2))
            assert str(world.current_transaction(t).state) == "doomed"
    assert around.value.__cause__ is error
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []


async def test_e74_begin_is_refused_by_an_option(world: World) -> None:
    with pytest.raises(ArgumentError):
        async with world.transaction(world.source, isolation_level="NO SUCH LEVEL"):
            pytest.fail("the block was entered")
    world.check_pool()
    async with world.open() as t:
        with pytest.raises(ArgumentError):
            async with world.transaction(t, isolation_level="NO SUCH LEVEL"):
                pytest.fail("the block was entered")
        assert world.current_transaction(t) is None
        async with world.transaction(t):
            await t.execute(row(1))
    assert world.rows() == [(1, None)]


@pytest.mark.needs("one_writer")
async def test_e74_begin_is_refused_by_the_database(world: World) -> None:
    event.listen(world.sync_engine, "connect", lambda connection, record: connection.execute("PRAGMA busy_timeout = 0"))
    with world.aside.connect() as other:
        other.execute(text("BEGIN IMMEDIATE"))
        with pytest.raises(OperationalError, match="locked"):
            async with world.transaction(world.source, immediate=True):
                pytest.fail("the block was entered")
        other.rollback()
    world.check_pool()
    async with world.transaction(world.source, immediate=True) as t:
        await t.execute(row(1))
    assert world.rows() == [(1, None)]


async def test_e75_savepoint_that_could_not_be_made(world: World) -> None:
    error = Oops("SAVEPOINT was stopped")
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        outer = await world.savepoint(t, "outer")
        with refused_once(world, "SAVEPOINT", error), pytest.raises(Oops) as caught:
            async with world.savepoint(t, "inner", suppress=Oops):
                pytest.fail("the block was entered")
        assert caught.value is error
        assert world.current_transaction(t).savepoints == (outer,)
        assert (str(outer.state), str(world.current_transaction(t).state)) == ("open", "open")
        await t.execute(row(2))
        async with world.savepoint(t, "inner"):
            await t.execute(row(3))
    assert world.rows() == [(1, None), (2, None), (3, None)]


@pytest.mark.needs("orm")
async def test_e75_failing_flush_before_a_savepoint_undoes_the_savepoint_around(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        outer = await world.savepoint(t, "outer")
        await t.execute(row(2))
        connection = await t.connection()
        t.add(world.Item(id=1))
        with pytest.raises(IntegrityError) as caught:
            async with world.savepoint(t, suppress=IntegrityError):
                pytest.fail("the block was entered")
        assert "pending before the savepoint" in notes(caught.value)
        assert world.current_transaction(t).savepoints == (outer,)
        assert str(outer.state) == "undone"
        for target in (t, connection):
            with pytest.raises((TransactionFailed, PendingRollbackError), match="flush"):
                await target.execute(row(3))
        await outer.rollback()
        await t.execute(row(4))
    assert world.rows() == [(1, None), (4, None)]


@pytest.mark.needs("orm")
async def test_e75_failing_flush_before_an_outermost_savepoint_loses_the_transaction(world: World) -> None:
    with fails(IntegrityError) as outermost:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            t.add(world.Item(id=1))
            with pytest.raises(IntegrityError) as caught:
                await world.savepoint(t, suppress=IntegrityError)
            assert "pending before the savepoint" in notes(caught.value)
            assert str(transaction.state) == "lost"
            raise caught.value
    assert outermost.value is caught.value
    assert world.rows() == []


async def test_e76_rollback_is_not_seen_outside_its_block(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t) as sp:
            await t.execute(row(2))
            raise world.Rollback()
        assert str(sp.state) == "rolled back"
        assert "Rollback" in sp.outcome
        await t.execute(row(3))
    async with world.transaction(world.source) as t:
        await t.execute(row(4))
        raise world.Rollback()
    assert world.rows() == [(1, None), (3, None)]


async def test_e77_any_other_error_is_undone_and_raised_again(world: World) -> None:
    error = Oops("seen by the caller")
    async with world.transaction(world.source) as t:
        with fails(Oops) as caught:
            async with world.savepoint(t) as sp:
                await t.execute(row(1))
                raise error
        assert caught.value is error
        assert sp.error is error
        assert str(sp.state) == "rolled back"
        assert "Oops" in sp.outcome
    assert world.rows() == []


async def test_e78_rollback_option_undoes_a_normal_exit_of_that_level_alone(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t, rollback=True) as sp:
            await t.execute(row(2))
        assert str(sp.state) == "rolled back"
        async with world.atomic(t, rollback=True):
            await t.execute(row(3))
        await t.execute(row(4))
    assert world.rows() == [(1, None), (4, None)]


async def test_e78_rollback_option_of_the_outermost_unit(world: World) -> None:
    async with world.transaction(world.source, rollback=True) as t:
        await t.execute(row(1))
    async with world.open() as t, world.atomic(t, rollback=True):
        await t.execute(row(2))
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []


class Unhashable(Exception):
    __hash__ = None  # type: ignore[assignment]


class Base(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        Unhashable("not hashable"),
        Base("not an Exception"),
        KeyboardInterrupt(),
        GeneratorExit(),
        ExceptionGroup("a group", [ValueError(1), ExceptionGroup("inside", [KeyError(2)])]),
        BaseExceptionGroup("a group of another kind", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_e79_odd_errors_pass_unchanged(world: World, error: BaseException) -> None:
    args = error.args
    passed = []
    try:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            try:
                async with world.savepoint(t) as sp:
                    await t.execute(row(2))
                    raise error
            except BaseException as inner:
                passed.append(inner)
                assert sp.error is error
                raise
    except BaseException as outer:
        passed.append(outer)
    assert [one is error for one in passed] == [True, True]
    assert error.args == args
    assert notes(error) == ""
    assert world.rows() == []


async def test_e80_none_of_the_rows_of_a_failing_statement_is_kept(world: World) -> None:
    rows = [{"id": id} for id in (1, 2, 3, 2, 4)]
    async with world.transaction(world.source) as t:
        await t.execute(row(9))
        async with world.savepoint(t, suppress=IntegrityError) as sp:
            await t.execute(item.insert().values(rows))
        assert isinstance(sp.error, IntegrityError)
        assert await world.seen(t) == [(9, None)]
    assert world.rows() == [(9, None)]


async def test_e80_nor_of_an_executemany_in_a_savepoint(world: World) -> None:
    """Without the savepoint the rows before the bad one can stay."""
    async with world.transaction(world.source) as t:
        await t.execute(row(9))
        async with world.savepoint(t, suppress=IntegrityError):
            await t.execute(item.insert(), [{"id": id} for id in (1, 2, 3, 2, 4)])
    assert world.rows() == [(9, None)]


@pytest.mark.needs("deferred")
async def test_e81_constraint_checked_at_commit(world: World) -> None:
    with fails(IntegrityError) as caught:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            async with world.savepoint(t) as sp:
                await t.execute(ORPHAN)
            assert str(sp.state) == "released"
    assert not isinstance(caught.value, CommitOutcomeUnknown)
    assert str(transaction.state) == "rolled back"
    assert "IntegrityError" in transaction.outcome
    assert transaction.error is caught.value
    world.check_pool()
    assert world.rows() == []


async def insert_or_rollback(t: Target) -> None:
    await t.execute(text("INSERT OR ROLLBACK INTO item (id) VALUES (1)"))


async def trigger_raises(t: Target) -> None:
    await t.execute(text("INSERT INTO item (id, name) VALUES (99, 'forbidden')"))


async def fill_the_disk(t: Target) -> None:
    await t.execute(text("UPDATE item SET name = hex(randomblob(1000000)) WHERE id = 1"))


async def interrupt(t: Target) -> None:
    await t.execute(text("INSERT INTO item (id, name) VALUES (99, stop())"))


def prepare(world: World) -> list[str]:
    """A small disk, an SQL function that interrupts the statement which calls it, and a trigger.

    Returns:
        What the driver really sends from now on.
    """
    sent: list[str] = []

    def on_connect(connection: Any, record: Any) -> None:
        raw = getattr(record.driver_connection, "_conn", record.driver_connection)
        connection.create_function("stop", 0, lambda: raw.interrupt())
        connection.execute("PRAGMA max_page_count = 100")
        if world.site.face == "async":
            connection.run_async(lambda driver: driver.set_trace_callback(sent.append))
        else:
            raw.set_trace_callback(sent.append)

    event.listen(world.sync_engine, "connect", on_connect)
    with world.aside.begin() as other:
        other.execute(TRIGGER)
    return sent


TRIGGER = text(
    "CREATE TRIGGER forbid BEFORE INSERT ON item WHEN NEW.name = 'forbidden'"
    " BEGIN SELECT RAISE(ROLLBACK, 'forbidden'); END"
)


@pytest.mark.needs("whole_rollback", "full", "interrupt")
@pytest.mark.parametrize("ends_all", [insert_or_rollback, trigger_raises, fill_the_disk, interrupt])
@pytest.mark.parametrize("raised_again", [False, True], ids=["swallowed", "raised"])
async def test_e82_engine_rolls_the_whole_transaction_back(world: World, ends_all: Any, raised_again: bool) -> None:
    sent = prepare(world)
    t = await world.opened()
    with fails(TransactionLost) as lost:
        async with world.transaction(t):
            transaction = world.current_transaction(t)
            await t.execute(row(1))
            async with world.savepoint(t, "outer") as outer, world.savepoint(t, "inner") as inner:
                with pytest.raises(DBAPIError) as first:
                    await ends_all(t)
                sent.clear()
                assert {str(level.state) for level in (transaction, outer, inner)} == {"lost"}
                with pytest.raises(TransactionLost) as next_use:
                    await t.execute(row(2))
                assert next_use.value.__cause__ is first.value
                for steer in (inner.rollback, inner.release, outer.rollback):
                    with pytest.raises(TransactionLost):
                        await steer()
                if raised_again:
                    raise first.value
    assert lost.value.__cause__ is first.value
    # a driver that takes the transaction for open wants one to roll back, and begins the next
    assert set(sent) == ({"BEGIN", "ROLLBACK"} if "always_in_transaction" in world.site.has else set())
    assert world.rows() == []
    async with world.transaction(t):
        await t.execute(row(3))
    await t.close()
    assert world.rows() == [(3, None)]
