"""SQLite through sqlite3 and aiosqlite.

Sources: "Savepoints", "Transactions" and "Result Codes" of the SQLite manual; "Transaction control" of Python's
``sqlite3``. The driver sends BEGIN only before INSERT, UPDATE, DELETE and REPLACE, so we send it: an outermost
SAVEPOINT would open the transaction itself, and its RELEASE would commit.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from savepoints._databases.as_text import HARMLESS, effect
from savepoints._databases.capabilities import (
    Aftermath,
    Capabilities,
    Fault,
    Kind,
    RetryFrom,
    Rule,
    Rules,
    Wire,
    rule_of,
)

_AGAIN, _SAME = RetryFrom.TRANSACTION, RetryFrom.STATEMENT

#: By the name of the extended result code or of the primary one. "Result and Error Codes" of the manual; what becomes
#: of the transaction: measured.
ERRORS: Rules = {
    "SQLITE_BUSY": Rule(Kind.BUSY, _SAME),
    "SQLITE_BUSY_SNAPSHOT": Rule(Kind.BUSY_SNAPSHOT, _AGAIN),
    "SQLITE_LOCKED": Rule(Kind.BUSY, _SAME),
    "SQLITE_FULL": Rule(Kind.FULL, _AGAIN, "make space"),
    "SQLITE_INTERRUPT": Rule(Kind.INTERRUPTED, _AGAIN, "see who interrupted it"),
    "SQLITE_CONSTRAINT": Rule(Kind.CONSTRAINT),
    "SQLITE_CONSTRAINT_CHECK": Rule(Kind.CHECK),
    "SQLITE_CONSTRAINT_FOREIGNKEY": Rule(Kind.FOREIGN_KEY),
    "SQLITE_CONSTRAINT_NOTNULL": Rule(Kind.NOT_NULL),
    "SQLITE_CONSTRAINT_PRIMARYKEY": Rule(Kind.UNIQUE),
    "SQLITE_CONSTRAINT_ROWID": Rule(Kind.UNIQUE),
    "SQLITE_CONSTRAINT_UNIQUE": Rule(Kind.UNIQUE),
    "SQLITE_MISMATCH": Rule(Kind.DATA),
    "SQLITE_TOOBIG": Rule(Kind.DATA),
    "SQLITE_READONLY": Rule(Kind.PROGRAMMING),
    "SQLITE_ERROR": Rule(Kind.PROGRAMMING),
    "SQLITE_CANTOPEN": Rule(Kind.PROGRAMMING),
}

_NAMED = re.compile(r"^(?P<kind>UNIQUE|NOT NULL|CHECK) constraint failed: (?P<name>[^,]+)$")


#: What sqlite3 and aiosqlite raise when a closed connection is asked for something.
_CLOSED = (sqlite3.ProgrammingError, ValueError)
_OPEN, _LOST = Aftermath.OPEN, Aftermath.LOST  # members of an enumeration are looked up slowly


_FAULTS = {
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: Fault.NOT_NULL,
    sqlite3.SQLITE_CONSTRAINT_CHECK: Fault.CHECK,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: Fault.FOREIGN_KEY,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: Fault.UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: Fault.UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_ROWID: Fault.UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: Fault.TRIGGER,
    3091: Fault.TYPE,  # SQLITE_CONSTRAINT_DATATYPE, of STRICT tables: Python 3.11 has no name for it
    sqlite3.SQLITE_MISMATCH: Fault.TYPE,
    sqlite3.SQLITE_TOOBIG: Fault.LENGTH,
}


def standing(driver_connection: Any) -> Aftermath:
    """What the library itself says: both drivers ask ``sqlite3_get_autocommit``. There is nothing in between."""
    try:
        return _OPEN if driver_connection.in_transaction else _LOST
    except _CLOSED:
        return _LOST


def closed(driver_connection: Any) -> bool:
    """Only by asking it for something."""
    try:
        return bool(driver_connection.total_changes < 0)
    except _CLOSED:
        return True


def aftermath(driver_connection: Any, error: BaseException) -> Aftermath:
    """Most errors undo their statement alone; FULL, INTERRUPT in a write, IOERR and OR ROLLBACK end everything."""
    return standing(driver_connection)


def _result_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and error.__cause__ is not None:
        return _result_code(error.__cause__)
    return code


def kind(error: BaseException) -> Kind:
    """By the extended result code."""
    told = code(error)
    if told == "SQLITE_ERROR" and "no such savepoint" in str(error):
        return Kind.CONSEQUENCE
    return rule_of(told, ERRORS).kind


#: What sqlite3 makes of a primary result code (``get_exception_class`` of its source), where no OperationalError.
_CLASSES = {
    "SQLITE_CONSTRAINT": sqlite3.IntegrityError,
    "SQLITE_MISMATCH": sqlite3.IntegrityError,
    "SQLITE_TOOBIG": sqlite3.DataError,
}


def provoke(cursor: Any, code: str) -> None:
    """No statement raises a code of choice: the error is made here, and the transaction ended where SQLite would."""
    if code in ("SQLITE_FULL", "SQLITE_INTERRUPT"):
        cursor.execute("ROLLBACK")
    primary = next((name for name in _CLASSES if code.startswith(name)), "")
    error = _CLASSES.get(primary, sqlite3.OperationalError)("provoked by a test")
    error.sqlite_errorcode = getattr(sqlite3, code)
    error.sqlite_errorname = code
    raise error


def named(error: BaseException) -> tuple[str | None, str | None]:
    """Only the text tells: the name of a CHECK, or the one column of a UNIQUE or NOT NULL."""
    found = _NAMED.match(str(error))
    if found is None:
        return None, None
    return (found["name"], None) if found["kind"] == "CHECK" else (None, found["name"].rpartition(".")[2])


def fault(error: BaseException) -> Fault | None:
    """By the extended result code; what cannot be bound at all has none."""
    if isinstance(error, UnicodeEncodeError):
        return Fault.ENCODING
    if isinstance(error, OverflowError):  # an integer of more than 64 bits
        return Fault.TYPE
    code = _result_code(error)
    if code is None:  # of a value that the driver cannot bind
        return Fault.TYPE if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)) else None
    if code in _FAULTS:
        return _FAULTS[code]
    return Fault.OTHER if code & 0xFF == sqlite3.SQLITE_CONSTRAINT else None


def code(error: BaseException) -> str | None:
    """The name of the extended result code, as SQLITE_CONSTRAINT_UNIQUE."""
    name = getattr(error, "sqlite_errorname", None)
    if name == "unknown":  # newer than this Python knows
        return None
    if name is None and error.__cause__ is not None:
        return code(error.__cause__)
    return name


def _autocommit(driver_connection: Any) -> Any:
    """The driver's setting of that name (Python 3.12), a bool or its sign for the older ways."""
    try:
        raw = getattr(driver_connection, "_conn", driver_connection)
        return getattr(raw, "autocommit", None)
    except _CLOSED:  # also where it is aiosqlite's, which belongs to its thread, and is never set so by SQLAlchemy
        return None


