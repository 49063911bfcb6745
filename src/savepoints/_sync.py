"""The sync face: ``with`` blocks, the handles' verbs, the decorator, the drop-in session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session as _Session
from sqlalchemy.orm import scoped_session as _scoped_session
from sqlalchemy.orm import sessionmaker

from savepoints import _retrying as retrying
from savepoints import errors
from savepoints._core import due, ends, moves, tasks
from savepoints._core.attach import Target, begin, find, opened_on_purpose, stack_for
from savepoints._core.ends import Suppress
from savepoints._core.face import Face
from savepoints._core.options import Asked
from savepoints._core.outcome import Tracker
from savepoints._core.stack import Stack
from savepoints._databases import Outcome
from savepoints._decorate import Call, called
from savepoints._model.hooks import Hook, Hooking, Occasion
from savepoints._model.levels import Level, SavepointLevel, TransactionLevel
from savepoints._retry import Retry

T = TypeVar("T", bound=Target)
P = ParamSpec("P")
R = TypeVar("R")
Source = Engine | sessionmaker[Any]


class Transaction(TransactionLevel):
    """The outermost unit, as `current_transaction` hands it out."""

    __slots__ = ()

    @property
    def savepoints(self) -> tuple[Savepoint, ...]:
        """The open savepoints, innermost last."""
        self.stack.sync()
        return tuple(self.stack.levels)

    def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name, and keep it open.

        Args:
            name: The savepoint's name.

        Raises:
            UnknownSavepoint: No open savepoint bears the name.
            OutOfOrder: It was opened outside the block around this call.
        """
        roll_back(moves.named_in(self.stack, name))


# Note [What exits return]
# `bool` alone tells type checkers that a block may swallow any error, and then each `return` in a block is "missing"
# on the other way. It swallows only what it was asked to, so the exits say `bool | None`, as most of their kind do.


class Savepoint(SavepointLevel):
    """A named bookmark inside a transaction: roll back to it again and again, release it, or use it as a block."""

    __slots__ = ()

    def rollback(self) -> None:
        """Undo what was done since the savepoint, in the database and in the session's objects. It stays open.

        Raises:
            SavepointEnded: It has ended; the message tells how and where.
            TransactionLost: The transaction has ended.
            OutOfOrder: It was opened outside the block around this call.
            WrongTask: Another task or thread is at work on this target.
        """
        roll_back(self)

    def release(self) -> None:
        """End the savepoint and keep its work in the level around.

        Raises:
            SavepointEnded: It has ended.
            TransactionFailed: A statement or flush inside failed: roll back first.
            TransactionDoomed: It can only be rolled back.
            OutOfOrder: It was opened outside the block around this call.
            WrongTask: Another task or thread is at work on this target.
        """
        release(self)

    @property
    def level(self) -> Level:
        """Itself: what a block of any kind is asked for."""
        return self

    def __enter__(self) -> Savepoint:
        ends.enter(self)
        tasks.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        first = error
        try:
            ends.leave_savepoint(self, error, rollback=self._rollback)
        except Exception as own:
            first = own
            if not ends.swallows(self, own, self._suppress):
                raise
        finally:
            tasks.leave(self)
            if self.stack.due:
                due.run(self.stack, None if ends.swallows(self, first, self._suppress) else first)
        return error is not None and ends.swallows(self, error, self._suppress)


def resolve(tracker: Tracker, engine: Any) -> Outcome:
    """Ask what became of a COMMIT whose answer was lost."""
    engine = tracker.engine if engine is None else engine
    if not isinstance(engine, Engine):
        raise errors.WrongArgument(
            f"resolve asks on an Engine here, not on {errors.kind_of(engine)}", hint="give an engine on the same server"
        )
    with engine.connect() as connection:
        return tracker.ask(connection)


FACE = Face(Transaction, Savepoint, resolve)


