"""Every error of the library: one root, few leaves.

Each leaf has a ``code`` (stable, for programs), a ``hint`` (the way out) and a page in the documentation.
A database's own error is never wrapped by these where it can pass as it is; where one of these is raised because
of it, it is the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar


def kind_of(found: object) -> str:
    """What somebody gave in place of what was asked for, for the message."""
    return f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__


class SavepointsError(Exception):
    """Root of the errors that this library raises.

    Args:
        message: What happened, and where.
        hint: What to do instead; the class's own hint where none is given.
    """

    code: ClassVar[str] = "error"
    hint: str = "see the documentation"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        if hint is not None:
            self.hint = hint
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}. {self.hint[:1].upper()}{self.hint[1:]}."

    @property
    def page(self) -> str:
        """Where the documentation explains this error, relative to its root."""
        return f"errors/#{self.code}"


# Misuse: the call was wrong; the transaction goes on as it was.


class WrongArgument(SavepointsError, TypeError):
    """An argument is of a kind that this function does not take."""

    code = "wrong-argument"
    hint = "give a Session or Connection (or what the function's documentation names)"


class BadName(SavepointsError, ValueError):
    """A savepoint's name is empty, too long or holds control characters."""

    code = "bad-name"
    hint = "any text of 1 to 200 printable characters will do"


class NoTransaction(SavepointsError):
    """The call needs an open transaction, and there is none."""

    code = "no-transaction"
    hint = "open one with `with transaction(...)`, or use `atomic` where both may happen"


class AlreadyInTransaction(SavepointsError):
    """`transaction` is strictly the outermost unit, and one is open already."""

    code = "already-in-transaction"
    hint = "use `savepoint` for a part of it, or `atomic` in code that is called both ways"


class NestedRetry(AlreadyInTransaction):
    """A retry was asked for inside another transaction, where only the outermost one can be run again."""

    code = "nested-retry"
    hint = "retry the outermost transaction: everything inside it runs again with it"


class UnknownSavepoint(SavepointsError):
    """No open savepoint bears this name."""

    code = "unknown-savepoint"
    hint = "use one of the open names, or keep the handle that `savepoint` returned"


class SavepointEnded(SavepointsError):
    """The savepoint of this handle has ended: the message tells how, by whom and where."""

    code = "savepoint-ended"
    hint = "make a new one with `savepoint`"


class OutOfOrder(SavepointsError):
    """Levels end innermost first, and a block's inside cannot end what was opened outside it."""

    code = "out-of-order"
    hint = "leave the inner block first, or `raise Rollback(level)` to undo up to an outer block"


class WrongTask(SavepointsError):
    """Two tasks or threads use one session or connection at once, or a fork uses its parent's."""

    code = "wrong-task"
    hint = "give each task or thread a session or connection of its own"


class ImplicitCommit(SavepointsError):
    """This statement commits by itself on this database, with all that was done before it; it was not sent."""

    code = "implicit-commit"
    hint = "send it before the transaction begins or after it has ended"


class NotSupported(SavepointsError):
    """This database, driver or connection cannot do what was asked."""

    code = "not-supported"
    hint = "see the compatibility page"


# State: what happened to the transaction.


class TransactionFailed(SavepointsError):
    """A statement failed and the database (or the session) refuses everything until that part is rolled back."""

    code = "transaction-failed"
    hint = "roll back to a savepoint made before the failure, or leave the block"


class TransactionDoomed(SavepointsError):
    """The level can only be rolled back: something inside it failed and the failure was swallowed."""

    code = "transaction-doomed"
    hint = "let the error pass out of the joined block, or give that part a savepoint of its own"


class TransactionLost(SavepointsError):
    """The whole transaction has ended without us (deadlock, full disk, lost connection): nothing of it was kept."""

    code = "transaction-lost"
    hint = "leave the outermost block and run the whole transaction again"


