"""Who calls, and from where: places in the user's code and the task or thread at work.

Used in messages only; nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from types import FrameType
from typing import Any, NamedTuple

_INSIDE = (
    "savepoints",
    "sqlalchemy",
    "contextlib",
    "asyncio",
    "greenlet",
    "anyio",
    "concurrent",
    "threading",
)

_ENDERS = ("Session", "Connection", "SessionTransaction", "Transaction", "TransactionalContext")


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


NOWHERE = Place("<unknown>", 0)


def _is_inside(frame: FrameType) -> bool:
    module: str = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in _INSIDE


def caller() -> Place:
    """The innermost line that is neither ours nor SQLAlchemy's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_inside(frame):
            return Place(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return _awaiting() or NOWHERE


def _awaiting() -> Place | None:
    """The user's innermost line that awaits us: inside SQLAlchemy's greenlet the frames above are out of sight."""
    task = current_task()
    awaited: Any = None if task is None else task.get_coro()
    found = None
    while awaited is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", None)
        if frame is not None and not _is_inside(frame):
            found = Place(frame.f_code.co_filename, frame.f_lineno)
        awaited = getattr(awaited, "cr_await", None)
    return found


class Ending(NamedTuple):
    """Which call of SQLAlchemy ended something behind us, and where it was made."""

    verb: str
    place: Place

    def __str__(self) -> str:
        return f"{self.verb}() at {self.place}"

    @property
    def closes(self) -> bool:
        """A close, which throws uncommitted work away without saying so."""
        return self.verb.endswith((".close", ".reset", ".__exit__"))


def ending() -> Ending:
    """The outermost frame of SQLAlchemy below the user's line."""
    verb = "rollback"
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_inside(frame):
        name = frame.f_code.co_qualname
        if name.partition(".")[0] in _ENDERS:
            verb = name
        frame = frame.f_back
    if frame is None:
        return Ending(verb, _awaiting() or NOWHERE)
    return Ending(verb, Place(frame.f_code.co_filename, frame.f_lineno))


def current_task() -> asyncio.Task[Any] | None:
    """The asyncio task at work, or None outside of one."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no running loop in this thread
        return None


class Worker(NamedTuple):
    """A task or thread, as it is told apart and named in messages."""

    key: int
    label: str


def worker() -> Worker:
    """The task or thread at work."""
    task = current_task()
    if task is not None:
        return Worker(id(task), f"task {task.get_name()!r}")
    thread = threading.current_thread()
    return Worker(threading.get_ident(), f"thread {thread.name!r}")
