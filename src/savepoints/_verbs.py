"""The verbs, for sync and async: the kind of the argument decides which face answers."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from savepoints import _sync, errors
from savepoints._core import install as installing
from savepoints._core import moves
from savepoints._core.ends import Suppress
from savepoints._core.options import Asked, Options
from savepoints._core.outcome import Track, checked_track
from savepoints._model.levels import checked_name
from savepoints._model.repairs import Repair
from savepoints._retry import Retry
from savepoints._targets import SOURCES, TARGETS, AsyncTarget, SyncTarget, checked_target, is_async, unscoped

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
    twophase: bool = False,
    rollback: bool = False,
    independent: bool = False,
    track_commit: Track = False,
    retry: Retry | None = None,
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
    twophase: bool = False,
    rollback: bool = False,
    independent: bool = False,
    track_commit: Track = False,
    retry: Retry | None = None,
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
    twophase: bool = False,
    rollback: bool = False,
    independent: bool = False,
    track_commit: Track = False,
    retry: Retry | None = None,
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
    twophase: bool = False,
    rollback: bool = False,
    independent: bool = False,
    track_commit: Track = False,
    retry: Retry | None = None,
) -> aio.AsyncTransactionBlock[A]: ...
def transaction(
    source_or_target: Any,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    rollback: bool = False,
    independent: bool = False,
    track_commit: Track = False,
    retry: Retry | None = None,
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
        twophase: Prepare first, then commit (PREPARE TRANSACTION and COMMIT PREPARED, XA PREPARE and XA COMMIT): with a
            session on several engines all of them are prepared before the first commits. Each must be able to.
        rollback: Always roll back: a dry run.
        independent: Allow a second transaction on the same engine in the same task.
        track_commit: Remember what is needed to ask what became of a COMMIT whose answer was lost
            (`CommitOutcomeUnknown.resolve`): True asks PostgreSQL by the transaction's number (one question more before
            each COMMIT); elsewhere give a function that looks on a Connection of its own whether the work is there, and
            returns True, False, or None where it cannot tell.
        retry: For the decorator: run the whole function again, in a new transaction, by this rule.

    Raises:
        AlreadyInTransaction: One is open on the target, or in this task on the same engine.
        NotSupported: The connection is in autocommit mode, or an option is not known for this database.
        WrongArgument: An argument is of a wrong kind, or a generator function is decorated.
        BadName: The name is empty, too long or has control characters.
        sqlalchemy.exc.ArgumentError: The database has no such isolation level.
    """
    source = unscoped(source_or_target)
    if not isinstance(source, (*TARGETS, *SOURCES)) and not is_async(source):
        raise errors.WrongArgument(
            f"transaction works on a source or target of SQLAlchemy, not on {errors.kind_of(source)}",
            hint="give an engine or sessionmaker, or a session or connection, sync or async",
        )
    if isolation_level is not None and not isinstance(isolation_level, str):
        raise errors.WrongArgument(
            f"isolation_level is text, not {errors.kind_of(isolation_level)}",
            hint='give it as "SERIALIZABLE", for instance',
        )
    if retry is not None and not isinstance(retry, Retry):
        raise errors.WrongArgument(
            f"retry is a Retry, not {errors.kind_of(retry)}", hint="give it as `retry=Retry(attempts=3)`, for instance"
        )
    options = Options(isolation_level, read_only, deferrable, immediate, twophase)
    asked = Asked(_name(name), options, rollback, independent, checked_track(track_commit), retry)
    if not is_async(source):
        return _sync.TransactionBlock(source, asked)
    from savepoints import aio

    return aio.AsyncTransactionBlock(source, asked)


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
    found = target if isinstance(target, (Session, Connection)) else checked_target(target, "savepoint")
    if isinstance(found, (Session, Connection)):
        return _sync.open_savepoint(found, name, rollback, suppress)
    _name(name)
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
    found = checked_target(target, "atomic")
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
    found = checked_target(target, "require_transaction")
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
    found = checked_target(target, "rollback_to")
    if not is_async(found):
        _sync.roll_back(moves.named(found, name))
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
    found = checked_target(target, "release")
    if not is_async(found):
        _sync.release(moves.named(found, name))
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
    found = checked_target(target, "current_transaction")
    if not is_async(found):
        return _sync.current(found)
    from savepoints import aio

    return aio.current(found)


def _engine(source: Engine | AsyncEngine, verb: str) -> Engine:
    engine = getattr(source, "sync_engine", source)
    if not isinstance(engine, Engine):
        raise errors.WrongArgument(
            f"{verb} works on an engine, not on {errors.kind_of(source)}",
            hint="give the Engine or AsyncEngine that the sessions and connections come from",
        )
    return engine


def install(engine: Engine | AsyncEngine, *, without: Iterable[Repair | str] = ()) -> None:
    """Give plain SQLAlchemy code on an engine what blocks of ours have, without a change to that code.

    What it repairs is listed at `Repair`. It is also done by ``create_engine(url, plugins=["savepoints"])`` and by
    ``?plugin=savepoints`` in the URL. Installing again says anew which repairs are wanted. Call it before the engine
    is used.

    Args:
        engine: Engine or AsyncEngine; one made by ``execution_options()`` stands for the engine that it was made of.
        without: The repairs to be left out, by name.

    Raises:
        WrongArgument: It is no engine, or there is no repair of such a name.
    """
    found = _engine(engine, "install")
    repairs = installing.checked_repairs(without)
    if not found.dialect.is_async:
        installing.install(found, _sync.FACE, repairs)
        return
    from savepoints import aio

    installing.install(found, aio.FACE, repairs)


def uninstall(engine: Engine | AsyncEngine) -> None:
    """Leave plain code on an engine alone again; does nothing where it is not installed.

    Call it while no transaction is open on the engine. Blocks of ours keep what they need.

    Args:
        engine: Engine or AsyncEngine.

    Raises:
        WrongArgument: It is no engine.
    """
    installing.uninstall(_engine(engine, "uninstall"))


def installed(engine: Engine | AsyncEngine) -> frozenset[Repair]:
    """What is repaired in plain code on an engine; empty where nothing is installed.

    Args:
        engine: Engine or AsyncEngine.

    Raises:
        WrongArgument: It is no engine.
    """
    return installing.installed(_engine(engine, "installed"))
