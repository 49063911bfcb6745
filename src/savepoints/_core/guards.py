"""Listeners on an engine: they keep the stack true to what happens on its connections, and refuse what would break it.

Set once per engine; they find the stack by the connection and do nothing where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, ExecutionContext

from savepoints import _compat, errors
from savepoints._core import adopt, due, implicit, past, phases, refusals, streams, unsaved
from savepoints._core.dialects import driver_connection
from savepoints._core.driver import cover, note_touched, was_open
from savepoints._core.stack import KEY, Stack, detach
from savepoints._core.stack import stack_of as any_stack_of
from savepoints._core.wire import answer_hooks
from savepoints._databases import Aftermath, Capabilities, Kind, capabilities, classifier
from savepoints._model.levels import Cause, End
from savepoints._model.repairs import Repair
from savepoints._model.states import Move, State
from savepoints._places import caller, ending, process

_engines: WeakSet[Engine] = WeakSet()
_STREAM = "stream_results"
_OPEN, _UNDONE = State.OPEN, State.UNDONE  # members of an enumeration are looked up slowly


def is_watched(engine: Engine) -> bool:
    """Whether a verb of ours was used on the engine."""
    return engine in _engines


def watch_engine(engine: Engine) -> None:
    """Set the listeners of an engine, once."""
    engine = _compat.parent_engine(engine)
    if engine in _engines:
        return
    _engines.add(engine)
    answer_hooks(engine.dialect)
    watch_errors(engine)
    # first of all listeners, so that others never see what was refused; retval saves SQLAlchemy's wrapper around it
    event.listen(engine, "before_cursor_execute", _before_cursor_execute, retval=True, insert=True)
    for name, listener in (
        ("begin", _on_begin),
        ("commit", _on_commit),
        ("rollback", _on_rollback),
        ("prepare_twophase", _on_prepare),
        ("commit_twophase", _on_commit_twophase),
        ("rollback_twophase", _on_rollback_twophase),
        ("set_connection_execution_options", _on_options),
    ):
        event.listen(engine, name, listener, insert=True)


def watch_errors(engine: Engine) -> None:
    """Hear of the driver's errors, once."""
    event.listen(engine, "handle_error", handle_error, insert=True)


def unwatch_errors(engine: Engine) -> None:
    """Hear of them no more."""
    event.remove(engine, "handle_error", handle_error)


def stack_of(connection: Connection) -> Stack | None:
    """The stack of a connection, if it is for the listeners here: those of plain code are watched by `driver`."""
    stack = any_stack_of(connection)
    return None if stack is None or stack.plain is not None else stack


# -- statements


def _before_cursor_execute(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: ExecutionContext, executemany: bool
) -> tuple[str, Any]:
    stack: Stack | None = connection.__dict__.get(KEY)  # as `stack_of`, without the calls: each statement pays for them
    if stack is None or stack.plain is not None:
        return statement, parameters
    if stack.turn.pid != process.pid:
        stack.turn.check_process("send SQL")
    if len(stack.begun) < len(stack.root.connections):
        stack.note_begin(connection)
    if stack.doubt is not None or not statement.startswith(stack.harmless):
        implicit.watch(stack, connection, statement)
    if stack.transaction.recorded is not _OPEN or stack.top.recorded is _UNDONE:
        _guard(stack)
    elif stack.levels and stack.sessions:
        cover(stack, connection)
        note_touched(stack, context)
    if context.execution_options.get(_STREAM):
        _compat.when_result_is_made(context, partial(streams.note, stack))
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


# -- errors


def handle_error(context: ExceptionContext) -> None:
    """Record what an error of the driver has left of the transaction. The error itself always passes as it is."""
    connection, error = context.connection, context.original_exception
    if connection is None or isinstance(error, errors.SavepointsError) or connection.closed or connection.invalidated:
        return
    stack = adopt.current(connection) or _after_error_of_plain_code(connection, context)
    if stack is None:
        return
    if context.is_disconnect:
        driver = driver_connection(connection.dialect, connection.connection)
        context.is_disconnect = not stack.row_of(connection).still_connected(driver, error)
    cause = context.sqlalchemy_exception or error
    what = _told(capabilities(connection.dialect), context)
    if stack.transaction.recorded is State.COMMITTING:
        _commit_failed(stack, connection, context, Cause(what, cause, caller()))
    elif _ends_a_transaction(context):
        # a refused ROLLBACK: SQLAlchemy may take it for done, and the pool's next user would commit our rows
        connection.invalidate(error)
    else:
        implicit.forget(stack)
        streams.forget(stack, context.execution_context)
        if stack.plain is None or Repair.LOST in stack.repairs:
            follows = stack.row_of(connection).kind(error) is Kind.CONSEQUENCE
            _record(stack, _aftermath(stack, connection, context), cause, what, follows=follows)


