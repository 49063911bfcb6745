"""MariaDB: INSERTs of many rows, cut at the row that the server names; rows that look bad stand alone.

A refused statement undoes itself alone here (InnoDB), so no savepoint is needed around it. The server refuses each bad
row itself, in its place among the others: what is foreseen only tells where to cut.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy import Sequence as SqlSequence

from savepoints._core import past
from savepoints._core.dialects import driver_connection
from savepoints._databases import Fault, mariadb_faults
from savepoints._load.algorithm import Algorithm, Job, Outcome
from savepoints._load.bisect import Bisection
from savepoints._load.databases.mariadb import session
from savepoints._load.databases.mariadb.examine import Examiner, Found
from savepoints._load.databases.mariadb.literals import Cells, Literals
from savepoints._load.databases.mariadb.merging import Merging
from savepoints._load.databases.mariadb.rules import ForeignKey, Rules, table_of
from savepoints._load.databases.mariadb.sending import AFTER, ROWS, SPARE, Into, Refusal, Sender
from savepoints._load.fields import by_expression
from savepoints._load.intake import Batch, Columns
from savepoints._load.reasons import Reason, reason
from savepoints._load.statements import wraps_values

#: The first version whose errors tell the number of the row.
ROW_NUMBER = (10, 7)
#: So many bad rows, and one more for so many rows, are an exception: then rows are looked at before they are sent.
FEW, IN = 3, 2000
#: Rows of the first batch, and of the next ones: each bad one among them costs all those behind it once more. Where
#: rows are looked at beforehand it does not, and more at once mean fewer questions.
FIRST, NEXT = 200, 1000


def algorithm(job: Job) -> Algorithm:
    """The fastest way that the version allows."""
    table = table_of(job.table)
    mode = session.prepare(job, table)
    version = job.connection.dialect.server_version_info or (0,)
    if "ORACLE" in mode:
        return Bisection(job, "compound statements have another form in the sql_mode ORACLE")
    if job.capabilities.database != "mariadb" or tuple(version[:2]) < ROW_NUMBER:
        return Bisection(job, "errors do not tell the number of a row here, as those of MariaDB do from 10.7 on")
    if wraps_values(job.table):
        return Bisection(job, "a type of the table puts SQL around its values")
    return Cutting(job, Rules(job.connection, job.table, table))


class Prepared:
    """What is needed for rows of some columns."""

    def __init__(self, job: Job, rules: Rules, sender: Sender, columns: Columns) -> None:
        defaults = {column.name: _sql(job, column) for column in job.table.columns if by_expression(column.default)}
        self.names = [column.name for column in columns]
        more = {name: sql for name, sql in defaults.items() if name not in self.names}
        into = ", ".join(map(rules.quote, (*self.names, *more)))
        self.into = Into(f"INSERT INTO {rules.table} ({into}) VALUES ", frozenset(self.names))
        self.tail = [*more.values()]
        self.examiner = Examiner(rules, self.names, sender.ask)

    def lines(self, cells: Cells, count: int) -> list[str]:
        """The rows, written."""
        rows = zip(*cells, strict=True) if cells else [()] * count
        if self.tail:
            more = tuple(self.tail)
            return [f"({','.join((*row, *more))})" for row in rows]
        return [f"({','.join(row)})" for row in rows]


class Cutting:
    """INSERTs of many rows, cut at those that are refused."""

    served = False

    def __init__(self, job: Job, rules: Rules) -> None:
        self._job = job
        connection = job.connection
        self._rules = rules
        most = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar() or 0)
        self._sender = Sender(connection, job.capabilities, job.table.name, most - 1000)
        driver = driver_connection(connection.dialect, connection.connection)
        self._literals = Literals(self._rules.columns, driver, connection.dialect)
        self._prepared: dict[Columns, Prepared] = {}
        self._key = tuple(column.name for column in job.key)
        self._on_update = any(column.onupdate is not None for column in job.table.columns)
        self._read = 0
        self._bad = 0
        self._wary = job.on_conflict != "reject"
        #: The names of the rules that have refused a row: these are asked beforehand.
        self._broken: set[str | None] = set(rules.uniques) if self._wary else set()
        self.rows = ROWS if self._wary else FIRST
        job.at_end.callback(self._forget)
        self._report()

    def _report(self) -> None:
        report, rules = self._job.report, self._rules
        report.algorithm = "multi-row INSERT, foreseen" if self._wary else "multi-row INSERT"
        report.why.append(
            "INSERTs of many rows, cut at the row that the server refuses: a refused statement undoes itself alone"
            if not self._wary
            else "rows are looked at before they are sent, for duplicates are not refused"
        )
        report.unchecked += rules.unchecked
        told = [f"not null {one.name}" for one in rules.columns.values() if one.not_null]
        told += [f"check {name}" for name in rules.checks]
        told += [f"foreign key {one.name}" for one in rules.foreign_keys]
        told += [f"unique {name}" for name in rules.uniques]
        report.checks.update(dict.fromkeys(told, "left to the database"))

    def _forget(self) -> None:
        connection = self._job.connection
        if self._sender.used and not connection.invalidated and not connection.closed:
            with suppress(Exception):
                past.send(connection.dialect, connection.connection, AFTER)

    def finish(self) -> None:
        """Nothing was made, and nothing is left for COMMIT."""

    def load(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        prepared = self._prepared.get(batch.columns)
        if prepared is None:
            prepared = self._prepared[batch.columns] = Prepared(self._job, self._rules, self._sender, batch.columns)
        batch, cells, lines = self._written(prepared, batch, outcome)
        if not lines:
            return outcome
        if self._job.on_conflict == "update":
            self._merge(prepared, batch, cells, lines, outcome)
        else:
            self._insert(prepared, batch, cells, lines, outcome)
        return outcome

    def _insert(self, prepared: Prepared, batch: Batch, cells: Cells, lines: list[str], outcome: Outcome) -> None:
        sure, suspects = self._foreseen(prepared, batch, cells) if self._wary else ({}, set())
        kept = [at for at in range(len(lines)) if at not in sure]
        if self._wary:
            suspects.update(prepared.examiner.twice(cells, kept))
        among = {at for at, place in enumerate(kept) if place in suspects}
        answers = self._sender.send(prepared.into, lines if not sure else [lines[at] for at in kept], among).refused
        outcome.loaded = len(kept) - len(answers)
        refused = {kept[at]: answer for at, answer in answers.items()}
        self._enter(prepared, batch, cells, refused, outcome)
        for at, reasons in sure.items():
            self._enter_one(batch, at, reasons, outcome)
        self._note(len(batch.rows), len(refused) + len(sure))

    def _foreseen(self, prepared: Prepared, batch: Batch, cells: Cells) -> tuple[Found, set[int]]:
        """Rows that would be refused for certain, and those that only seem so: the server is asked about these."""
        examiner = prepared.examiner
        suspects = examiner.suspects(cells, self._broken) | {at for at, _ in examiner.nulls(cells)}
        found = examiner.breaks(batch, cells, sorted(suspects))
        sure = {at: reasons for at, reasons in found.items() if self._is_sure(examiner, reasons)}
        return sure, suspects - sure.keys()

    def _is_sure(self, examiner: Examiner, reasons: list[Reason]) -> bool:
        kinds = {why.kind for why in reasons}
        if self._job.on_conflict == "skip" and (
            kinds == _DUPLICATE_AND_ORPHAN or (kinds == {_UNIQUE} and not examiner.all_known)
        ):
            return False  # what the server meets first tells whether it is skipped
        return any((why.kind, None if why.kind == _NOT_NULL else why.constraint) in examiner.sure for why in reasons)

    def _merge(self, prepared: Prepared, batch: Batch, cells: Cells, lines: list[str], outcome: Outcome) -> None:
        examiner, key = prepared.examiner, tuple(self._key)
        of_key = [name for name, columns in self._rules.uniques.items() if set(columns) == set(key)]
        suspects = examiner.suspects(cells, {*of_key, *self._broken}) | {at for at, _ in examiner.nulls(cells)}
        suspects |= {*examiner.twice_by(key, cells, range(len(lines)))}
        # what an INSERT would be refused for, an UPDATE with the same values is refused for, too; a key apart
        found = {} if batch.filled or self._on_update else examiner.breaks(batch, cells, sorted(suspects))
        others = {at: [why for why in reasons if why.kind != _UNIQUE] for at, reasons in found.items()}
        sure = {at: reasons for at, reasons in others.items() if self._is_sure(examiner, reasons)}
        changes, unfit = self._literals.write([column.name for column in batch.changing], batch.changes)
        sure |= {at: [*sure.get(at, ()), *reasons] for at, reasons in unfit.items()}
        kept = [at for at in range(len(lines)) if at not in sure]
        some, written = [lines[at] for at in kept], [[column[at] for at in kept] for column in (*cells, *changes)]
        among = {at for at, place in enumerate(kept) if place in suspects}
        merging = Merging(self._job, prepared.into, self._sender, self._literals, batch.only(kept), written, some)
        sent = self._sender.send(prepared.into, some, among, merging.alone)
        outcome.updated = len(sent.there)
        outcome.loaded = len(kept) - len(sent.there) - len(sent.refused)
        refused = {kept[at]: answer for at, answer in sent.refused.items()}
        self._enter(prepared, batch, cells, refused, outcome)
        for at, reasons in sure.items():
            self._enter_one(batch, at, reasons, outcome)

    def _written(self, prepared: Prepared, batch: Batch, outcome: Outcome) -> tuple[Batch, Cells, list[str]]:
        """The rows as SQL, without those that cannot be written, or would be altered, or are too long to be sent."""
        cells, unfit = self._literals.write(prepared.names, batch.rows)
        if unfit:
            for at, why in prepared.examiner.nulls(cells):
                if at in unfit and all(
                    one.column != why.column for one in unfit[at]
                ):  # such a value is written as NULL
                    unfit[at].append(why)
            batch, cells = self._without(batch, cells, unfit, outcome)
        lines = prepared.lines(cells, len(batch.rows))
        size = sum(map(len, lines))
        if size * 4 > self._sender.most:
            room = self._sender.most - len(prepared.into.sql.encode()) - SPARE
            why = reason(Fault.LENGTH, message="the row is longer than the server takes (max_allowed_packet)")
            long = {at: [why] for at, line in enumerate(lines) if len(line.encode(errors="surrogateescape")) > room}
            if long:
                batch, cells = self._without(batch, cells, long, outcome)
                lines = prepared.lines(cells, len(batch.rows))
        return batch, cells, lines

    def _without(
        self, batch: Batch, cells: Cells, out: dict[int, list[Reason]], outcome: Outcome
    ) -> tuple[Batch, Cells]:
        for at, reasons in out.items():
            outcome.refused[batch.places[at]] = tuple(reasons)
        kept = [at for at in range(len(batch.rows)) if at not in out]
        return batch.only(kept), [[column[at] for at in kept] for column in cells]

    def _note(self, read: int, bad: int) -> None:
        """Look at rows before they are sent when bad rows are no exception any more."""
        self._read += read
        self._bad += bad
        self.rows = NEXT
        if not self._wary and self._bad > FEW + self._read / IN:
            self._become_wary()
        if self._wary:
            self.rows = ROWS

    def _become_wary(self) -> None:
        self._wary = True
        self._job.report.algorithm = "multi-row INSERT, foreseen"
        self._job.report.why.append(
            f"from row {self._read:,} on rows are looked at before they are sent, and bad ones stand alone: "
            f"{self._bad:,} of the rows before were rejected ({self._bad / self._read:.2%})"
        )

    # -- reasons

    def _enter(
        self, prepared: Prepared, batch: Batch, cells: Cells, refused: dict[int, Refusal], outcome: Outcome
    ) -> None:
        """All reasons of the refused rows: the server's own first."""
        if not refused:
            return
        rows = sorted(refused)
        found: Found = {} if self._rules.triggered else prepared.examiner.breaks(batch, cells, rows)
        for at in rows:
            first = self._first(prepared, batch, at, refused, found.get(at, []))
            self._broken.add(first.constraint)
            others = [why for why in found.get(at, []) if not _same(why, first)]
            others = [why for why in others if why.kind != _UNIQUE or self._was_there(why, at, batch)]
            self._enter_one(batch, at, [first, *others], outcome)

    def _enter_one(self, batch: Batch, at: int, reasons: list[Reason], outcome: Outcome) -> None:
        if self._skips(reasons):
            outcome.skipped[batch.places[at]] = next(why for why in reasons if why.kind == _UNIQUE)
        else:
            outcome.refused[batch.places[at]] = tuple(reasons)

    def _first(
        self, prepared: Prepared, batch: Batch, at: int, refused: dict[int, Refusal], found: list[Reason]
    ) -> Reason:
        """The reason that the server gave, with what is found beside it."""
        refusal = refused[at]
        constraint, column = mariadb_faults.named(refusal.code, refusal.text)
        same = next((why for why in found if why.kind == refusal.fault.value and why.constraint == constraint), None)
        if refusal.fault is Fault.UNIQUE:
            there = None if same is None else same.collides_with
            return prepared.examiner.duplicate(constraint, there, detail=refusal.text)
        if refusal.fault is Fault.FOREIGN_KEY:
            key = next((one for one in self._rules.foreign_keys if one.name == constraint), None)
            if key is not None:
                because_of = _refused_parent(prepared, batch, at, key, refused) if key.own else None
                return prepared.examiner.orphan(batch, at, key, refusal.text, because_of)
        if refusal.code == mariadb_faults.NO_GEOMETRY:
            column = self._rules.geometry
        column = column if same is None else same.column
        return reason(refusal.fault, column, constraint, code=str(refusal.code), detail=refusal.text)

    def _was_there(self, why: Reason, at: int, batch: Batch) -> bool:
        """Whether what a row collides with, as the table is now, was there before it."""
        names = [column.name for column in batch.columns]
        if not isinstance(why.collides_with, dict) or not set(why.collides_with) <= set(names):
            return False  # nobody can tell
        key = [(names.index(name), str(value).lower()) for name, value in why.collides_with.items()]
        return not any(all(str(row[place]).lower() == value for place, value in key) for row in batch.rows[at + 1 :])

    def _skips(self, reasons: list[Reason]) -> bool:
        if self._job.on_conflict != "skip" or reasons[0].kind != _UNIQUE:
            return False
        key = set(self._key)
        return not key or any(why.kind == _UNIQUE and set((why.column or "").split(", ")) == key for why in reasons)


