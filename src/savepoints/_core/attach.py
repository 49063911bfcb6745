"""Finding the stack of a session or connection, or making one where a transaction is open."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, SessionTransactionOrigin

from savepoints import _compat, errors
from savepoints._core import adopt, refusals
from savepoints._core.face import Face
from savepoints._core.guards import watch_engine
from savepoints._core.join import join, steer
from savepoints._core.options import Asked, Options, refuse_single_phase
from savepoints._core.outcome import Tracker
from savepoints._core.roots import ConnectionRoot, SessionRoot, refuse_autocommit
from savepoints._core.sessions import watch_session
from savepoints._core.stack import KEY, Stack, detach
from savepoints._databases import Capabilities, capabilities, knows_its_server
from savepoints._model.levels import End
from savepoints._model.states import Move
from savepoints._places import caller, worker

Target = Session | Connection


def find(target: Target) -> Stack | None:
    """The stack that a target belongs to, if it has one."""
    stack = target.info.get(KEY) if isinstance(target, Session) else adopt.current(target)
    if stack is not None and stack.transaction.refresh is not None:
        stack.transaction.refresh()
    if stack is not None and stack.is_over:
        detach(stack)
        return None
    return stack


def stack_for(target: Target, face: Face) -> Stack:
    """The stack of a target; SQLAlchemy begins the transaction where none is open, as with every call on it.

    Raises:
        NotSupported: The connection is in autocommit mode.
    """
    stack = find(target)
    if stack is None:
        stack = _of_session(target, face) if isinstance(target, Session) else _of_connection(target, face)
    steer(stack)
    return stack


def _of_connection(connection: Connection, face: Face) -> Stack:
    if connection.closed:
        raise errors.NoTransaction("the connection is closed", hint="open another one")
    stack = Stack(ConnectionRoot(connection), face, capabilities(connection.dialect))
    refuse_autocommit(connection, stack.capabilities)
    if not connection.in_transaction():
        connection.begin()
    join(stack, connection)
    stack.sync()
    return stack


def _of_session(session: Session, face: Face) -> Stack:
    watch_session(session)
    stack = adopt.current(session.bind) if isinstance(session.bind, Connection) else None
    if stack is not None:  # the session joins a transaction of ours on its connection
        stack.sessions.append(session)
        session.info[KEY] = stack
        stack.sync()
        return stack
    transaction = session.get_transaction()
    stack = Stack(SessionRoot(session), face, capabilities(None))
    session.info[KEY] = stack
    try:
        for connection in () if transaction is None else _compat.connections(transaction):
            join(stack, connection)
    except BaseException:
        detach(stack)
        raise
    stack.sync()
    return stack


def opened_on_purpose(target: Target) -> bool:
    """Whether somebody began a transaction on the target, other than SQLAlchemy by itself on a session's first use."""
    stack = find(target)
    if isinstance(target, Connection):
        return stack is not None or target.in_transaction()
    if stack is not None and (stack.transaction.managed or stack.levels or stack.root.session is not target):
        return True
    root = target.get_transaction()
    return root is not None and (
        root.origin is not SessionTransactionOrigin.AUTOBEGIN or target.in_nested_transaction()
    )


def begin(target: Target, face: Face, asked: Asked) -> Stack:
    """Begin the outermost unit on a target, or adopt what SQLAlchemy began by itself on a session.

    Raises:
        AlreadyInTransaction: Somebody began one on purpose.
        NotSupported: The connection is in autocommit mode, or an option is not known for the database.
    """
    if opened_on_purpose(target):
        raise _already(target)
    stack = (
        _begin_session(target, face, asked) if isinstance(target, Session) else _begin_connection(target, face, asked)
    )
    stack.transaction.block = True
    stack.transaction.opened_by = worker()
    return stack


def _begin_connection(target: Connection, face: Face, asked: Asked) -> Stack:
    name, options = asked.name, asked.options
    if target.closed:
        raise errors.NoTransaction("the connection is closed", hint="open another one")
    row = capabilities(target.dialect)
    refuse_autocommit(target, row)
    stack = Stack(ConnectionRoot(target), face, row, name, options)
    stack.tracker = _tracker(asked, row)
    stack.transaction.managed = True
    try:
        _set_options(stack, target, options.execution_options(row))
        if options.twophase:
            watch_engine(target.engine)
            target.begin_twophase()
        else:
            target.begin()
        join(stack, target)
    except BaseException:
        abandon(stack)
        raise
    return stack


