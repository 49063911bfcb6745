"""The retry rule as a value, and one run of it: which errors, how often, how long, and what is told at the end.

On tenacity: its loop drives, and its waits can be given. Nothing here knows of a database.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying, stop_never
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_random_exponential

from savepoints import errors

#: How long to wait: seconds, or what tenacity calls a wait.
Wait = wait_base | Callable[[RetryCallState], float] | float

#: Whether the try that failed was the last: what tenacity calls a stop.
Stop = stop_base | Callable[[RetryCallState], bool]

#: Called before the wait with the number of the try that failed, its error, and the seconds to be waited.
BeforeRetry = Callable[[int, BaseException, float], object]


@dataclass(frozen=True, slots=True)
class Retry:
    """When a transaction that failed is run again, how often, and after how long.

    Args:
        attempts: How many tries in all; None for no limit but the time.
        timeout: Seconds after which no other try begins; None for no limit but the number.
        wait: Seconds between two tries, or any wait of tenacity. By default a random time up to 0.05 s before the
            second try, up to twice as long before each further one, at the most 2 s.
        stop: Any stop of tenacity, which ends the tries besides the two limits.
        on: Which errors are worth another try; None means `savepoints.is_retryable`. A COMMIT whose answer was lost is
            never tried again because of this alone, nor is anything after commit hooks have run, nor what was raised
            ``from`` one of these or holds one of them in a group.
        before_retry: Called before each wait with the number of the try that failed, its error, and the seconds that
            will be waited; with an async source it may be async. What it raises ends the tries.

    Raises:
        WrongArgument: There is no limit, or a number is not positive, or an argument is of a wrong kind.
    """

    attempts: int | None = 5
    timeout: float | None = 30.0
    wait: Wait | None = None
    stop: Stop | None = None
    on: Callable[[BaseException], bool] | None = None
    before_retry: BeforeRetry | None = None

    def __post_init__(self) -> None:
        if self.attempts is None and self.timeout is None and self.stop in (None, stop_never):
            hint = "give it attempts, a timeout in seconds, or a stop of tenacity"
            raise errors.WrongArgument("this Retry has no limit", hint=hint)
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise _wrong("attempts", "a whole number from 1 on", self.attempts)
        if self.timeout is not None and (not _is_number(self.timeout) or self.timeout <= 0):
            raise _wrong("timeout", "a number of seconds above 0", self.timeout)
        self._check_functions()
        self._check_wait()

    def _check_functions(self) -> None:
        if self.stop is not None and not _is_function(self.stop):
            raise _wrong("stop", "a stop of tenacity, or a function as these are", self.stop)
        for name, function in (("on", self.on), ("before_retry", self.before_retry)):
            if function is not None and not _is_function(function):
                raise _wrong(name, "a function that is given the error", function)
        for name, asked in (("on", self.on), ("wait", self.wait), ("stop", self.stop)):
            if inspect.iscoroutinefunction(asked):
                hint = "only `before_retry` may be async"
                raise errors.WrongArgument(f"{name} of a Retry is not an async function: nobody awaits it", hint=hint)

    def _check_wait(self) -> None:
        wait = self.wait
        if wait is None or (callable(wait) and not isinstance(wait, wait_base)):
            return
        if isinstance(wait, wait_base):
            wait = wait(_first_failure())
        if not _is_number(wait) or wait < 0:
            raise _wrong("wait", "seconds, not below 0, or a wait of tenacity", wait)

    def is_last(self, state: RetryCallState) -> bool:
        """Whether the try that failed was the last."""
        if self.attempts is not None and state.attempt_number >= self.attempts:
            return True
        if self.stop is not None and self.stop(state):
            return True
        spent = state.seconds_since_start or 0.0
        return self.timeout is not None and spent + state.upcoming_sleep >= self.timeout

    def seconds(self, state: RetryCallState) -> float:
        """How long to wait after a try that failed."""
        wait = self.wait
        if wait is None:
            wait = _DEFAULT_WAIT
        seconds = wait(state) if callable(wait) else wait
        if not _is_number(seconds) or seconds < 0:
            raise _wrong("wait", "something that gives seconds, not below 0", seconds)
        return float(seconds)


_DEFAULT_WAIT = wait_random_exponential(multiplier=0.05, max=2)


def _is_number(found: object) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) <= threading.TIMEOUT_MAX


def _is_function(found: object) -> bool:
    return callable(found) and not isinstance(found, type)


def _wrong(name: str, wanted: str, found: object) -> errors.WrongArgument:
    shown = repr(found) if type(found) in (int, float) else errors.kind_of(found)
    return errors.WrongArgument(f"{name} of a Retry is {wanted}, not {shown}", hint="see `savepoints.Retry`")


def _first_failure() -> RetryCallState:
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((ValueError, ValueError(), None))
    return state


class Course:
    """One run of a rule: the tries that failed so far, and what is told of them at the end.

    Args:
        retry: The rule.
        on: What is asked where the rule names nothing of its own.
        describe: An error in a few words, without values.
    """

    def __init__(
        self, retry: Retry, on: Callable[[BaseException], bool], describe: Callable[[BaseException], str]
    ) -> None:
        self.retry = retry
        self._on = retry.on or on
        self._describe = describe
        self._history: list[str] = []

    def accepts(self, error: BaseException) -> bool:
        """Whether another try makes sense, by the error alone."""
        if not isinstance(error, Exception) or isinstance(error, _UNTRIED) or _is_final(error):
            return False
        with _after(error):
            return bool(self._on(error))

    def is_last(self, state: RetryCallState) -> bool:
        """Whether the rule ends the tries."""
        with _after(_error_of(state)):
            return self.retry.is_last(state)

    def seconds(self, state: RetryCallState) -> float:
        """How long the rule waits."""
        with _after(_error_of(state)):
            return self.retry.seconds(state)

    def given_up(self, state: RetryCallState) -> Any:
        """No other try: the last error passes as it is, with what came before."""
        error = _error_of(state)
        self.tell(error)
        raise error

    def tell(self, error: BaseException) -> None:
        """Attach what became of the earlier tries."""
        for line in self._history:
            error.add_note(line)
        self._history.clear()

    def failed(self, state: RetryCallState) -> Any:
        """Before the wait: remember the try, and tell whoever wants to know. May have to be awaited."""
        error = _error_of(state)
        number, seconds = state.attempt_number, state.upcoming_sleep
        most = "" if self.retry.attempts is None else f" of {self.retry.attempts}"
        self._history.append(
            f"try {number}{most} failed with {self._describe(error)}; the next one came {seconds:.3g} s later"
        )
        as_if_waited(state)
        with _after(error):
            return None if self.retry.before_retry is None else self.retry.before_retry(number, error, seconds)


def _error_of(state: RetryCallState) -> BaseException:
    error = None if state.outcome is None else state.outcome.exception()
    assert error is not None
    return error


@contextmanager
def _after(first: BaseException) -> Iterator[None]:
    """What a function of the rule raises has come after the error that it was asked about."""
    try:
        yield
    except BaseException as own:
        if own.__context__ is None and own is not first:
            own.__context__ = first
        raise


_UNTRIED = (errors.NestedRetry, errors.Rollback)
_FINAL = (errors.CommitOutcomeUnknown, errors.HookErrors)


def _is_final(error: BaseException | None) -> bool:
    """Whether work may be stored already: by the error itself, what it was raised from, or one of its group."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, _FINAL) or errors.is_after_commit(error):
            return True
        if isinstance(error, BaseExceptionGroup) and any(map(_is_final, error.exceptions)):
            return True
        error = error.__cause__
    return False


# -- waiting


_instant = 0


@contextmanager
def without_waiting() -> Iterator[None]:
    """Let retries follow each other at once, in all threads and tasks."""
    global _instant
    _instant += 1
    try:
        yield
    finally:
        _instant -= 1


def as_if_waited(state: RetryCallState) -> None:
    """Where tests do not wait, the time that was only said to be waited counts as if it had passed."""
    if _instant:
        state.start_time -= state.upcoming_sleep


def pause(seconds: float) -> None:
    """Wait, unless tests have switched that off."""
    if not _instant:
        time.sleep(seconds)


async def pause_async(seconds: float) -> None:
    """The same without holding up the other tasks; a cancellation ends it at once."""
    await asyncio.sleep(0 if _instant else seconds)


def asking(retry: Retry) -> Retry:
    """How the outcome of a COMMIT is asked for again, while that is open or nobody answers."""
    return Retry(attempts=None, timeout=retry.timeout or 30.0, wait=0.1)
