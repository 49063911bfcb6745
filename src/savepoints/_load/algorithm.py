"""What an algorithm is given and what it answers: one for each database that knows how to load fast.

To add a database: a room of its own beside `sqlite`, with a class that has the three members of `Algorithm`, and a
line in `choose`. It sends rows in their order, keeps the good ones ("first good row wins") and answers for each other
one why; it never commits, and sends nothing but through the job's connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sqlalchemy import Column, Table
from sqlalchemy.engine import Connection

from savepoints._core import moves
from savepoints._core.face import Face
from savepoints._databases import Capabilities
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason
from savepoints._load.report import Report
from savepoints._model.levels import SavepointLevel

OnConflict = Literal["reject", "skip", "update"]


@dataclass(slots=True)
class Outcome:
    """What became of the rows of a batch; all that is not told of otherwise was loaded.

    Attributes:
        loaded: New rows, as the database counted them.
        updated: Rows that were there and were updated.
        refused: Why each other row was not loaded, by its place (`Batch.places`).
        skipped: What each duplicate collides with that was left as it was, by its place.
    """

    loaded: int = 0
    updated: int = 0
    refused: dict[int, tuple[Reason, ...]] = field(default_factory=dict)
    skipped: dict[int, Reason] = field(default_factory=dict)


@dataclass(slots=True)
class Job:
    """What an algorithm works with.

    Attributes:
        connection: The connection, inside the load's savepoint.
        table: The table.
        capabilities: The row of the database and driver; its ``fault`` tells whose fault an error is.
        on_conflict: What happens to duplicates.
        key: The columns by which a duplicate is known, with ``on_conflict`` "skip" or "update"; empty where any unique
            key counts.
        report: For ``algorithm``, ``why``, ``checks`` and ``unchecked``.
        face: In whose classes inner savepoints are made.
        at_end: What is put back when the load is over, also by an error.
    """

    connection: Connection
    table: Table
    capabilities: Capabilities
    on_conflict: OnConflict
    key: tuple[Column[Any], ...]
    report: Report
    face: Face
    at_end: ExitStack

    @contextmanager
    def savepoint(self) -> Iterator[SavepointLevel]:
        """A savepoint inside the load's: kept at its end, undone where an error leaves it, which passes."""
        level = moves.open_savepoint(self.connection, self.face, "part of a load")
        try:
            yield level
        except BaseException:
            if level.is_open:
                moves.roll_back(level)
                moves.release(level)
            raise
        moves.release(level)


class Algorithm(Protocol):
    """A way to put rows into a table.

    Attributes:
        served: The database reads text for any type, and refuses what does not fit.
        rows: How many rows it wants at once, as of now.
    """

    served: bool
    rows: int

    def load(self, batch: Batch) -> Outcome:
        """Put the rows into the table, in their order.

        Raises:
            sqlalchemy.exc.DBAPIError: What is not the fault of a row.
        """

    def finish(self) -> None:
        """All rows were loaded: leave nothing behind, and nothing to be found out at COMMIT."""


def choose(job: Job) -> Algorithm:
    """The algorithm of a database; the cautious one where it has none of its own."""
    from savepoints._load.bisect import Bisection
    from savepoints._load.databases import BY_DATABASE

    make = BY_DATABASE.get(job.capabilities.database)
    return Bisection(job) if make is None else make(job)