def _record(stack: Stack, aftermath: Aftermath, cause: BaseException, what: str, *, follows: bool) -> None:
    if aftermath is Aftermath.LOST and follows:
        # a savepoint is gone, with its transaction, and no error has told of it
        stack.lose(cause, f"the transaction was ended by a statement past SQLAlchemy, or as text: {what}", "unseen")
    elif aftermath is Aftermath.LOST:
        stack.lose(cause, what)
    elif aftermath is Aftermath.FAILED:
        stack.sync()
        stack.fail(cause, what)


def _ends_a_transaction(context: ExceptionContext) -> bool:
    """It came from BEGIN, COMMIT or ROLLBACK, which SQLAlchemy does not send as statements."""
    return context.statement is None and context.execution_context is None and not context.is_disconnect


def _after_error_of_plain_code(connection: Connection, context: ExceptionContext) -> Stack | None:
    """A stack, where an error has left something to be remembered of a transaction that has none."""
    found = adopt.installations.get(connection.dialect)
    if found is None or context.is_disconnect:  # SQLAlchemy takes no statement itself until the rollback
        return None
    row, driver = capabilities(connection.dialect), driver_connection(connection.dialect, connection.connection)
    if _ends_a_transaction(context):
        if Repair.COMMIT in found.repairs and row.standing(driver) is not Aftermath.LOST:
            _roll_back(connection, context.original_exception)
        return None
    if Repair.LOST not in found.repairs or not was_open(context.execution_context):
        return None
    if row.aftermath(driver, context.original_exception) is Aftermath.OPEN:
        return None
    stack = adopt.of_connection(connection)
    if stack is not None:
        stack.begun[id(connection)] = driver
    return stack


def _roll_back(connection: Connection, error: BaseException | None) -> None:
    """End what a refused COMMIT has left open, which SQLAlchemy would hand to the pool's next user."""
    try:
        phases.roll_back_driver(connection)
    except Exception as second:
        if error is not None:
            error.add_note(f"the connection was discarded: rolling back failed with {type(second).__name__}")
        connection.invalidate(second)


def _told(row: Capabilities, context: ExceptionContext) -> str:
    """Which statement failed, and how the database calls it."""
    if context.statement is not None:
        statement = repr(refusals.masked(context.statement))
    else:
        statement = "COMMIT" if context.execution_context is None else "reading a result"
    told = classifier.in_words(context.original_exception, row, disconnect=context.is_disconnect)
    return f"{statement} failed ({told})"


def _aftermath(stack: Stack, connection: Connection, context: ExceptionContext) -> Aftermath:
    if context.is_disconnect:
        return Aftermath.LOST
    row, error, key = capabilities(connection.dialect), context.original_exception, id(connection)
    if key not in stack.begun and (row.begin is not None or row.code(error) is None):
        stack.first.discard(key)
        return Aftermath.OPEN  # nothing was sent yet, not even by the driver: nothing can have been lost
    told = row.aftermath(driver_connection(connection.dialect, connection.connection), error)
    return asked_aftermath(connection, row) if told is None else told


def asked_aftermath(connection: Connection, row: Capabilities) -> Aftermath:
    """What the server says, where the error can mean either; without an answer, the worse."""
    if row.in_transaction is None:
        return Aftermath.LOST
    try:
        [[answer]] = past.ask(connection.dialect, connection.connection, row.in_transaction)
    except Exception:
        return Aftermath.LOST
    return Aftermath.OPEN if answer else Aftermath.LOST


def _commit_failed(stack: Stack, connection: Connection, context: ExceptionContext, cause: Cause) -> None:
    if _unanswered(stack.row_of(connection), context) or (stack.decided and stack.options.twophase):
        stack.lose(cause.error, cause.what)  # what was prepared stays so until somebody ends it
        return
    if stack.options.twophase:
        connection.invalidate(cause.error)  # a driver may take a refused PREPARE for prepared
    elif Repair.COMMIT in stack.repairs:
        _roll_back(connection, cause.error)
    if stack.decided:
        stack.lose(cause.error, cause.what)
        return
    stack.unsaved = False
    stack.transaction.move(
        Move.FAIL, End(f"rolled back: COMMIT was refused with {type(cause.error).__name__}", cause.where)
    )
    stack.transaction.cause = cause
    if stack.root.session is None:
        stack.end_above(stack.transaction, Move.OUTER_ROLLBACK, End("undone: COMMIT was refused", cause.where))
        if stack.plain is not None:
            detach(stack)


