"""Which task or thread may steer: blocks belong to the context that opened them.

See Note [Blocks and contexts].
"""

# Note [Blocks and contexts]
# While a savepoint block is open, only the task that opened it, and tasks or threads that run in a copy of its
# context (wait_for, shield, thread pools that copy contexts), may open, steer or successfully end levels. So a block
# leaves its serial number in a context variable: a copy of the context carries it, a sibling's context does not.
# Identity of the task would not do: asyncio.wait_for runs its argument in a task of its own before Python 3.12.
# The face sets and clears the mark, because the async exit runs in a shielded task of its own, whose changes to the
# context would be lost. A stale mark (a block left in another context) is harmless: the serial is never used again.

from __future__ import annotations

import weakref
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any

from savepoints import errors
from savepoints._core import refusals
from savepoints._places import Worker, label, process, worker

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from savepoints._model.levels import Level, TransactionLevel

_Chain = tuple[int, "_Chain"] | None

_blocks: ContextVar[_Chain] = ContextVar("savepoints_blocks", default=None)

_Open = tuple["weakref.ref[TransactionLevel]", "weakref.ref[Dialect]", Worker]

_transactions: ContextVar[tuple[_Open, ...]] = ContextVar("savepoints_transactions", default=())


class Turn:
    """One call of ours at a time on a stack, and only in the process that opened it."""

    __slots__ = ("_by", "_lock", "_verb", "pid", "taken")

    def __init__(self) -> None:
        self._lock = Lock()
        self.pid = process.pid
        self._verb = ""
        self._by: Worker | None = None
        #: A call of ours is under way: what SQLAlchemy tells us now is our own doing.
        self.taken = False

    def take(self, verb: str) -> None:
        """Take the turn, to be given back by leaving it.

        Raises:
            WrongTask: Another call is under way, or this process is a fork.
        """
        if self.pid != process.pid:
            raise refusals.forked(self.pid, verb)
        if not self._lock.acquire(blocking=False):
            by = f"`{self._verb}` from {label(self._by)}"
            raise errors.WrongTask(f"cannot {verb} from {label(worker())} while {by} is under way")
        self._verb = verb
        self._by = worker()

    def check_process(self, verb: str) -> None:
        """Refuse a forked child."""
        if self.pid != process.pid:
            raise refusals.forked(self.pid, verb)

    def give_back(self) -> None:
        """The call is over."""
        self.taken = False
        self._lock.release()

    def __enter__(self) -> None:
        """The turn was taken before."""

    def __exit__(self, *error: object) -> None:
        self.taken = False
        self._lock.release()


def enter(level: Level) -> None:
    """Let this context, and copies of it, steer inside the block."""
    _blocks.set((level.serial, _blocks.get()))


def leave(level: Level) -> None:
    """Forget the block, and what was left inside it, in this context."""
    chain = _blocks.get()
    while chain is not None:
        serial, chain = chain
        if serial == level.serial:
            _blocks.set(chain)
            return


def may_steer(level: Level) -> bool:
    """Whether this context is inside the block."""
    chain = _blocks.get()
    while chain is not None:
        if chain[0] == level.serial:
            return True
        chain = chain[1]
    return False


def dialect_of(source: Any) -> Dialect | None:
    """What tells an engine apart, also from its twins with other execution options; None where it is not known yet."""
    inner = getattr(source, "sync_session", None) or getattr(source, "kw", {}).get("bind") or source
    bind = getattr(inner, "bind", None) or inner
    return getattr(bind, "dialect", None)


def refuse_second(
    dialect: Dialect | None, kind: type[errors.AlreadyInTransaction] = errors.AlreadyInTransaction
) -> None:
    """A second transaction on the same engine in the same task is nearly always lost atomicity or a self-deadlock.

    Raises:
        AlreadyInTransaction: There is one.
    """
    first = None if dialect is None else _announced(dialect)
    if first is not None:
        hint = "pass its session or connection on, or say `independent=True` if two transactions are meant"
        raise kind(
            f"a transaction on the same engine is open in this task: {refusals.called(first)}",
            hint=None if kind is errors.NestedRetry else hint,
        )


def announce(transaction: TransactionLevel, dialect: Dialect | None) -> None:
    """Remember a transaction of ours, to find a second one on the same engine in the same task."""
    if dialect is None:
        return
    still_open = tuple(entry for entry in _transactions.get() if _is_open(entry))
    _transactions.set((*still_open, (weakref.ref(transaction), weakref.ref(dialect), worker())))


def _announced(dialect: Dialect) -> TransactionLevel | None:
    """The transaction of ours that is open on this engine in this task or thread."""
    entries = _transactions.get()
    if not entries:
        return None
    here = worker()
    for level, engine, by in entries:
        found = level()
        if found is not None and engine() is dialect and by == here and found.is_alive:
            return found
    return None


def _is_open(entry: _Open) -> bool:
    level = entry[0]()
    return level is not None and level.is_alive
