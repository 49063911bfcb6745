"""D: out of order. Blocks end innermost first, and what ended behind a block's back is told at its exit."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from savepoints import (
    ImplicitCommit,
    OutOfOrder,
    Rollback,
    SavepointsError,
    TransactionDoomed,
    TransactionFailed,
    TransactionLost,
    WrongTask,
)
from tests.behaviours.steps import fails, next_line, refused, told_at
from tests.behaviours.tools import notes, row, verbs, wire_name
from tests.harness.world import World


async def left_by(block: Any, error: BaseException | None) -> BaseException | None:
    """Leave a block that was entered by hand; the error that comes out of it."""
    try:
        swallowed = await block.__aexit__(type(error) if error else None, error, None)
    except BaseException as own:
        return own
    return None if swallowed else error


# None is an exit without an error.
REASONS = pytest.mark.parametrize("kind", [None, ValueError, asyncio.CancelledError])


async def leave_the_outer_first(world: World, inner_name: str, reason: BaseException | None) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1, "before"))
        outer, inner = world.savepoint(t, "outer"), world.savepoint(t, inner_name)
        await outer.__aenter__()
        await t.execute(row(2, "outer"))
        await inner.__aenter__()
        await t.execute(row(3, "inner"))
        for block in (outer, inner):
            error = await left_by(block, reason)
            if reason is None:
                assert isinstance(error, OutOfOrder)
            else:
                assert error is reason
        assert reason is None or "was left before" in notes(reason)
        await t.execute(row(4, "after"))
    assert world.rows() == [(1, "before"), (4, "after")]


@REASONS
async def test_d54_outer_savepoint_is_left_before_the_inner(world: World, kind: type[BaseException] | None) -> None:
    await leave_the_outer_first(world, "inner", kind("under way") if kind else None)


@REASONS
async def test_d55_the_same_with_both_of_one_label(world: World, kind: type[BaseException] | None) -> None:
    await leave_the_outer_first(world, "outer", kind("under way") if kind else None)


@REASONS
async def test_d54_transaction_is_left_before_its_savepoint(world: World, kind: type[BaseException] | None) -> None:
    reason = kind("under way") if kind else None
    t = await world.opened()
    outer, inner = world.transaction(t), world.savepoint(t)
    await outer.__aenter__()
    await inner.__aenter__()
    await t.execute(row(1))
    for block in (outer, inner):
        error = await left_by(block, reason)
        if reason is None:
            assert isinstance(error, OutOfOrder)
        else:
            assert error is reason
    await t.close()
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []


async def test_d55_blocks_of_one_label_left_in_order_are_told_apart(world: World) -> None:
    async with world.transaction(world.source) as t, world.savepoint(t, "same") as outer:
        await t.execute(row(1))
        async with world.savepoint(t, "same", rollback=True) as inner:
            await t.execute(row(2))
        assert (str(outer.state), str(inner.state)) == ("open", "rolled back")
    assert world.rows() == [(1, None)]


async def test_d56_released_by_hand_then_left(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t) as sp:
            await t.execute(row(1))
            await sp.release()
            assert str(sp.state) == "released"
            await t.execute(row(2))
        assert str(sp.state) == "released"
        assert "merged into" in sp.outcome
    assert verbs(world) == ["BEGIN", "SAVEPOINT", "INSERT item", "RELEASE", "INSERT item", "COMMIT"]
    assert world.rows() == [(1, None), (2, None)]


async def test_d56_rolled_back_by_hand_then_left(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t) as sp:
            await t.execute(row(1))
            await sp.rollback()
            assert str(sp.state) == "open"
            await t.execute(row(2))
        assert str(sp.state) == "released"
    assert verbs(world) == ["BEGIN", "SAVEPOINT", "INSERT item", "ROLLBACK TO", "INSERT item", "RELEASE", "COMMIT"]
    assert world.rows() == [(2, None)]


@pytest.mark.needs("orm")
async def test_d57_commit_by_hand_inside_a_block_of_a_session(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t):
            await t.execute(row(2))
            with refused(world, OutOfOrder):
                await t.commit()
            await t.execute(row(3))
    assert world.rows() == [(1, None), (2, None), (3, None)]


@pytest.mark.needs("core")
async def test_d57_commit_by_hand_inside_a_block_of_a_connection(world: World) -> None:
    """Refused as well; but an error in Connection.commit() leaves SQLAlchemy only a rollback."""
    with fails(SavepointsError) as outermost:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            async with world.savepoint(t):
                await t.execute(row(2))
                with fails(OutOfOrder):
                    line = next_line()
                    await t.commit()
    assert told_at(world, line) in str(outermost.value)
    assert "RELEASE" not in verbs(world)
    assert world.rows() == []


@pytest.mark.parametrize("ending", ["rollback", "close"])
async def test_d57_transaction_ended_by_hand_inside_an_inner_block(world: World, ending: str) -> None:
    with fails(OutOfOrder) as outer_exit:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            with fails(OutOfOrder) as inner_exit:
                async with world.savepoint(t) as sp:
                    await t.execute(row(2))
                    line = next_line()
                    await getattr(t, ending)()
                    assert str(sp.state) == "gone"
                    with pytest.raises((OutOfOrder, ResourceClosedError)):
                        await t.execute(row(3))
            assert told_at(world, line) in str(inner_exit.value)
    assert told_at(world, line) in str(outer_exit.value)
    assert world.rows() == []


@pytest.mark.parametrize("ending", ["rollback", "close"])
async def test_d57_error_under_way_passes_after_a_rollback_by_hand(world: World, ending: str) -> None:
    error = ValueError("the code's own")
    with fails(ValueError, match="own") as caught:
        async with world.transaction(world.source) as t, world.savepoint(t):
            await t.execute(row(1))
            await getattr(t, ending)()
            raise error
    assert caught.value is error
    assert world.rows() == []


async def test_d58_rollback_to_an_outer_block_from_deep_inside(world: World) -> None:
    reached: list[str] = []
    async with world.transaction(world.source) as t:
        await t.execute(row(1, "before"))
        async with world.savepoint(t, "outer") as outer:
            await t.execute(row(2))
            async with world.savepoint(t, "middle") as middle:
                await t.execute(row(3))
                async with world.savepoint(t, "inner") as inner:
                    await t.execute(row(4))
                    raise world.Rollback(outer)
                reached.append("after inner")
            reached.append("after middle")
        await t.execute(row(5, "after"))
    assert reached == []
    assert not {"open", "released"} & {str(level.state) for level in (outer, middle, inner)}
    assert world.rows() == [(1, "before"), (5, "after")]


@pytest.mark.parametrize("by_name", [False, True])
async def test_d58_errors_that_a_block_suppresses_do_not_stop_it(world: World, by_name: bool) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, "order") as order:
            await t.execute(row(1))
            async with world.savepoint(t, "payment", suppress=Exception):
                raise world.Rollback("order" if by_name else order)
            pytest.fail("the code after was run")
        await t.execute(row(2))
    assert world.rows() == [(2, None)]


@pytest.mark.parametrize("levels_up", [1, 2, 3, 4])
async def test_d59_rollback_aimed_n_levels_up_undoes_exactly_these(world: World, levels_up: int) -> None:
    async with world.transaction(world.source) as t:
        opened = []

        async def descend(depth: int) -> None:
            async with world.savepoint(t, f"level {depth}") as sp:
                opened.append(sp)
                await t.execute(row(depth))
                if depth == 4:
                    raise world.Rollback(opened[-levels_up])
                await descend(depth + 1)

        await descend(1)
        kept = [str(level.state) for level in opened].count("released")
    assert kept == 4 - levels_up
    assert world.rows() == [(depth, None) for depth in range(1, 5 - levels_up)]


async def test_d60_doom_is_final(world: World) -> None:
    async with world.transaction(world.source) as t:
        mark = await world.savepoint(t, "mark")
        await t.execute(row(1))
        transaction = world.current_transaction(t)
        transaction.doom("the file was empty")
        await mark.rollback()
        assert str(transaction.state) == "doomed"
        assert await world.seen(t) == []  # it may read
    assert str(transaction.state) == "rolled back"
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []


async def test_d60_commit_of_a_doomed_transaction_is_refused_and_says_who_doomed_it(world: World) -> None:
    async with world.open() as t:
        await world.savepoint(t, "mark")
        await t.execute(row(1))
        line = next_line()
        world.current_transaction(t).doom("the file was empty")
        await world.rollback_to(t, "mark")
        with pytest.raises(TransactionDoomed, match="the file was empty") as commit:
            await t.commit()
        assert told_at(world, line) in str(commit.value)
        await t.rollback()
    assert world.rows() == []


async def test_d60_doomed_savepoint_ends_undone_and_raises_nothing(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        async with world.savepoint(t) as sp:
            await t.execute(row(2))
            sp.doom("second thoughts")
            await sp.rollback()
            assert str(sp.state) == "doomed"
            await t.execute(row(3))
        assert str(sp.state) == "rolled back"
    assert world.rows() == [(1, None)]


async def test_d61_rollback_raised_outside_any_block_reaches_the_caller(world: World) -> None:
    async with world.open() as t:
        assert world.current_transaction(t) is None
        signal = world.Rollback()
        with pytest.raises(Rollback) as caught:
            raise signal
        assert caught.value is signal
        assert world.current_transaction(t) is None
    assert world.transcript.sent() == []


async def test_d61_rollback_to_a_block_that_is_not_around_reaches_the_caller(world: World) -> None:
    with fails(Rollback) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            async with world.savepoint(t, "over") as over:
                pass
            async with world.savepoint(t):
                raise world.Rollback(over)
    assert caught.value.to == over
    assert world.rows() == []


@pytest.mark.needs("core")
@pytest.mark.parametrize("depth", [0, 1])
async def test_d62_change_of_autocommit_inside_a_block_of_a_connection(world: World, depth: int) -> None:
    async with world.transaction(world.source) as t, AsyncExitStack() as blocks:
        await t.execute(row(1))
        for _ in range(depth):
            await blocks.enter_async_context(world.savepoint(t))
        with refused(world, OutOfOrder):
            await world.run_sync(t, lambda connection: connection.execution_options(isolation_level="AUTOCOMMIT"))
    assert world.rows() == [(1, None)]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_d62_with_bookmarks_alone_both_are_the_normal_way_to_end(world: World, ending: str) -> None:
    async with world.open() as t:
        outer = await world.savepoint(t, "outer")
        await t.execute(row(1))
        inner = await world.savepoint(t, "inner")
        await t.execute(row(2))
        await getattr(t, ending)()
        ended = "released" if ending == "commit" else "gone"
        assert (str(outer.state), str(inner.state)) == (ended, ended)
        await t.execute(row(3))
        await t.commit()
    assert world.rows() == ([(1, None), (2, None), (3, None)] if ending == "commit" else [(3, None)])


async def test_d63_ended_by_hand_inside_its_own_block(world: World) -> None:
    async with world.open() as t:
        with fails(OutOfOrder):
            async with world.transaction(t):
                await t.execute(row(1))
                line = next_line()
                await t.rollback()
                for _ in range(2):
                    with pytest.raises(OutOfOrder) as next_use:
                        await t.execute(row(2))
                    assert told_at(world, line) in str(next_use.value)
                with refused(world, OutOfOrder):
                    await world.savepoint(t)
        async with world.transaction(t):
            await t.execute(row(3))
    assert world.rows() == [(3, None)]


async def test_d64_released_on_the_server_behind_the_library(world: World) -> None:
    t = await world.opened()
    with fails(TransactionLost) as outermost:
        async with world.transaction(t):
            await t.execute(row(1))
            with fails(DBAPIError) as first:
                async with world.savepoint(t):
                    await t.execute(row(2))
                    await t.execute(text(f"RELEASE SAVEPOINT {wire_name(world)}"))
    assert outermost.value.__cause__ is first.value
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []
    async with world.transaction(t):
        await t.execute(row(3))
    await t.close()
    assert world.rows() == [(3, None)]


async def test_d64_whole_transaction_rolled_back_on_the_server_behind_the_library(world: World) -> None:
    t = await world.opened()
    with fails(TransactionLost):
        async with world.transaction(t):
            await t.execute(row(1))
            with fails(DBAPIError):
                async with world.savepoint(t):
                    await t.execute(row(2))
                    await t.execute(text("ROLLBACK"))
    assert "COMMIT" not in verbs(world)
    assert world.rows() == []
    async with world.transaction(t):
        await t.execute(row(3))
    await t.close()
    assert world.rows() == [(3, None)]


async def test_d64_rollback_as_text_without_a_savepoint(world: World) -> None:
    """Nobody's RELEASE finds out; but COMMIT must not be reported for what is gone."""
    with fails(TransactionLost):
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            await t.execute(text("ROLLBACK"))
    assert world.rows() == []


