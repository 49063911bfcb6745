"""Rows by the stage: filled, judged, and inserted as a whole; where that fails, tried one by one by the net."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Column as AnyColumn
from sqlalchemy import Sequence as SqlSequence
from sqlalchemy.exc import DBAPIError

from savepoints._databases import Fault, Kind
from savepoints._load.algorithm import Job, Outcome
from savepoints._load.databases.postgresql import net
from savepoints._load.databases.postgresql.altered import Losses
from savepoints._load.databases.postgresql.catalog import Column, Rules
from savepoints._load.databases.postgresql.copying import Destination, Driver, copy_in
from savepoints._load.databases.postgresql.sql import literal, plain, qualified, quote, table_name
from savepoints._load.databases.postgresql.stage import NUMBER, Stage
from savepoints._load.databases.postgresql.text import Writer, Written, apart, unwritten, written
from savepoints._load.databases.postgresql.verdict import Judge, Refused, Verdict
from savepoints._load.fields import by_expression
from savepoints._load.intake import Batch, Columns
from savepoints._load.reasons import Reason, reason


class Vanished(Exception):
    """Fewer rows went in than were sent: something left one out without an error."""


def judge_error(job: Job, error: DBAPIError) -> Fault:
    """Whose fault it is; an error that is no row's passes."""
    fault = job.capabilities.fault(error.orig or error)
    if fault is None or error.connection_invalidated:
        raise error
    return fault


