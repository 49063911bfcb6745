"""F13: cancelled, or interrupted, at every point where a unit of work waits; and once more while its exits run."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import text

import savepoints
from savepoints import TransactionLost
from tests.behaviours.steps import fails
from tests.faults.suspensions import Strike, clear_frames
from tests.faults.units import UNITS, WHOLE, Unit, blocks, check, start_empty
from tests.harness.world import Target, World

pytestmark = [
    pytest.mark.needs("async"),
    pytest.mark.usefixtures("drivers_at_rest"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


# At every point.


async def struck(world: World, unit: Unit, **points: Any) -> tuple[BaseException | None, int]:
    """Run a unit on an empty pool and table, check what must hold in any case; its error and its suspensions."""
    start_empty(world)
    await world.engine.dispose()
    others, threads = asyncio.all_tasks(), set(threading.enumerate())
    done: list[str] = []
    strike = Strike(**points)
    error = await strike.run(unit(world, done))
    left = asyncio.all_tasks() - others
    assert not [task for task in left if is_ours(task)], "an exit was left running"
    await closed(left, threads)
    gc.collect()  # see clear_frames
    check(world, done)
    return error, strike.suspensions


async def closed(left: set[asyncio.Task[Any]], threads: set[threading.Thread]) -> None:
    """Wait for what SQLAlchemy and the driver do to close a connection.

    A close whose thread was stopped before its turn is never answered.
    """
    async with asyncio.timeout(20):
        while any(not task.done() for task in left) and set(threading.enumerate()) - threads:
            await asyncio.sleep(0.001)
        while left := {task for task in left if not task.done()}:
            for task in left:
                task.cancel()
            await asyncio.sleep(0)


def is_ours(task: asyncio.Task[Any]) -> bool:
    coroutine: Any = task.get_coro()
    return Path(coroutine.cr_code.co_filename).is_relative_to(Path(savepoints.__file__).parent)


async def points_of(world: World, unit: Unit) -> range:
    """The numbers of all suspensions of a clean run."""
    await struck(world, unit)  # SQLAlchemy asks the server a few things once
    error, suspensions = await struck(world, unit)
    assert error is None
    assert world.rows() == WHOLE
    assert suspensions > 10
    return range(1, suspensions + 1)


def is_as(kind: type[BaseException], error: BaseException | None, point: int, suspensions: int) -> bool:
    """A driver suspends once more or less, as the network has it: the last points are not always reached."""
    return type(error) is kind or (error is None and suspensions < point)


each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)


@pytest.mark.slow
@each_unit
async def test_f13_cancelled_at_every_point(world: World, unit: Unit) -> None:
    """All or nothing, and the cancellation reaches the caller, wherever it strikes."""
    for point in await points_of(world, unit):
        error, suspensions = await struck(world, unit, cancel_at={point})
        assert is_as(asyncio.CancelledError, error, point, suspensions), f"at point {point}: {error!r}"


@pytest.mark.slow
@each_unit
async def test_f13_interrupted_at_every_point(world: World, unit: Unit) -> None:
    """The same with KeyboardInterrupt, which no loop and no task is prepared for."""
    for point in await points_of(world, unit):
        error, suspensions = await struck(world, unit, interrupt_at={point})
        assert is_as(KeyboardInterrupt, error, point, suspensions), f"at point {point}: {error!r}"


@pytest.mark.slow
@each_unit
async def test_f13_cancelled_twice(world: World, unit: Unit) -> None:
    """Each pair of a point and a later one, where the exits run that the first one set off."""
    for first in await points_of(world, unit):
        _, suspensions = await struck(world, unit, cancel_at={first})
        for second in range(first + 1, suspensions + 1):
            error, suspended = await struck(world, unit, cancel_at={first, second})
            assert is_as(asyncio.CancelledError, error, first, suspended), f"at points {first} and {second}: {error!r}"


async def test_f13_cancelled_and_then_interrupted(world: World) -> None:
    """Of one unit: the interrupt strikes while the exits run that a cancellation has set off."""
    points = await points_of(world, blocks)
    for first in points[::4]:
        _, suspensions = await struck(world, blocks, cancel_at={first})
        for second in range(first + 1, suspensions + 1):
            error, _ = await struck(world, blocks, cancel_at={first}, interrupt_at={second})
            assert isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)), f"{first}, {second}: {error!r}"


# Only a part is cancelled, and the code around it goes on.


async def cancelled_part(world: World, exits: list[int], strike: Strike) -> None:
    """The part cancels its own task where it sleeps; `exits` gets the points between which its exit runs."""
    task = asyncio.current_task()
    assert task is not None
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        with suppress(asyncio.CancelledError):
            async with world.savepoint(t, "part"):
                await world.insert(t, 2, "undone")
                with suppress(asyncio.CancelledError):
                    task.cancel()
                    await asyncio.sleep(0)
                exits.append(strike.suspensions)
                raise asyncio.CancelledError
        exits.append(strike.suspensions)
        await world.insert(t, 3, "after")


async def test_f13_second_cancel_at_every_point_of_the_exit(world: World) -> None:
    """T10: the exit is finished, the cancellation goes on, and the outer transaction is whole."""
    exits: list[int] = []
    strike = Strike()
    assert await strike.run(cancelled_part(world, exits, strike)) is None
    begins, ends = exits
    assert ends > begins, "the exit never waited"
    for point in range(begins + 1, ends + 1):
        start_empty(world)
        strike = Strike(cancel_at={point})
        assert await strike.run(cancelled_part(world, [], strike)) is None
        assert world.rows() == [(1, "before"), (3, "after")], f"at point {point}"
        world.check_pool()


# Time limits and cancel scopes. They strike at once, where the code waits next: no clock is involved.


async def in_time(act: Callable[[], Any]) -> None:
    """asyncio.timeout whose time is over when `act` waits."""
    async with asyncio.timeout(None) as limit:
        limit.reschedule(0)
        await act()


async def by_wait_for(act: Callable[[], Any]) -> None:
    """asyncio.wait_for, which in Python 3.11 runs it in a task of its own."""
    await asyncio.wait_for(act(), 1e-9)


async def in_fail_after(act: Callable[[], Any]) -> None:
    """anyio.fail_after: it cancels again and again, until the scope is left."""
    with anyio.fail_after(0):
        await act()


async def in_scope(act: Callable[[], Any]) -> None:
    """anyio's cancel scope, cancelled from inside; it raises nothing, so a TimeoutError stands for it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await act()
    raise TimeoutError