@pytest.mark.parametrize("end", ["ROLLBACK", "/* so */ commit", "COMMIT; BEGIN"])
async def test_d64_ended_as_text_and_gone_on(world: World, end: str) -> None:
    """The driver begins anew with the next statement, which would be stored without what came before."""
    several = end.endswith("BEGIN")
    with fails((ImplicitCommit, TransactionLost, DBAPIError)) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            await t.execute(row(2))
            await t.execute(text(end))
            with refused(world, TransactionLost, "ended by a statement past SQLAlchemy"):
                await t.execute(row(3))
    assert several or isinstance(caught.value, TransactionLost)
    assert 3 not in [id for id, _ in world.rows()]


@pytest.mark.needs("failed_state")
async def test_d64_rollback_as_text_in_a_failed_transaction_is_not_sent(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        sp = await world.savepoint(t)
        with fails(DBAPIError):
            await t.execute(text("SELECT * FROM missing"))
        with refused(world, TransactionFailed):
            await t.execute(text("ROLLBACK"))
        await sp.rollback()
        await t.execute(text(f"ROLLBACK TRANSACTION TO SAVEPOINT {wire_name(world)}"))
        await t.execute(row(2))
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("async")
async def test_d65_sibling_tasks_open_blocks_on_one_target(world: World) -> None:
    inside, done = asyncio.Event(), asyncio.Event()

    async def first(t: Any) -> None:
        async with world.savepoint(t):
            await t.execute(row(1))
            inside.set()
            await done.wait()

    async def second(t: Any) -> None:
        await inside.wait()
        try:
            with refused(world, WrongTask, "Ann.*Bob|Bob.*Ann"):
                await world.savepoint(t)
        finally:
            done.set()

    async with world.transaction(world.source) as t:
        tasks = (asyncio.create_task(first(t), name="Ann"), asyncio.create_task(second(t), name="Bob"))
        await asyncio.gather(*tasks)
    assert world.rows() == [(1, None)]


@pytest.mark.needs("async")
@pytest.mark.parametrize("way", [lambda work: asyncio.wait_for(work, 60), asyncio.shield])
async def test_d65_task_made_by_wait_for_or_shield_is_let_in(world: World, way: Any) -> None:
    async def inner(t: Any) -> None:
        async with world.savepoint(t):
            await t.execute(row(2))
        await world.rollback_to(t, "mark")
        await t.execute(row(3))

    async with world.transaction(world.source) as t, world.savepoint(t):
        await t.execute(row(1))
        await world.savepoint(t, "mark")
        await way(inner(t))
    assert world.rows() == [(1, None), (3, None)]
