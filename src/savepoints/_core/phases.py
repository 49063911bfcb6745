"""Two-phase transactions: what is decided stays so, and statements that the database has of its own for them (XA).

SQLAlchemy sends these as ordinary statements, and takes each for one that the server accepts in any state. See Note
[What is decided].
"""

# Note [What is decided]
# Once all have prepared and the first was told to commit, the transaction is committed, whatever becomes of that
# COMMIT: each of them has promised to take it. SQLAlchemy would roll back those that are still prepared, and so store a
# half for good. They are committed instead. What gives no answer is stored, or is still prepared and can be committed
# by its name.

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, TwoPhaseTransaction
from sqlalchemy.exc import DBAPIError

from savepoints._core import options, past
from savepoints._core.stack import stack_of
from savepoints._databases import Capabilities


def answers(row: Capabilities, dialect: Any) -> Mapping[str, Any]:
    """The methods of a dialect that are answered from here."""
    ends = {"do_rollback_twophase": partial(_roll_back, row, dialect.do_rollback_twophase)}
    return ends | (
        {"do_begin_twophase": partial(_begin, row, dialect.do_begin_twophase)} if row.undo_unprepared else {}
    )


def _begin(row: Capabilities, begin: Callable[[Connection, Any], None], connection: Connection, xid: Any) -> None:
    try:
        begin(connection, xid)
    except DBAPIError as error:
        reason = None if error.orig is None else row.two_phase_refused(error.orig)
        if reason is None:
            raise
        raise options.single_phase(row, reason) from error


def _roll_back(
    row: Capabilities,
    proceed: Callable[..., None],
    connection: Connection,
    xid: Any,
    is_prepared: bool = True,
    recover: bool = False,
) -> None:
    """Also after the server has ended it, and where it was to be prepared and a part of that was refused."""
    stack = stack_of(connection)
    if is_prepared and stack is not None and stack.decided:
        connection.dialect.do_commit_twophase(connection, xid, is_prepared, recover)
        return
    if is_prepared or not row.undo_unprepared:
        proceed(connection, xid, is_prepared, recover)
        return
    dialect, dbapi_connection = connection.dialect, connection.connection
    *first, last = row.undo_unprepared
    for statement in first:
        with suppress(dialect.loaded_dbapi.Error):  # it is past this step: the last one tells whether all is well
            past.send(dialect, dbapi_connection, statement, (xid,))
    past.send(dialect, dbapi_connection, last, (xid,))
    past.warn_leftovers(dialect, row, dbapi_connection)


def roll_back_driver(connection: Connection) -> None:
    """Send what rolls back the transaction of a connection, without telling SQLAlchemy."""
    transaction = connection.get_transaction()
    if isinstance(transaction, TwoPhaseTransaction):
        connection.dialect.do_rollback_twophase(connection, transaction.xid, is_prepared=False)
    else:
        connection.dialect.do_rollback(connection.connection)
