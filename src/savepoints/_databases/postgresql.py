"""PostgreSQL through psycopg, psycopg2 and asyncpg.

Sources: "SAVEPOINT" and "PostgreSQL Error Codes" of the manual. After an error of the *server* the transaction takes
only a rollback; an error that the driver makes by itself (encoding, wrong number of parameters) leaves it usable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from savepoints._databases.as_text import HARMLESS, effect
from savepoints._databases.capabilities import (
    Aftermath,
    Capabilities,
    Fault,
    Kind,
    Outcome,
    RetryFrom,
    Rule,
    Rules,
    Wire,
    rule_of,
)

_AGAIN, _PART = RetryFrom.TRANSACTION, RetryFrom.SAVEPOINT

#: By SQLSTATE or its class. "PostgreSQL Error Codes" of the manual; how far back, and what heals: measured.
ERRORS: Rules = {
    "08": Rule(Kind.DISCONNECT, _AGAIN),
    "08007": Rule(Kind.UNKNOWN_COMMIT),
    "0A": Rule(Kind.PROGRAMMING),
    "22": Rule(Kind.DATA),
    "23": Rule(Kind.CONSTRAINT),
    "23502": Rule(Kind.NOT_NULL),
    "23503": Rule(Kind.FOREIGN_KEY),
    "23505": Rule(Kind.UNIQUE),
    "23514": Rule(Kind.CHECK),
    "23P01": Rule(Kind.EXCLUSION),
    "25006": Rule(Kind.PROGRAMMING),
    "25P02": Rule(Kind.CONSEQUENCE),
    "25P03": Rule(Kind.DISCONNECT, _AGAIN),
    "25P04": Rule(Kind.DISCONNECT, _AGAIN),
    "28": Rule(Kind.PROGRAMMING),
    "3B001": Rule(Kind.CONSEQUENCE),
    "3D": Rule(Kind.PROGRAMMING),
    "40001": Rule(Kind.SERIALIZATION, _AGAIN),
    "40003": Rule(Kind.UNKNOWN_COMMIT),
    "40P01": Rule(Kind.DEADLOCK, _PART),
    "42": Rule(Kind.PROGRAMMING),
    "53100": Rule(Kind.FULL, _AGAIN, "make space"),
    "53200": Rule(Kind.UNAVAILABLE, _AGAIN),
    "53300": Rule(Kind.UNAVAILABLE, _AGAIN),
    "55P03": Rule(Kind.LOCK_TIMEOUT, _PART),
    "57014": Rule(Kind.STATEMENT_TIMEOUT, _PART),
    "57P01": Rule(Kind.DISCONNECT, _AGAIN),
    "57P02": Rule(Kind.DISCONNECT, _AGAIN),
    "57P03": Rule(Kind.UNAVAILABLE, _AGAIN),
    "57P05": Rule(Kind.DISCONNECT, _AGAIN),
}

# Note [Numbers after a crash]
# A server that crashes forgets the number of a transaction of which it had flushed nothing, and gives it again: then
# `pg_xact_status` tells of somebody else's transaction. So the server's life is noted with the number: when it started,
# and when its statistics began, which a recovery resets even where the postmaster lives on. In another life "committed"
# may be another's, and is no answer; all else means that ours was never stored, for what was flushed keeps its number.
_LIFE = "CAST(ROW(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()) AS text)"
_NUMBER = "CAST(CAST(:number AS text) AS xid8)"

# "Transaction ID and Snapshot Information Functions" of the manual; by whether it is the same life, and the status.
# NULL: too old, the server has forgotten it. "ahead": not completed, and to ask for it may be an error.
_OUTCOMES: dict[tuple[bool, str | None], Outcome] = {
    (True, "committed"): Outcome.COMMITTED,
    (True, "aborted"): Outcome.ROLLED_BACK,
    (True, "in progress"): Outcome.IN_PROGRESS,
    (True, "ahead"): Outcome.IN_PROGRESS,
    (False, "aborted"): Outcome.ROLLED_BACK,
    (False, "in progress"): Outcome.ROLLED_BACK,
    (False, "ahead"): Outcome.ROLLED_BACK,
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

# libpq's PQtransactionStatus, which both psycopgs hand through
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR, _NO_ANSWER = range(5)


def code(error: BaseException) -> str | None:
    """SQLSTATE, where the server gave one (a killed server gives none)."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg2 calls it pgcode
    return state if isinstance(state, str) else None


def kind(error: BaseException) -> Kind:
    """By SQLSTATE."""
    return rule_of(code(error), ERRORS).kind


