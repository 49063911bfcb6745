"""What a load kept and what it refused."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from savepoints import errors
from savepoints._load.reasons import Reject, by_bytes
from savepoints._load.rejects import Rejects

#: So many different missing parents are told apart; further ones are counted in one.
PARENTS = 10_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come.

    Attributes:
        read: Rows read so far.
        loaded: Rows in the table, new and updated ones.
        rejected: Rows refused.
        rows_per_second: Since the load began.
        algorithm: The way that is used now.
        share: How much of the input has been read, from 0 to 1, where its size is known.
    """

    read: int
    loaded: int
    rejected: int
    rows_per_second: float
    algorithm: str
    share: float | None


@dataclass(frozen=True, slots=True)
class MissingParent:
    """A parent that is not there, and how many rows were refused for want of it.

    Attributes:
        constraint: The foreign key.
        column: Its columns.
        values: What no parent has; None for all those beyond the first ten thousand.
        rows: How many rows it would have let in.
    """

    constraint: str | None
    column: str | None
    values: tuple[Any, ...] | None
    rows: int


@dataclass(eq=False)
class Report:
    """What a load kept and what it refused: ``read == loaded + updated + skipped + rejected``, checked at its end.

    Printed, it shows no values of rows; `savepoints._load.render.table` with ``show_values=True`` does.

    Attributes:
        table: The table's name.
        read: Rows of the input.
        loaded: New rows.
        updated: Rows that were there, and were updated (``on_conflict="update"``).
        skipped: Duplicates left as they were (``on_conflict="skip"``).
        by_kind: How many rows were rejected, by the kind of their first reason.
        by_constraint: How many reasons name each constraint.
        rejects: The rejected rows with their reasons, in the order of the input.
        skips: The skipped rows, with what they collide with.
        algorithm: How rows were put into the table, the last way that was used.
        why: Why so, a sentence for each choice and change.
        checks: Each rule of the table, and who looks at it: ``predicted`` or ``left to the database``.
        unchecked: What this database or connection does not enforce.
        seconds: How long it took, in seconds.
        tag: The caller's mark.
        savepoint: The level that the load stands in: ``.rollback()`` undoes it. None after ``rollback=True``.
        undone: The load was undone: by ``rollback=True``, or since a limit was exceeded.
    """

    table: str
    tag: Any = None
    read: int = 0
    loaded: int = 0
    updated: int = 0
    skipped: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_constraint: Counter[str] = field(default_factory=Counter)
    rejects: Rejects = field(default_factory=Rejects)
    skips: Rejects = field(default_factory=Rejects)
    algorithm: str = ""
    why: list[str] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    seconds: float = 0.0
    savepoint: Any = None
    undone: bool = False
    _parents: Counter[tuple[str | None, str | None, tuple[Any, ...] | None]] = field(
        default_factory=Counter, repr=False
    )
    _started: float = field(default_factory=time.monotonic, repr=False)

    @property
    def rejected(self) -> int:
        """How many rows were rejected."""
        return len(self.rejects)

    @property
    def rows_per_second(self) -> float:
        """Rows read in a second."""
        return self.read / self.seconds if self.seconds else 0.0

    @property
    def missing_parents(self) -> list[MissingParent]:
        """The rejects of foreign keys by the parent that they miss, most rows first."""
        return [MissingParent(*key, rows) for key, rows in self._parents.most_common()]

    # -- how it is filled

    def reject(self, one: Reject) -> None:
        """Enter a rejected row."""
        one.reasons = by_bytes(one)
        self.rejects.add(one)
        self.by_kind[one.reasons[0].kind] += 1
        for reason in one.reasons:
            if reason.constraint is not None:
                self.by_constraint[reason.constraint] += 1
            if reason.parent is not None:
                key = (reason.constraint, reason.column, reason.parent)
                known = key in self._parents or len(self._parents) < PARENTS
                self._parents[key if known else (reason.constraint, reason.column, None)] += 1

    def skip(self, one: Reject) -> None:
        """Enter a duplicate that was left as it was."""
        self.skips.add(one)
        self.skipped += 1

    def progress(self, share: float | None) -> Progress:
        """How far the load has come."""
        self.seconds = time.monotonic() - self._started
        kept = self.loaded + self.updated
        return Progress(self.read, kept, self.rejected, self.rows_per_second, self.algorithm, share)

    def check_ledger(self) -> None:
        """Each row that was read has come to something.

        Raises:
            LoadMismatch: An error of this library, or of what a trigger did.
        """
        told = self.loaded + self.updated + self.skipped + self.rejected
        if told != self.read:
            raise errors.LoadMismatch(
                f"{self.read} rows were read for {self.table}, and {told} have come to something "
                f"({self.loaded} loaded, {self.updated} updated, {self.skipped} skipped, {self.rejected} rejected)"
            )

    def __str__(self) -> str:
        from savepoints._load.render import text

        return text(self)

    def __rich__(self) -> Any:
        from savepoints._load.render import table

        return table(self)
