"""PostgreSQL: COPY while rows are good, a stage with checks from the catalog where they are not, and a net below it.

A failed COPY fails as a whole. Where its error names a line, the chunk is cut there; but that proves neither that the
rows before it are good nor that this one is bad, for the server tries rows in bunches: those before are copied again,
and the row itself is judged in the stage when they are in. Where bad rows are no exception, all rows go to the stage at
once, in larger pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Sequence as SqlSequence
from sqlalchemy.exc import DBAPIError

from savepoints._core.dialects import driver_connection
from savepoints._databases import Fault
from savepoints._load.algorithm import Algorithm, Job, Outcome
from savepoints._load.bisect import Bisection
from savepoints._load.databases.postgresql import catalog, net
from savepoints._load.databases.postgresql.copying import DRIVERS, Destination, Driver, copy_in
from savepoints._load.databases.postgresql.stage import NUMBER, Stage
from savepoints._load.databases.postgresql.text import Unwritable, Writer
from savepoints._load.databases.postgresql.verdict import Judge, Refused
from savepoints._load.intake import Batch, Columns
from savepoints._load.reasons import Reason, reason

#: Rows of a chunk that is copied into the table itself: a part of those that went well since the last failure.
CHUNK, LARGE_CHUNK, PART = 1000, 50_000, 16
#: Rows of a piece for the stage, once all rows go there.
PIECE = 100_000
#: So many bad rows, and one more for so many rows, are an exception.
FEW, IN = 3, 3000
#: A chunk is cut so often, then what is left of it goes to the stage.
CUTS = 3
#: So many rows are written into one message.
LINES = 2000


def algorithm(job: Job) -> Algorithm:
    """The fastest way that the driver, the rights and the table allow."""
    driver = DRIVERS.get((job.capabilities.driver, job.connection.dialect.is_async))
    if driver is None:
        return Bisection(job, f"COPY through {job.capabilities.driver} is not known")
    rules = catalog.read(job.connection, job.table)
    if not rules.staged:
        return Bisection(job, "there is no right to temporary tables, or no PL/pgSQL")
    return Copying(job, driver, rules)


class _Vanished(Exception):
    """Fewer rows went in than were sent: something left one out without an error."""


class Copying:
    """COPY, stage and net."""

    served = True

    def __init__(self, job: Job, driver: Driver, rules: catalog.Rules) -> None:
        self._job = job
        self._driver = driver
        self._rules = rules
        self._quote = job.connection.dialect.identifier_preparer.quote_identifier
        self._table = job.connection.dialect.identifier_preparer.format_table(job.table)
        self._writer = Writer(driver.adapt(driver_connection(job.connection.dialect, job.connection.connection)))
        self._stages: dict[Columns, tuple[Stage, Judge]] = {}
        self._defaults = {column.name: _sql(job, column) for column in job.table.columns if _is_sql(column)}
        self._read = 0
        self._bad = 0
        self._well = 0
        self._net = rules.triggered
        self.rows = CHUNK
        self._hasten()
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
            return "the table has rules or row security, or is none"
        if self._defaults:
            return "a default is an expression of SQL"
        if any(one.own for one in self._rules.foreign_keys):
            return "the table refers to itself, and COPY would let a child in before its parent"
        return None

    def _hasten(self) -> None:
        """Have constraints that wait for COMMIT checked at once, inside the load's savepoint.

        What they find now is of the caller's own rows: it passes as the database's error.
        """
        names = [".".join(map(self._quote, name.split(".", 1))) for name in self._rules.deferrable]
        if names:
            self._job.connection.exec_driver_sql(f"SET CONSTRAINTS {', '.join(names)} IMMEDIATE")
            self._job.report.why.append("constraints that wait for COMMIT are checked at once during the load")

    def load(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        if self._direct:
            self._copy(batch, outcome)
        else:
            self._stage_all(batch, outcome)
        self._note(len(batch.rows), len(outcome.refused))
        return outcome

    def finish(self) -> None:
        """Drop what was made, and let constraints wait for COMMIT again."""
        for stage, _ in self._stages.values():
            stage.drop()
        later = [name for name, deferred in self._rules.deferrable.items() if deferred]
        if later:
            names = [".".join(map(self._quote, name.split(".", 1))) for name in later]
            self._job.connection.exec_driver_sql(f"SET CONSTRAINTS {', '.join(names)} DEFERRED")
        self._job.report.checks.update({name: f"left to the database: {why}" for name, why in self._rules.left.items()})

    def _note(self, read: int, bad: int) -> None:
        """Send everything to the stage when bad rows are no exception any more."""
        self._read += read
        self._bad += bad
        self._well = 0 if bad else self._well + read
        if not self._direct:
            return
        self.rows = min(max(CHUNK, self._well // PART), LARGE_CHUNK)
        if self._bad > FEW + self._read / IN:
            self._direct = False
            self.rows = PIECE
            self._job.report.algorithm = "stage"
            share = self._bad / self._read
            self._job.report.why.append(
                f"from row {self._read:,} on all rows are judged in the temporary table: {self._bad:,} of the rows "
                f"before were rejected ({share:.2%}), and copying them twice no longer pays"
            )

    def _write(self, batch: Batch, outcome: Outcome, *, numbered: bool) -> tuple[Batch, list[bytes]]:
        """The rows as lines, without those that cannot be told in text: a NUL in a text, a class that nobody knows."""
        try:
            return batch, list(self._lines(batch, numbered=numbered))
        except Unwritable:
            bad = dict(self._writer.unwritable(batch.rows))
        for at, place in bad.items():
            cell, name = batch.rows[at][place], batch.columns[place].name
            fault = Fault.ENCODING if isinstance(cell, str) else Fault.TYPE
            outcome.refused[batch.places[at]] = (reason(fault, name),)
        batch = batch.only([at for at in range(len(batch.rows)) if at not in bad])
        return batch, list(self._lines(batch, numbered=numbered))

    def _lines(self, batch: Batch, *, numbered: bool) -> Iterator[bytes]:
        for start in range(0, len(batch.rows), LINES):
            rows = batch.rows[start : start + LINES]
            numbers = list(map(str, range(start, start + len(rows)))) if numbered else None
            yield self._writer.lines(numbers, rows, len(batch.columns))

    # -- COPY into the table

    def _copy(self, batch: Batch, outcome: Outcome, cuts: int = CUTS) -> None:
        """Copy a chunk; where a line fails, the rows before it, that row by the stage, and the rows behind it."""
        batch, lines = self._write(batch, outcome, numbered=False)
        if not batch.rows:
            return
        names = tuple(column.name for column in batch.columns)
        to = Destination(self._job.table.schema, self._job.table.name, names)
        try:
            with self._job.savepoint():
                if copy_in(self._job.connection, self._driver, to, lines) != len(batch.rows):
                    raise _Vanished
            outcome.loaded += len(batch.rows)
            return
        except _Vanished:
            line = None
        except DBAPIError as error:
            self._judge_error(error)
            line = _line(error.orig, self._job.table.name)
        if line is None or line >= len(batch.rows) or not cuts:
            self._stage_all(batch, outcome)
            return
        # that the row is bad is not known before those in front of it are in: the stage judges it then
        self._copy(batch.part(0, line), outcome, cuts - 1)
        self._stage_all(batch.part(line, line + 1), outcome)
        self._copy(batch.part(line + 1, len(batch.rows)), outcome, cuts - 1)

    def _judge_error(self, error: DBAPIError) -> None:
        """An error that is no row's fault passes."""
        cause = error.orig or error
        if self._job.capabilities.fault(cause) is None or error.connection_invalidated:
            raise error

    # -- stage

    def _stage(self, columns: Columns) -> tuple[Stage, Judge]:
        found = self._stages.get(columns)
        if found is None:
            names = tuple(column.name for column in columns)
            stage = Stage(self._job.connection, self._driver, self._rules, names, self._writer)
            key = tuple(column.name for column in self._job.key)
            skips = key if self._job.on_conflict == "skip" else None
            judge = Judge(self._rules, self._table, stage, skips, updates=self._job.on_conflict == "update")
            found = self._stages[columns] = stage, judge
            if not self._net:
                self._job.report.checks.update(dict.fromkeys(judge.predicted, "predicted"))
        return found

    def _stage_all(self, batch: Batch, outcome: Outcome) -> None:
        batch, lines = self._write(batch, outcome, numbered=True)
        if not batch.rows:
            return
        stage, judge = self._stage(batch.columns)
        refused: Refused = {at: list(reasons) for at, reasons in stage.fill(batch, lines).items()}
        skipped = self._judged(judge, batch, refused)
        self._insert(stage, batch, refused, skipped, outcome)
        for at, reasons in refused.items():
            outcome.refused[batch.places[at]] = tuple(reasons)
        for at, why in skipped.items():
            outcome.skipped[batch.places[at]] = why

    def _judged(self, judge: Judge, batch: Batch, refused: Refused) -> dict[int, Reason]:
        """Ask the rules; where one of them cannot be asked, all are left to the net."""
        if self._net:
            return {}
        found: Refused = {at: list(reasons) for at, reasons in refused.items()}
        try:
            with self._job.savepoint():
                skipped = judge.judge(batch, found)
        except DBAPIError as error:
            self._judge_error(error)
            self._net = True
            self._job.report.why.append("a rule failed where it was asked beforehand: rows are tried instead")
            return {}
        refused.update(found)
        return skipped

    def _insert(
        self, stage: Stage, batch: Batch, refused: Refused, skipped: dict[int, Reason], outcome: Outcome
    ) -> None:
        out = refused.keys() | skipped.keys()
        good = len(batch.rows) - len(out)
        if not good:
            return
        insert = self._insertion(stage)
        if not self._net and self._job.on_conflict != "update" and self._inserted(stage, insert, out, good):
            outcome.loaded += good
            return
        if out:
            stage.run(f"DELETE FROM {stage.name} WHERE {NUMBER} = ANY({_array(out)})")
        caught = net.run(stage, insert, len(batch.rows) - 1, self._job.capabilities.fault)
        outcome.loaded += caught.loaded
        outcome.updated += caught.updated
        for at, why in caught.refused.items():
            self._caught(at, why, refused, skipped)

    def _caught(self, at: int, why: Reason, refused: Refused, skipped: dict[int, Reason]) -> None:
        key = {column.name for column in self._job.key}
        if self._job.on_conflict == "skip" and why.kind == Fault.UNIQUE.value:
            unique = next((one for one in self._rules.uniques if one.name == why.constraint), None)
            if not key or (unique is not None and set(unique.columns) == key):
                skipped[at] = why
                return
        refused[at] = [why]

    def _inserted(self, stage: Stage, insert: str, out: set[int], good: int) -> bool:
        """All at once, as the checks have foreseen; the net is there for what they have not."""
        where = f"NOT {NUMBER} = ANY({_array(out)})" if out else "true"
        # in no order but that of the scan: rows that were judged do not depend on each other any more
        all_at_once = insert.format(where=where).rpartition(f" ORDER BY {NUMBER}")[0]
        try:
            with self._job.savepoint():
                if stage.run(all_at_once).rowcount != good:
                    raise _Vanished
        except _Vanished:
            return False
        except DBAPIError as error:
            self._judge_error(error)
            return False
        return True

    def _insertion(self, stage: Stage) -> str:
        """INSERT ... SELECT from the stage, in order; braces of names are doubled, since it is a format."""
        more = {name: sql for name, sql in self._defaults.items() if name not in stage.columns}
        names = (
            ", ".join([stage.names, *map(self._quote, more)]) if stage.columns else ", ".join(map(self._quote, more))
        )
        values = ", ".join([*([stage.names] if stage.columns else []), *more.values()])
        conflict = self._on_conflict(stage)
        fresh = "(xmax = 0) AS fresh" if conflict else "true AS fresh"
        target = f"{self._table} ({names})" if names else self._table
        insert = f"INSERT INTO {target} SELECT {values} FROM {stage.name}".replace("{", "{{").replace("}", "}}")
        tail = f"{conflict} RETURNING {fresh}".replace("{", "{{").replace("}", "}}")
        return f"{insert} WHERE {{where}} ORDER BY {NUMBER} {tail}"

    def _on_conflict(self, stage: Stage) -> str:
        if self._job.on_conflict != "update":
            return ""
        key = [column.name for column in self._job.key]
        rest = [name for name in stage.columns if name not in key] or key[:1]
        sets = ", ".join(f"{self._quote(name)} = excluded.{self._quote(name)}" for name in rest)
        return f"ON CONFLICT ({', '.join(map(self._quote, key))}) DO UPDATE SET {sets}"


def _line(error: BaseException | None, table: str) -> int | None:
    """The index of the row that COPY's error names, which a foreign key's does not. The words may be translated."""
    context = getattr(getattr(error, "diag", None), "context", None) or getattr(error, "context", None) or ""
    for line in context.splitlines():
        if line.startswith(f"COPY {table}") and (found := re.search(r"\d+", line[len(f"COPY {table}") :])):
            return int(found[0]) - 1
    return None


def _array(numbers: set[int]) -> str:
    return f"'{{{','.join(map(str, sorted(numbers)))}}}'::integer[]"


def _is_sql(column: Any) -> bool:
    return column.default is not None and not (column.default.is_scalar or column.default.is_callable)


def _sql(job: Job, column: Any) -> str:
    """A default of SQLAlchemy's as SQL."""
    default = column.default
    dialect = job.connection.dialect
    if isinstance(default, SqlSequence):
        return f"nextval('{dialect.identifier_preparer.format_sequence(default)}')"
    return str(default.arg.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
