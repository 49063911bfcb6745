"""What the async face awaits besides the core: cancelled exits, hooks, and the outcome of a COMMIT.

See Note [Shielded exits].
"""

# Note [Shielded exits]
# An exit that has begun is finished, in a task of its own that no cancellation reaches; then the cancellation goes
# on. SQLAlchemy shields the end of an AsyncSession but not that of a nested transaction: a second cancel during
# ROLLBACK TO would throw the outer work away. If the server does not answer, the exit is cancelled after all, and
# SQLAlchemy discards the connection.

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from savepoints import errors
from savepoints._core import due
from savepoints._core.outcome import Tracker
from savepoints._core.stack import Stack
from savepoints._databases import Outcome
from savepoints._model.hooks import Hook
from savepoints._places import caller, handed_on

R = TypeVar("R")

#: How long a cancelled exit may wait for the server's answer, in seconds.
PATIENCE = 10.0


def _start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
    """A task that begins at once, where Python can do that: a round of the event loop less."""
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, work)
    return loop.create_task(work)


async def finish(work: Coroutine[Any, Any, R]) -> R:
    """Run to the end what must not be left half-way, then let a cancellation go on."""
    token = handed_on.set(caller())
    task = _start(asyncio.get_running_loop(), work)
    handed_on.reset(token)
    try:
        return await asyncio.shield(task)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as struck:
        if task.done():
            raise
        await _wait_for(task)
        own = None if task.cancelled() else task.exception()
        if own is not None:
            struck.add_note(f"the exit that it waited for ended with {type(own).__name__}")
        raise


async def _wait_for(task: asyncio.Task[Any]) -> None:
    """Wait, whatever strikes; cancel the task each time that patience is at its end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not task.done():
        with suppress(asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
        if loop.time() >= deadline and not task.done():
            task.cancel()
            deadline = loop.time() + PATIENCE


async def before_commit(stack: Stack) -> BaseException | None:
    """Run the hooks before the COMMIT; the error of one counts as the block's own."""
    try:
        for hook in due.before_commit(stack):
            await _call(hook)
    except BaseException as error:
        return error
    return None


async def _call(hook: Hook) -> None:
    """Call a hook, and await what it gives.

    Raises:
        RuntimeError: What it awaited was cancelled by somebody else, and not this task: it has failed.
    """
    try:
        result = hook.run()
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError(f"what the {hook} awaited was cancelled") from error


async def run_due(stack: Stack, first: BaseException | None = None) -> None:
    """Run the hooks that are due, one after the other; failures become notes on an error under way."""
    if not stack.due:
        return
    running = due.Run(stack)
    for hook in running.hooks():
        try:
            await _call(hook)
        except Exception as error:
            running.failed(hook, error)
        except BaseException as error:
            running.stopped(hook, error)
            raise
    running.tell(first)


async def resolve(tracker: Tracker, engine: Any) -> Outcome:
    """Ask what became of a COMMIT whose answer was lost."""
    if engine is None and tracker.engine is not None:
        engine = AsyncEngine(tracker.engine)
    if not isinstance(engine, AsyncEngine):
        raise errors.WrongArgument(
            f"resolve asks on an AsyncEngine here, not on {errors.kind_of(engine)}",
            hint="give an async engine on the same server",
        )
    async with engine.connect() as connection:
        return await connection.run_sync(tracker.ask)
