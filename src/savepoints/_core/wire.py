"""The savepoint statements that SQLAlchemy sends: each of them passes here on a watched engine.

See Note [The dialect's hooks].
"""

# Note [The dialect's hooks]
# SQLAlchemy sends SAVEPOINT, ROLLBACK TO and RELEASE through three documented methods of the engine's dialect, which
# compile the statement anew each time: a third of a block's cost. On an engine of ours they are answered from here, set
# once on its dialect: without compiling, never as a server-side cursor (a connection that streams its results would
# send DECLARE ... CURSOR FOR SAVEPOINT), and with what the stack has to know or to refuse in the one place where the
# statement is sent. There is no event with the same reach: those that exist come before the name is made up, or after
# the statement was compiled, and none can say that a ROLLBACK TO need not be sent at all.

# Note [Unwinding a lost transaction]
# When the server has dropped the transaction, its savepoints are gone too, but SQLAlchemy's nested transactions do
# not know: each of them would send ROLLBACK TO, which fails, and leave session.rollback() and session.close() stuck
# half-way. The statement is left out instead, so that SQLAlchemy unwinds as usual and restores the objects.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, Dialect

from savepoints import errors
from savepoints._core import adopt, past, phases, plain
from savepoints._core.dialects import Answers, driver_connection
from savepoints._core.marks import send, send_rollback_to, send_undo
from savepoints._core.plain import PlainCode
from savepoints._core.roots import begin_driver
from savepoints._core.stack import Stack, stack_of
from savepoints._databases import Aftermath, Capabilities, capabilities
from savepoints._databases.capabilities import Wire
from savepoints._model.repairs import Repair
from savepoints._model.states import Move, State

_answers = Answers("wire")


def answer_hooks(dialect: Dialect) -> None:
    """Answer the hooks of an engine's dialect, once, where we know how its database spells the statements."""
    row = capabilities(dialect)
    answers: dict[str, Any] = {}
    if row.begin is not None:
        # an option since SQLAlchemy 2.0.43: in its eyes a driver that leaves BEGIN to us commits each statement by
        # itself, and the ROLLBACK of our transaction would be left out
        answers["skip_autocommit_rollback"] = False
    if row.warnings is not None:
        answers["do_rollback"] = partial(past.roll_back, dialect, row)
    if row.rollback_left_out:
        answers["do_rollback"] = partial(_rollback, dialect, row, dialect.do_rollback)
    wire = row.wire
    if wire is not None and wire.release is not None:
        answers["do_savepoint"] = partial(_savepoint, wire)
        answers["do_rollback_to_savepoint"] = _rollback_to
        answers["do_release_savepoint"] = partial(_release, wire)
    answers |= phases.answers(row, dialect)
    _answers.set(dialect, answers)


def leave_hooks(dialect: Dialect) -> None:
    """Leave the hooks to the dialect again."""
    _answers.leave(dialect)


def _rollback(dialect: Dialect, row: Capabilities, rollback: Callable[[Any], None], dbapi_connection: Any) -> None:
    """ROLLBACK, and make sure of it: after an error here the connection is discarded, by us or by the pool."""
    rollback(dbapi_connection)
    if row.standing(driver_connection(dialect, dbapi_connection)) is not Aftermath.LOST:
        raise dialect.loaded_dbapi.InterfaceError("ROLLBACK was left out, and the transaction is still open")


def _send(stack: Stack | None, connection: Connection, statement: str, name: str) -> None:
    """Send one of the three statements."""
    if stack is None or Repair.STREAM in stack.repairs:
        send(connection, statement.format(name))
    else:
        connection.exec_driver_sql(statement.format(name))


def _send_back(connection: Connection, name: str, *, release: bool) -> None:
    """Send ROLLBACK TO, and RELEASE after it."""
    row = capabilities(connection.dialect)
    if release:
        send_undo(row, connection, name)
    else:
        send_rollback_to(row, connection, name)


def _savepoint(wire: Wire, connection: Connection, name: str) -> None:
    stack = adopt.of_connection(connection)
    if stack is not None:
        if stack.plain is not None:
            if Repair.BEGIN in stack.repairs:
                begin_driver(stack, connection)
            stack.plain.sent(connection, name)
        elif not stack.turn.taken:
            stack.check_turn("begin_nested()")
            stack.sync()
            stack.admit(stack.top, Move.SAVEPOINT, "begin_nested()")
        stack.sent[id(connection)] = name
    _send(stack, connection, wire.savepoint, name)


def _rollback_to(connection: Connection, name: str) -> None:
    stack = stack_of(connection)
    if stack is None:
        found = adopt.installations.get(connection.dialect)  # in autocommit mode
        _send_back(connection, name, release=found is not None and Repair.RELEASE in found.repairs)
        return
    if stack.doubt is not None:
        stack.doubt.settle(stack)
    if not stack.turn.taken:
        plain.end(stack, connection, Move.OUTER_ROLLBACK, "undone")
    if stack.transaction.recorded is State.LOST or stack.settled:
        return
    if stack.plain is not None:
        _undo(stack, stack.plain, connection, name)
        return
    with stack.letting_through():
        _send_back(connection, name, release=not stack.turn.taken and not _is_ours(stack, connection, name))


def _undo(stack: Stack, code: PlainCode, connection: Connection, name: str) -> None:
    _send_back(connection, name, release=Repair.RELEASE in stack.repairs)
    code.ended(connection, name)
    if stack.stuck is not None:
        stack.heal()


def _is_ours(stack: Stack, connection: Connection, name: str) -> bool:
    """Whether a savepoint belongs to a level of ours, which releases it by itself."""
    return any(level.mark.ours and (connection, name) in getattr(level.mark, "names", ()) for level in stack.levels)


def _release(wire: Wire, connection: Connection, name: str) -> None:
    stack = stack_of(connection)
    if stack is not None and stack.plain is not None:
        plain.end(stack, connection, Move.OUTER_RELEASE, "released")
        _release_or_undo(wire, stack, stack.plain, connection, name)
        if stack.plain.ended(connection, name) and stack.plain.wrote:
            stack.unsaved = Repair.WARN in stack.repairs
        return
    if stack is not None and not stack.turn.taken:
        stack.sync()
        try:
            stack.admit(stack.top, Move.RELEASE, "release a savepoint")
        except (errors.TransactionFailed, errors.TransactionDoomed):
            _undo_refused(stack, connection, name)
            raise
        plain.end(stack, connection, Move.OUTER_RELEASE, "released")
    _send(stack, connection, str(wire.release), name)


def _undo_refused(stack: Stack, connection: Connection, name: str) -> None:
    """Undo a plain nested transaction that cannot be kept: SQLAlchemy takes it for ended, and sends no ROLLBACK TO."""
    plain.end(stack, connection, Move.OUTER_ROLLBACK, "undone, for it could not be released,")
    with stack.letting_through():
        _send_back(connection, name, release=True)


def _release_or_undo(wire: Wire, stack: Stack, code: PlainCode, connection: Connection, name: str) -> None:
    """RELEASE, in plain code; where it is refused after a failure inside, that is undone, and what is around kept.

    SQLAlchemy takes a savepoint whose RELEASE was refused for ended, and sends no ROLLBACK TO.
    """
    first = stack.stuck
    try:
        _send(stack, connection, str(wire.release), name)
    except Exception as error:
        if first is not None and not connection.invalidated:
            error.add_note(f"what failed first: {first.what} at {first.where}")
            if Repair.RELEASE in stack.repairs:
                _undo(stack, code, connection, name)
        raise
