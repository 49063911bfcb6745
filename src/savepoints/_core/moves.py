"""The moves: what each verb does to the stack, to SQLAlchemy and to the database.

A state changes after the database's answer, never before; the first error wins, and what goes wrong while cleaning up
after it becomes a note on it. Nothing here sleeps, awaits or calls the user's code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.orm import Session

from savepoints import errors
from savepoints._core import hooks, objects, refusals, streams
from savepoints._core.attach import Target, find, stack_for
from savepoints._core.face import Face
from savepoints._core.join import join, steer
from savepoints._core.marks import ConnectionMark, Mark, SessionMark, session_connections
from savepoints._core.roots import begin_driver
from savepoints._core.stack import Stack, detach
from savepoints._model.hooks import Hook, Occasion, checked
from savepoints._model.levels import End, Level, SavepointLevel, checked_name, printable
from savepoints._model.states import Move, State
from savepoints._places import Place, caller

# -- savepoints


def open_savepoint(target: Target, face: Face, name: str | None) -> SavepointLevel:
    """Make a savepoint at once, as a bookmark.

    Raises:
        WrongTask, OutOfOrder, TransactionFailed, TransactionLost: Before any SQL.
    """
    if name is not None:
        checked_name(name)
    stack = stack_for(target, face)
    with stack.call("make a savepoint"):
        stack.sync()
        stack.admit(stack.top, Move.SAVEPOINT, "make a savepoint")
        try:
            mark = _mark(stack, target)
        except BaseException:
            if not target.in_transaction() and not stack.transaction.managed:
                detach(stack)  # not even the transaction could be begun
            raise
        stack.transaction.count += 1
        level = face.savepoint(stack, name or f"savepoint {stack.transaction.count}", stack.top, mark)
        stack.push(level)
        return level


def _mark(stack: Stack, target: Target) -> Mark:
    if isinstance(target, Session):
        _refuse_other_session(stack, target)
        _flush_before(target)
        if not stack.root.connections:
            for connection in session_connections(target):
                join(stack, connection)
    if len(stack.begun) < len(stack.root.connections):
        for connection in stack.root.connections:
            begin_driver(stack, connection)
    return SessionMark(stack, target) if isinstance(target, Session) else ConnectionMark(stack, target)


def _refuse_other_session(stack: Stack, session: Session) -> None:
    """Two sessions on one connection would end each other's savepoints, and SQLAlchemy would not know."""
    for level in stack.levels:
        if isinstance(level.mark, SessionMark) and level.mark.session is not session:
            raise errors.OutOfOrder(
                f"{refusals.called(level)} of another session is open on the same connection",
                hint="end it first, or give each session a connection of its own",
            )


def _flush_before(session: Session) -> None:
    """What is pending belongs to the level around, and so does an error of its flush."""
    try:
        session.flush()
    except Exception as error:
        error.add_note(f"the flush of what was pending before the savepoint failed (at {caller()})")
        raise


def named(target: Target, name: str) -> SavepointLevel:
    """The nearest open savepoint of that name."""
    stack = find(target)
    if stack is None:
        checked_name(name)
        raise refusals.unknown(name, ())
    steer(stack)
    return named_in(stack, name)


def named_in(stack: Stack, name: str) -> SavepointLevel:
    """The nearest open savepoint of that name in a transaction."""
    checked_name(name)
    stack.admit(stack.transaction, Move.ROLLBACK_TO, f"find {printable(name)!r}")
    stack.sync()
    return stack.find(name)


def roll_back(level: SavepointLevel) -> None:
    """Undo what was done since the savepoint, and keep it open.

    Raises:
        SavepointEnded, TransactionLost, OutOfOrder, WrongTask: Before any SQL.
    """
    stack = level.stack
    with stack.call("roll back to a savepoint"):
        stack.sync()
        stack.admit(level, Move.ROLLBACK_TO, "roll back to it")
        refuse_outside(stack, level, "roll back to")
        before = note_loaded(stack, level)
        streams.close(stack, level)
        _undo(stack, level, End(f"undone by the rollback of {refusals.called(level)}", caller()), keep=True)
        stack.stuck = None
        level.move(Move.ROLLBACK_TO)
        stack.transaction.move(Move.ROLLBACK_TO)
        level.rollbacks += 1
        hooks.end(stack, level, Occasion.ROLLBACK)
        reload_lost(before)


