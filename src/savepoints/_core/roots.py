"""The two kinds of outermost unit: a session's transaction and a connection's."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.engine import Connection, TwoPhaseTransaction
from sqlalchemy.orm import Session

from savepoints import _compat
from savepoints._core import refusals
from savepoints._core.dialects import driver_connection
from savepoints._core.stack import Stack
from savepoints._databases import Aftermath, Capabilities, capabilities


class Root(Protocol):
    """What the core asks of either kind."""

    connections: list[Connection]
    session: Session | None

    def flush(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class ConnectionRoot:
    """The transaction of a plain Connection."""

    __slots__ = ("connections", "session")

    def __init__(self, connection: Connection) -> None:
        self.connections = [connection]
        self.session: Session | None = None

    def flush(self) -> None:
        """Nothing is pending on a connection."""

    def commit(self) -> None:
        transaction = self.connections[0].get_transaction()
        if isinstance(transaction, TwoPhaseTransaction):
            transaction.prepare()
        self.connections[0].commit()

    def rollback(self) -> None:
        self.connections[0].rollback()

    def close(self) -> None:
        """Nothing stays open on a connection after its COMMIT."""


class SessionRoot:
    """The transaction of a Session, on as many connections as it uses."""

    __slots__ = ("_session", "connections", "session")

    def __init__(self, session: Session) -> None:
        self.session: Session | None = session
        self._session = session
        self.connections: list[Connection] = []

    def flush(self) -> None:
        nested = self._session.get_nested_transaction()
        if nested is None or nested.is_active:  # what is pending in one that a flush has undone goes with it
            self._session.flush()

    def commit(self) -> None:
        self._session.commit()

    def rollback(self) -> None:
        self._session.rollback()

    def close(self) -> None:
        """A listener that fails after the COMMIT leaves SQLAlchemy's transaction in a state that only a close ends."""
        transaction = self._session.get_transaction()
        if transaction is not None:
            transaction.close()
            self._session.expire_all()


def in_autocommit(connection: Connection, row: Capabilities) -> bool:
    """Whether the connection, its engine or its driver commits each statement by itself."""
    level = connection.get_execution_options().get("isolation_level")
    if level is None:
        level = _compat.isolation_level_on_connect(connection.dialect)
    return level == "AUTOCOMMIT" or bool(
        row.driver_autocommit(driver_connection(connection.dialect, connection.connection))
    )


def refuse_autocommit(connection: Connection, row: Capabilities) -> None:
    """A transaction is promised to be undone as a whole: not on a connection that commits each statement.

    Raises:
        NotSupported: The connection, its engine or its driver is in autocommit mode.
    """
    if in_autocommit(connection, row):
        raise refusals.autocommit()


def begin_driver(stack: Stack, connection: Connection) -> None:
    """Make sure that the driver has a transaction open, as it was asked to be: see Note [Who sends BEGIN]."""
    row, options = capabilities(connection.dialect), stack.options
    if id(connection) in stack.begun:
        return
    if row.begin is None:
        _begun_by_driver(stack, connection, row)
        return
    driver = driver_connection(connection.dialect, connection.connection)
    running = row.standing(driver) is Aftermath.OPEN
    if options.immediate and row.begin_immediate is not None:
        if running and row.restart is not None:
            connection.exec_driver_sql(row.restart)
        connection.exec_driver_sql(row.begin_immediate)
    elif not running:
        connection.exec_driver_sql(row.begin)
    stack.begun[id(connection)] = driver
    if options.read_only and row.read_only_on is not None:
        connection.exec_driver_sql(row.read_only_on)
        stack.undo = row.read_only_off


def _begun_by_driver(stack: Stack, connection: Connection, row: Capabilities) -> None:
    if stack.options.read_only and row.begin_read_only is not None:
        connection.exec_driver_sql(row.begin_read_only)
    if row.commits_by_ddl:  # a transaction is always open: from here on nothing may commit it by itself
        stack.begun[id(connection)] = driver_connection(connection.dialect, connection.connection)


# Note [Who sends BEGIN]
# Python's sqlite3 sends BEGIN by itself only before DML (its legacy mode, the default), so that an outermost SAVEPOINT
# would be the transaction and its RELEASE would commit (sqlalchemy #8795). We ask the driver whether a transaction is
# open and send BEGIN where it is not: with `isolation_level=None` that is always so, with `autocommit=False`
# (Python 3.12) the driver has begun already, and so it has where the application sends BEGIN from an event.