#: What libpq hands on as text alone: no SQLSTATE comes with a connection that is refused. Where the server speaks
#: another language, each refusal counts as one that may pass.
_REFUSED = {
    "too many": "53300",
    "remaining connection slots are reserved": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
    "in recovery mode": "57P03",
    "accepting connections": "57P03",
    "FATAL": "28000",
    "no password supplied": "28000",
    "does not support SSL": "28000",
}


def _refused(error: BaseException) -> str:
    """What a refused connection means, as SQLSTATE: that of the server, else "unable to connect"."""
    text = str(error)
    return code(error) or next((meant for words, meant in _REFUSED.items() if words in text), "08001")


def provoke(cursor: Any, code: str) -> None:
    """The server itself raises it, so that all that follows is as after the real one."""
    if code == "57P01":
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'provoked by a test' USING ERRCODE = '{code:0<5}'; END $$")


def _named(told: Any) -> tuple[str | None, str | None]:
    return getattr(told, "constraint_name", None), getattr(told, "column_name", None)


def _raised_in(error: BaseException) -> str | None:
    """The function of the server's own code: unlike the message, it is not translated."""
    told = getattr(error, "diag", None)
    if told is not None:
        return told.source_function  # type: ignore[no-any-return]
    return getattr(error.__cause__, "server_source_function", None)


def fault(error: BaseException) -> Fault | None:
    """By SQLSTATE: a code of one's own, or one of PL/pgSQL's, is what a trigger raised.

    A row that a policy of row level security refuses has the code of a missing right; where it was raised, tells.
    """
    state = code(error)
    if state is None:
        return None
    if state == "42501" and _raised_in(error) == "ExecWithCheckOptions":
        return Fault.CHECK
    if state in _FAULTS:
        return _FAULTS[state]
    if state.startswith(_NOT_THE_ROWS):
        return None
    return Fault.TYPE if state.startswith("22") else Fault.TRIGGER


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


def _takes_two(driver_connection: Any) -> bool:
    """psycopg: but for statements that it prepares at once, and in a pipeline; both take one at a time."""
    return driver_connection.prepare_threshold != 0 and not driver_connection.pgconn.pipeline_status


def _autocommit(driver_connection: Any) -> bool:
    """Both psycopgs: also where the driver was asked for it past SQLAlchemy."""
    return bool(driver_connection.autocommit)


def _closed(driver_connection: Any) -> bool:
    """Both psycopgs: 0, or a number where it is closed or broken."""
    return bool(driver_connection.closed)


def _asyncpg_closed(driver_connection: Any) -> bool:
    return bool(driver_connection.is_closed())


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
    named: Callable[[BaseException], tuple[str | None, str | None]],
    closed: Callable[[Any], bool] = _closed,
    rollback_left_out: bool = False,
    driver_autocommit: Callable[[Any], bool | None] = lambda driver_connection: None,
    takes_two: Callable[[Any], bool | None] = lambda driver_connection: False,
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
        refused=_refused,
        errors=ERRORS,
        raised_by=(driver,),
        named=named,
        provoke=provoke,
        fault=fault,
        standing=standing,
        closed=closed,
        effect=effect,
        harmless=HARMLESS,
        rollback_left_out=rollback_left_out,
        two_phase=None,
        commit_number=f"SELECT CAST(pg_current_xact_id_if_assigned() AS text), {_LIFE}",
        commit_status=f"SELECT CASE WHEN {_NUMBER} >= pg_snapshot_xmax(pg_current_snapshot()) THEN 'ahead'"
        f" ELSE pg_xact_status({_NUMBER}) END, {_LIFE}",
        commit_answers=_OUTCOMES,
        driver_autocommit=driver_autocommit,
        takes_two=takes_two,
        read_only={"postgresql_readonly": True},
        deferrable={"postgresql_deferrable": True},
        notes=("a few statements refuse to run in a transaction, among them VACUUM and CREATE INDEX CONCURRENTLY",),
    )


ROWS = (
    _row(
        "psycopg",
        _psycopg_aftermath,
        _psycopg_standing,
        named=lambda error: _named(getattr(error, "diag", None)),
        driver_autocommit=_autocommit,
        takes_two=_takes_two,
    ),
    replace(
        _row(
            "psycopg2",
            _psycopg2_aftermath,
            _psycopg2_standing,
            named=lambda error: _named(getattr(error, "diag", None)),
            driver_autocommit=_autocommit,
            takes_two=lambda driver_connection: True,
        ),
        still_connected=_cursor_closed,
    ),
    _row(
        "asyncpg",
        _asyncpg_aftermath,
        _asyncpg_standing,
        named=lambda error: _named(error.__cause__ or error),
        closed=_asyncpg_closed,
        rollback_left_out=True,
    ),
)
