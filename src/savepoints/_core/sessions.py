"""Listeners on sessions and mapped classes: plain endings are noticed, touched objects are collected.

Set once per session class (per session, where the class is SQLAlchemy's own ``Session``) and per mapped class. Where
an engine is installed, all sessions are watched: see Note [All sessions].
"""

# Note [All sessions]
# An engine does not know of the sessions that use it, and they tell nobody when they are made; `AsyncSession` makes
# SQLAlchemy's own `Session`. So as long as an engine is installed, the listeners hang on `Session` itself. For sessions
# on other engines they look into `Session.info`, find nothing, and return.

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import InstanceState, Session, SessionTransaction
from sqlalchemy.orm.attributes import instance_state

from savepoints import _compat, errors
from savepoints._core import adopt, due, objects, plain, refusals, unsaved
from savepoints._core.join import join, part
from savepoints._core.marks import SessionMark
from savepoints._core.stack import KEY, Stack, detach
from savepoints._model.levels import Cause, End
from savepoints._model.repairs import Repair
from savepoints._model.states import Move, State
from savepoints._places import caller, ending

_watched_classes: WeakSet[type[Session]] = WeakSet()
_watched_entities: WeakSet[type] = WeakSet()
_WATCHED = "savepoints_watched"


def watch_session(session: Session) -> None:
    """Set the listeners of a session's class, once; of this session alone where the class is SQLAlchemy's own."""
    cls = type(session)
    if cls is Session and cls not in _watched_classes:
        if _WATCHED not in session.info:
            session.info[_WATCHED] = True
            _listen(session)
    elif not any(base in _watched_classes for base in cls.__mro__):
        _watched_classes.add(cls)
        _listen(cls)
    for entity in {type(obj) for obj in session.identity_map.values()}:
        _watch_entity(entity)


def watch_all_sessions() -> None:
    """Set the listeners of every session, once."""
    if Session not in _watched_classes:
        _forget_classes()
        _watched_classes.add(Session)
        _listen(Session)


def watch_sessions_used() -> None:
    """Watch again only those on which verbs of ours are used."""
    if Session in _watched_classes:
        _forget_classes()


def _forget_classes() -> None:
    for cls in list(_watched_classes):
        _watched_classes.discard(cls)
        for name, listener in _listeners():
            event.remove(cls, name, listener)


def _listen(target: Session | type[Session]) -> None:
    for name, listener in _listeners():
        event.listen(target, name, listener, insert=True)


def _listeners() -> tuple[tuple[str, Callable[..., None]], ...]:
    return (
        ("after_transaction_create", _after_transaction_create),
        ("after_begin", _after_begin),
        ("after_transaction_end", _after_transaction_end),
        ("before_commit", _before_commit),
        ("after_commit", _after_commit),
        ("after_rollback", _after_rollback),
        ("before_flush", _before_flush),
        ("after_flush", _after_flush),
        ("loaded_as_persistent", _loaded_as_persistent),
        ("detached_to_persistent", _detached_to_persistent),
        ("persistent_to_deleted", _persistent_to_deleted),
    )


def _watch_entity(entity: type) -> None:
    """``refresh`` is an event of instances: it is set per mapped class."""
    if entity not in _watched_entities:
        _watched_entities.add(entity)
        event.listen(entity, "refresh", _on_refresh, raw=True)


def stack_of(session: Session) -> Stack | None:
    """The stack that a session belongs to."""
    stack: Stack | None = session.info.get(KEY)
    return stack


# -- levels


def _after_transaction_create(session: Session, transaction: SessionTransaction) -> None:
    """A plain ``begin_nested()`` sends SAVEPOINT when it is first used, perhaps by somebody else: refused here."""
    if not transaction.nested:
        return
    stack = adopt.of_session(session)
    if stack is None or stack.turn.taken:
        return
    try:
        stack.check_turn("begin_nested()")
    except errors.WrongTask:
        transaction.close()
        raise
    stack.sync()
    plain.push(stack, SessionMark(stack, session, transaction))
    stack.unsent.update(map(id, stack.root.connections))


