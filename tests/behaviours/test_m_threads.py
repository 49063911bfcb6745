"""Group M: threads, forks, interpreters that end, generators that do not."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

import savepoints
from savepoints import UnknownSavepoint, WrongTask
from tests.behaviours import program
from tests.behaviours.steps import at_once, next_line, refused, told_at
from tests.harness.face import bare
from tests.harness.models import item
from tests.harness.world import Source, World

CHECKOUT = Path(__file__).parents[2]


@contextmanager
def started(world: World, scenario: Callable[[World], None]) -> Iterator[subprocess.Popen[str]]:
    """A scenario of `program`, as a program of its own that is inside its block."""
    arguments = (scenario.__name__, world.site.name, world.style, world.url)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.behaviours.program", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
async def test_m177_an_interpreter_that_exits_in_a_block_leaves_nothing(world: World) -> None:
    with started(world, program.exits) as process:
        assert process.wait(30) == 3
    assert world.rows() == []


@pytest.mark.slow
@pytest.mark.needs("sync")
async def test_m177_a_thread_killed_in_a_block_leaves_nothing(world: World) -> None:
    with started(world, program.exits_beside_a_thread) as process:
        assert process.wait(30) == 3
    assert world.rows() == []


def in_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in a thread of its own, which knows nothing of the context here."""
    with ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
        return pool.submit(function, *args).result()


@pytest.mark.needs("sync")
async def test_m178_two_threads_at_the_same_time(world: World) -> None:
    is_inside, go_on = threading.Event(), threading.Event()

    @event.listens_for(world.sync_engine, "before_cursor_execute")
    def hold(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if statement.startswith("SAVEPOINT"):
            is_inside.set()
            assert go_on.wait(30)

    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        with ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
            first = pool.submit(savepoints.savepoint, bare(t), "first")
            assert is_inside.wait(30)
            try:
                with refused(world, WrongTask, "from task .* from thread 'other") as told:
                    await world.savepoint(t, "second")
            finally:
                go_on.set()
            assert "under way" in str(told.value)
            assert str(first.result(30).state) == "open"
        assert [sp.name for sp in world.current_transaction(t).savepoints] == ["first"]
    assert world.rows() == [(1, None)]


@pytest.mark.needs("sync")
async def test_m178_a_thread_beside_a_foreign_block(world: World) -> None:
    async with world.transaction(world.source) as t:
        mark = await world.savepoint(t, "mark")
        async with world.savepoint(t, "block") as sp:
            await world.insert(t, 1)
            session = bare(t)
            for call in (
                lambda: savepoints.savepoint(session),
                lambda: savepoints.atomic(session).__enter__(),
                lambda: savepoints.rollback_to(session, "block"),
                lambda: savepoints.release(session, "block"),
                bare(sp).rollback,
                bare(mark).release,
            ):
                with refused(world, WrongTask, "from thread 'other.* is a block of task"):
                    in_a_thread(call)
            await world.insert(t, 2)
    assert world.rows() == [(1, None), (2, None)]


@pytest.mark.needs("sync")
async def test_m178_threads_one_after_the_other(world: World) -> None:
    """As a web framework's thread pool does: the outermost block moves with its user."""
    entered = savepoints.transaction(bare(world.source))
    t = in_a_thread(entered.__enter__)
    in_a_thread(t.execute, item.insert().values(id=1))
    sp = in_a_thread(savepoints.savepoint, t, "mark")
    in_a_thread(t.execute, item.insert().values(id=2))
    in_a_thread(sp.rollback)
    in_a_thread(savepoints.release, t, "mark")

    def a_block() -> None:
        with savepoints.savepoint(t):
            t.execute(item.insert().values(id=3))

    in_a_thread(a_block)
    in_a_thread(entered.__exit__, None, None, None)
    assert world.rows() == [(1, None), (3, None)]


def all_refused(calls: list[Callable[[], Awaitable[Any]]]) -> bool:
    """Whether each call raises WrongTask without waiting for anything."""

    async def awaited(call: Callable[[], Awaitable[Any]]) -> None:
        await call()

    for call in calls:
        try:
            at_once(awaited(call))
        except WrongTask:
            continue
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_m179_a_fork_cannot_use_what_is_its_parents(world: World) -> None:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, "block") as sp:
            await world.insert(t, 2)
            verbs = [lambda: world.savepoint(t), lambda: world.rollback_to(t, "block"), sp.rollback, sp.release]
            # a driver that works in a thread of its own has lost it in the fork, and does not come to a statement
            threaded = world.site.face == "async" and "network" not in world.site.has
            statement = [] if threaded else [lambda: t.execute(text("SELECT 1"))]
            child = os.fork()
            if child == 0:
                refused = False
                try:
                    refused = all_refused([*verbs, *statement])
                finally:
                    os._exit(0 if refused else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            await world.insert(t, 3)
    assert world.rows() == [(1, None), (2, None), (3, None)]


def running(world: World) -> bool:
    """Whether the server is at work on the slow statement."""
    with world.aside.connect() as connection:
        found = connection.scalar(world.sql("running"), {"query": program.slow_statement(world)})
    return bool(found)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
async def test_m180_ctrl_c_while_a_statement_runs(world: World) -> None:
    with started(world, program.is_interrupted) as process:
        if "kill" in world.site.has:
            wait_until(lambda: running(world))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT  # KeyboardInterrupt has passed the blocks and ended the program
    if "kill" in world.site.has:
        wait_until(lambda: not running(world))
    assert world.rows() == []


async def numbers(world: World) -> AsyncIterator[int]:
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t):
            await world.insert(t, 2)
            yield 1
            yield 2


