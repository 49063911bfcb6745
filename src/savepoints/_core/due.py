"""Hooks that are due: the faces run them, between calls of the core; after plain endings they are run from here."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from savepoints import errors
from savepoints._core import refusals
from savepoints._model import hooks
from savepoints._model.hooks import Hook, Occasion
from savepoints._model.states import State
from savepoints._places import raised_at

if TYPE_CHECKING:
    from savepoints._core.stack import Stack

_logger = logging.getLogger("savepoints")

#: Hooks may register hooks that are due at the same time, but not for ever; SQLAlchemy stops its flushes there, too.
_ROUNDS = 100


def before_commit(stack: Stack) -> Iterator[Hook]:
    """The hooks to be run before the COMMIT, also those that they register.

    Raises:
        OutOfOrder: They register new ones again and again.
    """
    transaction = stack.transaction
    for _ in range(_ROUNDS):
        found = hooks.waiting(Occasion.BEFORE_COMMIT, (level.hooks for level in (transaction, *stack.levels)))
        if not found:
            return
        for hook in found:
            if transaction.recorded is not State.OPEN:  # no COMMIT will follow
                return
            if hook.is_pending:
                yield hook
    raise errors.OutOfOrder(
        f"before_commit hooks of {refusals.called(transaction)} registered new ones {_ROUNDS} times over",
        hint="let a hook do its work itself",
    )


class Run:
    """One run through the hooks that are due: what failed is gathered, and told at the end."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._failures: list[Exception] = []
        self._due = hooks.in_order(stack.due)
        self._count = 0
        self._level = stack.due_in
        stack.due = []

    def hooks(self) -> Iterator[Hook]:
        """Those to be run, in their order."""
        for hook in self._due:
            if hook.is_pending:
                self._count += 1
                yield hook

    def failed(self, hook: Hook, error: Exception) -> None:
        """A hook has raised; the others go on."""
        self._failures.append(error)
        error.add_note(f"raised by the {hook}")
        log_failure(hook, error)

    def stopped(self, hook: Hook, error: BaseException) -> None:
        """A hook was cancelled or interrupted, and the program is to stop: the others do not run."""
        left = [str(other) for other in self._due if other.is_pending]
        error.add_note("; ".join([f"it stopped the {hook}", *(f"the {other} did not run" for other in left)]))
        for other in left:
            _logger.error("the %s did not run: %s stopped the one before it", other, type(error).__name__)

    def tell(self, first: BaseException | None) -> None:
        """Raise what was gathered; with an error under way it becomes notes on that one.

        Raises:
            HookErrors: There was no error under way.
        """
        if not self._failures:
            return
        transaction = self._stack.transaction
        committed = transaction.recorded is State.COMMITTED
        message = f"{len(self._failures)} of {self._count} hooks failed in {refusals.called(self._level)}"
        message += ", which is committed" if committed else ""
        if first is None:
            raise errors.HookErrors(message, self._failures, committed=committed)
        first.add_note(f"{message}: {', '.join(type(error).__name__ for error in self._failures)}")


def run(stack: Stack, first: BaseException | None = None) -> None:
    """Run what is due, without awaiting; async hooks are left to the async block around.

    Args:
        stack: The stack.
        first: An error under way: failures become notes on it.

    Raises:
        HookErrors: Hooks have failed, and no error is under way.
    """
    if not stack.due:
        return
    awaited = [hook for hook in stack.due if hook.awaits]
    stack.due = [hook for hook in stack.due if not hook.awaits]
    running = Run(stack)
    stack.due = awaited
    for hook in running.hooks():
        try:
            call(hook)
        except Exception as error:
            running.failed(hook, error)
        except BaseException as error:
            running.stopped(hook, error)
            raise
    running.tell(first)


def run_before_plain_commit(stack: Stack) -> None:
    """The hooks before a plain commit of a session, which the error of one refuses."""
    try:
        for hook in before_commit(stack):
            call(hook)
    except BaseException as error:
        stack.doom(stack.transaction, "a before_commit hook failed", error)
        raise


def run_after_plain_ending(stack: Stack) -> None:
    """The same where SQLAlchemy's own call has ended a level: raising in its event would leave the session stuck."""
    try:
        run(stack)
    except errors.HookErrors:
        return  # each of them was logged


def call(hook: Hook) -> None:
    """Call a hook where nothing can be awaited.

    Raises:
        WrongArgument: It has returned something that should be.
    """
    result: Any = hook.run()
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise errors.WrongArgument(
            f"the {hook} returned a {type(result).__name__}, which nobody awaits here",
            hint="use an async block, or a function that does its work at the call",
        )


def log_failure(hook: Hook, error: Exception) -> None:
    """Which hook, what and where; not the error's own text, which may hold values of rows."""
    where = raised_at(error)
    _logger.error("the %s failed with %s%s", hook, type(error).__name__, "" if where is None else f" at {where}")
