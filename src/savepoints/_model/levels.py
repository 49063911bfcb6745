"""Levels: the transaction and the savepoints inside it, as the user reads them.

A level only records. What is sent to the database is decided in ``_core``; the faces add the verbs.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from savepoints import errors
from savepoints._model import states
from savepoints._model.hooks import Hook, Hooking, Occasion
from savepoints._model.states import Move, State
from savepoints._places import Place, Worker, caller

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME = 200

_serial = itertools.count(1)


#: Who ended a transaction that was lost; "unseen" is a COMMIT or ROLLBACK past us, and we do not know which.
Ender = Literal["server", "session", "unseen"]


class Cause(NamedTuple):
    """Why a level is failed, undone, doomed or lost.

    ``error`` is the first error, or None where the code itself doomed the level; ``by`` is who ended a
    lost transaction.
    """

    what: str
    error: BaseException | None
    where: Place
    by: Ender = "server"


class End(NamedTuple):
    """How a level ended, and where; ``into`` is the name of the level that it was merged into."""

    how: str
    where: Place | None = None
    into: str | None = None

    def __str__(self) -> str:
        how = self.how if self.into is None else f"merged into {printable(self.into)!r}{self.how}"
        return how if self.where is None else f"{how} at {self.where}"


class Level(Hooking):
    """One node of the tree: a transaction, or a savepoint inside it.

    Attributes:
        name: The label, as given, or one made up by the library.
        parent: The level around it; None for a transaction.
        opened_at: File and line that opened it.
        error: The error that ended its block, also one that was suppressed.
    """

    __slots__ = (
        "__weakref__",
        "_end",
        "block",
        "cause",
        "error",
        "hooks",
        "name",
        "opened_at",
        "opened_by",
        "parent",
        "recorded",
        "serial",
        "stack",
        "streams",
    )

    TABLE: ClassVar[Mapping[State, states.Row]]
    ENDS: ClassVar[frozenset[State]]

    def __init__(self, stack: Any, name: str, parent: Level | None) -> None:
        self.stack: Any = stack
        self.name: str = name
        self.parent: Level | None = parent
        self.opened_at: Place = caller()
        self.error: BaseException | None = None
        self.cause: Cause | None = None
        #: None until one is registered: see Note [What becomes of hooks].
        self.hooks: list[Hook] | None = None
        self.block: bool = False
        self.opened_by: Worker | None = None
        #: Results that are read from the server bit by bit, opened inside.
        self.streams: tuple[Any, ...] = ()
        self.serial: int = next(_serial)
        self._end: End | None = None
        #: The state as far as events have told it; see `state`.
        self.recorded: State = State.OPEN

    @property
    def state(self) -> State:
        """The state now, one of the table in the documentation ("States")."""
        self.stack.look()
        return self.recorded

    @property
    def outcome(self) -> str | None:
        """None while the level is open, then how it ended and where, in words."""
        return None if self.is_open or self._end is None else str(self._end)

    @property
    def is_open(self) -> bool:
        """True until the level has ended (a failed, undone or doomed one is open: it still has to end)."""
        return self.state not in self.ENDS

    @property
    def is_alive(self) -> bool:
        """`is_open` as far as events have told it."""
        return self.recorded not in self.ENDS

    @property
    def depth(self) -> int:
        """0 for the transaction, 1 for a savepoint directly inside it, and so on."""
        depth, level = 0, self.parent
        while level is not None:
            depth, level = depth + 1, level.parent
        return depth

    @property
    def path(self) -> str:
        """The names from the outermost level to this one, joined by ``/``."""
        names, level = [self.name], self.parent
        while level is not None:
            names.append(level.name)
            level = level.parent
        return "/".join(reversed(names))

    @property
    def children(self) -> tuple[Level, ...]:
        """The open levels directly inside: one at the most, for levels are a stack."""
        return tuple(level for level in self.stack.levels if level.parent is self)

    def doom(self, reason: str) -> None:
        """Decide that the level ends undone, whatever happens until then. Final; sends nothing.

        Args:
            reason: Why, in a few words, for those who meet the level afterwards.

        Raises:
            SavepointEnded, NoTransaction: The level has ended.
            WrongArgument: The reason is not text.
        """
        if not isinstance(reason, str):
            raise errors.WrongArgument(f"the reason must be text, not {type(reason).__name__}", hint="say why in words")
        self.stack.doom(self, printable(reason), None)

    def _hook(self, occasion: Occasion, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hook:
        hook: Hook = self.stack.hook(self, occasion, function, args, kwargs)
        return hook

    def after(self, move: Move) -> states.Cell:
        """The state that the move leads to, or the error that refuses it."""
        return self.TABLE[self.recorded][move]

    def move(self, move: Move, end: End | None = None) -> None:
        """Go where the table says. The caller has asked :meth:`after` whether the move is refused."""
        cell = self.after(move)
        assert isinstance(cell, State), f"{self!r} cannot {move}"
        self.recorded = cell
        if cell is State.OPEN:
            self.cause = None
        if cell in self.ENDS and self._end is None:
            self._end = end or End(str(cell))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __repr__(self) -> str:
        word = type(self).__name__
        about = f"connection {self.stack.connection_state}, opened at {self.opened_at}"
        return f"<{word} {printable(self.path)!r} {self.state}, {about}>"


class TransactionLevel(Level):
    """The outermost unit; it ends once."""

    __slots__ = ("count", "managed", "refresh")

    TABLE = states.TRANSACTION
    ENDS = states.TRANSACTION_ENDS

    def __init__(self, stack: Any, name: str | None) -> None:
        super().__init__(stack, "transaction" if name is None else name, None)
        self.count: int = 0
        self.managed: bool = False
        #: Finds out how it ended where no event tells: a plain COMMIT that was answered, a COMMIT as text.
        self.refresh: Callable[[], None] | None = None

    @property
    def ended_unseen(self) -> bool:
        """Whether it was lost to a COMMIT or ROLLBACK past us."""
        return self.recorded is State.LOST and self.cause is not None and self.cause.by == "unseen"


class SavepointLevel(Level):
    """A named bookmark inside a transaction.

    Attributes:
        rollbacks: How many times it was rolled back and kept.
    """

    __slots__ = ("_rollback", "_suppress", "mark", "rollbacks")

    TABLE = states.SAVEPOINT
    ENDS = states.SAVEPOINT_ENDS

    def __init__(self, stack: Any, name: str, parent: Level, mark: Any) -> None:
        super().__init__(stack, name, parent)
        self.mark: Any = mark
        self.rollbacks: int = 0
        #: Whether the end of its block undoes it in any case, and which errors it swallows.
        self._rollback: bool = False
        self._suppress: type[BaseException] | tuple[type[BaseException], ...] = ()


def checked_name(name: str) -> str:
    """The label, if it may be one.

    Raises:
        WrongArgument: It is not text.
        BadName: It is empty, longer than 200 characters, or holds a control character.
    """
    if not isinstance(name, str):
        raise errors.WrongArgument(
            f"the name of a level must be text, not {type(name).__name__}",
            hint="give a str; where there is a handle, call its own methods",
        )
    if not name:
        raise errors.BadName("the name of a level must not be empty")
    if len(name) > MAX_NAME:
        raise errors.BadName(f"the name of a level has {len(name)} characters, and {MAX_NAME} are the most")
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise errors.BadName(f"the name of a level holds a control character or half a surrogate: {printable(name)}")
    return name


def printable(text: str) -> str:
    """The text with what could break a log line or a terminal spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
