"""SQLite: one ``executemany`` over the rows, resumed behind each row that was refused.

A refused statement undoes itself alone here, so no savepoint is needed around it ("Result Codes" of the manual).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import length_hint
from typing import Any

from savepoints import errors
from savepoints._core.dialects import driver_connection
from savepoints._core.raw import driver_work
from savepoints._databases import Aftermath, Fault
from savepoints._load.algorithm import Job, Outcome
from savepoints._load.databases.sqlite_affinity import Affinities
from savepoints._load.databases.sqlite_rules import CONSTRAINT, UNIQUE, Examiner, Rules
from savepoints._load.intake import Batch, Columns, Row
from savepoints._load.reasons import Reason, reason
from savepoints._load.statements import Statement, insertion, overwriting

#: Of so many refused rows all reasons are looked for; of further ones the first alone.
EXAMINED = 500


class _Orphaned(Exception):
    """A row must not stay."""

    def __init__(self, why: Reason) -> None:
        self.reason = why


def _left_out() -> Reason:
    return reason(Fault.TRIGGER, message="a trigger or an ON CONFLICT clause left the row out")


class OneStatement:
    """The same at every share of bad rows: there is nothing to switch between.

    Tables with triggers, with foreign keys that are checked at COMMIT only, and rows that may be updated are done row
    by row: a trigger can drop a row without a word, and a deferred key has to be looked up.
    """

    served = False
    rows = 5000

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connection = job.connection
        self._rules = Rules(job.connection, job.table)
        if self._is_view():
            raise errors.BadInput(
                f"{job.table.name} is a view: SQLite does not tell what its triggers make of a row",
                hint="load into the table behind it",
            )
        self._affinities = Affinities(self._rules.types)
        self._enforces = bool(self._first("PRAGMA foreign_keys")[0])
        self._deferred = [one for one in self._rules.foreign_keys if one.deferred] if self._enforces else []
        self._key = tuple(column.name for column in job.key)
        self._skips_by_key = job.on_conflict == "skip" and bool(self._key)
        self._leaves_out = self._has_triggers() or self._has_clauses()
        self._examined = 0
        self._of_columns: dict[Columns, tuple[Statement, Examiner]] = {}
        self._slow = self._leaves_out or bool(self._deferred) or job.on_conflict == "update"
        self._duplicates: list[tuple[int, Row, str, str | None]] = []
        self._judgements: dict[str, tuple[Fault, str | None]] = {}
        self._text = ""  # of the last error
        self._cursor: Any = None
        self._report()

    def _report(self) -> None:
        report = self._job.report
        report.algorithm = "row by row" if self._slow else "executemany, resumed"
        report.why.append(
            "one statement over all rows, resumed behind each refused one: a refused statement undoes itself alone"
            if not self._slow
            else f"each row by itself, for the table has {self._slow_because()}"
        )
        report.unchecked.append("column types: values are checked by the types of SQLAlchemy's columns instead")
        if not self._enforces and self._rules.foreign_keys:
            report.unchecked.append("foreign keys: PRAGMA foreign_keys is off on this connection")
        for fk in self._deferred:
            report.why.append(f"foreign key ({', '.join(fk.columns)}) is checked at COMMIT only: looked up before")
        rules = self._rules
        told = [*(f"not null {name}" for name in rules.not_null), *(f"check {name}" for name in rules.checks.values())]
        told += [f"unique ({', '.join(names)})" for names in rules.uniques]
        told += [f"foreign key ({', '.join(one.columns)})" for one in rules.foreign_keys if self._enforces]
        report.checks.update(dict.fromkeys(told, "left to the database"))

    def _slow_because(self) -> str:
        if self._leaves_out:
            return "triggers or ON CONFLICT clauses"
        return "deferred foreign keys" if self._deferred else "rows to be updated"

    def _is_view(self) -> bool:
        """Whether rows would only be given to INSTEAD OF triggers, whose changes no statement counts.

        Source: https://sqlite.org/c3ref/changes.html.
        """
        prefix = self._rules.prefix
        masters = [f"{prefix}sqlite_master"] if prefix else ["sqlite_temp_master", "main.sqlite_master"]
        sql = "SELECT type FROM {} WHERE type IN ('table', 'view') AND lower(name) = lower(?)"
        found = (self._first(sql.format(master), (self._job.table.name,)) for master in masters)
        return next(filter(None, found), ("table",))[0] == "view"

    def _has_triggers(self) -> bool:
        masters = [f"{self._rules.prefix}sqlite_master"] if self._rules.prefix else ["main.sqlite_master"]
        sql = " UNION ALL ".join(
            f"SELECT 1 FROM {master} WHERE type = 'trigger' AND lower(tbl_name) = lower(?)"
            for master in (*masters, "sqlite_temp_master")
        )
        return self._first(sql, (self._job.table.name,) * 2) is not None

    def _has_clauses(self) -> bool:
        """Constraints of SQLite's own that drop a row, or another one, in silence."""
        master = f"{self._rules.prefix or 'main.'}sqlite_master"
        found = self._first(f"SELECT sql FROM {master} WHERE lower(name) = lower(?)", (self._job.table.name,))
        return found is not None and "ON CONFLICT" in found[0].upper()

    def _first(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        return self._connection.exec_driver_sql(sql, parameters).first()

    def _prepared(self, columns: Columns) -> tuple[Statement, Examiner]:
        found = self._of_columns.get(columns)
        if found is None:
            statement = insertion(self._job.table, columns, self._connection.dialect)
            examiner = Examiner(self._rules, columns, self._ask, foreign_keys=self._enforces)
            found = statement, examiner
            self._of_columns[columns] = found
        return found

    def _ask(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._cursor.execute(sql, parameters)
        # to its end: a statement that is still being read makes each INSERT dearer
        found: list[Any] = self._cursor.fetchall()
        return found

    def load(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        altered = dict(self._affinities.altered(batch))
        if altered:
            outcome.refused.update((batch.places[at], (why,)) for at, why in altered.items())
            batch = batch.without(altered)
        with driver_work(self._connection, f"INSERT INTO {self._job.table.name}") as proxy:
            cursor, self._cursor = proxy.cursor(), proxy.cursor()
            try:
                (self._row_by_row if self._slow else self._resumed)(
                    driver_connection(self._connection.dialect, proxy), cursor, batch, outcome
                )
            finally:
                cursor.close()
                self._cursor.close()
        return outcome

    def finish(self) -> None:
        """Nothing was made, and nothing is left for COMMIT."""

    def _resumed(self, driver: Any, cursor: Any, batch: Batch, outcome: Outcome) -> None:
        statement, examiner = self._prepared(batch.columns)
        rows = statement.parameters(batch.rows)
        before = driver.total_changes
        # of a list: it goes on behind a row that the driver has raised for, and tells how many it has
        left = iter(rows)
        while True:
            try:
                cursor.executemany(statement.sql, left)
                break
            except Exception as error:
                at = len(rows) - length_hint(left) - 1
                self._refused(driver, batch.rows[at], batch.places[at], error, outcome, examiner)
        # counted by the database: triggers would be counted too, but there are none
        outcome.loaded = driver.total_changes - before
        self._enter_duplicates(outcome, examiner)

    def _row_by_row(self, driver: Any, cursor: Any, batch: Batch, outcome: Outcome) -> None:
        statement, examiner = self._prepared(batch.columns)
        rows = statement.parameters(batch.rows)
        updates = self._job.on_conflict == "update"
        update = overwriting(self._job.table, batch, self._job.key, self._connection.dialect) if updates else None
        given = {column.name for column in batch.given}  # an update leaves the others as they were
        referring = [one for one in self._deferred if given.issuperset(one.columns)]
        for at, (place, row) in enumerate(zip(batch.places, batch.rows, strict=True)):
            try:
                if updates and examiner.collision(row, self._key) is not None:
                    refused = next(examiner.orphaned(row, referring), None)
                    if refused is None and update is not None:
                        cursor.execute(update.sql, update.one(batch.changed(at)))
                    outcome.updated += refused is None
                else:
                    refused = self._one_more(cursor, statement.sql, rows[at], row, examiner)
                    outcome.loaded += refused is None
            except Exception as error:
                self._refused(driver, row, place, error, outcome, examiner)
            else:
                if refused is not None:
                    outcome.refused[place] = self._all_reasons(row, refused, examiner)

    def _one_more(self, cursor: Any, sql: str, parameters: Any, row: Row, examiner: Examiner) -> Reason | None:
        """Insert a row; why not, if SQLite itself would not say so now."""
        if self._deferred and examiner.counted(row, self._deferred):
            return self._and_look(cursor, sql, parameters, examiner)
        orphaned = next(examiner.orphaned(row, self._deferred), None)
        if orphaned is not None:
            # a duplicate is one before its parent is looked for
            return self._and_look(cursor, sql, parameters, examiner) if self._job.on_conflict == "skip" else orphaned
        cursor.execute(sql, parameters)
        return None if cursor.rowcount else _left_out()

    def _and_look(self, cursor: Any, sql: str, parameters: Any, examiner: Examiner) -> Reason | None:
        """Whether a row has its parents is known when its key has been counted."""
        try:
            with self._job.savepoint():
                cursor.execute(sql, parameters)
                if not cursor.rowcount:
                    raise _Orphaned(_left_out())
                for orphaned in examiner.orphaned_as_stored(cursor.lastrowid, self._deferred):
                    raise _Orphaned(orphaned)
        except _Orphaned as found:
            return found.reason
        return None

    def _refused(
        self, driver: Any, row: Row, place: int, error: Exception, outcome: Outcome, examiner: Examiner
    ) -> None:
        """Enter a refused row; an error that is not its fault passes, and so does one that ended the transaction."""
        if self._job.capabilities.standing(driver) is Aftermath.LOST:
            raise error
        text = str(error)
        again, self._text = text == self._text, text
        if again or CONSTRAINT not in text:
            # the driver may tell the error of the statement before in place of its own
            unfit = next(examiner.unbound(row), None)
            if unfit is not None:
                self._enter(row, place, unfit, outcome, examiner)
                return
        known = examiner.same.get(text)
        if known is not None and self._examined >= EXAMINED:
            outcome.refused[place] = known
            return
        fault, code = self._judged(error, text)
        if fault is Fault.UNIQUE and self._skips_by_key and (found := examiner.duplicate(row, self._key)) is not None:
            outcome.skipped[place] = found  # also where SQLite has met another key first
        elif fault is Fault.UNIQUE and not self._slow:
            self._duplicates.append((place, row, text, code))
        else:
            self._enter(row, place, examiner.first(row, fault, text, code), outcome, examiner)

    def _judged(self, error: Exception, text: str) -> tuple[Fault, str | None]:
        """What is wrong, and its code; what is no row's fault passes. Of SQLite's own constraints the text tells it."""
        found = None if self._leaves_out else self._judgements.get(text)
        if found is None:
            capabilities = self._job.capabilities
            fault = capabilities.fault(error)
            if fault is None:
                raise error
            found = fault, capabilities.code(error)
            if CONSTRAINT in text:
                self._judgements[text] = found
        return found

    def _enter(self, row: Row, place: int, first: Reason, outcome: Outcome, examiner: Examiner) -> None:
        if self._job.on_conflict == "skip" and first.kind == UNIQUE and not self._key:
            outcome.skipped[place] = first
        else:
            outcome.refused[place] = self._all_reasons(row, first, examiner)

    def _enter_duplicates(self, outcome: Outcome, examiner: Examiner) -> None:
        """What they collide with is looked for of many at once."""
        found, self._duplicates = self._duplicates, []
        told = [one[1:] for one in found]
        for (place, row, *_), first in zip(found, examiner.duplicates(told), strict=True):
            self._enter(row, place, first, outcome, examiner)

    def _all_reasons(self, row: Row, first: Reason, examiner: Examiner) -> tuple[Reason, ...]:
        self._examined += 1
        if self._examined > EXAMINED:
            if self._examined == EXAMINED + 1:
                self._job.report.why.append(
                    f"all reasons are told of the first {EXAMINED} rows that SQLite refused, of further ones the first"
                )
            return (first,)
        return (first, *examiner.others(row, first))
