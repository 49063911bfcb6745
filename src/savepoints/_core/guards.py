"""Listeners on an engine: they keep the stack true to what happens on its connections, and refuse what would break it.

Set once per engine; they find the stack by the connection and do nothing where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, ExecutionContext

from savepoints import _compat, errors
from savepoints._core import refusals
from savepoints._core.stack import Stack, detach, stack_of
from savepoints._core.wire import answer_hooks
from savepoints._databases import Aftermath
from savepoints._model.levels import Cause, End
from savepoints._model.states import Move, State
from savepoints._places import caller, ending

_engines: WeakSet[Engine] = WeakSet()
_STREAM = "stream_results"


def watch_engine(engine: Engine) -> None:
    """Set the listeners of an engine, once."""
    engine = _compat.parent_engine(engine)
    if engine in _engines:
        return
    _engines.add(engine)
    answer_hooks(engine.dialect)
    # first of all listeners, so that others never see what was refused; retval saves SQLAlchemy's wrapper around it
    event.listen(engine, "before_cursor_execute", _before_cursor_execute, retval=True, insert=True)
    for name, listener in (
        ("after_execute", _after_execute),
        ("handle_error", _handle_error),
        ("begin", _on_begin),
        ("commit", _on_commit),
        ("rollback", _on_rollback),
        ("set_connection_execution_options", _on_options),
    ):
        event.listen(engine, name, listener, insert=True)


# -- statements


def _before_cursor_execute(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: ExecutionContext, executemany: bool
) -> tuple[str, Any]:
    stack = stack_of(connection)
    if stack is None:
        return statement, parameters
    stack.turn.check_process("send SQL")
    if len(stack.begun) < len(stack.root.connections) and stack.capabilities.begin is None:
        stack.note_begin(connection)
    if stack.transaction.recorded is not State.OPEN or stack.top.recorded is State.UNDONE:
        _guard(stack)
    elif stack.levels and stack.sessions:
        _note_touched(stack, context)
    return statement, parameters


def refuse_statement(stack: Stack) -> None:
    """Refuse what is about to be sent past SQLAlchemy, where a statement would be refused."""
    stack.turn.check_process("send SQL")
    if stack.transaction.recorded is not State.OPEN or stack.top.recorded is State.UNDONE:
        _guard(stack)


def _guard(stack: Stack) -> None:
    """Refuse a statement that the transaction cannot take."""
    if stack.transaction.recorded is State.LOST:
        raise refusals.refused(stack.transaction, "send SQL")
    if stack.turn.taken or stack.rolling:
        return
    if not stack.transaction.is_alive:
        if stack.transaction.block:
            raise refusals.ended_behind(stack.transaction)
    elif stack.stuck is not None:
        raise refusals.stuck(stack.top, "send SQL", stack.stuck)
    elif stack.top.recorded is State.UNDONE:
        raise refusals.refused(stack.top, "send SQL")


def _note_touched(stack: Stack, context: Any) -> None:
    """What a statement does to a session's objects without an event of theirs."""
    lazy = _compat.lazy_loaded_from(context)
    bulk = _compat.changes_in_bulk(context)
    if not bulk and lazy is None:
        return
    for session in stack.sessions:
        touched = stack.touched(session)
        if touched is None:
            continue
        if bulk:
            touched.heavy = True
        if lazy is not None and lazy.session is session:
            touched.read(lazy)


def _after_execute(
    connection: Connection, statement: Any, many: Any, parameters: Any, options: Mapping[str, Any], result: Any
) -> None:
    if options.get(_STREAM):
        stack = stack_of(connection)
        if stack is not None and stack.levels:
            stack.levels[-1].streams += (result,)


# -- errors


def _handle_error(context: ExceptionContext) -> None:
    connection, error = context.connection, context.original_exception
    if connection is None or isinstance(error, errors.SavepointsError):
        return
    stack = stack_of(connection)
    if stack is None or connection.closed or connection.invalidated:
        return
    cause = context.sqlalchemy_exception or error
    what = _told(stack, context)
    if stack.transaction.recorded is State.COMMITTING:
        _commit_failed(stack, connection, context, Cause(what, cause, caller()))
        return
    if context.statement is None and context.execution_context is None and not context.is_disconnect:
        # a refused ROLLBACK: SQLAlchemy may take it for done, and the pool's next user would commit our rows
        connection.invalidate(error)
        return
    aftermath = _aftermath(stack, connection, context)
    if aftermath is Aftermath.LOST:
        stack.lose(cause, what)
    elif aftermath is Aftermath.FAILED:
        stack.sync()
        stack.fail(cause, what)


def _told(stack: Stack, context: ExceptionContext) -> str:
    """Which statement failed, and how the database calls it."""
    if context.statement is not None:
        statement = repr(refusals.masked(context.statement))
    else:
        statement = "COMMIT" if context.execution_context is None else "reading a result"
    row, error = stack.capabilities, context.original_exception
    kind, code = row.kind(error), row.code(error)
    return f"{statement} failed ({kind}{'' if code is None else f' {code}'})"


