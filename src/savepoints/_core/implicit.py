"""Statements that end the transaction past SQLAlchemy: refused where they do it by themselves, found out where not.

Only where the database's row knows of such statements (``Capabilities.effect``).
"""

# Note [Statements nobody can see through]
# A procedure may hold DDL, which commits, and DML after it, which begins anew: the server says "in a transaction" then
# as before, and the rest would be kept without the part. But a savepoint does not outlive a commit. So one of ours is
# made before such a statement, and released before the next one: where it is not there any more, all is lost. That
# costs two round trips for each CALL, and nothing for any other statement.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.engine import Connection

from savepoints._core import past, refusals
from savepoints._core.dialects import driver_connection
from savepoints._databases import Aftermath, Effect
from savepoints._model.states import State

if TYPE_CHECKING:
    from savepoints._core.stack import Stack

EffectOf = Callable[[str], tuple[Effect, str] | None]

#: No statement is sent then.
_REFUSED = frozenset({State.FAILED, State.LOST})

_SAVEPOINT = "SAVEPOINT savepoints_probe"
_RELEASE = "RELEASE SAVEPOINT savepoints_probe"


class Doubt(NamedTuple):
    """A statement was sent that has ended the transaction, or may have: then there is a probe on its connection."""

    words: str
    probed: Connection | None

    def settle(self, stack: Stack) -> None:
        """Find out whether it has."""
        stack.doubt = stack.transaction.refresh = None
        connection = self.probed
        if stack.transaction.recorded is State.LOST:
            return
        error: Exception | None = None
        if connection is not None:
            if connection.closed or connection.invalidated:
                return
            try:
                past.send(connection.dialect, connection.connection, _RELEASE)
            except Exception as refused:
                error = refused
                driver = driver_connection(connection.dialect, connection.connection)
                if stack.row_of(connection).aftermath(driver, error) is Aftermath.LOST:
                    stack.lose(error, f"the database ended the transaction, with {self.words} or after it")
                    return
            else:
                return
        stack.lose(error, f"the transaction was ended by a statement past SQLAlchemy, {self.words}", "unseen")


def watch(stack: Stack, connection: Connection, statement: str) -> None:
    """Look at a statement that is about to be sent.

    Raises:
        ImplicitCommit: It would commit.
    """
    if stack.doubt is not None:
        stack.doubt.settle(stack)
    effect_of = stack.row_of(connection).effect
    if effect_of is None or id(connection) not in stack.begun or stack.transaction.recorded in _REFUSED:
        return
    look(stack, connection, statement, effect_of)


def look(stack: Stack, connection: Connection, statement: str, effect_of: EffectOf) -> None:
    """The same inside a transaction that is known to be open, where nothing else is in doubt.

    Raises:
        ImplicitCommit: It would commit.
    """
    if (found := effect_of(statement)) is None:
        return
    effect, words = found
    if effect is Effect.COMMITS:
        raise refusals.implicit_commit(stack.transaction, words)
    if effect is Effect.OPAQUE:
        past.send(connection.dialect, connection.connection, _SAVEPOINT)
        stack.doubt = Doubt(words, connection)
    else:
        stack.doubt = Doubt(words, None)
        stack.transaction.refresh = partial(stack.doubt.settle, stack)  # whoever looks at it is told


def forget(stack: Stack) -> None:
    """The last statement was refused: it has ended nothing, unless somebody has to look inside it."""
    if stack.doubt is not None and stack.doubt.probed is None:
        stack.doubt = stack.transaction.refresh = None
