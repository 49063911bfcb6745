"""What is given wrongly gets a clear error of its own, before any SQL: each says what was given and what to give."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import savepoints
from savepoints import (
    BadName,
    NoTransaction,
    Rollback,
    SavepointsError,
    State,
    WrongArgument,
    atomic,
    current_transaction,
    release,
    require_transaction,
    rollback_to,
    savepoint,
    transaction,
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine() -> Any:
    engine = create_async_engine("sqlite+aiosqlite://")
    yield engine
    await engine.dispose()


@pytest.fixture
def sent(engine: Engine) -> list[str]:
    """What goes out."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *event: statements.append(event[2]))
    return statements


@pytest.fixture
def maker(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine)


# Targets and names

VERBS: list[Callable[[Any], Any]] = [
    transaction,
    savepoint,
    atomic,
    require_transaction,
    current_transaction,
    lambda target: rollback_to(target, "a"),
    lambda target: release(target, "a"),
]
VERB_NAMES = ["transaction", "savepoint", "atomic", "require_transaction", "current_transaction"]


@pytest.mark.parametrize("verb", VERBS, ids=[*VERB_NAMES, "rollback_to", "release"])
@pytest.mark.parametrize(
    ("target", "named"), [(None, "NoneType"), (5, "int"), ("x", "str"), (Session, "the class Session")]
)
def test_target_of_a_wrong_kind(verb: Any, target: Any, named: str) -> None:
    with pytest.raises(WrongArgument, match=f"not on {named}"):
        verb(target)


NAMES: list[tuple[Any, type[SavepointsError], str]] = [
    ("", BadName, "must not be empty"),
    ("x" * 201, BadName, "201 characters"),
    ("two\nlines", BadName, "control character"),
    ("\ud800", BadName, "half a surrogate"),
    (5, WrongArgument, "must be text, not int"),
]


@pytest.mark.parametrize("verb", [savepoint, atomic, rollback_to, release])
@pytest.mark.parametrize(("name", "error", "words"), NAMES, ids=["empty", "long", "control", "surrogate", "number"])
def test_name_that_cannot_be(
    maker: sessionmaker[Session], sent: list[str], verb: Any, name: Any, error: type[Exception], words: str
) -> None:
    with maker() as session, pytest.raises(error, match=words):
        verb(session, name)
    assert sent == []


# suppress


@pytest.mark.parametrize("suppress", [[ValueError], None, "x", True, ValueError("x"), int, (ValueError, "x")])
def test_suppress_of_a_wrong_kind(maker: sessionmaker[Session], sent: list[str], suppress: Any) -> None:
    """Told at once, not in place of the first error that comes."""
    with maker() as session, pytest.raises(WrongArgument, match="suppress takes an exception class or a tuple of them"):
        savepoint(session, suppress=suppress)
    assert sent == []


async def test_suppress_of_a_wrong_kind_for_async(async_engine: AsyncEngine) -> None:
    async with AsyncSession(async_engine) as session:
        with pytest.raises(WrongArgument, match="suppress takes"):
            savepoint(session, suppress=[ValueError])  # type: ignore[call-overload]


# atomic


@pytest.mark.parametrize("begun", [False, True])
def test_atomic_cannot_undo_alone_what_it_joins(maker: sessionmaker[Session], begun: bool) -> None:
    """Refused wherever it is called, so that the function's own tests tell."""
    with maker() as session:
        if begun:
            session.begin()
        with pytest.raises(WrongArgument, match="cannot be undone alone"):
            atomic(session, savepoint=False, rollback=True)


# Options


def test_isolation_level_of_a_wrong_kind(maker: sessionmaker[Session]) -> None:
    with pytest.raises(WrongArgument, match="isolation_level is text, not int"):
        transaction(maker, isolation_level=5)  # type: ignore[call-overload]


def test_isolation_level_that_the_database_does_not_have(maker: sessionmaker[Session]) -> None:
    with pytest.raises(ArgumentError, match="NO SUCH"), transaction(maker, isolation_level="NO SUCH"):
        pytest.fail("the block was entered")


def test_doom_without_words(maker: sessionmaker[Session]) -> None:
    with transaction(maker, rollback=True) as session:
        level = savepoint(session)
        with pytest.raises(WrongArgument, match="the reason must be text"):
            level.doom(None)  # type: ignore[arg-type]
        assert level.state == "open"
        level.doom("two\nlines")
        with pytest.raises(savepoints.TransactionDoomed, match=r"is doomed: two\\nlines"):
            level.release()


# Rollback


@pytest.mark.parametrize(("to", "named"), [(5, "int"), (Session, "the class Session"), (object(), "object")])
def test_rollback_to_something_else(to: Any, named: str) -> None:
    with pytest.raises(WrongArgument, match=f"Rollback takes a level or the name of one, not {named}"):
        Rollback(to)


