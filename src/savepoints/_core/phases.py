"""Two-phase transactions where the database has statements of its own for their beginning and end (XA).

SQLAlchemy sends them as ordinary statements, and takes each for one that the server accepts in any state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, TwoPhaseTransaction
from sqlalchemy.exc import DBAPIError

from savepoints._core import options, past
from savepoints._databases import Capabilities


def answers(row: Capabilities, dialect: Any) -> Mapping[str, Any]:
    """The methods of a dialect that are answered from here."""
    if not row.undo_unprepared:
        return {}
    return {
        "do_begin_twophase": partial(_begin, row, dialect.do_begin_twophase),
        "do_rollback_twophase": partial(_roll_back, row, dialect.do_rollback_twophase),
    }


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
    if is_prepared:
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
