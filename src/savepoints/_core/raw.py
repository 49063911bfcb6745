"""Work on the driver's own connection, past SQLAlchemy: refused and noted as a statement of SQLAlchemy's would be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import PoolProxiedConnection
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from savepoints._core.dialects import driver_connection
from savepoints._core.guards import asked_aftermath, refuse_statement
from savepoints._core.stack import Stack, stack_of
from savepoints._databases import Aftermath, classifier


@contextmanager
def driver_work(connection: Connection, what: str) -> Iterator[PoolProxiedConnection]:
    """Hand out the driver's connection, whose errors SQLAlchemy, and so the stack, would not see.

    Args:
        connection: One that belongs to a transaction of ours.
        what: What is done, in a few words for messages, without values.

    Raises:
        TransactionLost, TransactionFailed: Before anything is sent.
        sqlalchemy.exc.DBAPIError: From the driver's or the server's error; the state is what that left of the
            transaction. What is no database error passes as it is.
    """
    stack = stack_of(connection)
    assert stack is not None
    refuse_statement(stack)
    proxy = connection.connection
    try:
        yield proxy
    except Exception as error:
        _note(stack, connection, proxy, error, what)
        told = _as_sqlalchemy(stack, connection, error, what)
        if told is error:
            raise
        raise told from error
    except BaseException as error:
        # broken off while an answer was on its way: nobody can use this connection any more, as SQLAlchemy does it
        connection.invalidate(error)
        stack.lose(error, f"{what} was broken off")
        raise


def _note(stack: Stack, connection: Connection, proxy: PoolProxiedConnection, error: Exception, what: str) -> None:
    row = stack.row_of(connection)
    database_error = isinstance(error, connection.dialect.loaded_dbapi.Error)
    disconnect = database_error and connection.dialect.is_disconnect(cast(Any, error), proxy, None)
    told = f"{what} failed ({classifier.in_words(error, row, disconnect=disconnect)})"
    if disconnect:
        connection.invalidate(error)
        stack.lose(error, told)
        return
    aftermath = row.aftermath(driver_connection(connection.dialect, proxy), error)
    if aftermath is None and database_error:
        aftermath = asked_aftermath(connection, row)
    if aftermath is Aftermath.LOST:
        stack.lose(error, told)
    elif aftermath is Aftermath.FAILED:
        stack.sync()
        stack.fail(error, told)


def _as_sqlalchemy(stack: Stack, connection: Connection, error: Exception, what: str) -> BaseException:
    """As SQLAlchemy raises the errors of its statements; the parameters are left out, since they are row values."""
    base = connection.dialect.loaded_dbapi.Error
    if isinstance(error, base):
        return DBAPIError.instance(what, None, error, base, hide_parameters=True, dialect=connection.dialect)
    if stack.row_of(connection).code(error) is not None:  # asyncpg's own, which SQLAlchemy's adapter has not seen
        return DBAPIError(what, None, error, hide_parameters=True)
    return error
