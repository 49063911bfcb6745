"""The verbs, for sync and async: the kind of the argument decides which face answers."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, overload

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from savepoints import _sync, errors
from savepoints._core import moves
from savepoints._core.ends import Suppress
from savepoints._core.options import Options
from savepoints._model.levels import checked_name

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
        async_sessionmaker,
    )

    from savepoints import aio

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound="AsyncSession")

SyncTarget: TypeAlias = Session | scoped_session[Any] | Connection
AsyncTarget: TypeAlias = Union["AsyncSession", "async_scoped_session[Any]", "AsyncConnection"]

_TARGETS = (Session, Connection)
_SOURCES = (Engine, sessionmaker)
_SYNC = (*_TARGETS, *_SOURCES)


def _is_kind(found: Any, *names: str) -> bool:
    """Whether it is of one of these classes of SQLAlchemy's asyncio side, which whoever has one has imported."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return module is not None and isinstance(found, tuple(getattr(module, name) for name in names))


def is_async(found: Any) -> bool:
    if isinstance(found, _SYNC):
        return False
    return _is_kind(found, "AsyncSession", "AsyncConnection", "AsyncEngine", "async_sessionmaker")


def _unscoped(target: Any) -> Any:
    """The session behind a scoped one."""
    return target() if isinstance(target, scoped_session) or _is_kind(target, "async_scoped_session") else target


def target_of(target: Any, verb: str) -> Any:
    if not isinstance(target, _TARGETS):
        target = _unscoped(target)
    if isinstance(target, _TARGETS) or _is_kind(target, "AsyncSession", "AsyncConnection"):
        return target
    hint = "give a Session or Connection, sync or async"
    if isinstance(target, _SOURCES) or is_async(target):
        hint = "open a session or connection first, for instance by `with transaction(...)`"
    raise errors.WrongArgument(f"{verb} works on a session or connection, not on {errors.kind_of(target)}", hint=hint)


def _name(name: str | None) -> str | None:
    return None if name is None else checked_name(name)


@overload
def transaction(
    source_or_target: Engine | Connection,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    rollback: bool = False,
    independent: bool = False,
) -> _sync.TransactionBlock[Connection]: ...
@overload
def transaction(
    source_or_target: sessionmaker[S] | scoped_session[S] | S,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    rollback: bool = False,
    independent: bool = False,
) -> _sync.TransactionBlock[S]: ...
@overload
def transaction(
    source_or_target: AsyncEngine | AsyncConnection,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    rollback: bool = False,
    independent: bool = False,
) -> aio.AsyncTransactionBlock[AsyncConnection]: ...
@overload
def transaction(
    source_or_target: async_sessionmaker[A] | async_scoped_session[A] | A,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    rollback: bool = False,
    independent: bool = False,
) -> aio.AsyncTransactionBlock[A]: ...
def transaction(
    source_or_target: Any,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    rollback: bool = False,
    independent: bool = False,
) -> Any:
    """The outermost unit of work: commits at its end, rolls back on an error and re-raises that same error.

    As a block it yields the session or connection. Given a source it opens one and always closes it; given a session
    or connection it begins on it and leaves it open. On a source it is a decorator too: each call of the function
    runs in a transaction of its own, and the session or connection is passed to the parameter annotated with its type
    (or called ``session`` or ``connection``).

    Args:
        source_or_target: Engine, sessionmaker, Session, scoped_session or Connection, or their async twins. A session
            on which SQLAlchemy began by itself is adopted, earlier work included.
        name: A name for messages and the tree.
        isolation_level: As SQLAlchemy spells it, for this transaction only.
        read_only: Writes are refused by the database.
        deferrable: With ``SERIALIZABLE`` and ``read_only`` on PostgreSQL: wait for a snapshot that cannot fail.
        immediate: On SQLite take the write lock at once (BEGIN IMMEDIATE); elsewhere nothing.
        rollback: Always roll back: a dry run.
        independent: Allow a second transaction on the same engine in the same task.

    Raises:
        AlreadyInTransaction: One is open on the target, or in this task on the same engine.
        NotSupported: The connection is in autocommit mode, or an option is not known for this database.
        WrongArgument: An argument is of a wrong kind, or a generator function is decorated.
        BadName: The name is empty, too long or has control characters.
        sqlalchemy.exc.ArgumentError: The database has no such isolation level.
    """
    source = _unscoped(source_or_target)
    if not isinstance(source, (*_TARGETS, *_SOURCES)) and not is_async(source):
        raise errors.WrongArgument(
            f"transaction works on a source or target of SQLAlchemy, not on {errors.kind_of(source)}",
            hint="give an engine or sessionmaker, or a session or connection, sync or async",
        )
    if isolation_level is not None and not isinstance(isolation_level, str):
        raise errors.WrongArgument(
            f"isolation_level is text, not {errors.kind_of(isolation_level)}",
            hint='give it as "SERIALIZABLE", for instance',
        )
    options = Options(isolation_level, read_only, deferrable, immediate)
    _name(name)
    if not is_async(source):
        return _sync.TransactionBlock(source, name, options, rollback=rollback, independent=independent)
    from savepoints import aio

    return aio.AsyncTransactionBlock(source, name, options, rollback=rollback, independent=independent)


