"""Results that are read while they come: what was opened inside a savepoint ends with it.

See Note [One statement at a time].
"""

# Note [One statement at a time]
# Some servers answer one statement after the other: while a result is streamed, the connection takes nothing else. One
# of their drivers throws the rest of the rows away then, with a warning; another refuses, in words that SQLAlchemy
# takes for a lost connection. So the rest of each open stream is read into memory before a verb of ours sends anything:
# its reader goes on behind the savepoint as on other databases, at the price of the memory.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import ExecutionContext

from savepoints import _compat
from savepoints._model.levels import Level, SavepointLevel

if TYPE_CHECKING:
    from savepoints._core.stack import Stack


def note(stack: Stack, result: Any) -> None:
    """A streamed result was opened."""
    stack.top.streams = (*filter(_compat.streams, stack.top.streams), result)


def forget(stack: Stack, context: ExecutionContext | None) -> None:
    """A read has failed: there is no rest, and SQLAlchemy closes the cursor."""
    for level in (stack.transaction, *stack.levels):
        level.streams = tuple(result for result in level.streams if result.context is not context)


def buffer(stack: Stack, under_way: BaseException | None) -> Exception | None:
    """Before a verb of ours sends anything: read the rest of what is streamed, where it would be in the way.

    Returns:
        The first error that was met, unless one is under way: then it is a note on that.
    """
    late: Exception | None = None
    for result in [result for level in (stack.transaction, *stack.levels) for result in level.streams]:
        try:
            if stack.row_of(result.connection).streams_block:
                _compat.buffer(result)
        except Exception as error:
            late = late or error
            first = under_way or late
            if first is not error:
                first.add_note(f"reading a streamed result failed as well: {type(error).__name__}")
    return None if under_way else late


def close(stack: Stack, level: SavepointLevel) -> None:
    """The server forgets a cursor that was opened inside: a later read is told so, without breaking the transaction."""
    for inner in stack.levels[stack.index(level) :]:
        _close_those_of(inner)


def close_all(stack: Stack) -> None:
    """The rows of a transaction that is undone are not read on, by whoever was handed them."""
    for level in (stack.transaction, *stack.levels):
        _close_those_of(level)


def _close_those_of(level: Level) -> None:
    for result in level.streams:
        if not result.connection.closed and not result.connection.invalidated:  # else they have gone with it
            result.close()
    level.streams = ()
