"""`attempts`: a loop of tries, each in a transaction of its own, sync and async."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from savepoints import _retrying as retrying
from savepoints import errors
from savepoints._core.options import Asked, Options
from savepoints._core.outcome import Track, checked_track
from savepoints._loops import Place, goes_on_to_next_round, place_of
from savepoints._model.levels import checked_name
from savepoints._retry import Course, Retry
from savepoints._sync import TransactionBlock
from savepoints._targets import SOURCES, is_async, is_kind

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

    from savepoints.aio import AsyncTransactionBlock

S = TypeVar("S", bound=Session)
A = TypeVar("A", bound="AsyncSession")
T = TypeVar("T")

_NOT_STRAIGHT = (
    "it was not tried again, for the code would have gone on as if the work were stored: the `with` has to stand in "
    "the `for` itself, as its last statement, with nothing around it, in a function without `yield`; "
    "and no COMMIT can be tried again after `return` or `break`. Write the loop so, or use `retry=`"
)


@dataclass(frozen=True, slots=True)
class _Run:
    """What the tries of one loop share."""

    open_block: Callable[[], Any]
    course: Course
    accepts: Callable[[BaseException], Any]
    loop: Any  # tenacity's
    asked: Place  # where the loop stands: Note [Returning from a try]


class _Tries(Generic[T]):
    """What both faces share: the source, the rule, and the blocks to be opened."""

    def __init__(self, source: Any, retry: Retry, asked: Asked) -> None:
        self._source = source
        self._retry = retry
        self._asked = asked

    def _begin(self) -> Course:
        return retrying.new_course(self._retry, self._source, independent=self._asked.independent)


class Attempts(_Tries[T]):
    """What `attempts` returns for a sync source: ``for attempt in attempts(...)``."""

    def __iter__(self) -> Iterator[Attempt[T]]:
        return self._rounds(place_of(sys._getframe(1)))

    def _rounds(self, asked: Place) -> _Rounds[T]:
        course = self._begin()
        accepts = partial(retrying.accepts, course)
        loop = iter(retrying.sync_loop(course, lambda error: True))
        return _Rounds(_Run(lambda: TransactionBlock(self._source, self._asked), course, accepts, loop, asked))


class AsyncAttempts(_Tries[T]):
    """What `attempts` returns for an async source: ``async for attempt in attempts(...)``."""

    if not TYPE_CHECKING:  # a type checker shall go on to say that it cannot be done

        def __iter__(self):
            raise errors.WrongArgument(
                "these attempts() have an async source", hint="write `async for`, and `async with` around the work"
            )

    def __aiter__(self) -> AsyncIterator[AsyncAttempt[T]]:
        from savepoints.aio import AsyncTransactionBlock

        asked = place_of(sys._getframe(1))
        course = self._begin()
        accepts = partial(retrying.accepts_async, course)
        loop = aiter(retrying.async_loop(course, _all_of_them))
        return _AsyncRounds(
            _Run(lambda: AsyncTransactionBlock(self._source, self._asked), course, accepts, loop, asked)
        )


async def _all_of_them(error: BaseException) -> bool:
    return True


class _Rounds(Generic[T]):
    """The loop."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._last: Attempt[T] | None = None

    def __iter__(self) -> _Rounds[T]:
        self._run = replace(self._run, asked=place_of(sys._getframe(1)))
        return self

    def __next__(self) -> Attempt[T]:
        if self._last is not None:
            self._last.check_entered()
        self._last = Attempt(self._run, next(self._run.loop))
        return self._last