@overload
def savepoint(
    target: SyncTarget, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()
) -> _sync.Savepoint: ...
@overload
def savepoint(
    target: AsyncTarget, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()
) -> aio.PendingSavepoint: ...
def savepoint(target: Any, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()) -> Any:
    """Make a savepoint, at once: a bookmark to roll back to, or a block by ``with``.

    What is pending in the session is flushed first, outside the new level. As a block it releases at its end; on an
    error it rolls back, releases and re-raises. For an async target: ``await savepoint(...)`` or
    ``async with savepoint(...)``.

    Args:
        target: Session, scoped_session or Connection, or their async twins. Where no transaction is open SQLAlchemy
            begins one, and the caller commits it.
        name: Any text of 1 to 200 characters without control characters; one is made up where it is left out. The
            nearest open savepoint of a name is meant.
        rollback: The block's end undoes it also without an error.
        suppress: An exception class, or a tuple of them: errors that the block swallows after undoing its work. They
            are kept in ``.error``.

    Raises:
        TransactionFailed: A statement failed before, and the database takes only a rollback.
        TransactionLost: The transaction has ended without us.
        NotSupported: The connection is in autocommit mode.
        WrongTask: Another task or thread is inside a savepoint block, or at work, on this target.
        WrongArgument: The target, the name or ``suppress`` is of a wrong kind.
        BadName: The name is empty, too long or has control characters.
    """
    found = target_of(target, "savepoint")
    _name(name)
    if not is_async(found):
        return _sync.open_savepoint(found, name, rollback, suppress)
    from savepoints import aio

    return aio.PendingSavepoint(found, name, rollback, suppress)


@overload
def atomic(
    target: Connection, name: str | None = None, *, savepoint: bool = True, rollback: bool = False
) -> _sync.AtomicBlock[Connection]: ...
@overload
def atomic(
    target: S | scoped_session[S], name: str | None = None, *, savepoint: bool = True, rollback: bool = False
) -> _sync.AtomicBlock[S]: ...
@overload
def atomic(
    target: AsyncConnection, name: str | None = None, *, savepoint: bool = True, rollback: bool = False
) -> aio.AsyncAtomicBlock[AsyncConnection]: ...
@overload
def atomic(
    target: A | async_scoped_session[A], name: str | None = None, *, savepoint: bool = True, rollback: bool = False
) -> aio.AsyncAtomicBlock[A]: ...
def atomic(target: Any, name: str | None = None, *, savepoint: bool = True, rollback: bool = False) -> Any:
    """A transaction where none was opened on purpose, else a savepoint: for code that is called either way.

    Args:
        target: Session, scoped_session or Connection, or their async twins.
        name: The name of the level.
        savepoint: False joins an open transaction without a savepoint: a failure inside dooms the level around, also
            where the error is swallowed.
        rollback: The end undoes this level also without an error; not together with ``savepoint=False``.

    Raises:
        WrongArgument: The target or the name is of a wrong kind, or ``savepoint=False`` and ``rollback=True`` are both
            given.
        BadName: The name is empty, too long or has control characters.
        AlreadyInTransaction, NotSupported, TransactionFailed, TransactionLost, WrongTask: As `transaction` and
            `savepoint` do, when the block is entered.
    """
    found = target_of(target, "atomic")
    _name(name)
    if rollback and not savepoint:
        raise errors.WrongArgument(
            "atomic(savepoint=False, rollback=True): a block that joins another cannot be undone alone",
            hint="leave one of the two out",
        )
    if not is_async(found):
        return _sync.AtomicBlock(found, name, savepoint=savepoint, rollback=rollback)
    from savepoints import aio

    return aio.AsyncAtomicBlock(found, name, savepoint=savepoint, rollback=rollback)