def release(level: SavepointLevel) -> None:
    """End the savepoint and keep its work in the level around.

    Raises:
        SavepointEnded, TransactionFailed, TransactionDoomed, TransactionLost, OutOfOrder, WrongTask: Before any SQL.
    """
    stack = level.stack
    with stack.call("release a savepoint"):
        stack.sync()
        stack.admit(level, Move.RELEASE, "release it")
        refuse_swallowed(stack, level, "release it")
        refuse_outside(stack, level, "release")
        level.mark.flush()
        merge(stack, level, where=caller())


Noted = list[tuple[Session, objects.Loaded]]


def note_loaded(stack: Stack, level: SavepointLevel) -> Noted:
    """What the sessions have loaded, before a level is undone, where an async face has to load it again."""
    if stack.runner is None:
        return []
    marks = [inner.mark for inner in stack.levels[stack.index(level) :] if isinstance(inner.mark, SessionMark)]
    sessions = dict.fromkeys(mark.session for mark in marks)
    return [(s, objects.loaded(s, [mark.touched for mark in marks if mark.session is s])) for s in sessions]


def reload_lost(before: Noted) -> None:
    """Load again what the rollback has expired."""
    for session, loaded in before:
        objects.reload(session, loaded)


def refuse_outside(stack: Stack, level: SavepointLevel, verb: str) -> None:
    index = stack.index(level)
    block = stack.block
    if isinstance(block, SavepointLevel) and stack.index(block) > index:
        raise refusals.outside(level, block, verb)
    joined = stack.joined[-1] if stack.joined else None
    if isinstance(joined, SavepointLevel) and joined.is_alive and stack.index(joined) >= index:
        raise refusals.outside(level, joined, verb)


def _undo(stack: Stack, level: SavepointLevel, how: End, *, keep: bool, first: BaseException | None = None) -> None:
    """Roll back to a level and end those inside it, innermost first.

    On a connection ROLLBACK TO goes first, and ends those inside for the server as well: with a plain
    ``with connection.begin_nested()`` among them, SQLAlchemy would take no statement after that one has ended.
    """
    if isinstance(level.mark, ConnectionMark):
        _or_lost(stack, lambda: level.mark.rollback(keep=keep), first)
        with stack.ended_on_server():
            _undo_above(stack, level, how)
    else:
        _undo_above(stack, level, how)
        _or_lost(stack, lambda: level.mark.rollback(keep=keep), first)


def _undo_above(stack: Stack, level: Level, how: End) -> None:
    while stack.top is not level:
        inner = stack.levels[-1]
        _or_lost(stack, lambda mark=inner.mark: mark.vanish(kept=False))  # type: ignore[misc]
        stack.end(inner, Move.OUTER_ROLLBACK, how)


def _end_bookmarks(stack: Stack, level: Level, how: End) -> None:
    """What was opened inside ends with a level that is kept, innermost first; what the code doomed ends undone."""
    _undo_doomed(stack, level)
    while stack.top is not level:
        inner = stack.levels[-1]
        inner.mark.vanish(kept=True)
        stack.end(inner, Move.OUTER_RELEASE, how)


def _undo_doomed(stack: Stack, level: Level) -> None:
    """Undo the outermost doomed savepoint inside a level; what was opened inside it goes with it."""
    start = stack.index(level) + 1 if isinstance(level, SavepointLevel) else 0
    doomed = next((inner for inner in stack.levels[start:] if inner.recorded is State.DOOMED), None)
    if doomed is not None:
        end_undone(stack, doomed, End("rolled back: it was doomed", caller()))


def refuse_swallowed(stack: Stack, level: Level, verb: str) -> None:
    """A failure inside that somebody swallowed: the work is not whole, and must not be kept in silence."""
    if stack.top is level and level.recorded is State.OPEN:
        return
    start = stack.index(level) if isinstance(level, SavepointLevel) else 0
    for inner in (level, *stack.levels[start:]):
        failed = inner.recorded in (State.FAILED, State.UNDONE)
        if failed or (inner.recorded is State.DOOMED and inner.cause is not None and inner.cause.error is not None):
            raise refusals.refused(inner, verb)


