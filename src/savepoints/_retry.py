"""The retry rule as a value, and one run of it: which errors, how often, how long, and what is told at the end.

On tenacity: its loop drives, and its waits can be given. Nothing here knows of a database.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying, stop_before_delay, wait_fixed
from tenacity.wait import wait_base, wait_random_exponential

from savepoints import errors

#: How long to wait: seconds, or what tenacity calls a wait.
Wait = wait_base | Callable[[RetryCallState], float] | float

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
        on: Which errors are worth another try; None means `savepoints.is_retryable`. A COMMIT whose answer was lost is
            never tried again because of this alone, nor is anything after commit hooks have run.
        before_retry: Called before each wait with the number of the try that failed, its error, and the seconds that
            will be waited; with an async source it may be async. What it raises ends the tries.

    Raises:
        WrongArgument: There is no limit, or a number is not positive, or an argument is of a wrong kind.
    """

    attempts: int | None = 5
    timeout: float | None = 30.0
    wait: Wait | None = None
    on: Callable[[BaseException], bool] | None = None
    before_retry: BeforeRetry | None = None

    def __post_init__(self) -> None:
        if self.attempts is None and self.timeout is None:
            raise errors.WrongArgument("this Retry has no limit", hint="give it attempts or a timeout in seconds")
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise _wrong("attempts", "a whole number from 1 on", self.attempts)
        if self.timeout is not None and (not _is_number(self.timeout) or self.timeout <= 0):
            raise _wrong("timeout", "a number of seconds above 0", self.timeout)
        self._check_wait()
        functions: dict[str, Any] = {"on": self.on, "before_retry": self.before_retry}
        for name, function in functions.items():
            if function is not None and (not callable(function) or isinstance(function, type)):
                raise _wrong(name, "a function that is given the error", function)

    def _check_wait(self) -> None:
        wait = self.wait
        if wait is None or (callable(wait) and not isinstance(wait, wait_base)):
            return
        if isinstance(wait, wait_base):
            wait = wait(_first_failure())
        if not _is_number(wait) or wait < 0:
            raise _wrong("wait", "seconds, not below 0, or a wait of tenacity", wait)

    def stop(self, state: RetryCallState) -> bool:
        """Whether the try that failed was the last; time that was only said to be waited counts."""
        if self.attempts is not None and state.attempt_number >= self.attempts:
            return True
        spent = max(state.seconds_since_start or 0.0, state.idle_for)
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
    return isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)


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
        if not isinstance(error, Exception) or isinstance(error, _FINAL):
            return False
        with _after(error):
            return bool(self._on(error))

    def given_up(self, state: RetryCallState) -> Any:
        """No other try: the last error passes as it is, with what came before."""
        assert state.outcome is not None
        error = state.outcome.exception()
        assert error is not None
        self.tell(error)
        raise error

    def tell(self, error: BaseException) -> None:
        """Attach what became of the earlier tries."""
        for line in self._history:
            error.add_note(line)
        self._history.clear()

    def failed(self, state: RetryCallState) -> Any:
        """Before the wait: remember the try, and tell whoever wants to know. May have to be awaited."""
        assert state.outcome is not None
        error = state.outcome.exception()
        assert error is not None
        number, seconds = state.attempt_number, state.upcoming_sleep
        most = "" if self.retry.attempts is None else f" of {self.retry.attempts}"
        self._history.append(
            f"try {number}{most} failed with {self._describe(error)}; the next one came {seconds:.3g} s later"
        )
        with _after(error):
            return None if self.retry.before_retry is None else self.retry.before_retry(number, error, seconds)


@contextmanager
def _after(first: BaseException) -> Iterator[None]:
    """What a function of the rule raises has come after the error that it was asked about."""
    try:
        yield
    except BaseException as own:
        if own.__context__ is None and own is not first:
            own.__context__ = first
        raise


_FINAL = (errors.CommitOutcomeUnknown, errors.HookErrors, errors.NestedRetry, errors.Rollback)


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


def pause(seconds: float) -> None:
    """Wait, unless tests have switched that off."""
    if not _instant:
        time.sleep(seconds)


async def pause_async(seconds: float) -> None:
    """The same without holding up the other tasks; a cancellation ends it at once."""
    await asyncio.sleep(0 if _instant else seconds)


def asking(retry: Retry) -> dict[str, Any]:
    """How tenacity asks for the outcome of a COMMIT again, while that is open or nobody answers."""
    limit = retry.timeout or 30.0
    return {"stop": stop_before_delay(limit), "wait": wait_fixed(0.1), "retry_error_callback": lambda state: None}
