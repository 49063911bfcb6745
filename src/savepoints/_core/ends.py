"""The ends of blocks: what a ``with`` does when it is left, with or without an error."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import PendingRollbackError

from savepoints import errors
from savepoints._core import refusals
from savepoints._core.attach import put_back
from savepoints._core.dialects import is_closed
from savepoints._core.moves import (
    commit,
    end_undone,
    merge,
    refuse_outside,
    refuse_swallowed,
    roll_back_all,
)
from savepoints._core.roots import begin_driver
from savepoints._core.stack import Stack, detach
from savepoints._model.levels import Cause, End, Level, SavepointLevel
from savepoints._model.states import Move, State
from savepoints._places import caller, worker

_AT_ITS_END = " at the end of its block"

Suppress = type[BaseException] | tuple[type[BaseException], ...]


def checked_suppress(suppress: Any) -> Suppress:
    """The errors that a block is to swallow, if they may be given so.

    Raises:
        WrongArgument: It is neither an exception class nor a tuple of them.
    """
    for kind in suppress if isinstance(suppress, tuple) else (suppress,):
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise errors.WrongArgument(
                f"suppress takes an exception class or a tuple of them, not {errors.kind_of(kind)}",
                hint="give the classes of the errors that the block may swallow",
            )
    found: Suppress = suppress
    return found


def enter(level: SavepointLevel) -> None:
    """Make a block of a bookmark.

    Raises:
        SavepointEnded, OutOfOrder: It has ended, its block is under way, or it is not the innermost level.
    """
    stack = level.stack
    stack.check_turn("enter a block")
    stack.sync()
    stack.admit(level, Move.SAVEPOINT, "enter its block")
    if level.block:
        raise errors.OutOfOrder(
            f"the block of {refusals.called(level)} is under way", hint="make a savepoint of its own for each block"
        )
    if stack.top is not level:
        raise errors.OutOfOrder(
            f"{refusals.called(level)} is not the innermost level, {refusals.called(stack.top)} is",
            hint="enter the block before making other savepoints",
        )
    if stack.joined:
        refuse_outside(stack, level, "enter the block of")
    level.block = True
    level.opened_by = worker()


def leave_savepoint(level: SavepointLevel, error: BaseException | None, *, rollback: bool) -> None:
    """End a savepoint's block: release it, or undo it where there is an error or it was asked for.

    Raises:
        TransactionFailed, TransactionDoomed, TransactionLost, OutOfOrder: The block's work could not be kept although
            no error left the block. What the flush or the RELEASE at its end raises passes as it is; the level is
            undone then.
    """
    stack = level.stack
    turn, late = stack.leave("leave a block", error)
    with turn:
        stack.sync()
        level.block = False
        if error is None:
            try:
                if late is not None:
                    raise late
                _end_well(stack, level, rollback=rollback)
            except BaseException as own:
                error = own
                _undo(stack, level, own)
                raise
            finally:
                level.error = error
        else:
            level.error = error
            _note_open_blocks(stack, level, error)
            _undo(stack, level, error)


def _note_open_blocks(stack: Stack, level: Level, error: BaseException) -> None:
    try:
        _refuse_open_blocks(stack, level)
    except errors.OutOfOrder as order:
        error.add_note(str(order))


def _end_well(stack: Stack, level: SavepointLevel, *, rollback: bool) -> None:
    if level.recorded is State.RELEASED:
        return
    if level.recorded is not State.OPEN or stack.top is not level:
        _refuse_unfit(stack, level)
    if level.recorded is State.OPEN:  # also in a dry run, which is there to find what the database refuses
        level.mark.flush()
        refuse_swallowed(stack, level, "keep the block's work")
    if rollback or level.recorded is State.DOOMED:
        _undo(stack, level, None)
    else:
        try:
            merge(stack, level, _AT_ITS_END)
        except BaseException as error:
            if level.parent is not None and level.is_alive:
                stack.doom(level.parent, f"the release of {refusals.called(level)} failed", error)
            raise


def _refuse_unfit(stack: Stack, level: SavepointLevel) -> None:
    if level.recorded is State.LOST:
        raise refusals.refused(level, "keep the block's work")
    if not level.is_alive:
        raise refusals.ended_behind(level)
    _refuse_open_blocks(stack, level)
    refuse_swallowed(stack, level, "keep the block's work")


def _refuse_open_blocks(stack: Stack, level: Level) -> None:
    if not level.is_alive or stack.top is level:
        return
    start = stack.index(level) + 1 if isinstance(level, SavepointLevel) else 0
    for inner in stack.levels[start:]:
        if inner.block:
            raise refusals.left_before(level, inner)


def _undo(stack: Stack, level: SavepointLevel, error: BaseException | None) -> None:
    """Undo the level and end it. With an error under way, what goes wrong here becomes a note on it."""
    if not level.is_alive:
        return
    how = "rolled back" if error is None else f"rolled back because of {type(error).__name__}"
    try:
        end_undone(stack, level, End(how, caller()), error)
    except BaseException as second:
        if error is None or not isinstance(second, Exception):
            raise
        error.add_note(f"undoing {refusals.called(level)} failed as well: {type(second).__name__}")


def leave_transaction(stack: Stack, error: BaseException | None, *, rollback: bool) -> None:
    """End the outermost block: commit, or roll back where there is an error or it was asked for.

    Raises:
        TransactionFailed, TransactionDoomed, OutOfOrder: Nothing was kept although no error left the block.
        TransactionLost: The server had ended the transaction; also where the first error of that is on its way.
        CommitOutcomeUnknown: COMMIT was sent and its answer never came.
    """
    transaction = stack.transaction
    turn, late = stack.leave("leave the transaction", error)
    with turn:
        lost = transaction.cause if transaction.recorded is State.LOST else None
        try:
            if error is None:
                stack.sync()
                if late is not None and lost is None:
                    raise late
                _end_transaction_well(stack, rollback=rollback)
            elif lost is not None:
                _tell_loss(transaction, error, lost)
            else:
                _note_open_blocks(stack, transaction, error)
                _note_astray(transaction, error)
        except BaseException as own:
            error = own
            if lost is None and transaction.recorded is State.LOST and transaction.cause is not None:
                _tell_loss(transaction, own, transaction.cause)
            raise
        finally:
            transaction.error = error
            if transaction.recorded is not State.COMMITTED:
                _clear(stack, error)
            elif error is not None:
                stack.root.close()
            transaction.block = False
            put_back(stack)
            detach(stack)


def _note_astray(transaction: Level, error: BaseException) -> None:
    if isinstance(error, errors.Rollback) and not aims_at(error, transaction):
        error.add_note(f"no block around the `raise` is {error.aim}: {refusals.called(transaction)} was undone")


def _end_transaction_well(stack: Stack, *, rollback: bool) -> None:
    transaction = stack.transaction
    if transaction.recorded is State.LOST:
        raise refusals.lost(transaction)
    if not transaction.is_alive:
        raise refusals.ended_behind(transaction)
    _refuse_open_blocks(stack, transaction)
    refuse_swallowed(stack, transaction, "keep the block's work")
    if transaction.recorded is State.OPEN:
        stack.root.flush()
        refuse_swallowed(stack, transaction, "keep the block's work")
    if not rollback and transaction.recorded is not State.DOOMED:
        commit(stack)


def _tell_loss(transaction: Level, error: BaseException, lost: Cause) -> None:
    """Raise TransactionLost in place of the loss's own error; an error of the code's own passes, with a note."""
    if not isinstance(error, Exception) or isinstance(error, errors.TransactionLost):
        return
    if error is lost.error and lost.by == "session":
        return  # SQLAlchemy rolled back after a failed flush: that error passes as it is
    if error is lost.error or isinstance(error, (PendingRollbackError, errors.Rollback)):
        raise refusals.lost(transaction)
    error.add_note(str(refusals.lost(transaction)))


def _clear(stack: Stack, error: BaseException | None) -> None:
    """Roll back what is left. With an error under way, what goes wrong here becomes a note on it."""
    cause = stack.transaction.cause
    if stack.transaction.ended_unseen and cause is not None:
        how = f"unknown, stored or not: {cause.what}"
    elif stack.transaction.recorded is State.LOST and cause is not None:
        how = f"lost: {cause.what}"
    elif stack.transaction.recorded is State.UNKNOWN and cause is not None:
        how = f"ended with the transaction, stored or not: {cause.what}"
    else:
        how = "rolled back" if error is None else f"rolled back because of {type(error).__name__}"
    if error is not None and not isinstance(error, Exception):
        _discard_unsure(stack)
    _discard_closed(stack)
    try:
        roll_back_all(stack, End(how, caller()))
    except BaseException as second:
        if error is None or not isinstance(second, Exception):
            raise
        error.add_note(f"rolling back failed as well: {type(second).__name__}; the connection was discarded")


def _discard_unsure(stack: Stack) -> None:
    """Discard a connection that was cancelled before it is known to have begun, where the driver begins late.

    Its BEGIN may be on its way, also for a statement of somebody's listener, which SQLAlchemy 2.0 does not know of and
    would send no ROLLBACK for (#13381).
    """
    for connection in stack.root.connections:
        begins_late = stack.row_of(connection).rollback_left_out and id(connection) not in stack.begun
        if begins_late and not connection.closed and not connection.invalidated:
            connection.invalidate()


def _discard_closed(stack: Stack) -> None:
    """Discard a connection that was closed: a driver may take ROLLBACK on it for done, and the pool keep it."""
    for connection in stack.root.connections:
        if connection.closed or connection.invalidated:
            continue
        if is_closed(connection, stack.row_of(connection)):
            connection.invalidate()


def joined_level(stack: Stack) -> Level:
    """The level that a joined block works in.

    Raises:
        TransactionLost, OutOfOrder: There is nothing left to join.
    """
    with stack.call("join a transaction"):
        stack.sync()
        if stack.transaction.recorded is State.LOST or not stack.transaction.is_alive:
            stack.admit(stack.top, Move.SAVEPOINT, "join it")
        stack.joined.append(stack.top)
        for connection in stack.root.connections:
            begin_driver(stack, connection)
        return stack.top


def leave_joined(stack: Stack, level: Level, error: BaseException | None) -> None:
    """Leave a joined block. After an error the level it joined can only be rolled back, even if that is swallowed."""
    if level in stack.joined:
        stack.joined.remove(level)
    if error is not None and stack.transaction.is_alive and stack.transaction.recorded is not State.LOST:
        stack.doom(level if level.is_alive else stack.top, "a joined block inside it failed", error)


def note_commit(transaction: Level, error: BaseException) -> None:
    """Say on an error that leaves the block where it came after the COMMIT; hooks' errors say it themselves."""
    if transaction.recorded is State.COMMITTED and not isinstance(error, errors.HookErrors):
        errors.note_commit(error)


def aims_at(error: BaseException | None, level: Level) -> bool:
    """Whether an error is the signal to undo this block and go on after it."""
    if not isinstance(error, errors.Rollback):
        return False
    to = error.to
    return to is None or to is level or (isinstance(to, str) and to == level.name)


def swallows(level: Level, error: BaseException | None, suppress: Suppress) -> bool:
    """Whether the block of a level ends an error's way: the signal aimed at it, or one that is to be suppressed."""
    if error is None or level.recorded not in (State.ROLLED_BACK, State.GONE):
        return False
    if isinstance(error, errors.Rollback):  # also where its class is to be suppressed: it is on its way to a level
        return aims_at(error, level)
    return level.recorded is State.ROLLED_BACK and isinstance(error, suppress)