class _AsyncRounds(Generic[T]):
    """The loop: no generator, for one that is left by ``return`` would have to be closed by the event loop."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._last: AsyncAttempt[T] | None = None

    def __aiter__(self) -> _AsyncRounds[T]:
        self._run = replace(self._run, asked=place_of(sys._getframe(1)))
        return self

    async def __anext__(self) -> AsyncAttempt[T]:
        if self._last is not None:
            self._last.check_entered()
        self._last = AsyncAttempt(self._run, await anext(self._run.loop))
        return self._last


class _Try(Generic[T]):
    def __init__(self, run: _Run, manager: Any) -> None:
        self._run = run
        self._manager = manager
        self._block: Any = None

    @property
    def number(self) -> int:
        """1 for the first try."""
        number: int = self._manager.retry_state.attempt_number
        return number

    def check_entered(self) -> None:
        """The round is over.

        Raises:
            OutOfOrder: Its try was never begun: the loop would go round for ever.
        """
        if self._block is None:
            raise errors.OutOfOrder(
                "a round of attempts() has not entered its try", hint="leave the loop by `break` where nothing is to do"
            )

    def _refuse_second(self) -> None:
        if self._block is not None:
            raise errors.OutOfOrder(
                f"try {self.number} of attempts() was entered already", hint="the loop gives a new one for each round"
            )

    def _failed(self, error: BaseException) -> None:
        self._manager.retry_state.set_exception((type(error), error, error.__traceback__))

    def _swallow(self, own: BaseException, error: BaseException | None, *, accepted: bool, left: Place) -> bool:
        """Whether there will be another try; else the error passes."""
        if accepted and goes_on_to_next_round(self._run.asked, left):
            self._failed(own)
            return True
        if accepted:
            own.add_note(_NOT_STRAIGHT)
            self._run.course.tell(own)
        if own is not error:
            raise own
        return False


class Attempt(_Try[T]):
    """One try: a block that yields the session or connection of a new transaction."""

    def __enter__(self) -> T:
        self._refuse_second()
        while True:
            block: TransactionBlock[Any] = self._run.open_block()
            try:
                target: T = block.__enter__()
            except Exception as error:
                if not self._run.accepts(error):
                    raise
                self._failed(error)
                self._manager = next(self._run.loop)  # waits; without another try the error passes
            else:
                self._block = block
                return target

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._leave(kind, error, trace, place_of(sys._getframe(1)))

    def _leave(self, kind: Any, error: BaseException | None, trace: Any, left: Place) -> bool:
        own = error
        try:
            undone = self._block.__exit__(kind, error, trace)
        except BaseException as raised:
            own = raised
        else:
            if error is None or undone:
                self._manager.retry_state.set_result(None)
                return bool(undone)
        assert own is not None
        return self._swallow(own, error, accepted=self._run.accepts(own), left=left)


class AsyncAttempt(_Try[T]):
    """One try: an async block that yields the session or connection of a new transaction."""

    async def __aenter__(self) -> T:
        self._refuse_second()
        while True:
            block: AsyncTransactionBlock[Any] = self._run.open_block()
            try:
                target: T = await block.__aenter__()
            except Exception as error:
                if not await self._run.accepts(error):
                    raise
                self._failed(error)
                self._manager = await anext(self._run.loop)
            else:
                self._block = block
                return target

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self._leave(kind, error, trace, place_of(sys._getframe(1)))

    async def _leave(self, kind: Any, error: BaseException | None, trace: Any, left: Place) -> bool:
        own = error
        try:
            undone = await self._block.__aexit__(kind, error, trace)
        except BaseException as raised:
            own = raised
        else:
            if error is None or undone:
                self._manager.retry_state.set_result(None)
                return bool(undone)
        assert own is not None
        return self._swallow(own, error, accepted=await self._run.accepts(own), left=left)


@overload
def attempts(
    source: Engine,
    retry: Retry = ...,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    independent: bool = False,
    track_commit: Track = False,
) -> Attempts[Connection]: ...
@overload
def attempts(
    source: sessionmaker[S],
    retry: Retry = ...,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    independent: bool = False,
    track_commit: Track = False,
) -> Attempts[S]: ...
@overload
def attempts(
    source: AsyncEngine,
    retry: Retry = ...,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    independent: bool = False,
    track_commit: Track = False,
) -> AsyncAttempts[AsyncConnection]: ...
@overload
def attempts(
    source: async_sessionmaker[A],
    retry: Retry = ...,
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    independent: bool = False,
    track_commit: Track = False,
) -> AsyncAttempts[A]: ...
def attempts(
    source: Any,
    retry: Retry = Retry(),  # noqa: B008 - immutable
    *,
    name: str | None = None,
    isolation_level: str | None = None,
    read_only: bool = False,
    deferrable: bool = False,
    immediate: bool = False,
    twophase: bool = False,
    independent: bool = False,
    track_commit: Track = False,
) -> Any:
    """Tries of one transaction: the body of the loop runs again, in a new one, after an error that is worth it.

    ::

        for attempt in attempts(Session, Retry(attempts=3)):
            with attempt as session:
                ...

    With an async source: ``async for`` and ``async with``. Each try has a session or connection of its own; hooks and
    objects of the one before are gone. After an error the loop waits and begins the next round; an error that is not
    worth another try, and the last one, passes as it is, with the earlier tries as notes. The ``with`` has to stand
    in the loop itself, as its last statement, with nothing around it: everywhere else the code would go on as if the
    work were stored, and so the error is raised, with a note. So is that of a COMMIT after ``return`` or ``break``
    inside of the block.

    Args:
        source: Engine or sessionmaker, or their async twins.
        retry: The rule.
        name: As for `transaction`, like all that follow.
        isolation_level: As SQLAlchemy spells it.
        read_only: Writes are refused by the database.
        deferrable: Wait for a snapshot that cannot fail (PostgreSQL).
        immediate: Take the write lock at once (SQLite).
        twophase: Prepare first, then commit.
        independent: Allow a second transaction on the same engine in the same task.
        track_commit: Ask what became of a COMMIT whose answer was lost: only if the answer is that it was not stored,
            the work is tried again.

    Raises:
        NestedRetry: A transaction of ours on the same engine is open in this task: only the outermost can be retried.
        WrongArgument: The source is no source, or the rule is no rule.
    """
    if not isinstance(source, SOURCES) and not is_kind(source, "AsyncEngine", "async_sessionmaker"):
        raise errors.WrongArgument(
            f"attempts needs a source, not {errors.kind_of(source)}",
            hint="give an engine or sessionmaker: each try has a session or connection of its own",
        )
    if not isinstance(retry, Retry):
        raise errors.WrongArgument(f"retry is a Retry, not {errors.kind_of(retry)}", hint="give `Retry(attempts=3)`")
    options = Options(isolation_level, read_only, deferrable, immediate, twophase)
    checked = None if name is None else checked_name(name)
    asked = Asked(checked, options, independent=independent, track=checked_track(track_commit))
    if is_async(source):
        return AsyncAttempts(source, retry, asked)
    retrying.refuse_async_callback(retry)
    return Attempts(source, retry, asked)
