"""PostgreSQL through psycopg and asyncpg.

Sources: "SAVEPOINT" and "PostgreSQL Error Codes" of the manual. After an error of the *server* the transaction takes
only a rollback; an error that the driver makes by itself (encoding, wrong number of parameters) leaves it usable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from savepoints._databases.capabilities import Aftermath, Capabilities, Fault, Kind, Wire

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

_FAULTS = {
    "22001": Fault.LENGTH,
    "22021": Fault.ENCODING,
    "22P04": Fault.STRUCTURE,
    "22P05": Fault.ENCODING,
    "23502": Fault.NOT_NULL,
    "23503": Fault.FOREIGN_KEY,
    "23505": Fault.UNIQUE,
    "23514": Fault.CHECK,
    "23P01": Fault.EXCLUSION,
    "428C9": Fault.GENERATED,
    "44000": Fault.VIEW_CHECK,
    "P0001": Fault.TRIGGER,
}

# Classes that no single row can be blamed for: connection, transaction state, rollback, savepoint, syntax and rights,
# resources, limits, object state, operator, system, configuration, internal. Triggers may raise any other.
_NOT_THE_ROWS = (
    "08",
    "0A",
    "25",
    "26",
    "28",
    "2D",
    "34",
    "3B",
    "3D",
    "3F",
    "40",
    "42",
    "53",
    "54",
    "55",
    "57",
    "58",
    "F0",
    "XX",
)

# libpq's PQtransactionStatus, which psycopg hands through
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _NO_ANSWER = range(5)


def code(error: BaseException) -> str | None:
    """SQLSTATE, where the server gave one (a killed server gives none)."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def kind(error: BaseException) -> Kind:
    """By SQLSTATE; classes 08 and 23 as a whole."""
    state = code(error) or ""
    if state.startswith("08"):
        return Kind.DISCONNECT
    if state.startswith("23"):
        return Kind.CONSTRAINT
    return _KINDS.get(state, Kind.OTHER)


def fault(error: BaseException) -> Fault | None:
    """By SQLSTATE: a code of one's own, or one of PL/pgSQL's, is what a trigger raised."""
    state = code(error)
    if state is None:
        return None
    if state in _FAULTS:
        return _FAULTS[state]
    if state.startswith(_NOT_THE_ROWS):
        return None
    return Fault.TYPE if state.startswith("22") else Fault.TRIGGER


def _psycopg_standing(driver_connection: Any) -> Aftermath:
    """libpq keeps the truth: the server tells the transaction's status with each answer."""
    status = driver_connection.pgconn.transaction_status
    if status == _IN_ERROR:
        return Aftermath.FAILED
    return Aftermath.OPEN if status in (_ACTIVE, _IN_TRANSACTION) else Aftermath.LOST


def _psycopg_aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    return _psycopg_standing(driver_connection)


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
        fault=fault,
        standing=standing,
        rollback_left_out=rollback_left_out,
        read_only={"postgresql_readonly": True},
        deferrable={"postgresql_deferrable": True},
        notes=("a few statements refuse to run in a transaction, among them VACUUM and CREATE INDEX CONCURRENTLY",),
    )


ROWS = (
    _row("psycopg", _psycopg_aftermath, _psycopg_standing),
    _row("asyncpg", _asyncpg_aftermath, _asyncpg_standing, rollback_left_out=True),
)
