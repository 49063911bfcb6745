"""What a savepoint is made of: SQL on a connection, or a nested transaction of a session.

One adapter each. All of them are used innermost first by ``moves``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.engine import Connection, NestedTransaction
from sqlalchemy.exc import DBAPIError, UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction

from savepoints import _compat
from savepoints._core import past
from savepoints._core.dialects import driver_connection
from savepoints._core.objects import Shown, Touched, forget_changes, restore
from savepoints._databases import Capabilities

if TYPE_CHECKING:
    from savepoints._core.stack import Stack


#: Control statements must not become server-side cursors where the connection streams its results.
_CONTROL: Mapping[str, Any] = {"stream_results": False}


class Mark(Protocol):
    """How the core makes, undoes and releases one savepoint. The levels inside it have been dealt with before.

    ``ours`` is False where a plain ``begin_nested()`` made it.
    """

    ours: bool

    def flush(self) -> None:
        """Send what is pending, inside."""

    def rollback(self, *, keep: bool) -> None:
        """Undo what was done since; keep the savepoint open, or end it."""

    def release(self) -> None:
        """End the savepoint and keep what was done."""

    def vanish(self, *, kept: bool) -> None:
        """The statement of a level around it ends this one too, undone or kept."""

    def merge(self, outer: Any) -> None:
        """It has ended: what was touched inside now counts as touched in the level around."""


def send(connection: Connection, statement: str) -> None:
    """Send a control statement without compiling it."""
    # without parameters SQLAlchemy makes up some that psycopg takes a microsecond to recognise
    connection.exec_driver_sql(statement, () if connection.dialect.positional else {}, _CONTROL)


def send_rollback_to(row: Capabilities, connection: Connection, name: str) -> None:
    """Send ROLLBACK TO, and tell of what it has left."""
    if row.wire is not None:
        send(connection, row.wire.rollback_to.format(name))
    past.warn_leftovers(connection.dialect, row, connection.connection)


def send_undo(row: Capabilities, connection: Connection, name: str) -> None:
    """Undo a savepoint and end it: in one round trip, where the driver takes both statements at once."""
    if row.wire is not None and row.takes_two(driver_connection(connection.dialect, connection.connection)):
        send(connection, row.wire.undo.format(name))
        return
    send_rollback_to(row, connection, name)
    if row.wire is not None and row.wire.release is not None:
        send(connection, row.wire.release.format(name))


def session_connections(session: Session) -> list[Connection]:
    """The connections that a session's transaction uses, its default one at least, where it has one."""
    transaction = session.get_transaction()
    found = [] if transaction is None else list(_compat.connections(transaction))
    if not found:
        with suppress(UnboundExecutionError):  # bound by mapper or table: each bind joins when it is first used
            found = [session.connection()]
    return found


class ConnectionMark:
    """A savepoint of ours on a Connection; SQLAlchemy does not know of it."""

    __slots__ = ("connection", "name", "stack")

    ours = True

    def __init__(self, stack: Stack, connection: Connection) -> None:
        self.stack = stack
        self.connection = connection
        # by depth, so that drivers which prepare statements see the same few texts again and again
        self.name = f"savepoints_{len(stack.levels) + 1}"
        wire = stack.row_of(connection).wire
        if wire is None:
            connection.dialect.do_savepoint(connection, self.name)
        else:
            send(connection, wire.savepoint.format(self.name))

    def flush(self) -> None:
        """Nothing is pending on a connection."""

    def rollback(self, *, keep: bool) -> None:
        row = self.stack.row_of(self.connection)
        if row.wire is None:
            self.connection.dialect.do_rollback_to_savepoint(self.connection, self.name)
        elif keep:
            send_rollback_to(row, self.connection, self.name)
        else:
            send_undo(row, self.connection, self.name)

    def release(self) -> None:
        wire = self.stack.row_of(self.connection).wire
        if wire is None:
            self.connection.dialect.do_release_savepoint(self.connection, self.name)
        elif wire.release is not None:
            send(self.connection, wire.release.format(self.name))

    def vanish(self, *, kept: bool) -> None:
        """Nothing to send: the outer statement ends it on the server."""

    def merge(self, outer: Any) -> None:
        """A connection has no objects."""