def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    stack = stack_of(session) or _begun_by_plain_code(session, transaction, connection)
    if stack is None:
        return
    if stack.transaction.block and not stack.transaction.is_alive:
        stack.take(connection)  # SQLAlchemy keeps it for the session: the next statement must be refused, too
    _refuse_if_over(session, stack)
    if not stack.transaction.is_alive:
        return
    if not transaction.nested:
        join(stack, connection)
        return
    stack.unsent.discard(id(connection))
    nested = connection.get_nested_transaction()
    if nested is not None:
        stack.owned.add(nested)
    mark = stack.mark_of(transaction)
    if mark is not None:
        mark.joined(connection)


def _begun_by_plain_code(session: Session, transaction: SessionTransaction, connection: Connection) -> Stack | None:
    """A session's transaction has reached a connection; where a nested one is to follow, it needs a stack."""
    if transaction.nested or connection.dialect not in adopt.installations:
        return None
    adopt.belongs(connection, session)
    stack = adopt.of_session(session) if session.in_nested_transaction() else None
    if stack is not None:
        stack.sync()
    return stack


def _refuse_if_over(session: Session, stack: Stack) -> None:
    if stack.turn.taken or stack.transaction.is_alive:
        return
    if stack.transaction.block:
        raise refusals.ended_behind(stack.transaction)
    detach(stack)


def _before_commit(session: Session) -> None:
    stack = stack_of(session)
    if stack is None or stack.turn.taken:
        return
    _refuse_if_over(session, stack)
    nested = session.get_nested_transaction()
    if nested is None:
        if stack.root.session is session:
            _before_root_commit(stack)
        return
    level = stack.level_of(nested)
    if level is None or stack.plain is not None:
        return
    outermost = next((outer for outer in reversed(stack.levels) if not outer.mark.ours), None)
    if outermost is None or ending().verb.endswith("Session.commit"):
        stack.refuse_commit("session.commit()")  # nobody commits a savepoint of ours by hand
        return
    block = next((inner for inner in stack.levels[stack.index(outermost) :] if inner.block), None)
    if block is not None:
        raise refusals.plain_call("a plain nested transaction was committed", block)
    stack.admit(stack.top, Move.RELEASE, "commit")


def _before_root_commit(stack: Stack) -> None:
    if stack.plain is None or not _knows_by_itself(stack):
        stack.refuse_commit("session.commit()")
    if stack.hooked:
        due.run_before_plain_commit(stack)
    stack.leaving = True
    stack.unsaved = False  # what fails from here on tells of it


def _after_commit(session: Session) -> None:
    stack = stack_of(session)
    if stack is None:
        return
    nested = session.get_nested_transaction()
    if stack.turn.taken:
        stack.answered = nested is None and stack.root.session is session
    else:
        stack.kept = nested or session.get_transaction()


def _after_rollback(session: Session) -> None:
    """SQLAlchemy has rolled back a level, and is about to restore the objects of this one alone."""
    stack = stack_of(session)
    if stack is not None and not stack.turn.taken:
        stack.undone = session.get_nested_transaction()
        for inner in stack.cut:
            _compat.restore_snapshot(inner)
        stack.cut.clear()


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    stack = stack_of(session)
    if stack is None:
        return
    if transaction.parent is not None and not transaction.nested:
        _after_flush_transaction(stack, transaction.parent)
    elif not stack.turn.taken:
        kept = stack.kept is transaction
        stack.kept = None
        if transaction.nested:
            _nested_ended(stack, transaction, kept)
        else:
            _root_ended(session, stack, kept)
        if stack.due and (transaction.nested or not stack.transaction.block):
            due.run_after_plain_ending(stack)


def _after_flush_transaction(stack: Stack, parent: SessionTransaction) -> None:
    """A flush that fails makes SQLAlchemy roll back the nearest savepoint, or the whole transaction."""
    while parent.parent is not None and not parent.nested:
        parent = parent.parent
    if parent.is_active:
        return
    stack.leaving = False
    stack.unsaved = stack.unsaved and parent.nested  # else the error of the flush tells of it
    error = sys.exc_info()[1]
    level = stack.level_of(parent) if parent.nested else None
    if level is not None:
        stack.end_above(level, Move.OUTER_ROLLBACK, End("undone by a failed flush", caller()))
        level.move(Move.FLUSH_FAIL)
        if level.recorded is State.UNDONE:
            level.cause = Cause("a flush failed and undid it", error, caller())
    elif (
        not parent.nested
        and stack.root.session is parent.session
        and stack.transaction.is_alive
        and stack.plain is None
    ):
        what = "a flush failed outside any savepoint, and SQLAlchemy rolled the transaction back"
        stack.lose(error, what, "session")


