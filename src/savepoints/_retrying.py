"""Drives a retry: tenacity's loop with our rule, sync and async, and what cannot be retried."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, Retrying

from savepoints import errors
from savepoints._core import tasks
from savepoints._databases import Outcome, classify, is_retryable
from savepoints._model.hooks import is_async
from savepoints._places import raised_at
from savepoints._retry import Course, Retry, as_if_waited, asking, pause, pause_async


def describe(error: BaseException) -> str:
    """An error in a few words: its class, and what it means; not its text, which may hold values."""
    found = classify(error)
    return f"{type(error).__name__} ({found.kind}{'' if found.code is None else f' {found.code}'})"


def new_course(retry: Retry, source: Any, *, independent: bool) -> Course:
    """Begin a run of a rule.

    Raises:
        NestedRetry: A transaction of ours on the same engine is open in this task.
    """
    if not independent:
        tasks.refuse_second(tasks.dialect_of(source), errors.NestedRetry)
    return Course(retry, is_retryable, describe)


def sync_loop(course: Course, accepts: Callable[[BaseException], bool]) -> Retrying:
    """Tenacity's loop by our rule."""

    def before_sleep(state: RetryCallState) -> None:
        told = course.failed(state)
        if inspect.isawaitable(told):
            assert state.outcome is not None
            raise _unawaited(told) from state.outcome.exception()

    return Retrying(retry=_predicate(accepts), sleep=pause, before_sleep=before_sleep, **_arguments(course))


def async_loop(course: Course, accepts: Callable[[BaseException], Awaitable[bool]]) -> AsyncRetrying:
    """The same, awaited."""

    async def predicate(state: RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        return error is not None and await accepts(error)

    async def before_sleep(state: RetryCallState) -> None:
        told = course.failed(state)
        if inspect.isawaitable(told):
            await told

    return AsyncRetrying(retry=predicate, sleep=pause_async, before_sleep=before_sleep, **_arguments(course))


def _predicate(accepts: Callable[[BaseException], bool]) -> Any:
    def predicate(state: RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        return error is not None and accepts(error)

    return predicate


def _arguments(course: Course) -> dict[str, Any]:
    return {
        "stop": course.is_last,
        "wait": course.seconds,
        "retry_error_callback": course.given_up,
    }


# -- whether an error is worth another try


def accepts(course: Course, error: BaseException) -> bool:
    """Whether to try again after an error; where a COMMIT had no answer, the database is asked."""
    if isinstance(error, errors.CommitOutcomeUnknown) and error.resolver is not None:
        ask = Retrying(retry=_still_open, sleep=pause, **_asking(course.retry))
        try:
            worth = _not_stored(error, ask(error.resolve))
        except Exception as failed:
            worth = _not_stored(error, failed)
    else:
        worth = course.accepts(error)
    if not worth:
        course.tell(error)
    return worth


async def accepts_async(course: Course, error: BaseException) -> bool:
    """The same, awaited."""
    if isinstance(error, errors.CommitOutcomeUnknown) and error.resolver is not None:

        async def resolve() -> Outcome:
            outcome: Outcome = await error.resolve()
            return outcome

        ask = AsyncRetrying(retry=_still_open, sleep=pause_async, **_asking(course.retry))
        try:
            worth = _not_stored(error, await ask(resolve))
        except Exception as failed:
            worth = _not_stored(error, failed)
    else:
        worth = course.accepts(error)
    if not worth:
        course.tell(error)
    return worth


def _asking(retry: Retry) -> dict[str, Any]:
    rule = asking(retry)
    return {
        "stop": rule.is_last,
        "wait": rule.seconds,
        "before_sleep": as_if_waited,
        "retry_error_callback": _answer,
    }


def _answer(state: RetryCallState) -> Any:
    """The outcome; or the error of asking, as a value."""
    assert state.outcome is not None
    return state.outcome.exception() or state.outcome.result()


def _still_open(state: RetryCallState) -> bool:
    """Nobody could be asked, or the server is still at it. A function that fails by itself would only fail again."""
    answer = _answer(state)
    return is_retryable(answer) if isinstance(answer, Exception) else answer is Outcome.IN_PROGRESS


def _not_stored(error: BaseException, answer: Outcome | Exception) -> bool:
    """Only a plain no is an answer to go on by."""
    if isinstance(answer, Outcome):
        told = f"the answer is {str(answer)!r}"
    elif is_retryable(answer):
        told = f"nobody answered in time, at last {describe(answer)}"
    else:
        told = f"that failed with {describe(answer)} at {raised_at(answer)}"
    error.add_note(f"asked whether the work is stored: {told}")
    return answer is Outcome.ROLLED_BACK


# -- refusals


def refuse_async_callback(retry: Retry) -> None:
    """A sync source awaits nothing.

    Raises:
        WrongArgument: ``before_retry`` is an async function.
    """
    if retry.before_retry is not None and is_async(retry.before_retry):
        raise errors.WrongArgument(
            "before_retry is async, and nothing is awaited on a sync source", hint="give a function that is not async"
        )


def _unawaited(told: Any) -> errors.WrongArgument:
    if inspect.iscoroutine(told):
        told.close()
    return errors.WrongArgument(
        f"before_retry returned a {type(told).__name__}, which nobody awaits here",
        hint="use an async source, or a function that does its work at the call",
    )


def of_a_block() -> errors.WrongArgument:
    """A rule on a ``with`` block."""
    return errors.WrongArgument(
        "retry= is for the decorator: the body of a `with` cannot run twice",
        hint="decorate a function, or write `for attempt in attempts(...)` around the block",
    )


def of_a_part(called: str) -> errors.NestedRetry:
    """A function with a rule of its own was given its caller's session."""
    return errors.NestedRetry(f"{called} has a retry of its own, and was given its caller's session or connection")
