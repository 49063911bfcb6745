"""What a database does, as data: the form of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Literal, NamedTuple


class Aftermath(Enum):
    """What an error leaves of the transaction."""

    OPEN = "open"
    FAILED = "failed"
    LOST = "lost"


class Effect(Enum):
    """What a statement does to the transaction, besides its work; the smaller number weighs more."""

    COMMITS = 1  # by itself, as DDL on some databases
    OPAQUE = 2  # what nobody can tell from its text, as CALL
    ENDS = 3  # as it says: COMMIT, ROLLBACK


class Kind(StrEnum):
    """What sort of error it is; it equals its name in words."""

    SERIALIZATION = "serialization failure"
    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock timeout"
    STATEMENT_TIMEOUT = "statement timeout"
    BUSY = "busy"
    BUSY_SNAPSHOT = "busy snapshot"
    DISCONNECT = "connection lost"
    UNAVAILABLE = "not now"
    UNKNOWN_COMMIT = "commit outcome unknown"
    FULL = "disk full"
    INTERRUPTED = "interrupted"
    UNIQUE = "unique constraint"
    FOREIGN_KEY = "foreign key"
    NOT_NULL = "not null constraint"
    CHECK = "check constraint"
    EXCLUSION = "exclusion constraint"
    CONSTRAINT = "constraint"
    DATA = "data"
    PROGRAMMING = "programming"
    CONSEQUENCE = "consequence of an earlier error"
    OTHER = "error"


class RetryFrom(StrEnum):
    """How far back a retry must go; it equals its name in words."""

    NEVER = "never"
    STATEMENT = "the statement"
    SAVEPOINT = "the savepoint"
    TRANSACTION = "the transaction"


class Outcome(StrEnum):
    """What the database says of a COMMIT whose answer was lost; it equals its name in words.

    ``ROLLED_BACK`` also stands for a transaction that wrote nothing. ``IN_PROGRESS``: the server has not noticed yet
    that the connection is gone, or is still at it; ask again. ``UNKNOWN``: it does not remember, or was not asked.
    """

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    IN_PROGRESS = "in progress"
    UNKNOWN = "unknown"


class Rule(NamedTuple):
    """What an error means: one line of a database's table.

    Attributes:
        kind: What sort of error it is.
        retry_from: How far back a retry must go: what was undone, or can only work again from there. To run the whole
            transaction again is sound for all but "never".
        first: What has to be done before it, which no program can do by waiting; empty where waiting is enough.
    """

    kind: Kind
    retry_from: RetryFrom = RetryFrom.NEVER
    first: str = ""


#: A database's table of errors, by its own code of the error, or by how that code begins.
Rules = Mapping[str, Rule]

_UNKNOWN_CODE = Rule(Kind.OTHER)


def rule_of(code: str | None, rules: Rules) -> Rule:
    """The line of a table for a code: its own, else that of its longest beginning."""
    for end in range(len(code or ""), 0, -1):
        found = rules.get((code or "")[:end])
        if found is not None:
            return found
    return _UNKNOWN_CODE


class Fault(Enum):
    """What is wrong with a row that the database (or the driver) refused, where it is the row's own fault."""

    STRUCTURE = "structure"
    ENCODING = "encoding"
    TYPE = "type"
    LENGTH = "length"
    NOT_NULL = "not null"
    CHECK = "check"
    FOREIGN_KEY = "foreign key"
    UNIQUE = "unique"
    EXCLUSION = "exclusion"
    VIEW_CHECK = "view check"
    GENERATED = "generated"
    TRIGGER = "trigger"
    OTHER = "other"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Wire:
    """How the three statements are spelled; ``release`` is None where the database has no such statement.

    ``undo`` is the last two at once, where the driver takes two statements in one round trip.
    """

    savepoint: str = "SAVEPOINT {0}"
    rollback_to: str = "ROLLBACK TO SAVEPOINT {0}"
    release: str | None = "RELEASE SAVEPOINT {0}"
    undo: str = "ROLLBACK TO SAVEPOINT {0}; RELEASE SAVEPOINT {0}"


def _none(_: Any) -> None:
    return None


def _never(driver_connection: Any, error: BaseException) -> bool:
    return False


