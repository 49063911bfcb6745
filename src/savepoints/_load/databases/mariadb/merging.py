"""Duplicates by the key are updated: what is sent for a row that may be one."""

from __future__ import annotations

from collections.abc import Sequence

from savepoints._load.algorithm import Job
from savepoints._load.databases.mariadb.literals import NULL, Cells, Literals
from savepoints._load.databases.mariadb.sending import COPIES, SPARE, Into, Sender
from savepoints._load.intake import Batch
from savepoints._load.statements import Statement, finding, overwriting

# Note [Not ON DUPLICATE KEY UPDATE]
# That statement updates the row of any unique key, not of the one that was asked for, and judges a row as an INSERT
# before it looks: a row that tells only some columns would be refused for the others. So the server looks a row up by
# its key, and updates or inserts it: in their order, many rows in one compound statement.


class Merging:
    """Writes what is sent for rows of one batch.

    Args:
        job: The load; its key tells what is the same row.
        into: Where rows go.
        sender: Asks the server about a row that is too long to be sent in copies.
        literals: Writes the values that stand in statements.
        batch: The rows.
        cells: The same, written, by columns; behind them those for updates alone.
        lines: The same, written.
    """

    def __init__(
        self, job: Job, into: Into, sender: Sender, literals: Literals, batch: Batch, cells: Cells, lines: list[str]
    ) -> None:
        self._into = into
        self._sender = sender
        self._lines = lines
        self._rows = list(zip(*cells, strict=True))
        dialect = job.connection.dialect
        told = set(job.key) <= set(batch.columns)
        self._key = [batch.columns.index(column) for column in job.key] if told else []
        update = overwriting(job.table, batch, job.key, dialect) if told else None
        self._update = None if update is None else update.written(literals.one)
        self._find = finding(job.table, batch.columns, job.key, dialect) if told else None

    def alone(self, at: int) -> str:
        """The statement for a row whose key may be there."""
        insert, row = self._into.sql + self._lines[at], self._rows[at]
        if self._find is None or any(row[place] == NULL for place in self._key):
            return insert
        update = "" if self._update is None else f"{_written(self._update, row)};"
        there = f"SET @savepoints_there = CONCAT(@savepoints_there, '{at},')"
        look = f"{_written(self._find, row)} LOCK IN SHARE MODE"  # what is there now, whatever the transaction sees
        if COPIES * len(insert.encode(errors="surrogateescape")) + SPARE > self._sender.most:
            # it is the first of its statement, so that all before it are there
            return f"{there}; {update} SET alone = TRUE" if self._sender.ask(look) else insert
        return f"IF EXISTS ({look}) THEN {there}; {update} ELSE {insert}; END IF"


def _written(statement: Statement, row: Sequence[str]) -> str:
    """A statement with its values, as the driver would put them in."""
    sql: str = statement.sql % statement.one(row)
    return sql
