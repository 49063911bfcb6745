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

from savepoints._core import past, plain
from savepoints._core.marks import send, send_rollback_to
from savepoints._core.stack import stack_of
from savepoints._databases import Aftermath, Capabilities, capabilities
from savepoints._model.levels import End
from savepoints._model.states import Move, State
from savepoints._places import ending


def answer_hooks(dialect: Dialect) -> None:
    """Answer the three hooks of an engine's dialect, where we know how its database spells the statements."""
    row = capabilities(dialect)
    if row.begin is not None:
        # an option since SQLAlchemy 2.0.43: in its eyes a driver that leaves BEGIN to us commits each statement by
        # itself, and the ROLLBACK of our transaction would be left out
        dialect.skip_autocommit_rollback = False
    if row.warnings is not None:
        dialect.do_rollback = partial(past.roll_back, dialect, row)  # type: ignore[method-assign]
    if row.rollback_left_out:
        dialect.do_rollback = partial(_rollback, dialect, row, dialect.do_rollback)  # type: ignore[method-assign]
    wire = row.wire
    if wire is not None and wire.release is not None:
        for hook, answer, statement in (
            ("do_savepoint", _savepoint, wire.savepoint),
            ("do_rollback_to_savepoint", partial(_rollback_to, row), wire.rollback_to),
            ("do_release_savepoint", _release, wire.release),
        ):
            setattr(dialect, hook, partial(answer, statement))


def _rollback(dialect: Dialect, row: Capabilities, rollback: Callable[[Any], None], dbapi_connection: Any) -> None:
    """ROLLBACK, and make sure of it: after an error here the connection is discarded, by us or by the pool."""
    rollback(dbapi_connection)
    if row.standing(dbapi_connection.driver_connection) is not Aftermath.LOST:
        raise dialect.loaded_dbapi.InterfaceError("ROLLBACK was left out, and the transaction is still open")


def _savepoint(statement: str, connection: Connection, name: str) -> None:
    stack = stack_of(connection)
    if stack is not None:
        if not stack.turn.taken:
            stack.check_turn("begin_nested()")
            stack.sync()
            stack.admit(stack.top, Move.SAVEPOINT, "begin_nested()")
        stack.sent[id(connection)] = name
    send(connection, statement.format(name))


def _rollback_to(row: Capabilities, statement: str, connection: Connection, name: str) -> None:
    stack = stack_of(connection)
    if stack is not None and not stack.turn.taken:
        plain.end(stack, connection, Move.OUTER_ROLLBACK, End(f"undone by {ending()}"))
    if stack is None:
        send_rollback_to(row, connection, statement.format(name))
    elif stack.transaction.recorded is not State.LOST and not stack.settled:
        with stack.letting_through():
            send_rollback_to(row, connection, statement.format(name))


def _release(statement: str, connection: Connection, name: str) -> None:
    stack = stack_of(connection)
    if stack is not None and not stack.turn.taken:
        stack.sync()
        stack.admit(stack.top, Move.RELEASE, "release a savepoint")
        plain.end(stack, connection, Move.OUTER_RELEASE, End(f"released by {ending()}"))
    send(connection, statement.format(name))
