"""Who calls, and from where: places in the user's code and the task or thread at work.

Used in messages only; nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import AsyncGeneratorType, CodeType, FrameType
from typing import Any, NamedTuple, cast

#: Tasks of one loop.
_MANY = 1000

_PACKAGES = (
    *("savepoints", "sqlalchemy", "tenacity", "contextlib", "asyncio", "greenlet", "anyio", "concurrent", "threading"),
)
_INSIDE = tuple(f"{package}." for package in _PACKAGES)

# both faces: the outermost one is what the user called
_ENDERS = (
    "AsyncSession",
    "AsyncConnection",
    "AsyncTransaction",
    "AsyncSessionTransaction",
    "Session",
    "Connection",
    "SessionTransaction",
    "Transaction",
    "TransactionalContext",
)
_CLOSED = ("AsyncSession", "AsyncConnection", "Session", "Connection")  # a `with` on one of the others commits


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


NOWHERE = Place("<unknown>", 0)


_inside: set[CodeType] = set()  # code known to be ours or SQLAlchemy's: asked once


def _is_inside(frame: FrameType) -> bool:
    module: str = frame.f_globals.get("__name__", "")
    if module.startswith(_INSIDE) or module in _PACKAGES:
        _inside.add(frame.f_code)
        return True
    return False


#: The user's line for work that runs in a task of its own, where no frame leads back to it.
handed_on: ContextVar[Place | None] = ContextVar("savepoints_place", default=None)


def _outside(frame: FrameType | None) -> FrameType | None:
    """The innermost frame, from this one outward, that is neither ours nor SQLAlchemy's."""
    while frame is not None and (frame.f_code in _inside or _is_inside(frame)):
        frame = frame.f_back
    return frame


def _awaiting() -> FrameType | None:
    """The frame that awaits SQLAlchemy's greenlet, in which we run: the frames above are out of sight from inside."""
    greenlet = sys.modules.get("greenlet")
    outer = None if greenlet is None else greenlet.getcurrent().parent
    return None if outer is None else cast("FrameType | None", outer.gr_frame)


def _place(frame: FrameType | None) -> Place:
    return NOWHERE if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def caller() -> Place:
    """The innermost line that is neither ours nor SQLAlchemy's."""
    return handed_on.get() or _place(_outside(sys._getframe(1)) or _outside(_awaiting()))


def raised_at(error: BaseException) -> Place | None:
    """The innermost line that the error came through and that is neither ours nor SQLAlchemy's, if there is one."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if not _is_inside(trace.tb_frame):
            found = Place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return found


class Ending(NamedTuple):
    """Which call of SQLAlchemy ended something behind us, and where it was made.

    ``by_error``: it was the end of a ``with`` that an error has left. ``by_session``: a session or its transaction was
    ended, not a connection past it.
    """

    verb: str
    place: Place
    by_error: bool = False
    by_session: bool = False

    def __str__(self) -> str:
        return f"{self.verb}() at {self.place}"

    @property
    def closes(self) -> bool:
        """A close, which throws uncommitted work away without saying so."""
        owner, _, method = self.verb.partition(".")
        return not self.by_error and owner in _CLOSED and method in ("close", "reset", "__exit__", "__aexit__")


def ending() -> Ending:
    """The call of SQLAlchemy that the user's line made."""
    verb, by_error, by_session = "rollback", False, False
    for frame in _outward(sys._getframe(1)):
        if frame.f_code not in _inside and not _is_inside(frame):
            return Ending(verb, _place(frame), by_error, by_session)
        name = frame.f_code.co_qualname
        if name.partition(".")[0] in _ENDERS:
            verb, by_error = name, _left_by_error(frame)
            by_session = by_session or "Session" in name
    return Ending(verb, _place(None), by_error, by_session)


def _left_by_error(exit: FrameType) -> bool:
    """Whether a call is the end of a ``with`` that was given an error."""
    code = exit.f_code
    return code.co_name in ("__exit__", "__aexit__") and exit.f_locals.get(code.co_varnames[1]) is not None


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames from this one to the user's line, and further.

    In async code past SQLAlchemy's greenlet, and past the task of its own in which it ends an ``async with``.
    """
    task = None if asyncio._get_running_loop() is None else asyncio.current_task()
    first = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    for start in (frame, _awaiting()):
        inner = start
        while inner is not None:
            yield inner
            inner = None if inner is first else inner.f_back
    if task is not None:
        yield from _waiting_for(task)


def _waiting_for(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of the task that waits for a task of SQLAlchemy's, which its innermost frame holds."""
    tasks = asyncio.all_tasks()
    if len(tasks) > _MANY:  # to look through them would cost more than the place is worth
        return
    for other in tasks:
        frames: list[FrameType] = []
        step: Any = other.get_coro()
        while (frame := getattr(step, "cr_frame", None) or getattr(step, "ag_frame", None)) is not None:
            frames.append(frame)
            step = _awaited(step)
        if frames and _is_inside(frames[-1]) and any(held is task for held in frames[-1].f_locals.values()):
            yield from reversed(frames)


def _awaited(step: Any) -> Any:
    """What a coroutine or asynchronous generator waits for; of a generator's next step, the generator."""
    found = step.cr_await if hasattr(step, "cr_await") else step.ag_await
    if hasattr(found, "cr_frame"):
        return found
    return next((held for held in gc.get_referents(found) if isinstance(held, AsyncGeneratorType)), None)


class _Process:
    """This process, without asking the system each time."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def forked(self) -> None:
        """A child goes on with its parent's memory."""
        self.pid = os.getpid()


process = _Process()
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=process.forked)

#: A task, or the identity of a thread.
Worker = asyncio.Task[Any] | int


def worker() -> Worker:
    """The task or thread at work."""
    task = None if asyncio._get_running_loop() is None else asyncio.current_task()
    return threading.get_ident() if task is None else task


def label(found: Worker | None) -> str:
    """How a task or thread is named in messages."""
    if isinstance(found, asyncio.Task):
        return f"task {found.get_name()!r}"
    names = [thread.name for thread in threading.enumerate() if thread.ident == found]
    return f"thread {names[0]!r}" if names else "a thread that has ended"