each_limit = pytest.mark.parametrize(
    "limited", [in_time, by_wait_for, in_fail_after, in_scope], ids=lambda limited: limited.__name__
)
Limited = Callable[[Callable[[], Any]], Any]


@each_limit
async def test_f13_limit_inside_a_savepoint_at_a_statement(world: World, limited: Limited) -> None:
    """T9: the connection is lost with the statement, and so is the whole; it is said so, from the cancellation."""
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await world.insert(t, 1, "before")
            async with world.savepoint(t, "part") as sp:
                with suppress(TimeoutError):
                    await limited(lambda: world.insert(t, 2, "inside"))
                assert [str(transaction.state), str(sp.state)] == ["lost", "lost"]
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    clear_frames(lost.value)
    assert world.rows() == []
    async with world.transaction(world.source) as t:
        await world.insert(t, 3, "next")
    assert world.rows() == [(3, "next")]


@each_limit
async def test_f13_limit_around_a_savepoint_at_a_statement(world: World, limited: Limited) -> None:
    async def part(t: Target) -> None:
        async with world.savepoint(t, "part"):
            await world.insert(t, 2, "inside")

    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "before")
            with suppress(TimeoutError):
                await limited(lambda: part(t))
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    clear_frames(lost.value)
    assert world.rows() == []


@each_limit
async def test_f13_limit_inside_a_savepoint_where_nothing_is_sent(world: World, limited: Limited) -> None:
    """The database was not disturbed: the part is undone, and the rest goes on."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        with fails(TimeoutError):
            async with world.savepoint(t, "part") as sp:
                await world.insert(t, 2, "undone")
                await limited(asyncio.Event().wait)
        assert str(sp.state) == "rolled back"
        await world.insert(t, 3, "after")
    assert world.rows() == [(1, "before"), (3, "after")]


async def part_that_waits(world: World, t: Target, limit: Callable[[], None]) -> None:
    async with world.savepoint(t, "part"):
        await world.insert(t, 2, "undone")
        limit()
        await asyncio.Event().wait()


async def test_f13_timeout_around_a_savepoint_where_nothing_is_sent(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        with fails(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await part_that_waits(world, t, lambda: limit.reschedule(0))
        await world.insert(t, 3, "after")
    assert world.rows() == [(1, "before"), (3, "after")]


async def test_f13_cancel_scope_around_a_savepoint_where_nothing_is_sent(world: World) -> None:
    """The scope goes on cancelling while the exit sends ROLLBACK TO and RELEASE."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "before")
        with anyio.CancelScope() as scope:
            await part_that_waits(world, t, scope.cancel)
        assert scope.cancelled_caught
        await world.insert(t, 3, "after")
    assert world.rows() == [(1, "before"), (3, "after")]


async def whole_that_waits(world: World, limit: Callable[[], None]) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "undone")
        await part_that_waits(world, t, limit)


async def test_f13_timeout_around_the_whole(world: World) -> None:
    with fails(TimeoutError):
        async with asyncio.timeout(None) as limit:
            await whole_that_waits(world, lambda: limit.reschedule(0))
    assert world.rows() == []


async def test_f13_cancel_scope_around_the_whole(world: World) -> None:
    with anyio.CancelScope() as scope:
        await whole_that_waits(world, scope.cancel)
    assert scope.cancelled_caught
    assert world.rows() == []


async def test_f13_cancel_scope_at_the_end_of_the_whole(world: World) -> None:
    """A COMMIT that has begun is finished; what is stored is stored."""
    with anyio.CancelScope() as scope:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1, "kept")
            scope.cancel()
    assert world.rows() == [(1, "kept")]


@pytest.mark.needs("many_writers")
async def test_f13_timeout_while_waiting_for_a_lock(world: World) -> None:
    """The statement would wait for ever: the server is told, the lock it waited for can be had by others."""
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'theirs')"))
    with world.aside.connect() as other:
        other.execute(text("UPDATE item SET name = 'still theirs'"))
        with fails(TimeoutError):
            async with asyncio.timeout(0.05), world.transaction(world.source) as t:
                await world.insert(t, 2, "before")
                async with world.savepoint(t, "part"):
                    await t.execute(text("UPDATE item SET name = 'ours' WHERE id = 1"))
        other.commit()
    assert world.rows() == [(1, "still theirs")]