def _unnamed(_: BaseException) -> tuple[str | None, str | None]:
    return None, None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """One database with one driver.

    Attributes:
        database: The dialect's name.
        driver: The driver's name in SQLAlchemy.
        proven: True where live tests run each cell.
        wire: The statements, or None where the dialect's own methods must spell them.
        releases: RELEASE exists.
        transactional_ddl: DDL is undone with the transaction ("yes"), commits it ("implicit commit"), or not known.
        failed_statement: What a failed statement leaves: only itself undone, or a transaction that takes only rollback.
        sequences: What a rolled-back insert leaves of the key generator.
        settings: Whether session settings made inside a savepoint are undone with it.
        begin: SQL that begins a transaction where the driver does not by itself, else None.
        begin_immediate: SQL that begins one with the write lock taken, else None.
        begin_read_only: SQL that begins a read-only transaction, where that is not an option of the driver.
        restart: SQL that ends the driver's own empty transaction, so that ``begin_immediate`` can be sent.
        standing: What the driver connection says of a transaction that was begun, without a round trip; None where it
            cannot tell an open one from a failed one.
        closed: Whether the driver connection was closed, or is known to be broken.
        aftermath: What an error left of the transaction, from the driver connection and the driver's error; None where
            the server has to be asked by ``in_transaction``.
        in_transaction: SQL that asks the server whether a transaction is open; its answer is one value.
        commit_unanswered: Whether an error of COMMIT leaves open what became of it, though the connection lives.
        effect: What a statement does to the transaction besides its work, and the words that tell it; None where
            nobody has listed such statements. (``standing`` tells it afterwards, unless the driver has begun anew.)
        harmless: How statements begin for which ``effect`` is not asked: it costs each of them a microsecond.
        warned: Whether the server's last answer came with warnings, from the driver connection.
        warnings: SQL that asks for these warnings; the number of each is its second value.
        not_rolled_back: The number of the warning that some rows cannot be rolled back.
        kind: What sort of error it is.
        code: The database's own code of an error, as text.
        refused: What an error means that came while connecting, as such a code.
        errors: The table of errors, by that code.
        raised_by: The packages whose exceptions the driver raises, by which an error is known to be this database's.
        provoke: Has the database or the driver raise an error of a code, for tests of what comes after it; given the
            driver's cursor (as SQLAlchemy adapts it).
        named: Constraint and column that an error names, as far as the driver tells them.
        two_phase: None where a transaction can be prepared, else why not.
        two_phase_refused: Why this server begins no two-phase transaction, from its error; None for any other error.
        undo_unprepared: SQL that rolls back a two-phase transaction which is not prepared, given its name: each
            statement is sent, for the one before is refused where the transaction is past that step. Empty where
            ROLLBACK does it.
        commit_number: SQL that gives the number of the transaction, if it wrote, and the life of the server in which
            that number holds, as texts; None where that is no help.
        commit_status: SQL that tells what became of the transaction ``:number``, and the life of the server that says
            so, on any connection.
        commit_answers: What its answers mean, by whether it is the same life, and the answer.
        fault: What is wrong with the row that an INSERT of one row was refused for, or None where it is not the row's
            fault (deadlock, full disk, missing right) and would meet any other row as well.
        zones: Times are stored with their offset where the column is declared so; else it would be dropped in silence.
        spans: A TIME is a span: of more than a day, or less than nothing.
        nans: A float that is no number is kept; else it would be NULL, or an error of the driver.
        read_only: Execution options that make a transaction read-only, or None.
        read_only_on: SQL that makes a connection refuse writes, with ``read_only_off`` to take it back, or None.
        enforce: SQL that makes a new connection look at foreign keys, where it does not by itself.
        deferrable: Execution options that make it deferrable, or None where it cannot be.
        rollback_refused: Whether the driver would refuse to roll back, since the database has ended a transaction that
            it takes for open: ``begin`` has to be sent before.
        rollback_left_out: SQLAlchemy's part of the driver may take a transaction for ended that is open, and leave
            ROLLBACK out: ``standing`` is asked afterwards.
        still_connected: Whether the connection lives, though SQLAlchemy takes this error for the loss of it.
        takes_two: Whether the driver connection takes two statements in one round trip, parted by a semicolon.
        streams_block: While a result is streamed, the connection takes no other statement.
        driver_autocommit: Whether the driver connection commits each statement by itself.
    """

    database: str
    driver: str
    proven: bool
    wire: Wire | None
    releases: bool
    transactional_ddl: Literal["yes", "implicit commit", "not known"]
    failed_statement: Literal["undone alone", "transaction failed", "not known"]
    sequences: Literal["reused", "hole", "not known"]
    settings: Literal["undone", "kept", "not known"]
    aftermath: Callable[[Any, BaseException], Aftermath | None]
    kind: Callable[[BaseException], Kind]
    code: Callable[[BaseException], str | None]
    refused: Callable[[BaseException], str | None] | None = None
    errors: Rules = field(default_factory=dict)
    raised_by: tuple[str, ...] = ()
    named: Callable[[BaseException], tuple[str | None, str | None]] = _unnamed
    provoke: Callable[[Any, str], None] | None = None
    fault: Callable[[BaseException], Fault | None] = _none
    zones: bool = True
    spans: bool = False
    nans: bool = True
    rollback_refused: Callable[[Any], bool | None] = _none
    rollback_left_out: bool = False
    still_connected: Callable[[Any, BaseException], bool] = _never
    takes_two: Callable[[Any], bool | None] = _none
    streams_block: bool = False
    driver_autocommit: Callable[[Any], bool | None] = _none
    standing: Callable[[Any], Aftermath | None] = _none
    closed: Callable[[Any], bool | None] = _none
    in_transaction: str | None = None
    commit_unanswered: Callable[[BaseException], bool | None] = _none
    effect: Callable[[str], tuple[Effect, str] | None] | None = None
    harmless: tuple[str, ...] = ()
    warned: Callable[[Any], bool | None] = _none
    warnings: str | None = None
    not_rolled_back: int | None = None
    begin: str | None = None
    begin_immediate: str | None = None
    begin_read_only: str | None = None
    restart: str | None = None
    two_phase: str | None = "it is not known how to prepare a transaction"
    two_phase_refused: Callable[[BaseException], str | None] = _none
    undo_unprepared: tuple[str, ...] = ()
    commit_number: str | None = None
    commit_status: str | None = None
    commit_answers: Mapping[tuple[bool, str | None], Outcome] = field(default_factory=dict)
    read_only: Mapping[str, Any] | None = None
    read_only_on: str | None = None
    read_only_off: str | None = None
    enforce: str | None = None
    deferrable: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def commits_by_ddl(self) -> bool:
        """Whether DDL, and more, would commit the transaction that it is sent in."""
        return self.transactional_ddl == "implicit commit"
