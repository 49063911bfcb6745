"""PostgreSQL through psycopg, psycopg2 and asyncpg.

Sources: "SAVEPOINT" and "PostgreSQL Error Codes" of the manual. After an error of the *server* the transaction takes
only a rollback; an error that the driver makes by itself (encoding, wrong number of parameters) leaves it usable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from savepoints._databases.capabilities import Aftermath, Capabilities, Kind, Wire

_KINDS = {
    "40001": Kind.SERIALIZATION,
    "40P01": Kind.DEADLOCK,
    "55P03": Kind.LOCK_TIMEOUT,
    "57014": Kind.STATEMENT_TIMEOUT,
    "57P01": Kind.DISCONNECT,
    "57P02": Kind.DISCONNECT,
    "57P03": Kind.DISCONNECT,
    "25P03": Kind.DISCONNECT,
    "25P04": Kind.DISCONNECT,
    "53100": Kind.FULL,
    "25P02": Kind.CONSEQUENCE,
    "3B001": Kind.CONSEQUENCE,
}

# libpq's PQtransactionStatus, which both psycopgs hand through
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _NO_ANSWER = range(5)


def code(error: BaseException) -> str | None:
    """SQLSTATE, where the server gave one (a killed server gives none)."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg2 calls it pgcode
    return state if isinstance(state, str) else None


def kind(error: BaseException) -> Kind:
    """By SQLSTATE; classes 08 and 23 as a whole."""
    state = code(error) or ""
    if state.startswith("08"):
        return Kind.DISCONNECT
    if state.startswith("23"):
        return Kind.CONSTRAINT
    return _KINDS.get(state, Kind.OTHER)


def _libpq_standing(status: int) -> Aftermath:
    """libpq keeps the truth: the server tells the transaction's status with each answer."""
    if status == _IN_ERROR:
        return Aftermath.FAILED
    return Aftermath.OPEN if status in (_ACTIVE, _IN_TRANSACTION) else Aftermath.LOST


def _psycopg_standing(driver_connection: Any) -> Aftermath:
    return _libpq_standing(driver_connection.pgconn.transaction_status)


def _psycopg_aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    return _psycopg_standing(driver_connection)


def _psycopg2_standing(driver_connection: Any) -> Aftermath:
    return _libpq_standing(driver_connection.info.transaction_status)


def _psycopg2_aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    return _psycopg2_standing(driver_connection)


def _cursor_closed(driver_connection: Any, error: BaseException) -> bool:
    """SQLAlchemy goes by the words "cursor already closed": a stream whose savepoint was rolled back says them, too."""
    return "cursor already closed" in str(error) and not driver_connection.closed


def _asyncpg_standing(driver_connection: Any) -> Aftermath | None:
    in_transaction = not driver_connection.is_closed() and driver_connection.is_in_transaction()
    return None if in_transaction else Aftermath.LOST


def _asyncpg_aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    """asyncpg does not tell a failed transaction from an open one, but only the server's errors have a severity."""
    if _asyncpg_standing(driver_connection) is Aftermath.LOST:
        return Aftermath.LOST
    source = error.__cause__ or error
    return Aftermath.FAILED if getattr(source, "severity", None) else Aftermath.OPEN


def _row(
    driver: str,
    aftermath: Callable[[Any, BaseException], Aftermath],
    standing: Callable[[Any], Aftermath | None],
    *,
    rollback_left_out: bool = False,
) -> Capabilities:
    return Capabilities(
        database="postgresql",
        driver=driver,
        proven=True,
        wire=Wire(),
        releases=True,
        transactional_ddl="yes",
        failed_statement="transaction failed",
        sequences="hole",
        settings="undone",
        aftermath=aftermath,
        kind=kind,
        code=code,
        standing=standing,
        rollback_left_out=rollback_left_out,
        read_only={"postgresql_readonly": True},
        deferrable={"postgresql_deferrable": True},
        notes=("a few statements refuse to run in a transaction, among them VACUUM and CREATE INDEX CONCURRENTLY",),
    )


ROWS = (
    _row("psycopg", _psycopg_aftermath, _psycopg_standing),
    replace(_row("psycopg2", _psycopg2_aftermath, _psycopg2_standing), still_connected=_cursor_closed),
    _row("asyncpg", _asyncpg_aftermath, _asyncpg_standing, rollback_left_out=True),
)
