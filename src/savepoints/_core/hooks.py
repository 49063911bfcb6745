"""Which level owns a hook, where none can be registered, and what is due when a level ends.

See Note [What becomes of hooks].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.engine import NestedTransaction
from sqlalchemy.orm import Session

from savepoints import _compat, errors
from savepoints._core import refusals
from savepoints._model import hooks
from savepoints._model.hooks import Hook, Occasion
from savepoints._model.levels import Level
from savepoints._model.states import State

if TYPE_CHECKING:
    from savepoints._core.stack import Stack


def give(stack: Stack, level: Level, hook: Hook) -> Hook:
    """Give a hook to a level, if somebody will be there to run it.

    Raises:
        SavepointEnded, TransactionLost: The level has ended.
        NoTransaction: Nobody would tell us how the transaction ends.
        WrongArgument: The hook is async, and nothing is awaited.
    """
    transaction = stack.transaction
    if not level.is_alive or transaction.recorded is State.LOST:
        raise refusals.refused(transaction if transaction.recorded is State.LOST else level, "register a hook")
    if not transaction.managed:
        _refuse_unowned(stack, hook.occasion)
    if hook.awaits:
        _refuse_unawaited(stack, hook)
    level.hooks = hooks.moved_up([hook], level.hooks)
    stack.hooked = True
    return hook


def _refuse_unawaited(stack: Stack, hook: Hook) -> None:
    if stack.runner is None:
        raise errors.WrongArgument(
            f"the {hook} is async, and nothing is awaited on a sync target",
            hint="give a function that is not async, or use an async session or connection",
        )
    if not stack.transaction.managed:
        raise errors.NoTransaction(
            f"the {hook} is async, and nobody would await it after a plain commit() or rollback()",
            hint="open the transaction with `async with transaction(...)`",
        )


def _refuse_unowned(stack: Stack, verb: str) -> None:
    """Without a block of ours only a Session tells how its transaction ends, if that is its own and ends here."""
    session = stack.root.session
    if session is None:
        raise refusals.no_hook(verb, "the transaction of a plain Connection")
    if session.twophase:
        raise refusals.no_hook(verb, "a two-phase transaction of SQLAlchemy's, which others may commit,")
    if not _owns(session):
        raise refusals.no_hook(verb, "a transaction that somebody else began on the session's connection")


def _owns(session: Session) -> bool:
    """Whether the session's commit() sends COMMIT."""
    transaction = session.get_transaction()
    return transaction is None or all(
        _compat.commits(transaction, connection)
        and not isinstance(_compat.begun_on(transaction, connection), NestedTransaction)
        for connection in _compat.connections(transaction)
    )


def pass_on(stack: Stack, level: Level, around: Level) -> None:
    """A savepoint has ended: its hooks move up, or its rollback hooks are due."""
    undecided = stack.transaction.recorded in (State.LOST, State.UNKNOWN)
    if level.hooks is not None and (undecided or level.recorded is State.RELEASED):
        around.hooks = hooks.moved_up(level.hooks, around.hooks)
        level.hooks = None
    else:
        end(stack, level, Occasion.ROLLBACK)


def end(stack: Stack, level: Level, occasion: Occasion) -> None:
    """A level was undone, or the transaction has ended: what waited for that is due, the rest is dropped."""
    if level.hooks:
        stack.due += hooks.due_at(occasion, level.hooks)
        stack.due_in = level
        level.hooks = None
