"""The private names of SQLAlchemy in `_compat`: each test fails when one moves, or changes its meaning."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, insert, select, text, update
from sqlalchemy import inspect as inspect_object
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, SessionTransaction

from savepoints import _compat
from tests.harness.models import Child, Item, Parent, item, tables


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    tables.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def other() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def test_every_function_has_a_test() -> None:
    """A new one in `_compat` needs a test here that bears its name."""
    functions = [name for name, _ in inspect.getmembers(_compat, inspect.isfunction) if not name.startswith("_")]
    untested = [name for name in functions if not any(test.startswith(f"test_{name}") for test in globals())]
    assert not untested


# Engine._proxied


def test_parent_engine(engine: Engine) -> None:
    """The engine that was given execution options, through any number of steps."""
    assert _compat.parent_engine(engine) is engine
    child = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert child is not engine
    assert _compat.parent_engine(child) is engine
    assert _compat.parent_engine(child.execution_options(stream_results=True)) is engine


def test_parent_engine_is_where_listeners_serve_both(engine: Engine) -> None:
    """Why it is asked for: what listens on the parent hears its children too."""
    child = engine.execution_options(stream_results=True)
    heard: list[Any] = []
    event.listen(_compat.parent_engine(child), "begin", heard.append)
    for one in (child, engine):
        with one.connect() as connection:
            connection.begin()
            assert heard.pop() is connection


# SessionTransaction._connections


def bound_to_two(one: Engine, other: Engine) -> Session:
    return Session(binds={Item: one, Parent: other, Child: other})


def both_ways(transaction: SessionTransaction) -> list[set[Connection]]:
    """What `connections` says, and what it says where the public name does not exist (before SQLAlchemy 2.1.7)."""

    class Old:
        _connections: Any = transaction._connections

    return [set(_compat.connections(transaction)), set(_compat.connections(Old()))]  # type: ignore[arg-type]


def test_connections(engine: Engine, other: Engine) -> None:
    with bound_to_two(engine, other) as session:
        root = session.begin()
        assert both_ways(root) == [set(), set()]
        items = session.connection(bind_arguments={"mapper": Item})
        assert both_ways(root) == [{items}, {items}]
        parents = session.connection(bind_arguments={"mapper": Parent})
        assert both_ways(root) == [{items, parents}, {items, parents}]


def test_connections_of_a_nested_transaction(engine: Engine, other: Engine) -> None:
    """The old way tells those that it has used; so does the new one, or it tells all of the session."""
    with bound_to_two(engine, other) as session:
        items = session.connection(bind_arguments={"mapper": Item})
        nested = session.begin_nested()
        session.connection(bind_arguments={"mapper": Item})
        assert both_ways(nested) == [{items}, {items}]


def test_connections_of_a_session_on_a_connection(engine: Engine) -> None:
    with engine.connect() as connection, Session(connection) as session:
        root = session.begin()
        session.connection()
        assert both_ways(root) == [{connection}, {connection}]


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only"])
def test_begun_on(engine: Engine, mode: Any) -> None:
    """A savepoint where the session works in one on somebody's connection, else the connection's own transaction."""
    with engine.connect() as connection, Session(connection, join_transaction_mode=mode) as session:
        outer = connection.begin()
        root = session.begin()
        session.connection()
        begun = _compat.begun_on(root, connection)
        assert begun is (connection.get_nested_transaction() if mode == "create_savepoint" else outer)


@pytest.mark.parametrize(("mode", "ends"), [("control_fully", True), ("rollback_only", False)])
def test_commits(engine: Engine, mode: Any, ends: bool) -> None:
    """Whether the session's commit() sends COMMIT, on somebody's connection in a transaction."""
    with engine.connect() as connection, Session(connection, join_transaction_mode=mode) as session:
        connection.begin()
        root = session.begin()
        session.connection()
        assert _compat.commits(root, connection) is ends
    with Session(engine) as session:
        root = session.begin()
        assert _compat.commits(root, session.connection()) is True


# Session.binds


def test_binds(engine: Engine, other: Engine) -> None:
    with Session(engine, binds={Item: other}) as session:
        assert _compat.binds(session) == {engine, other}
    with Session(engine) as session:
        assert _compat.binds(session) == {engine}
    assert _compat.binds(Session()) == set()


# Dialect._on_connect_isolation_level


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT", "SERIALIZABLE"])
def test_isolation_level_on_connect(level: Any) -> None:
    engine = create_engine("sqlite://", isolation_level=level) if level else create_engine("sqlite://")
    assert _compat.isolation_level_on_connect(engine.dialect) == level


def test_while_connecting(engine: Engine) -> None:
    def refuses() -> Any:
        raise sqlite3.OperationalError("unable to open")

    nowhere = create_engine("sqlite://", creator=refuses)
    for connect in (nowhere.connect, nowhere.raw_connection, Session(nowhere).connection):
        with pytest.raises((OperationalError, sqlite3.OperationalError)) as caught:
            connect()
        error = caught.value
        assert _compat.while_connecting(error)
        assert _compat.while_connecting(getattr(error, "orig", None) or error)
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT no_such_column"))
    assert not _compat.while_connecting(caught.value)
    assert not _compat.while_connecting(OperationalError("", None, Exception()))


def test_isolation_level_on_connect_is_not_that_of_options(engine: Engine) -> None:
    """What an engine or connection was given later stands in its execution options, where it is public."""
    child = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert _compat.isolation_level_on_connect(child.dialect) is None
    with child.connect() as connection:
        assert connection.get_execution_options()["isolation_level"] == "AUTOCOMMIT"


# The ORM's options on a statement


def asked_of_each_statement(engine: Engine, question: Callable[[Any], Any]) -> list[Any]:
    """The answers at each statement that is sent on the engine."""
    answers: list[Any] = []

    def ask(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        answers.append(question(context))

    event.listen(engine, "before_cursor_execute", ask)
    return answers


def test_lazy_loaded_from(engine: Engine) -> None:
    """The object whose relationship is loaded; None for any other statement."""
    with Session(engine) as session, session.begin():
        session.add(Parent(id=1, children=[Child(id=1)]))
    with Session(engine) as session:
        parent = session.scalars(select(Parent)).one()
        answers = asked_of_each_statement(engine, _compat.lazy_loaded_from)
        assert len(parent.children) == 1
        assert [state and state.obj() for state in answers] == [parent]
        answers.clear()
        session.refresh(parent)
        session.scalars(select(Child)).all()
        session.execute(select(item))
        session.execute(update(Item).values(name="new"))
        session.add(Item(id=1))
        session.flush()
        assert answers == [None] * 5


def test_lazy_loaded_from_of_a_plain_connection(engine: Engine) -> None:
    answers = asked_of_each_statement(engine, _compat.lazy_loaded_from)
    with engine.begin() as connection:
        connection.execute(select(item))
        connection.exec_driver_sql("SELECT 1")
    assert answers == [None, None]


def test_changes_in_bulk(engine: Engine) -> None:
    """True for UPDATE and DELETE of mapped classes by a condition.

    Not for those by primary key, which tell of each object by its `refresh` event, those of a flush, and of tables.
    """
    answers = asked_of_each_statement(engine, _compat.changes_in_bulk)
    with Session(engine) as session:
        session.execute(insert(item).values(id=1))
        answers.clear()
        session.execute(update(Item).values(name="new"))
        session.execute(delete(Item))
        in_bulk = list(answers)
        answers.clear()
        session.add(new := Item(id=1))
        session.flush()
        new.name = "flushed"
        session.flush()
        session.execute(update(Item), [{"id": 1, "name": "by key"}])
        session.delete(new)
        session.flush()
        session.execute(update(item).values(name="new"))
        session.execute(delete(item))
        session.execute(select(Item))
    assert in_bulk == [True] * 2
    assert answers == [False] * 7


# UOWTransaction.states


def test_flushed(engine: Engine) -> None:
    """What a flush wrote, as `session.new`, `.dirty` and `.deleted` tell it."""
    found: list[tuple[set[Any], set[Any]]] = []

    def after_flush(session: Session, context: Any) -> None:
        written = {state.obj() for state in _compat.flushed(context)}
        found.append((written, {*session.new, *session.dirty, *session.deleted}))

    with Session(engine) as session:
        event.listen(session, "after_flush", after_flush)
        kept, changed, gone = Item(id=1), Item(id=2), Item(id=3)
        session.add_all([kept, changed, gone])
        session.flush()
        changed.name = "new"
        session.delete(gone)
        session.flush()
    assert found == [({kept, changed, gone},) * 2, ({changed, gone},) * 2]


# IdentityMap.safe_discard


def test_forget(engine: Engine) -> None:
    """The first half shows why it is needed: a failure means that SQLAlchemy leaves expunged objects out."""
    with Session(engine) as session:
        session.add(changed := Item(id=1))
        session.flush()
        nested = session.begin_nested()
        changed.id = 2
        session.flush()
        session.expunge(changed)
        nested.rollback()
        state: Any = inspect_object(changed)
        assert (changed in session, state.session) == (True, None)
        _compat.forget(session, state)
        _compat.forget(session, state)
        assert changed not in session


# The dialect's hooks, documented for authors of dialects


@pytest.mark.parametrize("face", ["connection", "session"])
def test_the_three_hooks_send_all_savepoint_statements(engine: Engine, face: str) -> None:
    """What the library answers on a watched engine is asked for each SAVEPOINT, ROLLBACK TO and RELEASE."""
    asked: list[str] = []

    def answered(name: str, hook: Callable[[Connection, str], None]) -> Callable[[Connection, str], None]:
        def answer(connection: Connection, savepoint: str) -> None:
            asked.append(name)
            hook(connection, savepoint)

        return answer

    hooks = ["do_savepoint", "do_rollback_to_savepoint", "do_release_savepoint"]
    for name in hooks:
        setattr(engine.dialect, name, answered(name, getattr(engine.dialect, name)))
    with engine.connect() if face == "connection" else Session(engine) as target, target.begin():
        target.execute(select(item))
        target.begin_nested().rollback()
        target.execute(select(item))
        nested = target.begin_nested()
        target.execute(select(item))
        nested.commit()
    if face == "connection":
        assert asked == [hooks[0], hooks[1], hooks[0], hooks[2]]
    else:  # a session's nested transaction begins on its connections when it is first used
        assert asked[-2:] == [hooks[0], hooks[2]]


# SessionTransaction._restore_snapshot


def test_restore_snapshot(engine: Engine) -> None:
    """What a nested transaction has recorded is brought back by it, after it was closed and not rolled back."""
    with Session(engine) as session:
        old, gone = Item(id=1, name="before"), Item(id=2, name="deleted inside")
        session.add_all([old, gone])
        session.flush()
        outer = session.begin_nested()
        inner = session.begin_nested()
        new, both = Item(id=3, name="new inside"), Item(id=4, name="new and deleted inside")
        session.add_all([new, both])
        session.flush()
        old.name = "changed inside"
        session.delete(gone)
        session.delete(both)
        session.flush()
        outer.rollback()
        assert new in session
        assert gone not in session
        assert old.name == "changed inside"
        _compat.restore_snapshot(inner)
        assert new not in session
        assert both not in session
        assert gone in session
        assert old.name == "before"


# Result.cursor, .cursor_strategy, and the rows that a strategy has fetched ahead


def test_when_result_is_made(engine: Engine) -> None:
    told: list[Any] = []

    def listen(connection: Any, cursor: Any, statement: Any, parameters: Any, context: Any, many: bool) -> None:
        _compat.when_result_is_made(context, told.append)

    event.listen(engine, "before_cursor_execute", listen)
    with engine.connect() as connection:
        results = [connection.execute(select(item)), connection.exec_driver_sql("SELECT 1")]
        assert [found is made for found, made in zip(told, results, strict=True)] == [True, True]
        assert [result.all() for result in results] == [[], [(1,)]]


def test_buffer(engine: Engine) -> None:
    """The rest of a streamed result is read at once, and its reader goes on where it was."""
    with engine.begin() as connection:
        connection.execute(item.insert(), [{"id": id} for id in range(1, 101)])
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True, max_row_buffer=7).execute(select(item.c.id))
        found = [id for (id,) in result.fetchmany(3)]
        cursor = result.cursor
        assert cursor is not None
        assert _compat.streams(result)
        _compat.buffer(result)
        _compat.buffer(result)
        assert cursor.fetchall() == []
        found += [id for (id,) in result]
        assert not _compat.streams(result)
        _compat.buffer(result)
    assert found == list(range(1, 101))


def test_streams(engine: Engine) -> None:
    """A result that was read to its end, or closed by its user, has no cursor any more."""
    with engine.connect() as connection:
        for end in ("all", "close"):
            result = connection.execution_options(stream_results=True).execute(select(item))
            assert _compat.streams(result)
            getattr(result, end)()
            assert not _compat.streams(result)


# sqlalchemy.util.await_only


async def test_wait_for() -> None:
    """The result of an awaitable, and its error, inside `run_sync`."""

    async def answer(error: Exception | None) -> int:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return 7

    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda _: _compat.wait_for(answer(None))) == 7
        with pytest.raises(KeyError):
            await connection.run_sync(lambda _: _compat.wait_for(answer(KeyError("mine"))))
    await engine.dispose()
