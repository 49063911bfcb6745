"""Statements sent by the driver's cursor, past SQLAlchemy, which takes none in the middle of its own work."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from sqlalchemy.engine import Dialect

from savepoints._core.dialects import driver_connection
from savepoints._databases import Capabilities
from savepoints._places import caller
from savepoints.errors import NotRolledBack

_logger = logging.getLogger("savepoints")


def send(dialect: Dialect, dbapi_connection: Any, statement: str, parameters: tuple[Any, ...] = ()) -> None:
    """Send a statement that answers nothing."""
    cursor = dbapi_connection.cursor()
    try:
        dialect.do_execute(cursor, statement, parameters)
    finally:
        cursor.close()


def ask(dialect: Dialect, dbapi_connection: Any, question: str) -> list[tuple[Any, ...]]:
    """The rows of the answer."""
    cursor = dbapi_connection.cursor()
    try:
        dialect.do_execute(cursor, question, ())
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


def roll_back(dialect: Dialect, row: Capabilities, dbapi_connection: Any) -> None:
    """ROLLBACK of all, by a statement: the driver's own method does not tell whether there were warnings."""
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("ROLLBACK")
    finally:
        cursor.close()
    warn_leftovers(dialect, row, dbapi_connection)


def warn_leftovers(dialect: Dialect, row: Capabilities, dbapi_connection: Any) -> None:
    """Tell of rows that the rollback just answered has left, in tables without transactions."""
    if row.warnings is None or not row.warned(driver_connection(dialect, dbapi_connection)):
        return
    if not any(warning[1] == row.not_rolled_back for warning in ask(dialect, dbapi_connection, row.warnings)):
        return
    text = "a rollback has left rows in tables whose engine has no transactions"
    try:
        warnings.warn_explicit(f"{text}; move the tables to one that has", NotRolledBack, *caller())
    except NotRolledBack as warning:  # in the middle of a rollback no filter may make it an error
        _logger.warning("%s", warning)
