"""PostgreSQL: COPY while rows are good, a stage with checks from the catalog where they are not, and a net below it.

A failed COPY fails as a whole. Where its error names a line, the chunk is cut there; but that proves neither that the
rows before it are good nor that this one is bad, for the server tries rows in bunches: those before are copied again,
and the row itself is judged in the stage when they are in. Where bad rows are no exception, all rows go to the stage at
once, in larger pieces.
"""

from __future__ import annotations

import re
from math import sqrt
from typing import Any

from sqlalchemy.exc import DBAPIError

from savepoints._core.dialects import driver_connection
from savepoints._load.algorithm import Algorithm, Job, Outcome
from savepoints._load.bisect import Bisection
from savepoints._load.databases.postgresql import catalog
from savepoints._load.databases.postgresql.altered import Losses
from savepoints._load.databases.postgresql.copying import DRIVERS, Destination, Driver, copy_in
from savepoints._load.databases.postgresql.sql import send
from savepoints._load.databases.postgresql.staging import Staging, Vanished, judge_error
from savepoints._load.databases.postgresql.text import Unwritable, Writer, written
from savepoints._load.intake import Batch

# Note [The size of a chunk]
# A COPY costs as much as some 450 rows, for the server makes room for a thousand at once, and the client sends three
# statements. A bad row costs half of its chunk, which is copied again. With one bad row among n the sum is least for
# chunks of sqrt(2 * 450 * n) rows. A bad row costs some 1,450 rows more, for the two parts around it and for its own
# judgement: where it is one among 16,000, all that comes to what the stage costs, a third of a COPY.

#: Rows of a chunk that is copied into the table itself, and of its growth.
CHUNK, LARGE_CHUNK, GROWTH = 1000, 50_000, 30
#: Rows of a piece for the stage, once all rows go there.
PIECE = 100_000
#: So many bad rows, and one more for so many rows, are an exception.
FEW, IN = 2, 16_000
#: A chunk is cut so often, then what is left of it goes to the stage.
CUTS = 3


def algorithm(job: Job) -> Algorithm:
    """The fastest way that the driver, the rights and the table allow."""
    driver = DRIVERS.get((job.capabilities.driver, job.connection.dialect.is_async))
    rules = catalog.read(job.connection, job.table, updates=job.on_conflict == "update")
    if driver is None:
        return Cautious(job, rules, f"COPY through {job.capabilities.driver} is not known")
    if not rules.staged:
        return Cautious(job, rules, "there is no right to temporary tables, or no PL/pgSQL")
    return Copying(job, driver, rules)


def _hasten(job: Job, rules: catalog.Rules) -> None:
    """Have constraints that wait for COMMIT checked at once, inside the load's savepoint.

    What they find now is of the caller's own rows: it passes as the database's error.
    """
    if rules.deferrable:
        send(job.connection, f"SET CONSTRAINTS {', '.join(rules.deferrable)} IMMEDIATE")
        job.report.why.append("constraints that wait for COMMIT are checked at once during the load")


def _put_off(job: Job, rules: catalog.Rules) -> None:
    """Let them wait for COMMIT again."""
    later = [name for name, deferred in rules.deferrable.items() if deferred]
    if later:
        send(job.connection, f"SET CONSTRAINTS {', '.join(later)} DEFERRED")


def _unknown(value: Any) -> str:
    """A value that only the driver can write: nothing is known of what becomes of it."""
    raise Unwritable


class Cautious(Bisection):
    """Without COPY, or without a stage."""

    def __init__(self, job: Job, rules: catalog.Rules, why: str) -> None:
        super().__init__(job, why)
        self._rules = rules
        self._losses = Losses(job.connection, rules.columns, Writer(_unknown)) if rules.scripted else None
        _hasten(job, rules)

    def load(self, batch: Batch) -> Outcome:
        """Load what the columns would keep as it is."""
        lost = {} if self._losses is None else self._losses.of(batch)
        outcome = super().load(batch.without(lost) if lost else batch)
        outcome.refused |= {batch.places[at]: tuple(reasons.values()) for at, reasons in lost.items()}
        return outcome

    def finish(self) -> None:
        """Let constraints wait for COMMIT again."""
        _put_off(self._job, self._rules)


