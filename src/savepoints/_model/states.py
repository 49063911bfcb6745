"""The states of a transaction and of a savepoint, and the one table of moves between them.

The code, the documentation and the property tests all read this table. A cell is the state that follows, or the
error that refuses the move. A move that is not in a state's row cannot happen in that state: asking for it is a
mistake of ours, and a ``KeyError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from savepoints import errors


class State(StrEnum):
    """What a level is in; it equals its name in words, as ``level.state == "rolled back"``."""

    OPEN = "open"
    FAILED = "failed"
    UNDONE = "undone"
    DOOMED = "doomed"
    COMMITTING = "committing"
    LOST = "lost"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"
    RELEASED = "released"
    GONE = "gone"


class Move(Enum):
    """What is asked of a level, or what happens to it."""

    SAVEPOINT = "new savepoint"
    ROLLBACK_TO = "roll back to a savepoint"
    DOOM = "doom"
    RELEASE = "release"
    COMMIT = "commit"
    ANSWER = "COMMIT answered"
    ROLLBACK = "end, undone"
    END_UNSEEN = "end, after somebody ended it past the library"
    FAIL = "statement failed, server takes only rollback"
    FLUSH_FAIL = "flush failed, SQLAlchemy undid it"
    OUTER_ROLLBACK = "rollback around it"
    OUTER_RELEASE = "release or commit around it"
    LOSE = "transaction lost"

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # members are single objects; Enum's own hash is a Python call on each look-up

    def __str__(self) -> str:
        return self.value


Cell = State | type[errors.SavepointsError]
Row = Mapping[Move, Cell]

S, M = State, Move
_failed, _doomed, _lost = errors.TransactionFailed, errors.TransactionDoomed, errors.TransactionLost

_OVER: Row = {
    **dict.fromkeys((M.SAVEPOINT, M.ROLLBACK_TO, M.DOOM, M.COMMIT), errors.NoTransaction),
}

#: Where a transaction goes. ``FAIL`` while committing is a COMMIT that the database refused.
TRANSACTION: Mapping[State, Row] = {
    S.OPEN: {
        M.SAVEPOINT: S.OPEN,
        M.ROLLBACK_TO: S.OPEN,
        M.DOOM: S.DOOMED,
        M.COMMIT: S.COMMITTING,
        M.ROLLBACK: S.ROLLED_BACK,
        M.FAIL: S.FAILED,
        M.FLUSH_FAIL: S.LOST,
        M.LOSE: S.LOST,
    },
    S.FAILED: {
        M.SAVEPOINT: _failed,
        M.ROLLBACK_TO: S.OPEN,
        M.DOOM: S.DOOMED,
        M.COMMIT: _failed,
        M.ROLLBACK: S.ROLLED_BACK,
        M.FAIL: S.FAILED,
        M.FLUSH_FAIL: S.LOST,
        M.LOSE: S.LOST,
    },
    S.DOOMED: {
        M.SAVEPOINT: S.DOOMED,
        M.ROLLBACK_TO: S.DOOMED,
        M.DOOM: S.DOOMED,
        M.COMMIT: _doomed,
        M.ROLLBACK: S.ROLLED_BACK,
        M.FAIL: S.DOOMED,
        M.FLUSH_FAIL: S.LOST,
        M.LOSE: S.LOST,
    },
    S.LOST: {
        M.SAVEPOINT: _lost,
        M.ROLLBACK_TO: _lost,
        M.DOOM: S.LOST,
        M.COMMIT: _lost,
        M.ROLLBACK: S.ROLLED_BACK,
        M.END_UNSEEN: S.UNKNOWN,
        M.FAIL: S.LOST,
        M.FLUSH_FAIL: S.LOST,
        M.LOSE: S.LOST,
    },
    S.COMMITTING: {
        M.ANSWER: S.COMMITTED,
        M.ROLLBACK: S.ROLLED_BACK,
        M.FAIL: S.ROLLED_BACK,
        M.LOSE: S.UNKNOWN,
    },
    S.COMMITTED: {**_OVER, M.ROLLBACK: S.COMMITTED, M.LOSE: S.COMMITTED, M.FAIL: S.COMMITTED},
    S.ROLLED_BACK: {**_OVER, M.ROLLBACK: S.ROLLED_BACK, M.LOSE: S.ROLLED_BACK, M.FAIL: S.ROLLED_BACK},
    S.UNKNOWN: {**_OVER, M.ROLLBACK: S.UNKNOWN, M.LOSE: S.UNKNOWN, M.FAIL: S.UNKNOWN},
}

_ENDED = dict.fromkeys(
    (M.SAVEPOINT, M.ROLLBACK_TO, M.DOOM, M.RELEASE),
    errors.SavepointEnded,
)


def _ended(state: State) -> Row:
    return {**_ENDED, **dict.fromkeys((M.ROLLBACK, M.OUTER_ROLLBACK, M.OUTER_RELEASE, M.LOSE), state)}


_INSIDE_ENDS: Row = {
    M.ROLLBACK: S.ROLLED_BACK,
    M.OUTER_ROLLBACK: S.GONE,
    M.OUTER_RELEASE: S.RELEASED,
    M.LOSE: S.LOST,
}

#: Where a savepoint goes. ``ROLLBACK_TO`` keeps it: it is open again, one generation on.
SAVEPOINT: Mapping[State, Row] = {
    S.OPEN: {
        **_INSIDE_ENDS,
        M.SAVEPOINT: S.OPEN,
        M.ROLLBACK_TO: S.OPEN,
        M.DOOM: S.DOOMED,
        M.RELEASE: S.RELEASED,
        M.FAIL: S.FAILED,
        M.FLUSH_FAIL: S.UNDONE,
    },
    S.FAILED: {
        **_INSIDE_ENDS,
        M.SAVEPOINT: _failed,
        M.ROLLBACK_TO: S.OPEN,
        M.DOOM: S.DOOMED,
        M.RELEASE: _failed,
        M.OUTER_RELEASE: _failed,
        M.FAIL: S.FAILED,
        M.FLUSH_FAIL: S.UNDONE,
    },
    S.UNDONE: {
        **_INSIDE_ENDS,
        M.SAVEPOINT: _failed,
        M.ROLLBACK_TO: S.OPEN,
        M.DOOM: S.DOOMED,
        M.RELEASE: _failed,
        M.OUTER_RELEASE: _failed,
        M.FAIL: S.UNDONE,
        M.FLUSH_FAIL: S.UNDONE,
    },
    S.DOOMED: {
        **_INSIDE_ENDS,
        M.SAVEPOINT: S.DOOMED,
        M.ROLLBACK_TO: S.DOOMED,
        M.DOOM: S.DOOMED,
        M.RELEASE: _doomed,
        M.OUTER_RELEASE: _doomed,
        M.FAIL: S.DOOMED,
        M.FLUSH_FAIL: S.DOOMED,
    },
    S.RELEASED: _ended(S.RELEASED),
    S.ROLLED_BACK: _ended(S.ROLLED_BACK),
    S.GONE: _ended(S.GONE),
    S.LOST: {
        M.SAVEPOINT: _lost,
        M.ROLLBACK_TO: _lost,
        M.DOOM: S.LOST,
        M.RELEASE: _lost,
        M.ROLLBACK: S.LOST,
        M.OUTER_ROLLBACK: S.LOST,
        M.OUTER_RELEASE: S.LOST,
        M.FAIL: S.LOST,
        M.FLUSH_FAIL: S.LOST,
        M.LOSE: S.LOST,
    },
}

#: A transaction in one of these is over (a lost one still waits for its outermost block to end).
TRANSACTION_ENDS = frozenset({S.COMMITTED, S.ROLLED_BACK, S.UNKNOWN})

#: A savepoint in one of these is over.
SAVEPOINT_ENDS = frozenset({S.RELEASED, S.ROLLED_BACK, S.GONE, S.LOST})
