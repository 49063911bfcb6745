"""The async face: the same verbs with ``await``. The core runs in SQLAlchemy's ``run_sync``.

See Note [Shielded exits].
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.ext.asyncio import async_scoped_session as _async_scoped_session
from sqlalchemy.orm import Session as _SASession

from savepoints import _awaiting as awaiting
from savepoints import _retrying as retrying
from savepoints import errors
from savepoints._core import ends, moves, tasks
from savepoints._core.attach import Target, begin, find, opened_on_purpose, stack_for
from savepoints._core.ends import Suppress
from savepoints._core.face import Face
from savepoints._core.options import Asked
from savepoints._core.stack import Stack
from savepoints._decorate import Call, called
from savepoints._model.hooks import Hook, Hooking, Occasion
from savepoints._model.levels import Level, SavepointLevel, TransactionLevel
from savepoints._places import caller
from savepoints._retry import Retry
from savepoints._sync import Session as _SyncSession
from savepoints._sync import entered_before

AsyncTarget = _AsyncSession | AsyncConnection
AsyncSource = AsyncEngine | async_sessionmaker[Any]
T = TypeVar("T", bound=AsyncTarget)
P = ParamSpec("P")
R = TypeVar("R")


def sync_of(target: AsyncTarget) -> Target:
    """The sync object inside an async one."""
    if isinstance(target, _AsyncSession):
        return target.sync_session
    return target.sync_connection or _not_started(target)


def _not_started(connection: AsyncConnection) -> Any:
    raise errors.NoTransaction(f"{type(connection).__name__} is not started or closed", hint="await the connection")


async def run_in(target: AsyncTarget, work: Callable[[], R]) -> R:
    """Run sync work on the target, inside its greenlet."""
    sync_of(target)
    return await target.run_sync(lambda _: work())


class AsyncTransaction(TransactionLevel):
    """The outermost unit, as `current_transaction` hands it out for an async target."""

    __slots__ = ()

    @property
    def savepoints(self) -> tuple[AsyncSavepoint, ...]:
        """The open savepoints, innermost last."""
        self.stack.sync()
        return tuple(self.stack.levels)

    async def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name, and keep it open.

        Args:
            name: The savepoint's name.

        Raises:
            UnknownSavepoint: No open savepoint bears the name.
            OutOfOrder: It was opened outside the block around this call.
        """
        await run_in(self.stack.runner, lambda: moves.roll_back(moves.named_in(self.stack, name)))
        await awaiting.run_due(self.stack)


class AsyncSavepoint(SavepointLevel):
    """A named bookmark inside a transaction: roll back to it again and again, release it, or use it as a block."""

    __slots__ = ()

    async def rollback(self) -> None:
        """Undo what was done since the savepoint, in the database and in the session's objects. It stays open.

        Raises:
            SavepointEnded: It has ended; the message tells how and where.
            TransactionLost: The transaction has ended.
            OutOfOrder: It was opened outside the block around this call.
            WrongTask: Another task or thread is at work on this target.
        """
        await run_in(self.stack.runner, lambda: moves.roll_back(self))
        await awaiting.run_due(self.stack)

    async def release(self) -> None:
        """End the savepoint and keep its work in the level around.

        Raises:
            SavepointEnded: It has ended.
            TransactionFailed: A statement or flush inside failed: roll back first.
            TransactionDoomed: It can only be rolled back.
            OutOfOrder: It was opened outside the block around this call.
            WrongTask: Another task or thread is at work on this target.
        """
        await run_in(self.stack.runner, lambda: moves.release(self))
        await awaiting.run_due(self.stack)

    async def __aenter__(self) -> AsyncSavepoint:
        ends.enter(self)
        tasks.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            await awaiting.finish(self._leave(error))
        finally:
            tasks.leave(self)
        return error is not None and ends.swallows(self, error, self._suppress)

    async def _leave(self, error: BaseException | None) -> None:
        first = error
        try:
            await run_in(self.stack.runner, lambda: ends.leave_savepoint(self, error, rollback=self._rollback))
        except Exception as own:
            first = own
            if not ends.swallows(self, own, self._suppress):
                raise
        finally:
            if self.stack.due:
                await awaiting.run_due(self.stack, None if ends.swallows(self, first, self._suppress) else first)


FACE = Face(AsyncTransaction, AsyncSavepoint, awaiting.resolve)