class Staging:
    """Loads batches by stages, one for each set of columns.

    Args:
        job: The load.
        driver: How rows are copied.
        rules: The table's.
        writer: Writes values as text.
    """

    def __init__(self, job: Job, driver: Driver, rules: Rules, writer: Writer) -> None:
        self._job = job
        self._driver = driver
        self._rules = rules
        self._writer = writer
        self._table = table_name(job.table)
        self._losses = Losses(job.connection, rules.columns, writer)
        self._stages: dict[tuple[Columns, int], tuple[Stage, Judge]] = {}
        self._tried = rules.triggered or rules.looks_around is not None  # no rule can be asked beforehand
        #: Defaults that are SQL, by their columns.
        self.defaults = {one.name: _sql(job, one.default) for one in job.table.columns if by_expression(one.default)}
        #: The same of `onupdate`.
        self._on_update = {
            one.name: _sql(job, one.onupdate) for one in job.table.columns if by_expression(one.onupdate)
        }
        #: Beside each column, one of the stage for what Python gives to updated rows.
        self._changed = {one: AnyColumn(f"{one.name[:40]} (onupdate)", one.type) for one in job.table.columns}
        #: COPY into the table comes to the same as an INSERT.
        self.copied = rules.copied and not self.defaults

    def drop(self) -> None:
        """Leave nothing behind."""
        for stage, _ in self._stages.values():
            stage.drop()

    def _stage(self, batch: Batch) -> tuple[Stage, Judge]:
        found = self._stages.get((batch.columns, batch.filled))
        if found is None:
            names = tuple(column.name for column in batch.columns)
            rules = replace(self._rules, columns={**self._rules.columns, **self._changing()})
            stage = Stage(self._job.connection, self._driver, rules, names, self._writer)
            updates = self._job.on_conflict == "update"
            given = [column.name for column in (batch.given if updates else batch.columns)]
            key = tuple(column.name for column in self._job.key)
            skips = key if self._job.on_conflict == "skip" else None
            judge = Judge(self._rules, self._table, stage, given, skips, updates=updates)
            found = self._stages[batch.columns, batch.filled] = stage, judge
            if not self._tried:
                self._job.report.checks.update(dict.fromkeys(judge.predicted, "predicted"))
        return found

    def _changing(self) -> dict[str, Column]:
        """The columns of the stage for what Python gives to updated rows: they stand beside those for new ones."""
        columns = self._rules.columns
        known = ((one.name, to.name) for one, to in self._changed.items() if one.name in columns)
        return {to: replace(columns[name], name=to, not_null=False) for name, to in known}

    def _widened(self, batch: Batch) -> Batch:
        """With these columns at the end of the rows."""
        if not batch.changing:
            return batch
        columns = (*batch.columns, *(self._changed[column] for column in batch.changing))
        rows = [batch.changed(at) for at in range(len(batch.rows))]
        filled = batch.filled + len(batch.changing)
        return Batch(columns, rows, batch.places, batch.numbering, filled)

    def load(self, batch: Batch, outcome: Outcome) -> None:
        """Put rows into the table, in their order."""
        batch = self._widened(batch)
        lines = written(self._writer, batch)
        batch = lines.batch
        self.refuse(lines.rest, lines.refused, outcome)
        if not batch.rows:
            return
        stage, judge = self._stage(batch)
        try:
            with self._job.savepoint():
                unfit = {at: list(reasons) for at, reasons in stage.fill(batch, lines.numbered()).items()}
        except DBAPIError as error:  # a type that cannot say which row it was: an encoding, an extension's
            self._halve(batch, judge_error(self._job, error), error, outcome)
            return
        verdict = self._inserted(stage, judge, lines, unfit, outcome)
        for at, reasons in verdict.refused.items():
            outcome.refused[batch.places[at]] = tuple(reasons)
        for at, why in verdict.skipped.items():
            outcome.skipped[batch.places[at]] = why

    def kept(self, batch: Batch, outcome: Outcome) -> Batch:
        """The rows without those that hold a value which its column would alter; these are entered as refused."""
        lost = self._losses.of(batch)
        if not lost:
            return batch
        for number, places in lost.items():
            for _, place in self._writer.unwritable([batch.rows[number]]):
                places[place] = unwritten(batch, number, place)
        whole, rest, refused = apart(batch, lost)
        self.refuse(rest, refused, outcome)
        return whole

    def refuse(self, rest: Batch, refused: Refused, outcome: Outcome) -> None:
        """Enter rows that cannot be sent, with what else is wrong with them."""
        if not rest.rows:
            return
        stage, _ = self._stage(rest)
        told = stage.told(rest, range(len(rest.rows)))
        for at, reasons in refused.items():
            known = {one.column for one in reasons}
            others = [one for one in told[at] if one.column is not None and one.column not in known]
            outcome.refused[rest.places[at]] = (*reasons, *others)

    def _halve(self, batch: Batch, fault: Fault, error: DBAPIError, outcome: Outcome) -> None:
        if len(batch.rows) == 1:
            code = self._job.capabilities.code(error.orig or error)
            outcome.refused[batch.places[0]] = (reason(fault, code=code, detail=str(error.orig)),)
            return
        middle = len(batch.rows) // 2
        self.load(batch.part(0, middle), outcome)
        self.load(batch.part(middle, len(batch.rows)), outcome)

    def _inserted(self, stage: Stage, judge: Judge, lines: Written, unfit: Refused, outcome: Outcome) -> Verdict:
        """Insert all that the rules let in; if that fails, only what holds in any case is believed of them."""
        batch = lines.batch
        alone, all_known = self._judged(judge, batch, unfit)
        if all_known is not None and self._at_once(stage, lines, all_known.out()):
            outcome.loaded += len(batch.rows) - len(all_known.out())
            return all_known
        suspects = all_known.out() - alone.out() if all_known is not None else set()
        return self._by_net(stage, batch, alone, suspects, outcome)

    def _judged(self, judge: Judge, batch: Batch, unfit: Refused) -> tuple[Verdict, Verdict | None]:
        """What is known of each row alone, and of all in their order; nothing if a rule cannot be asked."""
        nothing = Verdict(unfit).copy()
        if self._tried:
            return nothing, None
        try:
            with self._job.savepoint():
                alone = judge.alone(batch, unfit)
                in_order = self._job.on_conflict != "update" and judge.foresees_order
                return alone, judge.in_order(batch, unfit, alone) if in_order else None
        except DBAPIError as error:
            if self._job.capabilities.kind(error.orig or error) is not Kind.PROGRAMMING:
                judge_error(self._job, error)
            self._tried = True
            self._job.report.why.append("a rule failed where it was asked beforehand: rows are tried instead")
            return nothing, None

    def _at_once(self, stage: Stage, lines: Written, out: Collection[int]) -> bool:
        """All at once, as the checks have foreseen; the net is there for what they have not."""
        good = len(lines.batch.rows) - len(out)
        if not good:
            return True
        try:
            again = self.copied and lines.batch.columns  # COPY knows no rows without any
            with self._job.savepoint():
                if (self._sent_again(lines, out) if again else self._selected(stage, out)) != good:
                    raise Vanished
        except Vanished:
            return False
        except DBAPIError as error:
            judge_error(self._job, error)
            return False
        return True

    def _sent_again(self, lines: Written, out: Collection[int]) -> int:
        """COPY is cheaper than INSERT ... SELECT by more than it costs to send and read the lines a second time."""
        table = self._job.table
        to = Destination(table.schema, table.name, tuple(column.name for column in lines.batch.columns))
        return copy_in(self._job.connection, self._driver, to, lines.without(out))

    def _selected(self, stage: Stage, out: Collection[int]) -> int:
        """In no order but that of the scan: rows that were judged do not depend on each other any more."""
        where = f"NOT {NUMBER} = ANY({_array(out)})" if out else "true"
        return int(stage.run(self._insertion(stage).format(where=where)).rowcount)

    # -- the net

    def _by_net(
        self, stage: Stage, batch: Batch, known: Verdict, suspects: Collection[int], outcome: Outcome
    ) -> Verdict:
        out = known.out()
        if len(out) == len(batch.rows):
            return known
        if out:
            stage.run(f"DELETE FROM {stage.name} WHERE {NUMBER} = ANY({_array(out)})")
        one_by_one = bool(self._rules.looks_around or self._rules.own_keys)
        work = f"done AS ({self._insertion(stage)} ORDER BY {NUMBER} RETURNING true AS fresh)"
        if self._job.on_conflict == "update":
            one_by_one = one_by_one or not self._merges(stage, batch)
            work = self._overwriting(stage, batch) if one_by_one else self._merging(stage)
        fault, block = self._job.capabilities.fault, 1 if one_by_one else net.BLOCK
        last = len(batch.rows) - 1
        policed = self._rules.policed
        caught = net.run(stage, work, last, fault, block=block, suspects=sorted(suspects), policed=policed)
        refused = next((at for at, why in caught.refused.items() if why.code == net.POLICY), None)
        if refused is not None:
            self._try_alone(stage, work, refused)
        outcome.loaded += caught.loaded
        outcome.updated += caught.updated
        for at, why in caught.refused.items():
            if self._skips(why):
                known.skipped[at] = why
            else:
                known.refused[at] = [why]
        return known

    def _try_alone(self, stage: Stage, work: str, at: int) -> None:
        """What seems to be a policy's refusal may be a right that is missing in a trigger: only the client can tell."""
        where = f"{NUMBER} = {at}"
        try:
            with self._job.savepoint():
                stage.run(f"WITH {work.format(where=where)} SELECT count(*) FROM done")
                raise Vanished
        except Vanished:
            return
        except DBAPIError as error:
            judge_error(self._job, error)

    def _skips(self, why: Reason) -> bool:
        if self._job.on_conflict != "skip" or why.kind != Fault.UNIQUE.value:
            return False
        key = {column.name for column in self._job.key}
        unique = next((one for one in self._rules.uniques if one.name == why.constraint), None)
        return not key or (unique is not None and set(unique.columns) == key)

    # -- statements; braces of names are doubled, since they are formats

    def _insertion(self, stage: Stage, where: str = "{where}") -> str:
        """INSERT ... SELECT from the stage."""
        columns = [name for name in stage.columns if name in self._rules.columns]
        more = {name: sql for name, sql in self.defaults.items() if name not in columns}
        names = ", ".join([*map(quote, columns), *map(quote, more)])
        values = ", ".join([*map(quote, columns), *more.values()])
        target = f"{self._table} ({names})" if names else self._table
        return f"{_no_format(f'INSERT INTO {target} SELECT {values} FROM {stage.name}')} WHERE {where}"

    def _merges(self, stage: Stage, batch: Batch) -> bool:
        """Whether ON CONFLICT comes to the same as looking for the row, and then an UPDATE or an INSERT of it.

        It looks at NULLs and checks of the new row, and at its trigger, before it finds the old one: all columns must
        be given. And what is looked at when a whole statement is done must not change by an update.
        """
        rules, key = self._rules, {column.name for column in self._job.key}
        whole = not batch.filled and set(stage.columns) >= rules.columns.keys() - rules.generated
        known = any(set(one.columns) == key for one in rules.uniques) and all(one.at_once for one in rules.uniques)
        return whole and known and not rules.triggered and not rules.left and rules.referred <= key

    def _merging(self, stage: Stage) -> str:
        key = [column.name for column in self._job.key]
        rest = [name for name in stage.columns if name not in key] or key[:1]
        sets = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in rest)
        conflict = _no_format(f"ON CONFLICT ({', '.join(map(quote, key))}) DO UPDATE SET {sets}")
        return f"done AS ({self._insertion(stage)} ORDER BY {NUMBER} {conflict} RETURNING (xmax = 0) AS fresh)"

    def _overwriting(self, stage: Stage, batch: Batch) -> str:
        key, given = [column.name for column in self._job.key], [column.name for column in batch.given]
        if not set(key) <= set(given):
            return f"done AS ({self._insertion(stage)} RETURNING true AS fresh)"
        rest = [name for name in given if name not in key]
        sets = [f"{quote(name)} = s.{quote(name)}" for name in rest or key[:1]]
        if rest:
            sets += [f"{quote(name)} = {sql}" for name, sql in self._on_update.items() if name not in given]
            changed = ((one.name, to.name) for one, to in self._changed.items() if to.name in stage.columns)
            sets += [f"{quote(name)} = s.{quote(to)}" for name, to in changed]
        same = " AND ".join(f"{self._table}.{quote(name)} = s.{quote(name)}" for name in key)
        # by its own name: an `onupdate` may ask for what was there
        update = _no_format(f"UPDATE {self._table} SET {', '.join(sets)} FROM {stage.name} s WHERE {same}")
        insert = self._insertion(stage, "{where} AND NOT EXISTS (SELECT FROM changed)")
        return (
            f"changed AS ({update} AND {{where}} RETURNING 1), added AS ({insert} RETURNING 1),"
            " done AS (SELECT false AS fresh WHERE EXISTS (SELECT FROM changed) UNION ALL SELECT true FROM added)"
        )


def _no_format(sql: str) -> str:
    return sql.replace("{", "{{").replace("}", "}}")


def _array(numbers: Collection[int]) -> str:
    return f"'{{{','.join(map(str, sorted(numbers)))}}}'::integer[]"


def _sql(job: Job, default: Any) -> str:
    """A default of SQLAlchemy's as SQL."""
    if isinstance(default, SqlSequence):
        return f"nextval({literal(qualified(default.schema, default.name))})"
    dialect = job.connection.dialect
    return plain(str(default.arg.compile(dialect=dialect, compile_kwargs={"literal_binds": True})), dialect)
