"""How a connection becomes part of a transaction of ours, and how a session that had joined one leaves it."""

from __future__ import annotations

from sqlalchemy.engine import Connection, NestedTransaction
from sqlalchemy.orm import Session

from savepoints import _compat
from savepoints._core import adopt
from savepoints._core.guards import watch_engine
from savepoints._core.roots import begin_driver, refuse_autocommit
from savepoints._core.stack import KEY, Stack, stack_of
from savepoints._databases import capabilities
from savepoints._model.levels import End
from savepoints._model.repairs import EVERY
from savepoints._model.states import Move


def join(stack: Stack, connection: Connection) -> None:
    """A connection becomes part of the transaction.

    Raises:
        NotSupported: It is in autocommit mode.
    """
    if stack_of(connection) is stack:
        return
    if stack.plain is not None:
        adopt.take(stack, stack.plain, connection)
        return
    watch_engine(connection.engine)
    refuse_autocommit(connection, capabilities(connection.dialect))
    stack.take(connection)
    _own(stack, connection)
    if not stack.root.connections[1:]:
        stack.capabilities = capabilities(connection.dialect)
    if stack.transaction.managed or stack.levels or stack.joined:
        begin_driver(stack, connection)


def _own(stack: Stack, connection: Connection) -> None:
    """A savepoint in which the session works on somebody's connection is its transaction, no level of ours."""
    transaction = None if stack.root.session is None else stack.root.session.get_transaction()
    if transaction is not None and connection in _compat.connections(transaction):
        begun = _compat.begun_on(transaction, connection)
        if isinstance(begun, NestedTransaction):
            stack.owned.add(begun)


def part(stack: Stack, session: Session, how: End) -> None:
    """A session that had joined a connection's transaction leaves it; the transaction goes on."""
    for level in reversed(stack.levels):
        if getattr(level.mark, "session", None) is session:
            stack.end_above(level, Move.OUTER_ROLLBACK, how)
            stack.end(level, Move.OUTER_ROLLBACK, how)
    stack.sessions.remove(session)
    session.info.pop(KEY, None)


def steer(stack: Stack) -> None:
    """A verb of ours is used in a transaction that plain code has begun: from now on all of our rules hold in it."""
    if stack.plain is not None:
        stack.plain = None
        stack.repairs = EVERY
        for connection in stack.root.connections:
            watch_engine(connection.engine)
