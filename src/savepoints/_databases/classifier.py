"""What an error means: its kind, and whether and from where the work may be tried again.

By the type of the exception and the phase first, by the database's code second: a killed server gives no code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ssl import SSLError

from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from savepoints import _compat, errors
from savepoints._databases.capabilities import Capabilities, Kind, RetryFrom, Rule, rule_of

# What a driver's exception says where the database gave no code: names of PEP 249.
_CLASSES = {
    "IntegrityError": Kind.CONSTRAINT,
    "DataError": Kind.DATA,
    "ProgrammingError": Kind.PROGRAMMING,
    "InterfaceError": Kind.PROGRAMMING,
    "NotSupportedError": Kind.PROGRAMMING,
}

_LOST = Rule(Kind.DISCONNECT, RetryFrom.TRANSACTION)
_UNKNOWN = Rule(Kind.UNKNOWN_COMMIT)
_NOT_NOW = Rule(Kind.UNAVAILABLE, RetryFrom.TRANSACTION)


@dataclass(frozen=True, slots=True)
class Classification:
    """What an error means.

    Attributes:
        kind: What sort of error it is, as ``"deadlock"``.
        retry_from: How far back a retry must go: ``"the statement"``, ``"the savepoint"`` (roll back to it first),
            ``"the transaction"``, or ``"never"``.
        first: What has to be done before a retry, which waiting does not do; empty where waiting is enough.
        code: The database's own code, as text: SQLSTATE, or SQLite's name of the extended result code.
        constraint: The constraint that was violated, where the driver tells it.
        column: The column, where the driver tells it.
    """

    kind: Kind
    retry_from: RetryFrom = RetryFrom.NEVER
    first: str = ""
    code: str | None = None
    constraint: str | None = None
    column: str | None = None


def classify(error: BaseException, rows: Iterable[Capabilities]) -> Classification:
    """By the first error that is no consequence of another one."""
    if isinstance(error, errors.CommitOutcomeUnknown):
        return Classification(*_UNKNOWN)
    told = [found for one in _chain(error) if (found := _classified(one, rows)) is not None]
    first = next((found for found in told if found.kind is not Kind.CONSEQUENCE), None)
    if first is None:
        default = Kind.PROGRAMMING if isinstance(error, errors.SavepointsError) else Kind.OTHER
        return told[0] if told else Classification(default)
    return _of_lost(first) if isinstance(error, errors.TransactionLost) else first


def in_words(error: BaseException, row: Capabilities, *, disconnect: bool) -> str:
    """What a driver's error is called in a message, as "deadlock 40P01": the same as classifying it says."""
    code = row.code(error)
    kind = Kind.DISCONNECT if disconnect else classify(error, (row,)).kind
    return f"{kind}{'' if code is None else f' {code}'}"


def _of_lost(first: Classification) -> Classification:
    """The whole is gone, whatever the error would have left; and it is known that it was not stored."""
    if first.kind is Kind.UNKNOWN_COMMIT:
        return replace(first, kind=_LOST.kind, retry_from=_LOST.retry_from)
    return first if first.retry_from is RetryFrom.NEVER else replace(first, retry_from=RetryFrom.TRANSACTION)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error; and what it came of, where it only says that something before it went wrong."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        follows = isinstance(error, (*_STATES, DBAPIError, PendingRollbackError))
        error = (error.__cause__ or error.__context__) if follows else None


_STATES = (errors.TransactionLost, errors.TransactionFailed, errors.TransactionDoomed)


def _classified(error: BaseException, rows: Iterable[Capabilities]) -> Classification | None:
    """The error by itself; None where it is not one of a database."""
    if isinstance(error, errors.SavepointsError):  # what it came of is looked at by itself
        return None
    if isinstance(error, PendingRollbackError):
        return Classification(Kind.CONSEQUENCE)
    if isinstance(error, PoolTimeout):  # all connections are in use, and nothing was begun
        return Classification(*_NOT_NOW)
    if isinstance(error, DBAPIError):
        return _of_driver(error.orig, rows, error) if isinstance(error.orig, Exception) else None
    if isinstance(error, StatementError):  # made by SQLAlchemy before the driver was asked
        return Classification(Kind.PROGRAMMING)
    if _cannot_be_reached(error):
        return Classification(*_LOST)
    return _of_driver(error, rows)


def _cannot_be_reached(error: BaseException) -> bool:
    """An error of the network that a driver hands on as it is; what speaks of files and rights does not pass."""
    passes = isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError, SSLError))
    return passes and _compat.while_connecting(error)


def _of_driver(
    error: BaseException, rows: Iterable[Capabilities], told: DBAPIError | None = None
) -> Classification | None:
    row = _row_of(error, rows)
    if row is None and told is None:
        return None
    code = None if row is None else row.code(error)
    constraint, column = (None, None) if row is None else row.named(error)
    rule = _rule(error, row, code, told)
    return Classification(*rule, code, constraint, column)


def _rule(error: BaseException, row: Capabilities | None, code: str | None, told: DBAPIError | None) -> Rule:
    rule = Rule(Kind.OTHER) if row is None else rule_of(code, row.errors)
    if row is not None and row.kind(error) is Kind.CONSEQUENCE:
        return Rule(Kind.CONSEQUENCE)
    if _compat.while_connecting(error):  # nothing was begun
        return rule if row is None or row.refused is None else rule_of(row.refused(error), row.errors)
    if told is not None and told.connection_invalidated:
        # the statement that was on its way is told, but none for COMMIT: a plain one may have been stored
        return _LOST if told.statement is not None else _UNKNOWN
    if rule.kind is Kind.OTHER and code is None:
        return Rule(_CLASSES.get(type(error).__name__, Kind.OTHER))
    return rule


def _row_of(error: BaseException, rows: Iterable[Capabilities]) -> Capabilities | None:
    """The row whose driver raises such errors, or is the cause of SQLAlchemy's own class for it."""
    for one in (error, error.__cause__):
        package = type(one).__module__.partition(".")[0]
        for row in rows:
            if package in row.raised_by:
                return row
    return None