_NOT_NULL, _UNIQUE = Fault.NOT_NULL.value, Fault.UNIQUE.value
_DUPLICATE_AND_ORPHAN = {_UNIQUE, Fault.FOREIGN_KEY.value}


def _refused_parent(
    prepared: Prepared, batch: Batch, at: int, key: ForeignKey, refused: dict[int, Refusal]
) -> int | None:
    """The number of the row that would have been the parent, if it was refused before."""
    if not set(prepared.names) >= {*key.columns, *key.referred}:
        return None
    mine = [str(batch.rows[at][prepared.names.index(name)]).lower() for name in key.columns]
    places = [prepared.names.index(name) for name in key.referred]
    for other in sorted(refused):
        if other < at and [str(batch.rows[other][place]).lower() for place in places] == mine:
            return batch.number(other)
    return None


def _same(one: Reason, other: Reason) -> bool:
    return (one.kind, one.constraint, one.column) == (other.kind, other.constraint, other.column)


def _sql(job: Job, column: Any) -> str:
    """A default of SQLAlchemy's as SQL."""
    default = column.default
    dialect = job.connection.dialect
    if isinstance(default, SqlSequence):
        return f"nextval({dialect.identifier_preparer.format_sequence(default)})"
    sql = str(default.arg.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return sql.replace("%%", "%")  # it is sent without parameters, for which SQLAlchemy has doubled them