class PlainMark:
    """A plain ``Connection.begin_nested()`` found between our levels."""

    __slots__ = ("nested",)

    ours = False

    def __init__(self, nested: NestedTransaction) -> None:
        self.nested = nested

    def flush(self) -> None:
        """Nothing is pending on a connection."""

    def rollback(self, *, keep: bool) -> None:
        self.nested.rollback()

    def release(self) -> None:
        self.nested.commit()

    def vanish(self, *, kept: bool) -> None:
        if kept:
            self.nested.commit()
        else:
            self.nested.rollback()

    def merge(self, outer: Any) -> None:
        """A connection has no objects."""


class SessionMark:
    """A nested transaction of a session, ours or a plain ``Session.begin_nested()``."""

    __slots__ = ("names", "nested", "ours", "refused", "session", "stack", "touched")

    def __init__(self, stack: Stack, session: Session, nested: SessionTransaction | None = None) -> None:
        self.stack = stack
        self.session = session
        self.touched = Touched()
        self.names: list[tuple[Connection, str]] = []
        self.ours = nested is None
        self.refused = False
        if nested is None:
            self._begin()
        else:
            self.nested = nested

    def _begin(self) -> None:
        """Begin and send SAVEPOINT at once: SQLAlchemy would wait for the first use by the session itself.

        A connection fetched earlier would work outside of the savepoint until then.
        """
        root = self.stack.root
        connections = root.connections if root.session is self.session else session_connections(self.session)
        self.nested = self.session.begin_nested()
        try:
            for connection in connections:
                self.session.connection(bind_arguments={"bind": connection.engine})
                self.joined(connection)
        except BaseException:
            # on a session's first savepoint a refusal by the second of two databases leaves one on the first
            if self.nested.is_active:
                self.nested.rollback()
            raise

    def joined(self, connection: Connection) -> None:
        """SAVEPOINT went out on this connection, under the name that the guard has seen."""
        name = self.stack.sent.pop(id(connection), None)
        if name is not None:
            self.names.append((connection, name))

    def flush(self) -> None:
        self.session.flush()

    def rollback(self, *, keep: bool) -> None:
        spelled = [(self.stack.row_of(connection), connection, name) for connection, name in self.names]
        known = spelled and all(row.wire is not None for row, _, _ in spelled)
        if known and self.touched.is_light(self.session, self.nested):
            # Note [Keeping the nested transaction]
            for row, connection, name in spelled:
                send_rollback_to(row, connection, name)
            # the nested transaction that stays would still expire what it has seen written, when a flush fails
            self._restore(self.touched.shown)
            if not keep:
                self.nested.commit()
            return
        if self._is_current():
            if not self.nested.is_active:
                forget_changes(self.session)
            self.nested.rollback()
        self._forget_on_server()
        self._restore()
        if keep:
            self.names = []
            self._begin()

    def _is_current(self) -> bool:
        return self.session.get_nested_transaction() is self.nested

    def _forget_on_server(self) -> None:
        """SQLAlchemy leaves a rolled-back savepoint on the server, where they pile up."""
        for connection, name in self.names:
            row = self.stack.row_of(connection)
            if row.wire is None or row.wire.release is None or connection.invalidated:
                continue
            if self.refused:
                send_undo(row, connection, name)
            else:
                send(connection, row.wire.release.format(name))
        self.refused = False

    def _restore(self, shown: Shown | None = None) -> None:
        restore(self.session, self.touched)
        self.touched = Touched(shown)

    def release(self) -> None:
        try:
            self.nested.commit()
        except DBAPIError as error:
            # the server has kept it, but SQLAlchemy's nested transaction takes only a rollback now, and sends none
            self.refused = True
            self.stack.fail(error, "RELEASE was refused")
            raise

    def vanish(self, *, kept: bool) -> None:
        if kept:
            self.release()
        elif self._is_current():
            if not self.nested.is_active:
                forget_changes(self.session)
            self.nested.rollback()

    def merge(self, outer: Any) -> None:
        if isinstance(outer, SessionMark) and outer.session is self.session:
            outer.touched.update(self.touched)


# Note [Keeping the nested transaction]
# A rolled-back nested transaction of SQLAlchemy is over, and its rollback walks every object of the session. Where
# nothing was added, deleted, re-keyed or changed in bulk inside, all that its rollback would do to objects is to
# expire those that were written, which we know: so ROLLBACK TO is sent by us, the nested transaction stays, and
# ending it is its commit(), which sends RELEASE. New objects need SQLAlchemy's own rollback: its record of them would
# otherwise tear an object out of another session that it was added to meanwhile. The same goes where somebody listens
# to the session's rollback events, which only SQLAlchemy's own rollback fires.
