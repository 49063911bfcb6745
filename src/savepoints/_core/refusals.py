"""The sentences of our errors: what happened, where, and (in the error's hint) what to do instead.

No row values: a statement is shown with its literals masked, a driver's message only as the ``__cause__``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TypeVar

from savepoints import errors
from savepoints._model.levels import Cause, Level, printable
from savepoints._model.states import State

E = TypeVar("E", bound=errors.SavepointsError)

# What a backslash before a quote means differs between databases, so all after one is masked.
_LITERAL = re.compile(
    r"""
      --[^\n]*                                            # comments
    | /\*.*?(?:\*/|\Z)
    | \$(\w*)\$.*?(?:\$\1\$|\Z)                          # dollar quotes
    | '(?:[^'\\]|''|\\[^'])*(?:'|\\'.*|\Z)              # quotes
    | "(?:[^"]|"")*(?:"|\Z)                              # names, which may hold a quote
    | \b\d[\w.]*                                         # numbers
    """,
    re.VERBOSE | re.DOTALL,
)
_LOOK_FIRST = "look in the database before you do the work again; leave ending it to its block"
_SHOWN = 80
_READ = 1000  # of a statement that may be a megabyte long


def masked(statement: str) -> str:
    """The statement on one line, without literals, cut to a readable length."""
    text = " ".join(_LITERAL.sub("?", statement[:_READ]).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def called(level: Level) -> str:
    """How a level is named in a sentence."""
    word = "transaction" if level.parent is None else "savepoint"
    return f"{word} {printable(level.path)!r} (opened at {level.opened_at})"


def _because(cause: Cause | None) -> str:
    if cause is None:
        return ""
    error = f" with {type(cause.error).__name__}" if cause.error is not None else ""
    return f": {cause.what}{error} at {cause.where}"


def _raised_from(error: E, cause: Cause | None) -> E:
    if cause is not None and cause.error is not None:
        error.__cause__ = cause.error
    return error


def refused(level: Level, verb: str) -> errors.SavepointsError:
    """Why a level does not take a move, by the state it is in."""
    state, cause = level.recorded, level.cause
    if state is State.LOST:
        hint = _LOOK_FIRST if cause is not None and cause.by == "unseen" else None
        lost = errors.TransactionLost(f"cannot {verb}: the transaction was lost{_because(cause)}", hint=hint)
        return _raised_from(lost, cause)
    if state in (State.FAILED, State.UNDONE):
        return _raised_from(errors.TransactionFailed(f"cannot {verb} in {called(level)}{_because(cause)}"), cause)
    if state is State.DOOMED:
        return _raised_from(
            errors.TransactionDoomed(f"cannot {verb}: {called(level)} is doomed{_because(cause)}"), cause
        )
    kind = errors.NoTransaction if level.parent is None else errors.SavepointEnded
    return kind(f"cannot {verb}: {called(level)} has ended, {level.outcome}")


def stuck(level: Level, verb: str, cause: Cause) -> errors.TransactionFailed:
    """The server takes only a rollback, whatever else holds for the level."""
    return _raised_from(errors.TransactionFailed(f"cannot {verb} in {called(level)}{_because(cause)}"), cause)


def forked(pid: int, verb: str) -> errors.WrongTask:
    """A forked child uses what is its parent's."""
    return errors.WrongTask(
        f"cannot {verb}: the transaction was opened in process {pid}, and this is its fork {os.getpid()}",
        hint="open connections of its own in the child (engine.dispose(close=False) there)",
    )


def ended_behind(level: Level) -> errors.OutOfOrder:
    """A block of ours was ended by a plain call of SQLAlchemy, or by the exit of a block around it."""
    error = errors.OutOfOrder(
        f"the block of {called(level)} had ended before its exit: {level.outcome}",
        hint="leave the block to end it; `raise Rollback` undoes it from inside",
    )
    return _raised_from(error, level.cause)


def left_before(level: Level, inner: Level) -> errors.OutOfOrder:
    """A block was left while a block inside it was open."""
    return errors.OutOfOrder(
        f"the block of {called(level)} was left before the block of {called(inner)} inside it; both are undone",
        hint="leave blocks innermost first",
    )


def outside(level: Level, block: Level, verb: str) -> errors.OutOfOrder:
    """Code inside a block steers what was opened outside it."""
    return errors.OutOfOrder(f"cannot {verb} {called(level)} from inside the block of {called(block)}")


def plain_call(verb: str, block: Level) -> errors.OutOfOrder:
    """A plain commit inside one of our blocks."""
    return errors.OutOfOrder(
        f"{verb} inside the block of {called(block)}",
        hint="leave the block: its end commits or releases",
    )


def past_its_session(level: Level) -> errors.OutOfOrder:
    """A commit of a session's connection, after which the session still takes its transaction for open."""
    return errors.OutOfOrder(
        f"connection.commit() past its session, whose transaction {called(level)} is", hint="use session.commit()"
    )


def unknown(name: str, open_names: Iterable[str]) -> errors.UnknownSavepoint:
    """No open savepoint of that name."""
    names = ", ".join(repr(printable(n)) for n in open_names) or "none"
    return errors.UnknownSavepoint(f"no open savepoint is called {printable(name)!r}; open, innermost first: {names}")


def no_hook(verb: str, whose: str) -> errors.NoTransaction:
    """A hook where nobody would tell us that the time has come."""
    return errors.NoTransaction(
        f"{verb}: nothing tells how {whose} ends",
        hint="open it with `with transaction(...)`: its end knows whether the COMMIT was answered",
    )


def autocommit() -> errors.NotSupported:
    """Transactions on a connection that commits each statement by itself."""
    return errors.NotSupported(
        "this connection is in AUTOCOMMIT mode: nothing could be rolled back",
        hint="use an engine or connection without isolation_level='AUTOCOMMIT' (and without the driver's autocommit)",
    )


def implicit_commit(level: Level, words: str) -> errors.ImplicitCommit:
    """A statement that would commit all that was done so far, and end every savepoint."""
    return errors.ImplicitCommit(f"{words} would commit {called(level)} before its end")


def unknown_outcome(level: Level, error: BaseException, *, of: int) -> errors.CommitOutcomeUnknown:
    """COMMIT without an answer, or with one that comes too late: another of so many databases has committed."""
    if of > 1:
        return errors.CommitOutcomeUnknown(
            f"the databases of {called(level)} were told to commit, and {type(error).__name__} came instead of"
            " an answer of one of them",
            hint="look in each of them; what is still prepared there can be committed by its name",
        )
    return errors.CommitOutcomeUnknown(
        f"COMMIT of {called(level)} was sent and {type(error).__name__} came instead of an answer"
    )


def lost(level: Level) -> errors.TransactionLost:
    """The outermost end of a lost transaction."""
    if level.cause is not None and level.cause.by == "unseen":
        return errors.TransactionLost(
            f"{called(level)} was committed or rolled back behind the library{_because(level.cause)}",
            hint=_LOOK_FIRST,
        )
    error = errors.TransactionLost(f"nothing of {called(level)} was kept{_because(level.cause)}")
    return _raised_from(error, level.cause)
