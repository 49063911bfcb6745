"""The cautious algorithm: batches in savepoints, cut down to the bad row by halves. It takes any database."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError

from savepoints._databases import Fault
from savepoints._load.algorithm import Job, Outcome
from savepoints._load.intake import Batch, Columns, Row
from savepoints._load.reasons import Reason, reason
from savepoints._load.statements import Statement, finding, insertion, overwriting

#: So many rows in a row refused with one code that nobody has classified are not the rows' fault.
ALIKE = 20


class Bisection:
    """Tries a batch as a whole; where it fails, its halves, down to the one row.

    An error of one row alone is judged by the classifier of the database. Duplicates that are to be updated or skipped
    are looked for row by row.
    """

    served = False
    rows = 1000

    def __init__(self, job: Job, why: str = "there is no faster way for this database") -> None:
        self._job = job
        self._alike: tuple[str | None, int] = (None, 0)
        self._statements: dict[Columns, Statement] = {}
        job.report.algorithm = "bisection"
        job.report.why.append(why)

    def load(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        if not self._job.key:
            self._half(batch, 0, len(batch.rows), outcome)
        else:
            for at in range(len(batch.rows)):
                self._merge(batch, at, outcome)
        return outcome

    def finish(self) -> None:
        """Nothing was made."""

    def _half(self, batch: Batch, start: int, stop: int, outcome: Outcome) -> None:
        try:
            with self._job.savepoint():
                self._insert(batch, batch.rows[start:stop])
        except Exception as error:  # what the driver cannot bind is no error of the database's
            fault = self._judge(error, alone=stop - start == 1)
            if stop - start == 1:
                why = self._reason(fault, error)
                if fault is Fault.UNIQUE and self._job.on_conflict == "skip":
                    outcome.skipped[batch.places[start]] = why
                else:
                    outcome.refused[batch.places[start]] = (why,)
                return
            middle = (start + stop) // 2
            self._half(batch, start, middle, outcome)
            self._half(batch, middle, stop, outcome)
        else:
            outcome.loaded += stop - start

    def _insert(self, batch: Batch, rows: list[Row]) -> None:
        statement = self._statements.get(batch.columns)
        if statement is None:
            statement = insertion(self._job.table, batch.columns, self._job.connection.dialect)
            self._statements[batch.columns] = statement
        if len(rows) == 1:
            self._job.connection.exec_driver_sql(statement.sql, statement.one(rows[0]))
        else:
            self._job.connection.exec_driver_sql(statement.sql, list(map(self._whole, statement.parameters(rows))))

    @staticmethod
    def _whole(parameters: Any) -> Any:
        """SQLAlchemy takes tuples or dictionaries, no other sequences."""
        return parameters if isinstance(parameters, dict) else tuple(parameters)

    def _judge(self, error: Exception, *, alone: bool) -> Fault:
        """Whose fault it is; an error that is nobody's passes."""
        capabilities = self._job.capabilities
        cause = _cause(error)
        fault = capabilities.fault(cause) or capabilities.fault(error)
        if fault is None or (isinstance(error, DBAPIError) and error.connection_invalidated):
            raise error
        if alone and fault is Fault.OTHER:
            code = capabilities.code(cause)
            before, count = self._alike
            self._alike = (code, count + 1 if before == code else 1)
            if self._alike[1] >= ALIKE:
                raise error
        return fault

    def _reason(self, fault: Fault, error: Exception) -> Reason:
        cause = _cause(error)
        return reason(fault, code=self._job.capabilities.code(cause), detail=str(cause))

    # -- duplicates that are not refused

    def _merge(self, batch: Batch, at: int, outcome: Outcome) -> None:
        row = batch.rows[at]
        key = self._job.key
        try:
            with self._job.savepoint():
                found = self._found(batch.columns, key, row)
                if found is None:
                    self._insert(batch, [row])
                    outcome.loaded += 1
                elif self._job.on_conflict == "skip":
                    names = ", ".join(column.name for column in key)
                    outcome.skipped[batch.places[at]] = reason(Fault.UNIQUE, names, collides_with=found)
                else:
                    self._update(batch, key, at)
                    outcome.updated += 1
        except Exception as error:
            outcome.refused[batch.places[at]] = (self._reason(self._judge(error, alone=True), error),)

    def _found(self, columns: Columns, key: Columns, row: Row) -> dict[str, Any] | None:
        """The primary key of the row that is there already."""
        if any(column not in columns or row[columns.index(column)] is None for column in key):
            return None
        statement = finding(self._job.table, columns, key, self._job.connection.dialect)
        found = self._job.connection.exec_driver_sql(statement.sql, statement.one(row)).first()
        names = [column.name for column in self._job.table.primary_key.columns]
        return None if found is None else dict(zip(names, found, strict=False))

    def _update(self, batch: Batch, key: Columns, at: int) -> None:
        statement = overwriting(self._job.table, batch, key, self._job.connection.dialect)
        if statement is not None:
            self._job.connection.exec_driver_sql(statement.sql, statement.one(batch.changed(at)))


def _cause(error: Exception) -> BaseException:
    """The driver's own error."""
    return (isinstance(error, DBAPIError) and error.orig) or error
