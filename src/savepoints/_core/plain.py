"""Plain ``begin_nested()`` between our levels: entered as levels like any other, and kept in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection, NestedTransaction, Transaction
from sqlalchemy.orm import SessionTransaction

from savepoints import _compat
from savepoints._core import refusals
from savepoints._core.marks import PlainMark, SessionMark
from savepoints._model.levels import End, SavepointLevel
from savepoints._model.states import Move
from savepoints._places import ending

if TYPE_CHECKING:
    from savepoints._core.stack import Stack


class PlainCode:
    """What is known of a transaction in which no verb of ours was used yet: see Note [Stacks of plain code]."""

    __slots__ = ("_names", "begun_by", "is_late", "wrote")

    def __init__(self) -> None:
        self.is_late = False  # a driver may begin later than SQLAlchemy
        self.begun_by: dict[int, Transaction | None] = {}  # the root transaction on each connection, by its id
        self.wrote = False  # a statement may have changed something
        self._names: dict[int, list[str]] = {}  # the open savepoints on each connection, innermost last

    def sent(self, connection: Connection, name: str) -> None:
        """SAVEPOINT goes out."""
        self._names.setdefault(id(connection), []).append(name)

    def in_savepoint(self, connection: Connection) -> bool:
        """Whether one is open on the connection."""
        return bool(self._names.get(id(connection)))

    def ended(self, connection: Connection, name: str) -> bool:
        """It is released or rolled back, with those inside it; whether there was none around it."""
        names = self._names.get(id(connection), [])
        if name not in names:
            return False
        del names[names.index(name) :]
        return not names


def enter(stack: Stack) -> None:
    """Enter those that were begun since we looked last."""
    for session in stack.sessions:
        found: list[SessionTransaction] = []
        nested = session.get_nested_transaction()
        while nested is not None and stack.level_of(nested) is None:
            found.append(nested)
            nested = _around(nested)
        for new in reversed(found):
            for connection in _compat.connections(new):
                if (core := connection.get_nested_transaction()) is not None:
                    stack.owned.add(core)
            push(stack, SessionMark(stack, session, new))
    for connection in stack.root.connections:
        core = connection.get_nested_transaction()
        if core is not None and core not in stack.owned and not connection.invalidated:
            _push_new(stack, core)


def _around(nested: SessionTransaction) -> SessionTransaction | None:
    """The nested transaction around one; flushes have unnested ones in between."""
    around = nested.parent
    while around is not None and not around.nested:
        around = around.parent
    return around


def push(stack: Stack, mark: Any) -> None:
    """Enter one."""
    stack.push(stack.face.savepoint(stack, "begin_nested", stack.top, mark))


def _push_new(stack: Stack, core: NestedTransaction) -> None:
    if _level(stack, core) is None:
        push(stack, PlainMark(core))


def _level(stack: Stack, core: NestedTransaction) -> SavepointLevel | None:
    for level in reversed(stack.levels):
        if isinstance(level.mark, PlainMark) and level.mark.nested is core:
            return level
    return None


def end(stack: Stack, connection: Connection, move: Move, word: str) -> None:
    """A plain nested transaction of a connection ends, and with it what was opened inside it.

    Raises:
        OutOfOrder: It is released while a block of ours inside it is open.
    """
    core = connection.get_nested_transaction() if stack.levels else None
    level = None if core is None else _level(stack, core)
    if level is None:
        return
    how = End(f"{word} by {ending()}")
    above = stack.levels[stack.index(level) + 1 :]
    block = next((inner for inner in above if inner.block), None)
    if block is not None and move is Move.OUTER_RELEASE:
        raise refusals.plain_call("a plain nested transaction was committed", block)
    stack.end_above(level, move, how)
    stack.end(level, move, how)