class PendingSavepoint:
    """What `savepoint` returns for an async target: await it for a bookmark, or use it with ``async with``."""

    def __init__(self, target: AsyncTarget, name: str | None, rollback: bool, suppress: Suppress) -> None:
        self._target = target
        self._name = name
        self._rollback = rollback
        self._used = True  # until it stands: what is refused here need not be awaited
        self._suppress = ends.checked_suppress(suppress)
        self._used = False
        self.level: AsyncSavepoint | None = None
        self._where = caller()

    async def _open(self) -> AsyncSavepoint:
        if self._used:
            raise errors.OutOfOrder("this savepoint was awaited before", hint="call `savepoint` again")
        self._used = True

        def work() -> AsyncSavepoint:
            target = sync_of(self._target)
            stack_for(target, FACE).runner = self._target
            return cast(AsyncSavepoint, moves.open_savepoint(target, FACE, self._name))

        level = await run_in(self._target, work)
        level._rollback = self._rollback
        level._suppress = self._suppress
        return level

    def __await__(self) -> Generator[Any, Any, AsyncSavepoint]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncSavepoint:
        self.level = await self._open()
        return await self.level.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self.level is not None
        return await self.level.__aexit__(kind, error, trace)

    def __del__(self) -> None:
        if not self._used:
            warnings.warn_explicit(
                f"savepoint(...) at {self._where} was never awaited: no savepoint was made; "
                "write `await savepoint(...)` or `async with savepoint(...)`",
                errors.SavepointNeverAwaited,
                *self._where,
                source=self,
            )


def current(target: AsyncTarget) -> AsyncTransaction | None:
    """The open transaction of a target."""
    if isinstance(target, AsyncConnection) and target.sync_connection is None:
        return None
    inside = sync_of(target)
    if find(inside) is None and not inside.in_transaction():
        return None
    stack = stack_for(inside, FACE)
    stack.runner = target
    return cast(AsyncTransaction, stack.transaction) if stack.transaction.is_open else None