def require_transaction(target: SyncTarget | AsyncTarget) -> None:
    """Assert that a transaction is open; opens nothing.

    Args:
        target: Session, scoped_session or Connection, or their async twins.

    Raises:
        NoTransaction: None is open.
    """
    found = target_of(target, "require_transaction")
    started = getattr(found, "sync_connection", found) is not None  # of an AsyncConnection, which is awaited for
    if not started or not found.in_transaction():
        raise errors.NoTransaction(f"no transaction is open on this {type(found).__name__}")


@overload
def rollback_to(target: SyncTarget, name: str) -> None: ...
@overload
def rollback_to(target: AsyncTarget, name: str) -> Awaitable[None]: ...
def rollback_to(target: Any, name: str) -> Awaitable[None] | None:
    """Roll back to the nearest open savepoint of that name, and keep it open.

    Args:
        target: Session, scoped_session or Connection, or their async twins (then await it).
        name: The savepoint's name.

    Raises:
        UnknownSavepoint: No open savepoint bears the name.
        OutOfOrder: It was opened outside the block around this call.
        TransactionLost: The transaction has ended without us.
        WrongTask: Another task or thread is inside a savepoint block, or at work, on this target.
        WrongArgument, BadName: The target or the name is not one that can be.
    """
    found = target_of(target, "rollback_to")
    if not is_async(found):
        moves.roll_back(moves.named(found, name))
        return None
    from savepoints import aio

    return aio.rollback_to(found, name)


@overload
def release(target: SyncTarget, name: str) -> None: ...
@overload
def release(target: AsyncTarget, name: str) -> Awaitable[None]: ...
def release(target: Any, name: str) -> Awaitable[None] | None:
    """Release the nearest open savepoint of that name: its work is kept in the level around.

    Args:
        target: Session, scoped_session or Connection, or their async twins (then await it).
        name: The savepoint's name.

    Raises:
        UnknownSavepoint: No open savepoint bears the name.
        OutOfOrder: It was opened outside the block around this call.
        TransactionFailed: A statement or flush inside failed: roll back first.
        TransactionDoomed: It can only be rolled back.
        WrongTask: Another task or thread is inside a savepoint block, or at work, on this target.
        WrongArgument, BadName: The target or the name is not one that can be.
    """
    found = target_of(target, "release")
    if not is_async(found):
        moves.release(moves.named(found, name))
        return None
    from savepoints import aio

    return aio.release(found, name)


@overload
def current_transaction(target: SyncTarget) -> _sync.Transaction | None: ...
@overload
def current_transaction(target: AsyncTarget) -> aio.AsyncTransaction | None: ...
def current_transaction(target: Any) -> _sync.Transaction | aio.AsyncTransaction | None:
    """The open transaction of a session or connection, None where there is none. Sends nothing.

    Args:
        target: Session, scoped_session or Connection, or their async twins (not awaited).
    """
    found = target_of(target, "current_transaction")
    if not is_async(found):
        return _sync.current(found)
    from savepoints import aio

    return aio.current(found)