def _tracker(asked: Asked, row: Capabilities | None) -> Tracker | None:
    """What remembers how to ask for the outcome of the COMMIT."""
    if asked.track is False:
        return None
    tracker = Tracker(asked.track)
    if row is not None:  # else it is known when the session has used a connection
        tracker.check(row)
    return tracker


def _already(target: Target) -> errors.AlreadyInTransaction:
    stack = find(target)
    if stack is not None:
        return errors.AlreadyInTransaction(f"{refusals.called(stack.transaction)} is open on it")
    word = "session" if isinstance(target, Session) else "connection"
    return errors.AlreadyInTransaction(f"a transaction was begun on this {word} before")


def _begin_session(session: Session, face: Face, asked: Asked) -> Stack:
    name, options = asked.name, asked.options
    watch_session(session)
    adopted = session.get_transaction()
    connections = [] if adopted is None else list(_compat.connections(adopted))
    bind = session.bind or (connections[0] if connections else None)
    row = _row(bind, options)
    wanted = options._replace(twophase=options.twophase and bind is not None).execution_options(row)
    if (options.for_one_database and (connections or bind is None)) or (options.twophase and connections):
        raise errors.AlreadyInTransaction(
            "a transaction takes options only before its first statement, on a session with one default bind",
            hint="open the transaction before using the session, or leave the options out",
        )
    tracker = _tracker(asked, None if bind is None else row)
    stack = find(session) or Stack(SessionRoot(session), face, row, name, options)
    steer(stack)
    stack.tracker = tracker
    stack.transaction.managed = True
    stack.transaction.name = name or stack.transaction.name
    session.info[KEY] = stack
    try:
        if options.twophase:
            _begin_twophase(stack, session)
        elif adopted is None:
            session.begin()
        if options.for_one_database:
            if isinstance(bind, Connection):
                _set_options(stack, bind, wanted)
                wanted = {}
            connections = [session.connection(execution_options=wanted)]
        for connection in connections:
            join(stack, connection)
    except BaseException:
        abandon(stack, rollback=adopted is None)
        raise
    return stack


def _row(bind: Engine | Connection | None, options: Options) -> Capabilities:
    """The row of what a session is bound to; if it matters, the server is asked what it is."""
    if bind is None:
        return capabilities(None)
    if options.twophase and isinstance(bind, Engine) and not knows_its_server(bind.dialect):
        bind.connect().close()
    return capabilities(bind.dialect)


def _begin_twophase(stack: Stack, session: Session) -> None:
    """Ask all that the session may use, for SQLAlchemy itself would only fail; then have it prepare, for once."""
    for bind in _compat.binds(session):
        refuse_single_phase(_row(bind, stack.options))
        watch_engine(bind.engine)
    before = session.twophase
    session.twophase = True
    stack.restore += (lambda: setattr(session, "twophase", before),)
    if session.get_transaction() is None:
        session.begin()


def _set_options(stack: Stack, connection: Connection, wanted: dict[str, Any]) -> None:
    """Set execution options for one transaction; what they were comes back at its end."""
    if wanted:
        before = connection.get_execution_options()
        level = _compat.isolation_level_on_connect(connection.dialect) or connection.default_isolation_level
        default = {"isolation_level": level}
        old = {key: before.get(key, default.get(key, False)) for key in wanted}
        stack.restore += (partial(_put_options_back, connection, old),)
        connection.execution_options(**wanted)


def _put_options_back(connection: Connection, options: dict[str, Any]) -> None:
    if not connection.closed and not connection.invalidated:
        connection.execution_options(**options)


def abandon(stack: Stack, *, rollback: bool = True) -> None:
    """The transaction could not be begun: leave nothing of it."""
    stack.transaction.managed = False
    if rollback:
        stack.root.rollback()
    stack.transaction.move(Move.ROLLBACK, End("could not be begun", caller()))
    put_back(stack)
    detach(stack)


def put_back(stack: Stack) -> None:
    """Set what was set for one transaction as it was before."""
    restore, stack.restore = stack.restore, ()
    for step in restore:
        step()