def _unanswered(row: Capabilities, context: ExceptionContext) -> bool:
    """Whether nobody knows what became of a COMMIT: by the broken connection, or by what its answer says."""
    error = context.original_exception
    return context.is_disconnect or row.kind(error) in _UNKNOWN or bool(row.commit_unanswered(error))


_UNKNOWN = (Kind.DISCONNECT, Kind.UNKNOWN_COMMIT)


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
    if stack.tracker is not None:
        stack.tracker.note(connection, stack.row_of(connection), of=len(stack.root.connections))
    _undo_settings(stack, connection)
    if stack.transaction.recorded is State.OPEN:
        stack.transaction.move(Move.COMMIT)
    elif stack.transaction.recorded is State.COMMITTING:
        stack.decided = True
    _settle_later(stack, connection)


def _settle_later(stack: Stack, connection: Connection) -> None:
    """SQLAlchemy has no event after a connection's COMMIT: whoever looks at the transaction is told."""
    if not stack.turn.taken and stack.root.session is None:
        root = connection.get_transaction()
        how = End(f"committed by {ending()}")

        def settle() -> None:
            # it was answered once SQLAlchemy's transaction is inactive
            if root is None or not root.is_active:
                stack.committed(how)

        stack.transaction.refresh = settle


def _on_prepare(connection: Connection, xid: Any) -> None:
    """The first of two phases: a refusal is one of the COMMIT, and without an answer nobody knows."""
    stack = stack_of(connection)
    if stack is None:
        return
    if not stack.turn.taken and not stack.leaving:
        stack.refuse_commit("prepare()")
    if stack.tracker is not None:
        stack.tracker.note(connection, stack.row_of(connection), of=len(stack.root.connections), prepares=True)
    if stack.transaction.recorded is State.OPEN:
        stack.transaction.move(Move.COMMIT)


def _on_commit_twophase(connection: Connection, xid: Any, is_prepared: bool) -> None:
    """All are prepared, and this one is the first to commit, or one of the next; or it commits in one step."""
    stack = stack_of(connection)
    if stack is None:
        return
    if is_prepared:
        stack.decided = True
        _settle_later(stack, connection)
    else:
        _on_commit(connection)


def _on_rollback_twophase(connection: Connection, xid: Any, is_prepared: bool) -> None:
    _on_rollback(connection)


def _refuse_plain_commit(stack: Stack, connection: Connection) -> None:
    """Refuse ``connection.commit()`` in a block, and where the transaction cannot be committed.

    An error in this event leaves SQLAlchemy only a rollback, which it would not send: so it is sent here.
    """
    try:
        stack.refuse_commit("connection.commit()")
        if stack.root.session is not None:
            raise refusals.past_its_session(stack.transaction)
    except errors.SavepointsError as error:
        cause = stack.transaction.cause or Cause("connection.commit() was refused", error, caller())
        if not connection.invalidated:
            _prepare_rollback(stack, connection)
            phases.roll_back_driver(connection)
        stack.rolled_back(End("rolled back: connection.commit() was refused", caller()))
        stack.transaction.cause = cause
        due.run(stack, error)
        raise


def _undo_settings(stack: Stack, connection: Connection) -> None:
    """Take back what a read-only transaction set on the connection itself, before the pool has it again."""
    if stack.undo is not None and not connection.invalidated:
        past.send(connection.dialect, connection.connection, stack.undo)
        stack.undo = None


def _prepare_rollback(stack: Stack, connection: Connection) -> None:
    """See to it that the driver takes a rollback also where the database has ended the transaction."""
    row = stack.row_of(connection)
    if row.begin is not None and row.rollback_refused(driver_connection(connection.dialect, connection.connection)):
        past.send(connection.dialect, connection.connection, row.begin)


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
        unsaved.warn(stack, end, raising=False)
    stack.rolled_back(End(f"rolled back by {end}"))


def _on_options(connection: Connection, options: Mapping[str, Any]) -> None:
    stack = stack_of(connection) if "isolation_level" in options else None
    if stack is not None and not stack.turn.taken and stack.block is not None:
        raise errors.OutOfOrder(
            f"the isolation level was changed inside the block of {refusals.called(stack.block)}",
            hint="give it to `transaction(..., isolation_level=...)`",
        )
