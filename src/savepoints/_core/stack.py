"""The stack: the open levels of one transaction, innermost last, and the connections they live on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy.engine import Connection, NestedTransaction
from sqlalchemy.orm import Session, SessionTransaction

from savepoints import errors
from savepoints._core import hooks, plain, refusals, streams, tasks
from savepoints._core.dialects import driver_connection, is_closed
from savepoints._core.face import Face
from savepoints._core.marks import SessionMark
from savepoints._core.objects import Touched
from savepoints._core.options import Options
from savepoints._core.outcome import Tracker
from savepoints._databases import Aftermath, capabilities
from savepoints._model.hooks import Hook, Occasion, checked
from savepoints._model.levels import Cause, End, Ender, Level, SavepointLevel, TransactionLevel
from savepoints._model.repairs import EVERY
from savepoints._model.states import Move, State
from savepoints._places import caller, label, worker

if TYPE_CHECKING:
    from savepoints._core.implicit import Doubt
    from savepoints._core.roots import Root
    from savepoints._databases import Capabilities

#: Under this name a stack is found: an attribute of each connection, a key of each session's ``info``.
#: See Note [Where the stack lives].
KEY = "savepoints"

# Note [Where the stack lives]
# It must go with the Connection or Session object, not with the driver connection (Connection.info), which outlives
# both in the pool; and it must not keep an abandoned Connection alive. So it is an attribute of ours on the Connection:
# plain references, which the garbage collector can follow round. An execution option would be as good, but for those
# who read or hear of options, and for each statement, which would merge it into its own.


def stack_of(connection: Connection) -> Stack | None:
    """The stack that a connection belongs to."""
    return vars(connection).get(KEY)


def detach(stack: Stack) -> None:
    """The transaction is over: its connections and sessions belong to no stack any more."""
    for session in stack.sessions:
        if session.info.get(KEY) is stack:
            del session.info[KEY]
    for connection in stack.root.connections:
        if stack_of(connection) is stack:
            del vars(connection)[KEY]


_UNDER_WAY = (State.OPEN, State.FAILED, State.DOOMED)


class Stack:
    """One open transaction, as we steer it."""

    __slots__ = (
        "__weakref__",
        "answered",
        "begun",
        "capabilities",
        "cut",
        "decided",
        "doubt",
        "due",
        "due_in",
        "face",
        "first",
        "harmless",
        "hooked",
        "joined",
        "kept",
        "leaving",
        "levels",
        "options",
        "owned",
        "plain",
        "repairs",
        "restore",
        "rolling",
        "root",
        "runner",
        "sent",
        "sessions",
        "settled",
        "stuck",
        "top",
        "tracker",
        "transaction",
        "turn",
        "undo",
        "undone",
        "unsaved",
        "unsent",
    )

    def __init__(
        self,
        root: Root,
        face: Face,
        capabilities: Capabilities,
        name: str | None = None,
        options: Options = Options(),  # noqa: B008 - immutable
    ) -> None:
        self.root = root
        self.face = face
        self.capabilities = capabilities
        self.options = options
        self.transaction = face.transaction(self, name)
        self.levels: list[SavepointLevel] = []
        self.top: Level = self.transaction  # the innermost open level
        self.sessions: list[Session] = [] if root.session is None else [root.session]
        self.runner: Any = None  # the async session or connection whose run_sync drives us, if one does
        self.turn = tasks.Turn()
        self.begun: dict[int, Any] = {}  # driver connections that are known to have begun, by id of the connection
        self.first: set[int] = set()  # those on which a first statement is under way, with which the driver begins
        self.harmless: tuple[str, ...] = ("",)  # how statements begin that none of the databases has to be asked about
        self.rolling = False  # a plain ROLLBACK TO is under way: the guard lets it through
        self.settled = False  # what SQLAlchemy sends now to end savepoints need not be sent
        self.sent: dict[int, str] = {}  # the name of the last SAVEPOINT that SQLAlchemy sent, by id of the connection
        self.owned: WeakSet[NestedTransaction] = WeakSet()  # nested transactions that belong to one of a session
        self.joined: list[Level] = []  # the levels that joined blocks work in, innermost last
        self.leaving = False  # a plain session.commit() has passed our guard
        self.kept: SessionTransaction | None = None  # one whose commit was answered, until it has ended
        self.stuck: Cause | None = None  # the server takes only a rollback to a savepoint, or of all
        self.answered = False  # COMMIT of the session was answered: what fails after it does not undo it
        self.unsaved = False  # a savepoint was released, and nobody has committed yet
        self.restore: tuple[Callable[[], None], ...] = ()  # what was set for one transaction is put back by these
        self.tracker: Tracker | None = None  # it remembers what is needed to ask for the outcome of the COMMIT
        self.decided = False  # of several databases one has committed, or was told to: a refusal undoes it no more
        self.hooked = False  # a hook was registered: blocks without any pay next to nothing for them
        self.due: list[Hook] = []  # hooks to be run by the face, once the core has given back the turn
        self.due_in: Level = self.transaction  # the outermost level whose end has made them due
        self.doubt: Doubt | None = None  # a statement that may have ended the transaction, until we know
        self.undo: str | None = None  # SQL to be sent on the connection before the transaction ends
        self.plain: plain.PlainCode | None = None  # where no verb of ours was used yet
        self.repairs = EVERY  # what is repaired where plain calls end levels
        self.unsent: set[int] = set()  # connections, by id, that a plain begin_nested() may not have reached yet
        self.undone: SessionTransaction | None = None  # the last that SQLAlchemy has rolled back by itself
        self.cut: list[SessionTransaction] = []  # nested ones that were closed and not restored, innermost first

    # -- finding

    @property
    def block(self) -> Level | None:
        """The innermost level that was opened as a block and is still to be left."""
        for level in reversed(self.levels):
            if level.block:
                return level
        return self.transaction if self.transaction.block else None

    @property
    def is_over(self) -> bool:
        """The transaction has ended, and no block of ours waits for its exit."""
        return self.transaction.recorded in TransactionLevel.ENDS and self.block is None

    def find(self, name: str) -> SavepointLevel:
        """The nearest open savepoint of that name."""
        for level in reversed(self.levels):
            if level.name == name:
                return level
        raise refusals.unknown(name, (level.name for level in reversed(self.levels)))

    def level_of(self, nested: SessionTransaction) -> SavepointLevel | None:
        """The level of a session's nested transaction."""
        for level in reversed(self.levels):
            if getattr(level.mark, "nested", None) is nested:
                return level
        return None

    def mark_of(self, nested: SessionTransaction) -> Any:
        """The mark of a session's nested transaction."""
        return getattr(self.level_of(nested), "mark", None)

    def touched(self, session: Session) -> Touched | None:
        """What was touched inside the innermost level of a session."""
        for level in reversed(self.levels):
            mark = level.mark
            if type(mark) is SessionMark and mark.session is session:
                return mark.touched
        return None

    def index(self, level: SavepointLevel) -> int:
        """Where an open level stands."""
        for index in range(len(self.levels) - 1, -1, -1):
            if self.levels[index] is level:
                return index
        raise refusals.refused(level, "steer it")

    def take(self, connection: Connection) -> None:
        """The connection belongs to this stack from now on."""
        vars(connection)[KEY] = self
        if (row := capabilities(connection.dialect)).effect is not None:
            self.harmless = tuple(start for start in row.harmless if start.startswith(self.harmless))
        if connection not in self.root.connections:
            self.root.connections.append(connection)

    @property
    def connection_state(self) -> str:
        """What SQLAlchemy knows of the (first) connection, for messages."""
        if not self.root.connections:
            return "not in use yet"
        connection = self.root.connections[0]
        if connection.closed:
            return "closed"
        if connection.invalidated:
            return "invalidated"
        return "in transaction" if connection.in_transaction() else "idle"

    def row_of(self, connection: Connection) -> Capabilities:
        """The row of one of the connections: those of a session may be of several databases."""
        return self.capabilities if len(self.root.connections) < 2 else capabilities(connection.dialect)

    # -- the truth

    def look(self) -> None:
        """Ask SQLAlchemy and the drivers what happened past our listeners; costs no round trip."""
        if self.turn.taken:
            return
        if (refresh := self.transaction.refresh) is not None:
            refresh()
        if self.transaction.recorded in _UNDER_WAY:
            for connection in self.root.connections:
                if connection.invalidated:
                    self.lose(None, "the connection was discarded")
                elif not connection.closed:
                    self._ask_driver(connection)

    def _ask_driver(self, connection: Connection) -> None:
        row, driver = self.row_of(connection), self.begun.get(id(connection))
        standing = None if driver is None else row.standing(driver)
        if standing is not Aftermath.OPEN and is_closed(connection, row):
            self.lose(None, "the connection was closed")
        elif standing is Aftermath.LOST:
            self.lose(None, "the transaction was ended by a statement past SQLAlchemy, or as text", "unseen")
        elif standing is Aftermath.FAILED and self.stuck is None:
            self.sync()
            self.fail(None, "a statement failed past SQLAlchemy")

    def note_begin(self, connection: Connection) -> None:
        """Where the driver begins with its first statement, it has begun when there is a second one."""
        if self.row_of(connection).begin is not None:
            return
        key = id(connection)
        if key in self.first and key not in self.begun:
            self.begun[key] = driver_connection(connection.dialect, connection.connection)
        self.first.add(key)

    # -- who may call

    def call(self, verb: str) -> tasks.Turn:
        """One call of ours at a time, and only from inside the innermost savepoint block.

        Raises:
            WrongTask: Before any SQL.
            sqlalchemy.exc.DBAPIError: The rest of a streamed result, which had to be read first, failed.
        """
        turn, late = self.leave(verb, None)
        if late is not None:
            turn.give_back()
            raise late
        return turn

    def leave(self, verb: str, error: BaseException | None) -> tuple[tasks.Turn, Exception | None]:
        """As `call`, for a block that must end: what failed late is handed out, as an error of the block's own."""
        self.turn.take(verb)
        try:
            if error is None and self.levels:
                self._check_context(verb)
            late = streams.buffer(self, error)
            if self.doubt is not None:
                self.doubt.settle(self)
            self.look()
        except BaseException:
            self.turn.give_back()
            raise
        self.turn.taken = True
        return self.turn, late

    def check_turn(self, verb: str) -> None:
        """As `call`, for what sends nothing: the turn is not taken."""
        self.turn.check_process(verb)
        self._check_context(verb)

    def _check_context(self, verb: str) -> None:
        for level in reversed(self.levels):
            if level.block:
                if not tasks.may_steer(level):
                    block = f"{refusals.called(level)} is a block of {label(level.opened_by)}"
                    raise errors.WrongTask(f"cannot {verb} from {label(worker())}: {block}")
                return

    # -- moves

    def admit(self, level: Level, move: Move, verb: str) -> None:
        """Let a move pass, or say why not."""
        transaction = self.transaction
        if level.recorded is State.OPEN and transaction.recorded is State.OPEN:
            return
        if transaction.block and not transaction.is_alive:
            raise refusals.ended_behind(transaction)
        for asked in (level, transaction) if level is not transaction else (transaction,):
            row = asked.TABLE[asked.recorded]
            if move in row and not isinstance(row[move], State):
                raise refusals.refused(asked, verb)
        if self.stuck is not None and move is Move.SAVEPOINT:
            raise refusals.stuck(level, verb, self.stuck)

    def push(self, level: SavepointLevel) -> None:
        """A savepoint is there: the database has answered."""
        self.levels.append(level)
        self.top = level

    sync = plain.enter

    def end(self, level: SavepointLevel, move: Move, end: End) -> None:
        """A savepoint has ended: move it and take it off the stack."""
        if level.recorded not in level.ENDS:
            level.move(move if isinstance(level.after(move), State) else Move.OUTER_ROLLBACK, end)
        index = len(self.levels) - 1 if self.levels[-1] is level else self.index(level)
        around: Level = self.transaction
        if index:
            around = outer = self.levels[index - 1]
            level.mark.merge(outer.mark)
        around.streams += level.streams
        if level.hooks:
            hooks.pass_on(self, level, around)
        level.mark = None
        del self.levels[index]
        self.top = self.levels[-1] if self.levels else self.transaction
        self.unsaved = self.unsaved or (level.recorded is State.RELEASED and self.plain is None)

    def hook(self, level: Level, occasion: Occasion, function: Any, args: Any, kwargs: Any) -> Hook:
        """Give a hook to a level."""
        return hooks.give(self, level, Hook(occasion, checked(function, occasion.value), args, kwargs))

    def __del__(self) -> None:
        """Say which block was never left: its object and its connection were thrown away."""
        if self.transaction.recorded not in TransactionLevel.ENDS and (block := self.block) is not None:
            text = f"the block of {refusals.called(block)} was never left"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def end_above(self, level: Level, move: Move, end: End) -> None:
        """The savepoints inside a level have ended with it, innermost first."""
        while self.levels and self.levels[-1] is not level:
            self.end(self.levels[-1], move, end)

    def committed(self, how: End) -> None:
        """COMMIT was answered."""
        transaction = self.transaction
        transaction.refresh = None
        if transaction.recorded is State.OPEN:  # a session that has used no connection sends no COMMIT
            transaction.move(Move.COMMIT)
        if transaction.recorded is State.COMMITTING:
            transaction.move(Move.ANSWER, how)
            self.end_above(transaction, Move.OUTER_RELEASE, how)
            hooks.end(self, transaction, Occasion.COMMIT)
            self.unsaved = False
            detach(self)

    def rolled_back(self, how: End) -> None:
        """The whole transaction was rolled back."""
        transaction = self.transaction
        transaction.refresh = None
        self.end_above(transaction, Move.OUTER_ROLLBACK, how)
        transaction.move(Move.END_UNSEEN if transaction.ended_unseen else Move.ROLLBACK, how)
        hooks.end(self, transaction, Occasion.UNKNOWN if transaction.recorded is State.UNKNOWN else Occasion.ROLLBACK)
        if not transaction.block:
            detach(self)

    def refuse_commit(self, verb: str) -> None:
        """Refuse a plain commit inside a block of ours, and where the transaction cannot be committed."""
        if self.doubt is not None:
            self.doubt.settle(self)
        block = self.block or (self.joined[-1] if self.joined else None)
        if block is not None and self.transaction.recorded is not State.LOST:
            raise refusals.plain_call(verb, block)
        for level in (self.transaction, *reversed(self.levels)):
            if level.recorded in (State.FAILED, State.UNDONE, State.DOOMED, State.LOST):
                self.unsaved = False  # this tells of it
                raise refusals.refused(level, "commit")

    def fail(self, error: BaseException | None, what: str) -> None:
        """The server refused a statement and takes only a rollback now."""
        cause = Cause(what, error, caller())
        self.stuck = self.stuck or cause
        for level in dict.fromkeys((self.top, self.transaction)):
            if level.recorded not in (State.FAILED, State.DOOMED, State.LOST):
                level.move(Move.FAIL)
                level.cause = cause

    @contextmanager
    def letting_through(self) -> Iterator[None]:
        """Let a plain rollback to a savepoint through, which the server takes also where it takes nothing else."""
        self.rolling = True
        try:
            yield
        finally:
            self.rolling = False
        self.heal()

    @contextmanager
    def ended_on_server(self) -> Iterator[None]:
        """What SQLAlchemy would send now has been done on the server by the statement of a level around."""
        self.settled = True
        try:
            yield
        finally:
            self.settled = False

    def heal(self) -> None:
        """A plain rollback to a savepoint was answered: the server takes statements again."""
        self.stuck = None
        for level in dict.fromkeys((self.top, self.transaction)):
            if level.recorded is State.FAILED:
                level.move(Move.ROLLBACK_TO)

    def lose(self, error: BaseException | None, what: str, by: Ender = "server") -> None:
        """The whole transaction has ended without us. The first cause stays."""
        transaction = self.transaction
        if transaction.recorded in (State.LOST, *transaction.ENDS):
            return
        unanswered = transaction.recorded is State.COMMITTING
        cause = Cause(what, error, caller(), by)
        transaction.move(Move.LOSE, End(f"unknown: {cause.what}", cause.where))
        self.stuck = None
        transaction.cause = cause
        if unanswered:
            return
        for level in self.levels:
            level.move(Move.LOSE, End(f"lost with the transaction: {cause.what}", cause.where))
            level.cause = cause

    def doom(self, level: Level, reason: str, error: BaseException | None) -> None:
        """The level can only be rolled back from now on; what doomed it first is kept."""
        if not isinstance(level.after(Move.DOOM), State):
            raise refusals.refused(level, "doom it")
        already = level.recorded in (State.DOOMED, State.LOST)
        level.move(Move.DOOM)
        if not already:
            level.cause = Cause(reason, error, caller())