class CommitOutcomeUnknown(SavepointsError):
    """COMMIT was sent and its answer never came: the work is stored or it is not, and only the database knows."""

    code = "commit-outcome-unknown"
    hint = "look in the database before you do the work again"

    #: Set where the transaction was opened with ``track_commit``.
    resolver: Callable[[Any], Any] | None = None

    def resolve(self, engine: Any = None) -> Any:
        """Ask what became of the COMMIT, on a new connection.

        It asks PostgreSQL by the number of the transaction (``pg_xact_status``), or the function that
        ``track_commit`` was given.

        Args:
            engine: An engine on the same server; by default the one that sent the COMMIT. For an async transaction it
                is an async engine, and the call is awaited.

        Returns:
            A `savepoints.Outcome`; for an async transaction something to be awaited that gives it.

        Raises:
            NotSupported: The transaction was opened without ``track_commit``.
            WrongArgument: It is no engine, or one of the other kind; or none is given where the error came out of
                another process.
        """
        if self.resolver is None:
            raise NotSupported(
                "nothing is known of the transaction whose COMMIT had no answer",
                hint="open it with `transaction(..., track_commit=True)`, or with a function that looks for the work",
            )
        return self.resolver(engine)


# After the fact.


class HookErrors(SavepointsError, ExceptionGroup[Exception]):
    """Hooks have failed; all of them were run. An ExceptionGroup: `.exceptions` holds what they raised.

    Args:
        message: Which hooks, and of what.
        exceptions: What they raised; a note on each says which hook it was.
        committed: See the attribute.

    Attributes:
        committed: True where the work is stored: it was done, and must not be done again because of this error.
    """

    code = "hook-errors"
    hint = "look at `.exceptions`, and at `.committed` before you do the work again"

    def __new__(cls, message: str, exceptions: Sequence[Exception], *, committed: bool = False) -> HookErrors:
        """As an ExceptionGroup is made."""
        return super().__new__(cls, message, exceptions)

    def __init__(self, message: str, exceptions: Sequence[Exception], *, committed: bool = False) -> None:
        Exception.__init__(self, message, exceptions)
        self.committed = committed

    def derive(self, excs: Sequence[Exception]) -> HookErrors:  # type: ignore[override]
        """A part of it, by ``except*``, `split` or `subgroup`."""
        return HookErrors(self.message, excs, committed=self.committed)


def note_commit(error: BaseException) -> None:
    """Say on an error that it came after the answer to COMMIT: the work is stored."""
    if not is_after_commit(error):
        error.add_note("it came after the COMMIT: the work is stored, and must not be done again")
        vars(error)[_AFTER_COMMIT] = True


def is_after_commit(error: BaseException) -> bool:
    """Whether that was said."""
    return _AFTER_COMMIT in vars(error)


_AFTER_COMMIT = "savepoints_after_commit"


# Loading.


class BadInput(SavepointsError, ValueError):
    """What is to be loaded does not fit: the file, its header, the table's name, or an option's value."""

    code = "bad-input"
    hint = "give what the message asks for"


class LoadLimitExceeded(SavepointsError):
    """More rows were bad than the load may reject: it was undone to its savepoint.

    Attributes:
        report: What was found until then.
    """

    code = "load-limit-exceeded"
    hint = "look at `.report.rejects`, then mend the input or raise the limit"

    def __init__(self, message: str, *, report: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class LoadMismatch(SavepointsError):
    """The rows that were read and those that came to something are not equally many: the load was undone."""

    code = "load-mismatch"
    hint = "report it to the library, with the table's triggers and rules"


# Warnings.


class UncommittedWork(UserWarning):
    """A session or connection was closed although work in a released savepoint was never committed."""


class NotRolledBack(UserWarning):
    """Rows were written to a table of an engine without transactions, and a rollback has left them there."""


class SavepointNeverAwaited(RuntimeWarning):
    """`savepoint(...)` on an async target was neither awaited nor used as ``async with``: nothing was made."""


# The one signal.


class Rollback(Exception):
    """Raise it to leave a block with its work undone and nothing raised outside.

    Args:
        to: The level to unwind to (a block's handle), or the name of the nearest enclosing block of that name; without
            it the nearest block. Blocks in between are undone too. Where no such block encloses the ``raise``, it
            undoes all and reaches the caller like any error.

    Raises:
        WrongArgument: The target is neither a level nor text.
    """

    def __init__(self, to: Any = None) -> None:  # a level: this floor does not know the class
        if to is not None and not isinstance(to, str) and not hasattr(to, "outcome"):
            raise WrongArgument(
                f"Rollback takes a level or the name of one, not {kind_of(to)}",
                hint="give the handle of a block, or its name",
            )
        self.to = to
        super().__init__(f"undo {self.aim}")

    @property
    def aim(self) -> str:
        """Where it goes, in words."""
        if self.to is None:
            return "the nearest block"
        return repr(self.to) if isinstance(self.to, str) else repr(self.to.path)