def _aftermath(stack: Stack, connection: Connection, context: ExceptionContext) -> Aftermath:
    if context.is_disconnect:
        return Aftermath.LOST
    row = stack.capabilities
    if row.begin is not None and id(connection) not in stack.begun:
        return Aftermath.OPEN  # the driver has not begun yet: nothing can have been lost
    return row.aftermath(connection.connection.driver_connection, context.original_exception)


def _commit_failed(stack: Stack, connection: Connection, context: ExceptionContext, cause: Cause) -> None:
    if context.is_disconnect and cause.error is not None:
        stack.lose(cause.error, cause.what)
        return
    try:
        # a refused COMMIT leaves SQLite's transaction open, and SQLAlchemy would hand it to the pool's next user
        connection.dialect.do_rollback(connection.connection)
    except Exception as second:
        if cause.error is not None:
            cause.error.add_note(f"the connection was discarded: rolling back failed with {type(second).__name__}")
        connection.invalidate(second)
    stack.unsaved = False
    stack.transaction.move(
        Move.FAIL, End(f"rolled back: COMMIT was refused with {type(cause.error).__name__}", cause.where)
    )
    stack.transaction.cause = cause
    if stack.root.session is None:
        stack.end_above(stack.transaction, Move.OUTER_ROLLBACK, End("undone: COMMIT was refused", cause.where))


# -- the outermost unit


def _on_begin(connection: Connection) -> None:
    stack = stack_of(connection)
    if stack is None or stack.turn.taken:
        return
    stack.look()
    if stack.transaction.is_alive:
        return
    if stack.transaction.block:
        raise refusals.ended_behind(stack.transaction)
    detach(stack)  # a new transaction on the connection of one that is over


def _on_commit(connection: Connection) -> None:
    stack = stack_of(connection)
    if stack is None:
        return
    if not stack.turn.taken and not stack.leaving:
        _refuse_plain_commit(stack, connection)
    _undo_settings(stack, connection)
    if stack.transaction.recorded is State.OPEN:
        stack.transaction.move(Move.COMMIT)
    if not stack.turn.taken and stack.root.session is None:
        root = connection.get_transaction()
        how = End(f"committed by {ending()}")

        def settle() -> None:
            # SQLAlchemy has no event after a connection's COMMIT: it was answered once its transaction is inactive
            if root is None or not root.is_active:
                stack.committed(how)

        stack.transaction.refresh = settle


def _refuse_plain_commit(stack: Stack, connection: Connection) -> None:
    """Refuse ``connection.commit()`` in a block, and where the transaction cannot be committed.

    An error in this event leaves SQLAlchemy only a rollback, which it would not send: so it is sent here.
    """
    try:
        stack.refuse_commit("connection.commit()")
    except errors.SavepointsError as error:
        cause = stack.transaction.cause or Cause("connection.commit() was refused", error, caller())
        if not connection.invalidated:
            _prepare_rollback(stack, connection)
            connection.dialect.do_rollback(connection.connection)
        stack.rolled_back(End("rolled back: connection.commit() was refused", caller()))
        stack.transaction.cause = cause
        raise


def _undo_settings(stack: Stack, connection: Connection) -> None:
    """Take back what a read-only transaction set on the connection itself, before the pool has it again."""
    if stack.undo is not None and not connection.invalidated:
        _send_past(connection, stack.undo)
        stack.undo = None


def _prepare_rollback(stack: Stack, connection: Connection) -> None:
    """See to it that the driver takes a rollback also where the database has ended the transaction."""
    row = stack.capabilities
    if row.begin is not None and row.rollback_refused(connection.connection.driver_connection):
        _send_past(connection, row.begin)


def _send_past(connection: Connection, statement: str) -> None:
    """By the driver's cursor: SQLAlchemy takes no statement in the middle of its own commit or rollback."""
    cursor = connection.connection.cursor()
    connection.dialect.do_execute(cursor, statement, ())
    cursor.close()


def _on_rollback(connection: Connection) -> None:
    stack = stack_of(connection)
    if stack is not None and not connection.invalidated:
        _undo_settings(stack, connection)
        _prepare_rollback(stack, connection)
    if stack is None or stack.turn.taken:
        return
    end = ending()
    if stack.root.session is not None and end.by_session:
        return  # its own events tell
    if end.closes:
        stack.warn_uncommitted(end, raising=False)
    stack.rolled_back(End(f"rolled back by {end}"))


def _on_options(connection: Connection, options: Mapping[str, Any]) -> None:
    stack = stack_of(connection) if "isolation_level" in options else None
    if stack is not None and not stack.turn.taken and stack.block is not None:
        raise errors.OutOfOrder(
            f"the isolation level was changed inside the block of {refusals.called(stack.block)}",
            hint="give it to `transaction(..., isolation_level=...)`",
        )
