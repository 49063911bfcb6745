"""K: async and cancelling. All or nothing; an exit that has begun is finished."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text

import savepoints
from savepoints import UncommittedWork, WrongTask, _awaiting
from tests.behaviours.steps import Oops, fails, refused
from tests.behaviours.tools import notes, row, verbs
from tests.faults.suspensions import Strike
from tests.harness.models import item
from tests.harness.world import Row, Target, World


async def a_bit_of_everything(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        mark = await world.savepoint(t, "mark")
        await world.insert(t, 2, "undone")
        await mark.rollback()
        async with world.savepoint(t, "kept"):
            await world.insert(t, 3, "kept")
        async with world.savepoint(t, "undone", suppress=Oops):
            await world.insert(t, 4, "undone")
            raise Oops
        await mark.release()


async def reads_a_stream(world: World) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(100))
        async with world.savepoint(t):
            async for _ in await t.stream(select(item.c.id).execution_options(yield_per=2)):
                pass


async def cancelled_at_each_suspension(
    world: World, unit: Callable[[World], Coroutine[Any, Any, None]], before: Sequence[Row], after: Sequence[Row]
) -> None:
    """Run a unit again and again, each time cancelled one suspension later, until one run is not hit."""
    for point in itertools.count(1):
        async with world.open() as t:
            await t.execute(text("SELECT 1"))  # so that the pool has a connection: connecting is another matter
        error = await Strike(cancel_at={point}).run(unit(world))
        world.check_pool()
        rows = world.rows()
        with world.aside.begin() as other:
            other.execute(item.delete().where(item.c.id.notin_([id for id, _ in before])))
        if error is None:
            break
        assert isinstance(error, asyncio.CancelledError)
        assert rows in (before, after), f"cancelled at suspension {point}"
    assert point > 5
    assert rows == after


@pytest.mark.needs("async")
async def test_k156_cancelled_at_any_await(world: World) -> None:
    await cancelled_at_each_suspension(world, a_bit_of_everything, [], [(1, "kept"), (3, "kept")])


@pytest.mark.needs("async")
async def test_k157_timeout_around_the_outermost_block(world: World) -> None:
    with fails(TimeoutError):
        async with asyncio.timeout(None) as timeout, world.transaction(world.source) as t:
            await t.execute(row(1))
            async with world.savepoint(t):
                await t.execute(row(2))
                await past(timeout)
    world.check_pool()
    assert world.rows() == []


@pytest.mark.needs("async")
async def test_k157_timeout_around_a_savepoint_block(world: World) -> None:
    """Where no statement is under way the part alone is undone."""
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with fails(TimeoutError):
            async with asyncio.timeout(None) as timeout, world.savepoint(t) as sp:
                await t.execute(row(2))
                await past(timeout)
        assert str(sp.state) == "rolled back"
        await t.execute(row(3))
    assert world.rows() == [(1, None), (3, None)]


async def past(timeout: asyncio.Timeout) -> None:
    """Let the time be over, and wait for it."""
    timeout.reschedule(asyncio.get_running_loop().time())
    await asyncio.Event().wait()


@contextmanager
def cancelled_while_sending(world: World, *words: str) -> Iterator[None]:
    """This task is cancelled at the moment when each of these statements goes out for the first time."""
    task, waiting = asyncio.current_task(), list(words)
    assert task is not None

    def on_statement(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        while waiting and waiting[0] in statement:
            waiting.pop(0)
            task.cancel()

    event.listen(world.sync_engine, "before_cursor_execute", on_statement)
    event.listen(world.sync_engine, "commit", lambda connection: on_statement(connection, None, "COMMIT"))
    yield
    assert not waiting


def go_on_after_cancelling() -> None:
    """Take back all cancellations that this task has met."""
    task = asyncio.current_task()
    while task is not None and task.uncancel():
        pass


@pytest.mark.needs("async")
@pytest.mark.parametrize("words", [["ROLLBACK TO"], ["RELEASE"], ["ROLLBACK TO", "RELEASE"]], ids="+".join)
async def test_k158_cancelled_while_a_savepoint_is_being_undone(world: World, words: list[str]) -> None:
    async with world.transaction(world.source) as t:
        await t.execute(row(1))
        with cancelled_while_sending(world, *words), fails(asyncio.CancelledError):
            async with world.savepoint(t) as sp:
                await t.execute(row(2))
                raise Oops
        go_on_after_cancelling()
        assert str(sp.state) == "rolled back"
        assert verbs(world)[-2:] == ["ROLLBACK TO", "RELEASE"]
        await t.execute(row(3))
    assert world.rows() == [(1, None), (3, None)]


@pytest.mark.needs("async")
async def test_k158_cancelled_while_a_savepoint_is_being_released(world: World) -> None:
    async with world.transaction(world.source) as t:
        with cancelled_while_sending(world, "RELEASE"), fails(asyncio.CancelledError):
            async with world.savepoint(t) as sp:
                await t.execute(row(1))
        go_on_after_cancelling()
        assert str(sp.state) == "released"
        await t.execute(row(2))
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("async")
async def test_k158_cancelled_while_committing(world: World) -> None:
    with cancelled_while_sending(world, "COMMIT"), fails(asyncio.CancelledError):
        async with world.transaction(world.source) as t:
            transaction = world.current_transaction(t)
            await t.execute(row(1))
    go_on_after_cancelling()
    assert str(transaction.state) == "committed"
    world.check_pool()
    assert world.rows() == [(1, None)]


@asynccontextmanager
async def stopped(world: World, t: Target) -> AsyncIterator[Callable[[], None]]:
    """Calling what this yields makes the server process behind a target stand still, until the end of the block."""
    process = await t.scalar(world.sql("process"))
    pid = process if isinstance(process, int) else int(Path(process).read_text())  # a whole server, in one process

    def stop() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)  # all its threads

    try:
        yield stop
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.needs("async", "kill")
async def test_k158_cancelled_while_the_server_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_awaiting, "PATIENCE", 0.1)
    with fails(asyncio.CancelledError):
        async with world.transaction(world.source) as t, stopped(world, t) as stop:
            await t.execute(row(1))
            with cancelled_while_sending(world, "ROLLBACK TO"):
                async with world.savepoint(t) as sp:
                    await t.execute(row(2))
                    stop()
                    raise Oops
    go_on_after_cancelling()
    assert str(sp.state) == "lost"
    world.check_pool()
    async with world.transaction(world.source) as t:
        await t.execute(row(3))
    assert world.rows() == [(3, None)]


@pytest.mark.needs("async")
async def test_k159_cancelled_inside_a_listeners_statement(world: World) -> None:
    """The driver begins with the first statement that it gets, which SQLAlchemy has not sent."""
    task = asyncio.current_task()
    assert task is not None
    armed = [task]

    def on_statement(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if armed and statement.startswith("INSERT"):
            armed.pop().cancel()
            cursor.execute("SELECT 1")

    event.listen(world.sync_engine, "before_cursor_execute", on_statement)
    with fails(asyncio.CancelledError):
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
    go_on_after_cancelling()
    world.check_pool()
    async with world.transaction(world.source) as t:
        await t.execute(row(2))
    assert world.rows() == [(2, None)]


@pytest.mark.needs("async")
async def test_k160_two_calls_under_way_at_once(world: World) -> None:
    async with world.transaction(world.source) as t:
        outcomes = await asyncio.gather(
            *(asyncio.create_task(savepoint_in_a_task(world, t), name=name) for name in ("Ann", "Bob")),
            return_exceptions=True,
        )
        first, second = outcomes
        assert isinstance(second, WrongTask)
        assert "Ann" in str(second)
        assert "Bob" in str(second)
        await t.execute(row(1))
        await first.rollback()  # type: ignore[union-attr]
        await t.execute(row(2))
    assert verbs(world).count("SAVEPOINT") == 1
    assert world.rows() == [(2, None)]


async def savepoint_in_a_task(world: World, t: Target) -> Any:
    return await world.savepoint(t)


# psycopg warns of a cursor on the server that went with its connection.
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.needs("async")
async def test_k161_cancelled_while_reading_a_stream(world: World) -> None:
    before = [(id, None) for id in range(1, 6)]
    with world.aside.begin() as other:
        other.execute(item.insert(), [{"id": id} for id, _ in before])
    await cancelled_at_each_suspension(world, reads_a_stream, before, [*before, (100, None)])


async def test_k162_sync_helper_inside_an_async_block(world: World) -> None:
    def helper(target: Any) -> None:
        with savepoints.savepoint(target, "helper") as sp:
            assert sp.path == "transaction/block/mark/helper"
            assert sp.parent == mark
            target.execute(row(2))
            with savepoints.atomic(target, rollback=True):
                target.execute(row(3))
        savepoints.rollback_to(target, "mark")
        target.execute(row(4))
        savepoints.savepoint(target, "made by the helper")

    async with world.transaction(world.source) as t, world.savepoint(t, "block"):
        await t.execute(row(1))
        mark = await world.savepoint(t, "mark")
        await world.run_sync(t, helper)
        names = [level.name for level in world.current_transaction(t).savepoints]
        assert names == ["block", "mark", "made by the helper"]
        await world.rollback_to(t, "made by the helper")
    assert verbs(world) == [
        *("BEGIN", "SAVEPOINT", "INSERT item", "SAVEPOINT", "SAVEPOINT", "INSERT item"),
        *("SAVEPOINT", "INSERT item", "ROLLBACK TO", "RELEASE", "RELEASE"),
        *("ROLLBACK TO", "INSERT item", "SAVEPOINT", "ROLLBACK TO"),
        *(["RELEASE"] * (1 if world.style == "core" else 3)),  # the server ends inner ones by itself
        "COMMIT",
    ]
    assert world.rows() == [(1, None), (4, None)]


@pytest.mark.needs("async")
async def test_k163_async_hooks_are_awaited_one_after_the_other(world: World) -> None:
    log: list[str] = []

    async def slow(name: str) -> None:
        log.append(f"{name} begins")
        await asyncio.sleep(0.001)
        log.append(f"{name} ends")

    async with world.transaction(world.source) as t:
        for name in ("first", "second"):
            savepoints.on_commit(t, slow, name)
            savepoints.on_rollback(t, slow, "never")
            savepoints.before_commit(t, slow, f"before {name}")
        savepoints.on_commit(t, lambda: slow("by chance"))  # not an async function, but it gives something to await
        async with world.savepoint(t, rollback=True):
            savepoints.on_rollback(t, slow, "undone")
        assert log == ["undone begins", "undone ends"]
        await world.insert(t, 1)
    names = ["undone", "before first", "before second", "first", "second", "by chance"]
    assert log == [f"{name} {what}" for name in names for what in ("begins", "ends")]


async def test_k164_exception_group_of_a_task_group(world: World) -> None:
    async def fail(number: int) -> None:
        raise Oops(number)

    groups = []
    with fails(ExceptionGroup) as caught:
        async with world.transaction(world.source) as t:
            await t.execute(row(1))
            try:
                async with world.savepoint(t) as sp, asyncio.TaskGroup() as group:
                    await t.execute(row(2))
                    group.create_task(fail(1))
                    group.create_task(fail(2))
            except ExceptionGroup as inner:
                groups.append(inner)
                raise
    assert caught.value is groups[0] is sp.error
    assert [error.args for error in caught.value.exceptions] == [(1,), (2,)]
    assert notes(caught.value) == ""
    assert str(sp.state) == "rolled back"
    assert world.rows() == []


async def test_k165_closed_with_a_transaction_open(world: World) -> None:
    await ended_with_a_transaction_open(world, "close")


@pytest.mark.needs("orm")
async def test_k165_session_reset_with_a_transaction_open(world: World) -> None:
    await ended_with_a_transaction_open(world, "reset")


async def ended_with_a_transaction_open(world: World, way: str) -> None:
    t = await world.opened()
    async with world.savepoint(t) as sp:
        await t.execute(row(1))
    transaction = world.current_transaction(t)
    with pytest.warns(UncommittedWork, match=way):
        await getattr(t, way)()
    assert str(transaction.state) == "rolled back"
    assert str(sp.state) == "released"
    await t.close()
    world.check_pool()
    assert world.rows() == []


VERBS = ["transaction", "savepoint", "atomic", "require_transaction", "rollback_to", "release", "current_transaction"]


def test_k166_there_is_no_ambient_session() -> None:
    for verb in VERBS:
        first, *_ = inspect.signature(getattr(savepoints, verb)).parameters.values()
        assert first.default is inspect.Parameter.empty


@pytest.mark.needs("async")
async def test_k166_child_task_with_the_parents_target_in_hand(world: World) -> None:
    async def child(t: Target) -> None:
        async with world.savepoint(t, "child") as sp:
            assert sp.path == "transaction/parent/child"
            await t.execute(row(2))
        async with world.atomic(t, rollback=True):
            await t.execute(row(3))

    async with world.transaction(world.source) as t, world.savepoint(t, "parent"):
        await t.execute(row(1))
        await asyncio.create_task(child(t))
        await t.execute(row(4))
    assert world.rows() == [(1, None), (2, None), (4, None)]


@pytest.mark.needs("async")
async def test_k166_sibling_task_beside_an_open_block(world: World) -> None:
    opened = asyncio.Event()

    async def sibling(t: Target, mark: Any) -> None:
        await opened.wait()
        for steer in (lambda: world.savepoint(t), mark.release, lambda: world.rollback_to(t, "mark")):
            with refused(world, WrongTask):
                await steer()

    async with world.transaction(world.source) as t:
        mark = await world.savepoint(t, "mark")
        task = asyncio.create_task(sibling(t, mark))  # a context from before the block
        async with world.savepoint(t, "block"):
            await t.execute(row(1))
            opened.set()
            await task
        await mark.release()
    assert world.rows() == [(1, None)]
