"""What plain code sends on an installed engine, seen where SQLAlchemy hands over to the driver.

See Note [Without events].
"""

# Note [Without events]
# A single listener for statements or transactions on an engine makes each of its statements a third slower (measured
# on SQLite in memory, where a statement costs least), for SQLAlchemy then prepares what it would tell to all of them.
# Plain code on an installed engine is to cost next to nothing, so it is watched through methods of the dialect, which
# are documented, and called anyway. Their errors reach the caller by the same way as those of the driver. Where verbs
# of ours are used, the listeners of `guards` are set besides; each stack is watched by one of the two.

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import IllegalStateChangeError

from savepoints import _compat
from savepoints._core import adopt, implicit, past, refusals, unsaved
from savepoints._core.dialects import Answers, driver_connection
from savepoints._core.stack import KEY, Stack, detach
from savepoints._databases import Aftermath, Capabilities, capabilities
from savepoints._model.levels import End
from savepoints._model.repairs import Repair
from savepoints._model.states import Move, State
from savepoints._places import caller, ending

_answers = Answers("driver")


def answer_driver(dialect: Dialect) -> None:
    """See all that goes to the driver."""
    row = capabilities(dialect)
    answers: dict[str, Callable[..., None]] = {
        "do_execute": _seen(row, dialect.do_execute),
        "do_executemany": _seen(row, dialect.do_executemany),
        "do_execute_no_params": _seen_alone(row, dialect.do_execute_no_params),
        "do_commit": partial(_commit, dialect, dialect.do_commit),
        "do_rollback": partial(_rollback, row, dialect, dialect.do_rollback),
    }
    _answers.set(dialect, answers)


def leave_driver(dialect: Dialect) -> None:
    """See no more."""
    _answers.leave(dialect)


# -- statements

_LOST, _DROPPED = Aftermath.LOST, State.LOST  # a member of an enumeration is looked up slowly


def _seen(row: Capabilities, proceed: Callable[..., None]) -> Callable[..., None]:
    """The method that sends a statement; what it costs is the cost of all statements."""
    standing = row.standing
    effect = row.effect if row.commits_by_ddl else None

    def send(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if context is not None:
            connection = context.root_connection
            if KEY in connection.__dict__ and _in_stack(effect, connection, statement, context):
                proceed(cursor, statement, parameters, context)
                return
            driver = connection.connection.driver_connection  # the usual case is spelled out: a call less
            if driver is None:
                driver = driver_connection(connection.dialect, connection.connection)
            context.savepoints_open = standing(driver) is not _LOST
        proceed(cursor, statement, parameters, context)

    return send


def _seen_alone(row: Capabilities, proceed: Callable[..., None]) -> Callable[..., None]:
    """The same for a driver's call without parameters."""

    def send(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        proceed(cursor, statement, context)

    seen = _seen(row, send)
    return lambda cursor, statement, context=None: seen(cursor, statement, None, context)


def was_open(context: Any) -> bool:
    """Whether a transaction was open on the driver's connection before the statement of an execution context."""
    return getattr(context, "savepoints_open", False)


def _in_stack(effect: implicit.EffectOf | None, connection: Connection, statement: str, context: Any) -> bool:
    """Whether the transaction has a stack; one of plain code is told of the statement."""
    stack: Stack = connection.__dict__[KEY]
    code = stack.plain
    if code is None:
        return True
    key = id(connection)
    if code.begun_by.get(key) is not connection.get_transaction():
        detach(stack)
        return False
    _refuse_unfit(stack)
    if code.is_late and key not in stack.begun:
        _note_begin(stack, connection, key)
    if stack.unsent:
        cover(stack, connection)
    if effect is not None and Repair.DDL in stack.repairs and code.in_savepoint(connection):
        implicit.look(stack, connection, statement, effect)
    if stack.levels and context.compiled is not None:  # what is text for the driver comes from no session
        note_touched(stack, context)
    if not code.wrote:
        code.wrote = not statement[:40].lstrip().upper().startswith(_READING)
    return True


def _refuse_unfit(stack: Stack) -> None:
    """Refuse a statement in a process that is not the transaction's, and in a transaction that is no more."""
    stack.turn.check_process("send SQL")
    if stack.doubt is not None:
        stack.doubt.settle(stack)
    if stack.transaction.recorded is _DROPPED:
        raise refusals.refused(stack.transaction, "send SQL")


def _note_begin(stack: Stack, connection: Connection, key: int) -> None:
    """Where the driver waits for a write before it begins, it has begun by now or it has not."""
    found = driver_connection(connection.dialect, connection.connection)
    if capabilities(connection.dialect).standing(found) is Aftermath.OPEN:
        stack.begun[key] = found


#: Statements that change nothing which a COMMIT would store.
_READING = ("SELECT", "SHOW", "SET", "PRAGMA", "EXPLAIN", "BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")


def cover(stack: Stack, connection: Connection) -> None:
    """Send the SAVEPOINT of a plain ``Session.begin_nested()`` before a statement that goes past the session.

    SQLAlchemy would wait for the first use by the session itself, and the statement would not be undone with it.
    """
    if id(connection) not in stack.unsent:
        return
    for session in stack.sessions:
        nested = session.get_nested_transaction()
        if nested is None or connection in _compat.connections(nested):
            stack.unsent.discard(id(connection))
        elif nested.is_active and Repair.COVER in stack.repairs:
            with suppress(IllegalStateChangeError):  # the session is just about to end it
                session.connection(bind_arguments={"bind": connection.engine})


def note_touched(stack: Stack, context: Any) -> None:
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
            touched.read(lazy, lazy.mapper.relationships.keys())


# -- the end


def _commit(dialect: Dialect, proceed: Callable[[Any], None], dbapi_connection: Any) -> None:
    stack = adopt.taken_from(dbapi_connection)
    if stack is None:
        proceed(dbapi_connection)
        return
    if stack.doubt is not None:
        stack.doubt.settle(stack)
    transaction = stack.transaction
    if transaction.recorded in (State.FAILED, State.LOST):
        # SQLAlchemy would send no ROLLBACK after an error from here
        error = refusals.refused(transaction, "commit")
        dialect.do_rollback(dbapi_connection)
        stack.rolled_back(End("rolled back: COMMIT was refused", caller()))
        raise error
    if transaction.recorded is State.OPEN:
        transaction.move(Move.COMMIT)
    proceed(dbapi_connection)
    if stack.root.session is None:
        stack.committed(End("committed"))


def _rollback(row: Capabilities, dialect: Dialect, proceed: Callable[[Any], None], dbapi_connection: Any) -> None:
    if row.begin is not None and row.rollback_refused(driver_connection(dialect, dbapi_connection)):
        past.send(dialect, dbapi_connection, row.begin)
    stack = adopt.taken_from(dbapi_connection)
    proceed(dbapi_connection)
    if stack is not None and stack.root.session is None and adopt.current(stack.root.connections[0]) is stack:
        if stack.unsaved and (end := ending()).closes:
            unsaved.warn(stack, end, raising=False)
        stack.rolled_back(End("rolled back"))