def driver_autocommit(driver_connection: Any) -> bool:
    """``autocommit=True`` makes commit() and rollback() of the driver do nothing."""
    return _autocommit(driver_connection) is True


def rollback_refused(driver_connection: Any) -> bool:
    """``autocommit=False`` begins at connect, COMMIT and ROLLBACK only, and SQLite may have ended that transaction."""
    return standing(driver_connection) is _LOST and _autocommit(driver_connection) is False


_SNAPSHOT = "a read-only transaction sees one snapshot anyway: deferrable asks for nothing more"
_PRAGMAS = "settings that are stored in the file, as PRAGMA user_version, are data, and undone"
_LATE_CLOSE = (
    "a statement that was cancelled keeps its lock until the error is freed: its traceback holds the cursor, and the "
    "library closes a connection only after its last cursor"
)


def _row(driver: str, *notes: str) -> Capabilities:
    return Capabilities(
        database="sqlite",
        driver=driver,
        proven=True,
        wire=Wire(),
        releases=True,
        transactional_ddl="yes",
        failed_statement="undone alone",
        sequences="reused",
        settings="kept",
        aftermath=aftermath,
        kind=kind,
        code=code,
        errors=ERRORS,
        raised_by=("sqlite3",),
        named=named,
        provoke=provoke,
        fault=fault,
        zones=False,
        nans=False,
        rollback_refused=rollback_refused,
        driver_autocommit=driver_autocommit,
        standing=standing,
        closed=closed,
        effect=effect,
        harmless=HARMLESS,
        two_phase="SQLite has no PREPARE: its COMMIT is one step",
        begin="BEGIN",
        begin_immediate="BEGIN IMMEDIATE",
        restart="ROLLBACK",
        read_only_on="PRAGMA query_only = 1",
        read_only_off="PRAGMA query_only = 0",
        enforce="PRAGMA foreign_keys = ON",
        deferrable={},
        notes=(_SNAPSHOT, _PRAGMAS, *notes),
    )


ROWS = (_row("pysqlite"), _row("aiosqlite", _LATE_CLOSE))