def sync_numbers(world: World) -> Iterator[int]:
    with savepoints.transaction(bare(world.source)) as t:
        t.execute(item.insert().values(id=1))
        with savepoints.savepoint(t):
            t.execute(item.insert().values(id=2))
            yield 1
            yield 2


@pytest.mark.needs("sync")
@pytest.mark.parametrize("end", ["closed", "collected"])
async def test_m181_an_unfinished_generator_is_undone(world: World, end: str) -> None:
    generator = sync_numbers(world)
    assert next(generator) == 1
    if end == "closed":
        generator.close()  # type: ignore[attr-defined]
    else:
        del generator
        gc.collect()
    world.check_pool()
    assert world.rows() == []


@pytest.mark.needs("async")
@pytest.mark.parametrize("end", ["closed", "collected"])
async def test_m181_an_unfinished_async_generator_is_undone(world: World, end: str) -> None:
    generator = numbers(world)
    assert await anext(generator) == 1
    if end == "closed":
        await generator.aclose()  # type: ignore[attr-defined]
    else:
        before = asyncio.all_tasks()
        del generator
        gc.collect()
        await asyncio.sleep(0)  # the event loop takes over: it closes the generator in a task of its own
        await asyncio.wait(asyncio.all_tasks() - before)
    world.check_pool()
    assert world.rows() == []


async def left_unfinished(world: World, source: Source, verb: str) -> str:
    """Enter a block and never leave it; the place where it was opened."""
    opened = next_line()
    t = await world.transaction(source).__aenter__()
    await world.insert(t, 1)
    if verb == "savepoint":
        opened = next_line()
        await world.savepoint(t).__aenter__()
        await world.insert(t, 2)
    return opened


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["transaction", "savepoint"])
async def test_m182_an_unfinished_block_that_is_collected_warns(world: World, verb: str) -> None:
    """On an engine of its own: where the driver is async, the pool can only drop the connection."""
    engine, threads = world.new_engine(), set(threading.enumerate())
    source = world.maker() if world.style == "orm" else engine
    if world.style == "orm":
        source.configure(bind=engine)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        opened = await left_unfinished(world, source, verb)
        gc.collect()
        told = [str(warning.message) for warning in warned if warning.category is ResourceWarning]
        warned.clear()  # a warning holds on to the block that it is about
        gc.collect()
    assert any(told_at(world, opened) in message for message in told)
    wait_until(lambda: set(threading.enumerate()) <= threads)  # a driver that works in threads closes there
    await asyncio.sleep(0.01)  # the event loop closes its sockets
    with world.aside.begin() as other:  # undone, and its lock is free
        other.execute(item.insert().values(id=1))
    disposed = engine.dispose()
    if disposed is not None:
        await disposed


@pytest.mark.needs("sync")
async def test_m183_threads_do_not_see_each_others_levels(world: World) -> None:
    def other() -> list[str]:
        with savepoints.transaction(bare(world.source)) as mine:  # here no transaction of this engine is open
            savepoints.savepoint(mine, "theirs")
            with pytest.raises(UnknownSavepoint, match="open, innermost first: 'theirs'"):
                savepoints.rollback_to(mine, "ours")
            transaction = savepoints.current_transaction(mine)
            assert transaction is not None
            return [sp.name for sp in transaction.savepoints]

    async with world.transaction(world.source) as t, world.savepoint(t, "ours"):
        assert in_a_thread(other) == ["theirs"]
        assert [sp.name for sp in world.current_transaction(t).savepoints] == ["ours"]
        await world.insert(t, 1)
    assert world.rows() == [(1, None)]
