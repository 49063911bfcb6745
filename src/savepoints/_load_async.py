"""The async face of `load`: its savepoint is made and left as any other, the work runs in `run_sync`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable
from dataclasses import replace
from typing import Any

from savepoints import _compat
from savepoints._awaiting import finish
from savepoints._core import ends
from savepoints._load import run
from savepoints._load.options import Options
from savepoints._load.report import Report
from savepoints.aio import FACE, AsyncTarget, PendingSavepoint, run_in, sync_of


async def load(target: AsyncTarget, into: Any, rows: Any, name: str, options: Options, *, rollback: bool) -> Report:
    """Load rows under a savepoint of their own, which stays open; an error undoes it."""
    if options.progress is not None:
        options = replace(options, progress=_awaited(options.progress))
    given = _Pulled(rows) if isinstance(rows, AsyncIterable) else rows
    level = await PendingSavepoint(target, name, False, ())
    try:
        report = await run_in(target, lambda: run.load(sync_of(target), FACE, level, into, given, options))
        if rollback:
            await finish(run_in(target, lambda: ends.leave_savepoint(level, None, rollback=True)))
    except BaseException as error:
        failed = error
        await finish(run_in(target, lambda: ends.leave_savepoint(level, failed, rollback=False)))
        raise
    return run.told(report, level)


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """A callback of the user's, awaited where it is a coroutine function."""

    def call(*args: Any) -> Any:
        found = function(*args)
        return _compat.wait_for(found) if inspect.isawaitable(found) else found

    return call


class _Pulled:
    """Rows of an async iterable, one after the other, inside `run_sync`."""

    def __init__(self, rows: AsyncIterable[Any]) -> None:
        self._rows = aiter(rows)

    def __iter__(self) -> _Pulled:
        return self

    def __next__(self) -> Any:
        try:
            return _compat.wait_for(anext(self._rows))
        except StopAsyncIteration:
            raise StopIteration from None