def _nested_ended(stack: Stack, transaction: SessionTransaction, kept: bool) -> None:
    level = stack.level_of(transaction)
    if level is None:
        return
    move, word = (Move.OUTER_RELEASE, "released") if kept else (Move.OUTER_ROLLBACK, "undone")
    how = End(word) if stack.plain is not None else End(f"{word} by {ending()}")
    stack.end_above(level, move, how)
    if not kept and Repair.OBJECTS in stack.repairs:
        objects.restore(transaction.session, level.mark.touched)
        if stack.undone is not transaction:  # closed by what ends around it, of which alone SQLAlchemy restores objects
            stack.cut.append(transaction)
    stack.end(level, move, how)


def _root_ended(session: Session, stack: Stack, kept: bool) -> None:
    stack.leaving = False
    if stack.plain is not None and stack.root.session is session and (kept or not stack.unsaved):
        how = End("ended")
        stack.committed(how) if kept else stack.rolled_back(how)
        return
    end = ending()
    if stack.root.session is not session:
        part(stack, session, End(f"its session ended the transaction by {end}"))
    elif kept:
        stack.committed(End(f"committed by {end}"))
    else:
        thrown_away = end.closes and stack.unsaved
        stack.rolled_back(End(f"rolled back by {end}"))
        if thrown_away:
            unsaved.warn(stack, end, raising=True)


# -- flush and statements


def _before_flush(session: Session, context: Any, instances: Any) -> None:
    """A guard that raises inside a flush makes SQLAlchemy roll back the level around: refuse before it begins."""
    stack = stack_of(session)
    if stack is None:
        return
    _refuse_if_over(session, stack)
    if stack.plain is None:
        _refuse_flush(stack)
    elif stack.transaction.recorded is State.LOST and not _knows_by_itself(stack):
        raise refusals.refused(stack.transaction, "flush")
    if stack.runner is not None and (touched := stack.touched(session)) is not None:
        touched.show(session.dirty)


def _refuse_flush(stack: Stack) -> None:
    if stack.stuck is not None:
        raise refusals.stuck(stack.top, "flush", stack.stuck)
    for level in (stack.transaction, stack.top):
        if level.recorded in (State.UNDONE, State.LOST):
            raise refusals.refused(level, "flush")


def _knows_by_itself(stack: Stack) -> bool:
    """Whether SQLAlchemy itself refuses everything but a rollback: it knows of a lost connection."""
    return all(connection.invalidated for connection in stack.root.connections)


def _after_flush(session: Session, context: Any) -> None:
    touched = _touched(session)
    for state in _compat.flushed(context):
        new = state.key is None
        if new:
            _watch_entity(state.class_)
        if touched is not None and new:
            touched.heavy = True
        elif touched is not None:
            touched.write(state)


# -- objects


def _touched(session: Session) -> objects.Touched | None:
    stack = stack_of(session)
    return None if stack is None else stack.touched(session)


def _loaded_as_persistent(session: Session, obj: Any) -> None:
    _watch_entity(type(obj))
    touched = _touched(session)
    if touched is not None:
        touched.read(instance_state(obj), born=True)


def _detached_to_persistent(session: Session, obj: Any) -> None:
    _watch_entity(type(obj))


def _persistent_to_deleted(session: Session, obj: Any) -> None:
    """By a flush, or because its row was found to be gone."""
    touched = _touched(session)
    if touched is not None:
        touched.heavy = True


def _on_refresh(state: InstanceState[Any], context: Any, attributes: Any) -> None:
    session = state.session
    if session is not None and (touched := _touched(session)) is not None:
        touched.read(state, attributes)
