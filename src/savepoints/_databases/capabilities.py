"""What a database does, as data: the form of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal


class Aftermath(Enum):
    """What an error leaves of the transaction."""

    OPEN = "open"
    FAILED = "failed"
    LOST = "lost"


class Kind(Enum):
    """What sort of error it is."""

    SERIALIZATION = "serialization failure"
    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock timeout"
    STATEMENT_TIMEOUT = "statement timeout"
    BUSY = "busy"
    BUSY_SNAPSHOT = "busy snapshot"
    DISCONNECT = "connection lost"
    FULL = "disk full"
    INTERRUPTED = "interrupted"
    CONSTRAINT = "constraint"
    CONSEQUENCE = "consequence of an earlier error"
    OTHER = "error"

    def __str__(self) -> str:
        return self.value


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
    """How the three statements are spelled; ``release`` is None where the database has no such statement."""

    savepoint: str = "SAVEPOINT {}"
    rollback_to: str = "ROLLBACK TO SAVEPOINT {}"
    release: str | None = "RELEASE SAVEPOINT {}"


def _none(_: Any) -> None:
    return None


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
        restart: SQL that ends the driver's own empty transaction, so that ``begin_immediate`` can be sent.
        standing: What the driver connection says of a transaction that was begun, without a round trip; None where it
            cannot tell an open one from a failed one.
        aftermath: What an error left of the transaction, from the driver connection and the driver's error.
        kind: What sort of error it is.
        code: The database's own code of an error, as text.
        fault: What is wrong with the row that an INSERT of one row was refused for, or None where it is not the row's
            fault (deadlock, full disk, missing right) and would meet any other row as well.
        read_only: Execution options that make a transaction read-only, or None.
        read_only_on: SQL that makes a connection refuse writes, with ``read_only_off`` to take it back, or None.
        enforce: SQL that makes a new connection look at foreign keys, where it does not by itself.
        deferrable: Execution options that make it deferrable, or None where it cannot be.
        rollback_refused: Whether the driver would refuse to roll back, since the database has ended a transaction that
            it takes for open: ``begin`` has to be sent before.
        rollback_left_out: SQLAlchemy's part of the driver may take a transaction for ended that is open, and leave
            ROLLBACK out: ``standing`` is asked afterwards.
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
    aftermath: Callable[[Any, BaseException], Aftermath]
    kind: Callable[[BaseException], Kind]
    code: Callable[[BaseException], str | None]
    fault: Callable[[BaseException], Fault | None] = _none
    rollback_refused: Callable[[Any], bool | None] = _none
    rollback_left_out: bool = False
    driver_autocommit: Callable[[Any], bool | None] = _none
    standing: Callable[[Any], Aftermath | None] = _none
    begin: str | None = None
    begin_immediate: str | None = None
    restart: str | None = None
    read_only: Mapping[str, Any] | None = None
    read_only_on: str | None = None
    read_only_off: str | None = None
    enforce: str | None = None
    deferrable: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())
