"""The few private names of SQLAlchemy that we cannot do without, each with a test that fails when it moves."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from sqlalchemy.engine import Connection, Dialect, Engine, ExecutionContext, Transaction
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.orm import InstanceState, Session, SessionTransaction


def parent_engine(engine: Engine) -> Engine:
    """The engine that ``engine.execution_options()`` was called on: listeners set there serve both."""
    while (parent := getattr(engine, "_proxied", None)) is not None:
        engine = parent
    return engine


def connections(transaction: SessionTransaction) -> Iterable[Connection]:
    """The connections that a session's transaction uses (public as ``.connections`` since SQLAlchemy 2.1.7)."""
    if hasattr(transaction, "connections"):
        return transaction.connections
    entries: Any = transaction._connections
    return {entry[0] for entry in entries.values()}


def begun_on(transaction: SessionTransaction, connection: Connection) -> Transaction:
    """What a session's transaction has begun on a connection of it.

    A savepoint, for a session on a connection with ``join_transaction_mode="create_savepoint"``.
    """
    entries: Any = transaction._connections
    begun: Transaction = entries[connection][1]
    return begun


def commits(transaction: SessionTransaction, connection: Connection) -> bool:
    """Whether the end of a session's transaction ends what is begun on a connection, or leaves that to its owner."""
    entries: Any = transaction._connections
    ends: bool = entries[connection][2]
    return ends


def binds(session: Session) -> set[Engine | Connection]:
    """All engines and connections that a session was given, by default or for a class or table.

    Those are public as ``.binds`` since SQLAlchemy 2.1.
    """
    special: Any = session.binds if hasattr(session, "binds") else session._Session__binds  # type: ignore[attr-defined]
    return {bind for bind in (session.bind, *special.values()) if bind is not None}


def isolation_level_on_connect(dialect: Dialect) -> str | None:
    """What ``create_engine(isolation_level=...)`` was given: no public name tells it."""
    return dialect._on_connect_isolation_level


def while_connecting(error: BaseException) -> bool:
    """Whether an error came while a connection was asked for: nobody tells, but its traceback.

    SQLAlchemy's error for it is that of a COMMIT without an answer.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is Engine.raw_connection.__code__:
            return True
        trace = trace.tb_next
    return False


def lazy_loaded_from(context: ExecutionContext) -> InstanceState[Any] | None:
    """The object whose relationship a statement loads lazily.

    Public as ``ORMExecuteState.lazy_loaded_from``, but a listener for ``do_orm_execute`` makes each statement of a
    session about 20 microseconds slower.
    """
    options: Any = context.execution_options.get("_sa_orm_load_options")
    return None if options is None else options._lazy_loaded_from


def changes_in_bulk(context: ExecutionContext) -> bool:
    """Whether an ORM-enabled UPDATE or DELETE is about to change objects (public in ``do_orm_execute``)."""
    return "_sa_orm_update_options" in context.execution_options


def flushed(context: Any) -> Iterator[InstanceState[Any]]:
    """The objects that a flush has written or deleted.

    ``session.new``, ``.dirty`` and ``.deleted`` tell the same, and make a set each time.
    """
    for state, (_, listed_only) in context.states.items():
        if not listed_only:
            yield state


def streams(result: Any) -> bool:
    """Whether rows of a streamed result may still come (``.closed`` tells a close by its user alone)."""
    return result.cursor is not None


def when_result_is_made(context: Any, tell: Callable[[Any], None]) -> None:
    """Have a statement's result told of, before the caller has it (``after_execute`` is not for the driver's SQL)."""
    reference = weakref.ref(context)  # a statement that is cut off must not keep its cursor alive

    def made() -> Any:
        context: Any = reference()
        del context._setup_result_proxy
        result = context._setup_result_proxy()
        tell(result)
        return result

    context._setup_result_proxy = made


def buffer(result: Any) -> None:
    """Read the rest of a streamed result into memory; its reader goes on where it was."""
    strategy = result.cursor_strategy
    if streams(result) and not isinstance(strategy, FullyBufferedCursorFetchStrategy):
        try:
            rest = result.cursor.fetchall()
        except BaseException as error:
            strategy.handle_exception(result, result.cursor, error)  # raises it, as for a read by its user
        rows = deque((*getattr(strategy, "_rowbuffer", ()), *rest))
        result.cursor_strategy = FullyBufferedCursorFetchStrategy(result.cursor, initial_buffer=rows)


def forget(session: Session, state: InstanceState[Any]) -> None:
    """Take an object that was expunged out of the session's identity map.

    SQLAlchemy's nested rollback puts one back there whose primary key was changed before.
    """
    session.identity_map.safe_discard(state)


def restore_snapshot(nested: SessionTransaction) -> None:
    """Restore what SQLAlchemy has recorded of objects inside a nested transaction.

    It does so when that one is rolled back, and forgets it where one around it is. An object that was both made and
    deleted inside it looks up in the session's current transaction, which is another one here.
    """
    for state in nested._new:
        nested._deleted.pop(state, None)
    nested._restore_snapshot(dirty_only=True)


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """The result of an awaitable, inside ``run_sync``.

    Public for a driver's own methods, as ``AdaptedConnection.run_async``; not for what a user's callback returns.
    """
    from sqlalchemy.util import await_only

    return await_only(awaitable)