class AsyncTransactionBlock(Generic[T]):
    """What `transaction` returns for an async source or target: a block, or a decorator."""

    def __init__(self, source: AsyncSource | T, asked: Asked = Asked()) -> None:  # noqa: B008 - immutable
        self._source = source
        self._asked = asked
        self._target: T | None = None
        self._stack: Stack | None = None

    async def __aenter__(self) -> T:
        if self._stack is not None:
            raise entered_before("transaction", self._stack.transaction)
        if self._asked.retry is not None:
            raise retrying.of_a_block()
        if isinstance(self._source, AsyncConnection):
            sync_of(self._source)
        if not self._asked.independent:
            tasks.refuse_second(tasks.dialect_of(self._source))
        self._target = target = cast(T, await _open(self._source))
        try:
            self._stack = await run_in(target, lambda: begin(sync_of(target), FACE, self._asked))
        except BaseException:
            await awaiting.finish(self._close())
            raise
        self._stack.runner = target
        tasks.announce(self._stack.transaction, tasks.dialect_of(self._source))
        return target

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._stack is not None
        stack, first = self._stack, error
        if stack.hooked and error is None and not self._asked.rollback:
            first = await awaiting.before_commit(stack)
        try:
            await awaiting.finish(self._leave(stack, first))
        except BaseException as own:
            ends.note_commit(stack.transaction, own)
            raise
        if error is None and first is not None and not ends.aims_at(first, stack.transaction):
            raise first
        return ends.aims_at(error, stack.transaction)

    async def _leave(self, stack: Stack, error: BaseException | None) -> None:
        first = error
        try:
            try:
                await run_in(stack.runner, lambda: ends.leave_transaction(stack, error, rollback=self._asked.rollback))
            except BaseException as own:
                first = own
                raise
            finally:
                if stack.due:
                    await awaiting.run_due(stack, None if ends.aims_at(first, stack.transaction) else first)
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._target is not None and self._target is not self._source:
            await self._target.close()

    @property
    def level(self) -> Level:
        """The transaction that was begun."""
        assert self._stack is not None
        return self._stack.transaction

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[..., Coroutine[Any, Any, R]]:
        """Decorate a coroutine function: each call runs in a transaction of its own, its session is passed in."""
        if not isinstance(self._source, (AsyncEngine, async_sessionmaker)):
            raise errors.WrongArgument(
                f"a decorator needs a source, not {type(self._source).__name__}",
                hint="give the engine or sessionmaker: a session or connection would be shared by all calls",
            )
        call = Call(function, (_AsyncSession, AsyncConnection))
        call.refuse_sync(function)
        retry = self._asked.retry

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> R:
            given = call.given(args, kwargs)
            if given is None:
                once = self._once if retry is None else partial(self._retried, retry)
                result: R = await once(call, args, kwargs)
                return result
            if retry is not None:
                raise retrying.of_a_part(called(function))
            async with AsyncAtomicBlock(given, self._asked.name, savepoint=False, rollback=False):
                result = await call.run_async(args, kwargs)
                return result
            return None  # after `raise Rollback`

        wrapper.__signature__ = call.visible  # type: ignore[attr-defined]
        return wrapper

    async def _retried(self, retry: Retry, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        course = retrying.new_course(retry, self._source, independent=self._asked.independent)
        return await retrying.async_loop(course, partial(retrying.accepts_async, course))(
            self._once, call, args, kwargs
        )

    async def _once(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a decorated function, with a session or connection of its own."""
        async with AsyncTransactionBlock(self._source, self._asked._replace(retry=None)) as target:
            bound = call.filled(target, args, kwargs)
            return await call.run_async(bound.args, bound.kwargs)
        return None  # after `raise Rollback`


def register(target: AsyncTarget, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Hook:
    """Give a hook to the innermost open level of a target."""
    current(target)  # so that the stack knows who drives it
    return moves.register(sync_of(target), FACE, occasion, function, args, kwargs)


async def _open(source: AsyncSource | AsyncTarget) -> AsyncTarget:
    if isinstance(source, AsyncEngine):
        return await source.connect()
    return cast(AsyncTarget, source()) if isinstance(source, async_sessionmaker) else source


class AsyncAtomicBlock(Generic[T]):
    """What `atomic` returns for an async target."""

    def __init__(self, target: T, name: str | None, *, savepoint: bool, rollback: bool) -> None:
        self._target = target
        self._name = name
        self._savepoint = savepoint
        self._rollback = rollback
        self._block: AsyncTransactionBlock[T] | PendingSavepoint | AsyncJoinedBlock | None = None

    async def __aenter__(self) -> T:
        if self._block is not None:
            raise entered_before("atomic", cast(Level, self._block.level))
        self._block = self._choose()
        await self._block.__aenter__()
        return self._target

    def _choose(self) -> AsyncTransactionBlock[T] | PendingSavepoint | AsyncJoinedBlock:
        if not opened_on_purpose(sync_of(self._target)):
            return AsyncTransactionBlock(self._target, Asked(self._name, rollback=self._rollback))
        if self._savepoint:
            return PendingSavepoint(self._target, self._name, self._rollback, ())
        return AsyncJoinedBlock(self._target)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        return await self._block.__aexit__(kind, error, trace)


class AsyncJoinedBlock:
    """A block without a level of its own: a failure inside dooms the level it joined."""

    level: Level

    def __init__(self, target: AsyncTarget) -> None:
        self._target = target

    async def __aenter__(self) -> None:
        self._stack = stack = stack_for(sync_of(self._target), FACE)
        stack.runner = self._target
        self.level = await run_in(self._target, lambda: ends.joined_level(stack))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        ends.leave_joined(self._stack, self.level, error)
        return False  # what it did cannot be undone alone: `raise Rollback` goes on to the level that it joined


class AsyncSession(Hooking, _AsyncSession):
    """SQLAlchemy's AsyncSession with the verbs of this library as methods."""

    sync_session_class: type[_SASession] = _SyncSession

    def savepoint(
        self, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()
    ) -> PendingSavepoint:
        """Make a savepoint: see `savepoints.savepoint`."""
        return PendingSavepoint(self, name, rollback, suppress)

    async def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name: see `savepoints.rollback_to`."""
        await rollback_to(self, name)

    async def release(self, name: str) -> None:
        """Release the nearest open savepoint of that name: see `savepoints.release`."""
        await release(self, name)

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        return register(self, occasion, function, args, kwargs)


S = TypeVar("S", bound=_AsyncSession)


class async_scoped_session(Hooking, _async_scoped_session[S]):
    """SQLAlchemy's async_scoped_session with the verbs of this library, on whatever class it makes."""

    def savepoint(
        self, name: str | None = None, *, rollback: bool = False, suppress: Suppress = ()
    ) -> PendingSavepoint:
        """Make a savepoint: see `savepoints.savepoint`."""
        return PendingSavepoint(self(), name, rollback, suppress)

    async def rollback_to(self, name: str) -> None:
        """Roll back to the nearest open savepoint of that name: see `savepoints.rollback_to`."""
        await rollback_to(self(), name)

    async def release(self, name: str) -> None:
        """Release the nearest open savepoint of that name: see `savepoints.release`."""
        await release(self(), name)

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        return register(self(), occasion, function, args, kwargs)


async def rollback_to(target: AsyncTarget, name: str) -> None:
    """Roll back to the nearest open savepoint of that name."""
    level = await run_in(target, lambda: _steered(moves.roll_back, target, name))
    await awaiting.run_due(level.stack)


async def release(target: AsyncTarget, name: str) -> None:
    """Release the nearest open savepoint of that name."""
    level = await run_in(target, lambda: _steered(moves.release, target, name))
    await awaiting.run_due(level.stack)


def _steered(move: Callable[[SavepointLevel], None], target: AsyncTarget, name: str) -> SavepointLevel:
    level = moves.named(sync_of(target), name)
    move(level)
    return level