def test_rollback_that_finds_no_block_says_so(maker: sessionmaker[Session]) -> None:
    with pytest.raises(Rollback, match="undo 'nope'") as caught, transaction(maker) as session, savepoint(session, "a"):
        raise Rollback("nope")
    [note] = caught.value.__notes__
    assert note.startswith("no block around the `raise` is 'nope': transaction 'transaction' (opened at ")
    assert note.endswith(") was undone")


# State


def test_states_equal_their_names(maker: sessionmaker[Session]) -> None:
    with transaction(maker) as session:
        level = savepoint(session)
        assert level.state == "open"
        assert level.state is State.OPEN
        level.release()
        assert level.state == "released"  # type: ignore[comparison-overlap]
        states: dict[str, int] = {level.state: 1}
        assert states["released"] == 1


# The decorator


def test_decorated_function_is_given_its_session(maker: sessionmaker[Session]) -> None:
    @transaction(maker)
    def bind_of(label: str, session: Session | None = None) -> Any:
        assert label == "x"
        assert session is not None
        return session

    assert isinstance(bind_of("x"), Session)
    assert isinstance(bind_of("x", session=None), Session)
    with maker() as given:
        assert bind_of("x", session=given) is given
    registry = scoped_session(maker)
    assert bind_of("x", session=registry) is registry
    registry.remove()


@pytest.mark.parametrize(("given", "named"), [(5, "int"), (Session, "the class Session")])
def test_decorated_function_is_given_something_else(maker: sessionmaker[Session], given: Any, named: str) -> None:
    @transaction(maker)
    def work(session: Session) -> None:
        pytest.fail("called")

    with pytest.raises(WrongArgument, match=f"the parameter 'session' takes Session or Connection, not {named}"):
        work(session=given)


def test_decorated_partial(maker: sessionmaker[Session]) -> None:
    def work(label: str, session: Session) -> str:
        return label if session.in_transaction() else "no transaction"

    assert transaction(maker)(functools.partial(work, "x"))() == "x"


@pytest.mark.parametrize("function", [5, classmethod(lambda session: None)])
def test_decorator_on_something_else(maker: sessionmaker[Session], function: Any) -> None:
    with pytest.raises(
        WrongArgument, match=r"decorates functions, not .* Put it above the `def`, below `@classmethod`"
    ):
        transaction(maker)(function)


async def test_decorated_async_function_is_given_a_sync_session(
    async_engine: AsyncEngine, maker: sessionmaker[Session]
) -> None:
    @transaction(async_sessionmaker(async_engine))
    async def work(session: AsyncSession) -> None:
        pytest.fail("called")

    with maker() as session, pytest.raises(WrongArgument, match="takes AsyncSession or AsyncConnection, not Session"):
        await work(session=session)


# An AsyncConnection that nobody has awaited


async def test_connection_that_was_never_started(async_engine: AsyncEngine) -> None:
    def connection() -> AsyncConnection:
        return async_engine.connect()

    assert current_transaction(connection()) is None
    with pytest.raises(NoTransaction):
        require_transaction(connection())
    verbs: list[Any] = [savepoint, lambda target: rollback_to(target, "x"), lambda target: release(target, "x")]
    for verb in verbs:
        with pytest.raises(NoTransaction, match=r"not started or closed\. Await the connection"):
            await verb(connection())
    for block in (transaction, atomic):
        with pytest.raises(NoTransaction, match="not started or closed"):
            async with block(connection()):
                pytest.fail("the block was entered")


# Nothing is lost by any of them


def test_a_wrong_argument_leaves_the_transaction_as_it_was(maker: sessionmaker[Session]) -> None:
    with transaction(maker) as session:
        session.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
        session.execute(text("INSERT INTO t VALUES (1)"))
        with pytest.raises(SavepointsError):
            savepoint(session, "")
        with savepoint(session, suppress=IntegrityError) as level:
            session.execute(text("INSERT INTO t VALUES (1)"))
        assert isinstance(level.error, IntegrityError)
        assert session.scalar(text("SELECT count(*) FROM t")) == 1
        assert current_transaction(session) is not None


# What a decorated function gives back


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@contextlib.contextmanager
def manager(session: Session) -> Iterator[None]:
    yield


@logged
def generator(session: Session) -> Iterator[int]:
    yield 1


@logged
async def coroutine(session: Session) -> int:
    return 1


@pytest.mark.parametrize("function", [manager, generator, coroutine])
def test_decorated_function_whose_body_runs_later(maker: sessionmaker[Session], function: Any) -> None:
    """After the transaction, and without it: told, in place of the work being lost in silence."""
    decorated = transaction(maker)(function)
    with pytest.raises(WrongArgument, match="which has still to run"):
        decorated()
    with maker() as session, pytest.raises(WrongArgument, match="which has still to run"):
        decorated(session=session)


# Handles


def test_copy_of_a_handle_is_the_handle(maker: sessionmaker[Session]) -> None:
    with transaction(maker) as session:
        level = savepoint(session)
        assert copy.copy(level) is level
        assert copy.deepcopy([level]) == [level]
        copy.copy(level).rollback()
