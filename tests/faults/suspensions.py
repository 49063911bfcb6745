"""Runs a coroutine and strikes at chosen suspension points: wherever it hands control to the event loop."""

from __future__ import annotations

import asyncio
import traceback
import types
from collections.abc import Callable, Collection, Coroutine, Generator
from functools import partial
from typing import Any


class Strike:
    """Counts the suspensions of one coroutine, the first one being 1, and strikes at the chosen ones.

    cancel_at:    there the task is cancelled
    interrupt_at: there KeyboardInterrupt is raised
    """

    def __init__(self, *, cancel_at: Collection[int] = (), interrupt_at: Collection[int] = ()) -> None:
        self.suspensions = 0
        self._cancel_at = cancel_at
        self._interrupt_at = interrupt_at

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> BaseException | None:
        """Run it in a task of its own; the error that left it is returned."""
        return await asyncio.create_task(self._caught(coroutine))

    async def _caught(self, coroutine: Coroutine[Any, Any, Any]) -> BaseException | None:
        try:
            await self._stepped(coroutine)
        except BaseException as error:  # here and no later: the loop would stop at a KeyboardInterrupt
            clear_frames(error)
            return error
        return None

    @types.coroutine
    def _stepped(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await a coroutine step by step."""
        step: Callable[[], Any] = partial(coroutine.send, None)
        while True:
            try:
                future = step()
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            try:
                self._strike(future)
                step = partial(coroutine.send, (yield future))
            except BaseException as thrown:
                step = partial(coroutine.throw, thrown)

    def _strike(self, future: Any) -> None:
        if self.suspensions in self._cancel_at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # reaches the coroutine as soon as it waits, which is now
        if self.suspensions in self._interrupt_at:
            if future is not None:  # nobody will wait for it
                future._asyncio_future_blocking = False
                future.cancel()
            raise KeyboardInterrupt


def clear_frames(error: BaseException | None) -> None:
    """Drop what the frames of the traceback hold: by a cursor among it SQLite keeps the lock of a closed connection."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