def roll_back(level: SavepointLevel) -> None:
    """Roll back to a savepoint, and run the hooks that wait for that."""
    moves.roll_back(level)
    due.run(level.stack)


def release(level: SavepointLevel) -> None:
    """Release a savepoint; what was doomed inside it was undone."""
    moves.release(level)
    due.run(level.stack)


def register(target: Target, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Hook:
    """Give a hook to the innermost open level of a target."""
    return moves.register(target, FACE, occasion, function, args, kwargs)


def open_savepoint(target: Target, name: str | None, rollback: bool, suppress: Suppress) -> Savepoint:
    """Make a savepoint with what its block is to do at its end."""
    if suppress != ():
        ends.checked_suppress(suppress)
    level = cast(Savepoint, moves.open_savepoint(target, FACE, name))
    level._rollback = rollback
    level._suppress = suppress
    return level


def current(target: Target) -> Transaction | None:
    """The open transaction of a target."""
    if find(target) is None and not target.in_transaction():
        return None
    transaction = stack_for(target, FACE).transaction
    return cast(Transaction, transaction) if transaction.is_open else None


def entered_before(verb: str, level: Level) -> errors.OutOfOrder:
    """A block's object serves once."""
    outcome = "it is still open" if level.is_open else f"it has ended: {level.outcome}"
    return errors.OutOfOrder(f"this `{verb}` block was entered before, and {outcome}", hint=f"call `{verb}` again")


class TransactionBlock(Generic[T]):
    """What `transaction` returns: a block, or a decorator."""

    def __init__(self, source: Source | T, asked: Asked = Asked()) -> None:  # noqa: B008 - immutable
        self._source = source
        self._asked = asked
        self._target: T | None = None
        self._stack: Stack | None = None

    def __enter__(self) -> T:
        if self._stack is not None:
            raise entered_before("transaction", self._stack.transaction)
        if self._asked.retry is not None:
            raise retrying.of_a_block()
        if not self._asked.independent:
            tasks.refuse_second(tasks.dialect_of(self._source))
        self._target = target = cast(T, _open(self._source))
        try:
            self._stack = begin(target, FACE, self._asked)
        except BaseException:
            self._close()
            raise
        tasks.announce(self._stack.transaction, tasks.dialect_of(self._source))
        return target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._stack is not None
        stack, first = self._stack, error
        if stack.hooked and error is None and not self._asked.rollback:
            first = _before_commit(stack)
        try:
            self._leave(stack, error, first)
        except BaseException as own:
            ends.note_commit(stack.transaction, own)
            raise
        return ends.aims_at(error, stack.transaction)

    def _leave(self, stack: Stack, error: BaseException | None, first: BaseException | None) -> None:
        try:
            try:
                ends.leave_transaction(stack, first, rollback=self._asked.rollback)
                if error is None and first is not None and not ends.aims_at(first, stack.transaction):
                    raise first
            except BaseException as own:
                first = own
                raise
            finally:
                if stack.due:
                    due.run(stack, None if ends.aims_at(first, stack.transaction) else first)
        finally:
            self._close()

    def _close(self) -> None:
        if self._target is not None and self._target is not self._source:
            self._target.close()

    @property
    def level(self) -> Level:
        """The transaction that was begun."""
        assert self._stack is not None
        return self._stack.transaction

    def __call__(self, function: Callable[P, R]) -> Callable[..., R]:
        """Decorate a function: each call runs in a transaction of its own, its session or connection is passed in."""
        if not isinstance(self._source, (Engine, sessionmaker)):
            raise errors.WrongArgument(
                f"a decorator needs a source, not {type(self._source).__name__}",
                hint="give the engine or sessionmaker: a session or connection would be shared by all calls",
            )
        call = Call(function, (_Session, Connection))
        call.refuse_async(function)
        retry = self._asked.retry
        if retry is not None:
            retrying.refuse_async_callback(retry)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            given = call.given(args, kwargs)
            if given is None:
                return self._once(call, args, kwargs) if retry is None else self._retried(retry, call, args, kwargs)
            if retry is not None:
                raise retrying.of_a_part(called(function))
            with AtomicBlock(given, self._asked.name, savepoint=False, rollback=False):
                return call.run(args, kwargs)
            return None  # after `raise Rollback`

        wrapper.__signature__ = call.visible  # type: ignore[attr-defined]
        return wrapper

    def _retried(self, retry: Retry, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        course = retrying.new_course(retry, self._source, independent=self._asked.independent)
        return retrying.sync_loop(course, partial(retrying.accepts, course))(self._once, call, args, kwargs)

    def _once(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a decorated function, with a session or connection of its own."""
        with TransactionBlock(self._source, self._asked._replace(retry=None)) as target:
            bound = call.filled(target, args, kwargs)
            return call.run(bound.args, bound.kwargs)
        return None  # after `raise Rollback`


def _before_commit(stack: Stack) -> BaseException | None:
    """Run the hooks before the COMMIT; the error of one counts as the block's own."""
    try:
        for hook in due.before_commit(stack):
            due.call(hook)
    except BaseException as error:
        return error
    return None


def _open(source: Source | Target) -> Target:
    if isinstance(source, Engine):
        return source.connect()
    return source() if isinstance(source, sessionmaker) else source


class AtomicBlock(Generic[T]):
    """What `atomic` returns."""

    def __init__(self, target: T, name: str | None, *, savepoint: bool, rollback: bool) -> None:
        self._target = target
        self._name = name
        self._savepoint = savepoint
        self._rollback = rollback
        self._block: TransactionBlock[T] | Savepoint | JoinedBlock | None = None

    def __enter__(self) -> T:
        if self._block is not None:
            raise entered_before("atomic", self._block.level)
        self._block = self._choose()
        self._block.__enter__()
        return self._target

    def _choose(self) -> TransactionBlock[T] | Savepoint | JoinedBlock:
        if not opened_on_purpose(self._target):
            return TransactionBlock(self._target, Asked(self._name, rollback=self._rollback))
        if self._savepoint:
            return open_savepoint(self._target, self._name, self._rollback, ())
        return JoinedBlock(self._target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return self._block.__exit__(kind, error, trace)


class JoinedBlock:
    """A block without a level of its own: a failure inside dooms the level it joined."""

    level: Level

    def __init__(self, target: Target) -> None:
        self._target = target

    def __enter__(self) -> None:
        self._stack = stack_for(self._target, FACE)
        self.level = ends.joined_level(self._stack)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        ends.leave_joined(self._stack, self.level, error)
        return False  # what it did cannot be undone alone: `raise Rollback` goes on to the level that it joined


class Session(Hooking, _Session):
    """SQLAlchemy's Session with the verbs of this library as methods; drop-in by ``class_=savepoints.Session``."""

    def savepoint(self, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()) -> Savepoint:
        """Make a savepoint: see `savepoints.savepoint`."""
        return open_savepoint(self, name, rollback, suppress)

    def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name: see `savepoints.rollback_to`."""
        roll_back(moves.named(self, name))

    def release(self, name: str) -> None:
        """Release the nearest open savepoint of that name: see `savepoints.release`."""
        release(moves.named(self, name))

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        return register(self, occasion, function, args, kwargs)


S = TypeVar("S", bound=_Session)


class scoped_session(Hooking, _scoped_session[S]):
    """SQLAlchemy's scoped_session with the verbs of this library, on whatever class it makes."""

    def savepoint(self, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()) -> Savepoint:
        """Make a savepoint: see `savepoints.savepoint`."""
        return open_savepoint(self(), name, rollback, suppress)

    def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name: see `savepoints.rollback_to`."""
        roll_back(moves.named(self(), name))

    def release(self, name: str) -> None:
        """Release the nearest open savepoint of that name: see `savepoints.release`."""
        release(moves.named(self(), name))

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        return register(self(), occasion, function, args, kwargs)