def end_undone(stack: Stack, level: SavepointLevel, how: End, first: BaseException | None = None) -> None:
    """Undo a level, with what was opened inside, and end it: ROLLBACK TO, then RELEASE, so that none is left.

    Args:
        stack: The stack.
        level: One of its levels.
        how: What is told of its end.
        first: The error that led here: should the rollback be refused, a database's error is the cause of the loss.
    """
    before = note_loaded(stack, level)
    streams.close(stack, level)
    _undo(stack, level, End(f"undone by the end of {refusals.called(level)}", caller()), keep=False, first=first)
    stack.stuck = None
    stack.end(level, Move.ROLLBACK, how)
    stack.transaction.move(Move.ROLLBACK_TO)
    reload_lost(before)


def _or_lost(stack: Stack, statement: Callable[[], None], first: BaseException | None = None) -> None:
    """A refused ROLLBACK TO means that the server has dropped the savepoint, and so the transaction.

    If it was somebody's listener that kept it from being sent, the work inside cannot be told from the rest any more.
    """
    try:
        statement()
    except errors.SavepointsError:
        raise
    except Exception as error:
        stack.lose(first if isinstance(first, DBAPIError) else error, "a rollback to a savepoint was refused")
        raise


def merge(stack: Stack, level: SavepointLevel, how: str = "", where: Place | None = None) -> None:
    """Release a level, and with it what was opened inside; what is pending has been flushed inside before."""
    end = End(how, where, (level.parent or stack.transaction).name)
    if stack.top is not level:
        _end_bookmarks(stack, level, end)
    level.mark.release()
    stack.end(level, Move.RELEASE, end)


def register(target: Target, face: Face, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Hook:
    """Give a hook to the innermost open level of a target.

    Raises:
        NoTransaction: None is open, or nobody would tell us of its end.
        WrongArgument: The function cannot be called, or is async where nothing is awaited.
    """
    checked(function, occasion.value)
    stack = find(target)
    if stack is None:
        if not target.in_transaction():
            raise errors.NoTransaction(f"{occasion.value}: no transaction is open on this {type(target).__name__}")
        if not isinstance(target, Session):
            raise refusals.no_hook(occasion.value, "the transaction of a plain Connection")
        stack = stack_for(target, face)
    if not stack.turn.taken:
        stack.check_turn("register a hook")
        stack.look()
        stack.sync()
    return stack.hook(stack.top, occasion, function, args, kwargs)


# -- the outermost unit


def _end_before_commit(stack: Stack) -> None:
    """SQLAlchemy's nested transactions are released before a COMMIT, what the code doomed is undone.

    Savepoints of ours on a connection need no statement: they end when COMMIT is answered.
    """
    _undo_doomed(stack, stack.transaction)
    how = End("", caller(), stack.transaction.name)
    for level in reversed(stack.levels.copy()):
        if not isinstance(level.mark, ConnectionMark):
            level.mark.vanish(kept=True)
            stack.end(level, Move.OUTER_RELEASE, how)


def commit(stack: Stack) -> None:
    """Commit; open bookmarks end as released, doomed ones undone.

    Raises:
        CommitOutcomeUnknown: COMMIT was sent and its answer never came.
    """
    transaction = stack.transaction
    stack.answered = False
    _end_before_commit(stack)
    try:
        stack.root.commit()
    except BaseException as error:
        if stack.answered:  # a listener has failed after it: the error passes, the work is stored
            stack.committed(End("committed", caller()))
            raise
        if transaction.recorded is State.UNKNOWN:
            unknown = refusals.unknown_outcome(transaction, error, of=len(stack.root.connections))
            if stack.tracker is not None:
                unknown.resolver = partial(stack.face.resolve, stack.tracker)
            if isinstance(error, Exception):
                raise unknown from error
            error.add_note(str(unknown))
        raise
    stack.committed(End("committed", caller()))


def roll_back_all(stack: Stack, how: End) -> None:
    """Roll the whole transaction back, levels innermost first, and leave nothing of it on its connections."""
    try:
        streams.close_all(stack)
        while stack.levels:
            level = stack.levels[-1]
            level.mark.vanish(kept=False)
            stack.end(level, Move.OUTER_ROLLBACK, how)
        if stack.transaction.is_alive:
            stack.root.rollback()
        else:  # after a connection's own rollback() past its session, of which SQLAlchemy warns
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)
                stack.root.rollback()
    except BaseException:
        for connection in stack.root.connections:
            if not connection.closed and not connection.invalidated:
                connection.invalidate()
        raise
    finally:
        stack.rolled_back(how)