class Copying:
    """COPY, stage and net."""

    served = True

    def __init__(self, job: Job, driver: Driver, rules: catalog.Rules) -> None:
        self._job = job
        self._driver = driver
        self._rules = rules
        self._writer = Writer(driver.adapt(driver_connection(job.connection.dialect, job.connection.connection)))
        self._staging = Staging(job, driver, rules, self._writer)
        self._read = 0
        self._bad = 0
        self.rows = CHUNK
        _hasten(job, rules)
        why = self._why_staged()
        self._direct = why is None
        job.report.algorithm = "copy" if self._direct else "stage"
        if why is None:
            job.report.why.append(
                "COPY into the table, cut at rows that are refused; these are judged in a temporary table"
            )
        else:
            self.rows = PIECE
            job.report.why.append(f"each row is judged in a temporary table first: {why}")

    def _why_staged(self) -> str | None:
        if self._job.on_conflict != "reject":
            return "duplicates are not refused"
        if not self._rules.copied:
            return "the table has rules or policies of row level security, or is none"
        if self._staging.defaults:
            return "a default is an expression of SQL"
        if self._rules.own_keys:
            return "the table refers to itself, and COPY would let a child in before its parent"
        return self._rules.looks_around

    def load(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        whole = self._staging.kept(batch, outcome)
        if self._direct and batch.columns:  # COPY knows no rows without any
            self._copy(whole, outcome)
        else:
            self._staging.load(whole, outcome)
        self._note(len(batch.rows), len(outcome.refused))
        return outcome

    def finish(self) -> None:
        """Drop what was made, and let constraints wait for COMMIT again."""
        self._staging.drop()
        _put_off(self._job, self._rules)
        self._job.report.checks.update({name: f"left to the database: {why}" for name, why in self._rules.left.items()})

    def _note(self, read: int, bad: int) -> None:
        """Send everything to the stage when bad rows are no exception any more; see Note [The size of a chunk]."""
        self._read += read
        self._bad += bad
        if not self._direct:
            return
        self.rows = min(max(CHUNK, int(GROWTH * sqrt(self._read / (self._bad + 1)))), LARGE_CHUNK)
        if self._bad > FEW + self._read / IN:
            self._direct = False
            self.rows = PIECE
            self._job.report.algorithm = "stage"
            share = self._bad / self._read
            self._job.report.why.append(
                f"from row {self._read:,} on all rows are judged in the temporary table: {self._bad:,} of the rows "
                f"before were rejected ({share:.2%}), and copying them twice no longer pays"
            )

    # -- COPY into the table

    def _copy(self, batch: Batch, outcome: Outcome, cuts: int = CUTS) -> None:
        """Copy a chunk; where a line fails, the rows before it, that row by the stage, and the rows behind it."""
        lines = written(self._writer, batch)
        batch = lines.batch
        self._staging.refuse(lines.rest, lines.refused, outcome)
        if not batch.rows:
            return
        names = tuple(column.name for column in batch.columns)
        to = Destination(self._job.table.schema, self._job.table.name, names)
        try:
            with self._job.savepoint():
                if copy_in(self._job.connection, self._driver, to, lines.messages()) != len(batch.rows):
                    raise Vanished
            outcome.loaded += len(batch.rows)
            return
        except Vanished:
            line = None
        except DBAPIError as error:
            judge_error(self._job, error)
            line = _line(error.orig, self._job.table.name)
        if line is None or line >= len(batch.rows) or not cuts:
            self._staging.load(batch, outcome)
            return
        # that the row is bad is not known before those in front of it are in: the stage judges it then
        self._copy(batch.part(0, line), outcome, cuts - 1)
        self._staging.load(batch.part(line, line + 1), outcome)
        self._copy(batch.part(line + 1, len(batch.rows)), outcome, cuts - 1)


def _line(error: BaseException | None, table: str) -> int | None:
    """The index of the row that COPY's error names, which a foreign key's does not. The words may be translated."""
    context = getattr(getattr(error, "diag", None), "context", None) or getattr(error, "context", None) or ""
    for line in context.splitlines():
        if line.startswith(f"COPY {table}") and (found := re.search(r"\d+", line[len(f"COPY {table}") :])):
            return int(found[0]) - 1
    return None
