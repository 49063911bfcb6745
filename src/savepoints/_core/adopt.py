"""Stacks for the transactions that plain SQLAlchemy code begins on an installed engine.

See Note [Stacks of plain code].
"""

# Note [Stacks of plain code]
# Most transactions of plain code need nothing of ours. So a stack is made only where one is needed: at the first
# begin_nested(), and after an error that the database has answered by dropping or failing the transaction. It is
# `plain` until a verb of ours is used on its session or connection: then nothing is refused in it but what SQLAlchemy
# would lose in silence (a statement after the transaction was dropped, a COMMIT that would keep nothing), and whatever
# SQLAlchemy or the database says by itself passes as it is. A connection's stack belongs to one root transaction of
# SQLAlchemy's: where the connection has another one by now, the stack is over, however the first has ended.

from __future__ import annotations

import weakref
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

from savepoints import _compat
from savepoints._core.face import Face
from savepoints._core.plain import PlainCode
from savepoints._core.roots import ConnectionRoot, SessionRoot, in_autocommit
from savepoints._core.stack import KEY, Stack, detach, stack_of
from savepoints._databases import capabilities
from savepoints._model.repairs import Repair


class Installation(NamedTuple):
    """What `install` was asked for on an engine."""

    face: Face
    repairs: frozenset[Repair]


#: By the dialect, which an engine shares with its twins of other execution options.
installations: WeakKeyDictionary[Dialect, Installation] = WeakKeyDictionary()

#: Under this name a connection knows the session that has begun on it, as an attribute, like its stack.
_OWNER = "savepoints_owner"


def belongs(connection: Connection, session: Session) -> None:
    """A session's transaction has begun on the connection."""
    vars(connection)[_OWNER] = weakref.ref(session)


def _owner(connection: Connection) -> Session | None:
    reference = vars(connection).get(_OWNER)
    session: Session | None = None if reference is None else reference()
    transaction = None if session is None else session.get_transaction()
    return session if transaction is not None and connection in _compat.connections(transaction) else None


def current(connection: Connection) -> Stack | None:
    """The stack of a connection; one of plain code is over with its root transaction."""
    stack = stack_of(connection)
    code = None if stack is None else stack.plain
    if stack is None or code is None or code.begun_by.get(id(connection)) is connection.get_transaction():
        return stack
    detach(stack)
    return None


def of_connection(connection: Connection) -> Stack | None:
    """The stack of a connection; made where its engine is installed, but for one in autocommit mode."""
    stack = current(connection)
    if stack is not None:
        return stack
    found = installations.get(connection.dialect)
    if found is None or not connection.in_transaction():
        return None
    owner = _owner(connection)
    if owner is not None:
        return of_session(owner)
    row = capabilities(connection.dialect)
    if in_autocommit(connection, row):
        return None
    return _filled(Stack(ConnectionRoot(connection), found.face, row), found, [connection])


def of_session(session: Session) -> Stack | None:
    """The stack of a session that works on installed engines; None where it has used none of them yet."""
    stack: Stack | None = session.info.get(KEY)
    if stack is not None:
        return stack
    if isinstance(session.bind, Connection) and (stack := current(session.bind)) is not None:
        stack.sessions.append(session)
        session.info[KEY] = stack
        return stack
    root = session.get_transaction()
    connections = [] if root is None else list(_compat.connections(root))
    found = next((there for used in connections if (there := installations.get(used.dialect))), None)
    if found is None or any(in_autocommit(used, capabilities(used.dialect)) for used in connections):
        return None
    stack = Stack(SessionRoot(session), found.face, capabilities(connections[0].dialect))
    session.info[KEY] = stack
    return _filled(stack, found, connections)


def _filled(stack: Stack, found: Installation, connections: list[Connection]) -> Stack:
    stack.plain = PlainCode()
    stack.repairs = found.repairs
    for connection in connections:
        take(stack, stack.plain, connection)
    return stack


def take(stack: Stack, code: PlainCode, connection: Connection) -> None:
    """The connection belongs to a stack of plain code from now on."""
    stack.take(connection)
    code.begun_by[id(connection)] = connection.get_transaction()
    code.is_late = code.is_late or capabilities(connection.dialect).begin is not None
    connection.info[KEY] = weakref.ref(stack)


def taken_from(dbapi_connection: PoolProxiedConnection) -> Stack | None:
    """The stack of plain code whose transaction ends now on a connection of the pool: asked once for each end."""
    try:
        reference = dbapi_connection.info.pop(KEY, None)
    except NotImplementedError:  # SQLAlchemy's first look at a new connection, before the pool has it
        return None
    stack: Stack | None = None if reference is None else reference()
    return None if stack is None or stack.plain is None else stack
