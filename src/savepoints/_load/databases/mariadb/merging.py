"""Duplicates by the key are updated: rows whose key is there one by one, and those between them at once."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.exc import DBAPIError

from savepoints._load.algorithm import Job, Outcome
from savepoints._load.databases.mariadb.sending import Refusal, Sender
from savepoints._load.intake import Batch, Row
from savepoints._load.statements import Statement, finding, overwriting


class Merging:
    """Puts the rows of one batch in.

    Args:
        job: The load; its key tells what is the same row.
        sender: Sends rows.
        head: INSERT INTO ... VALUES.
        batch: The rows.
        lines: The same, written.
    """

    def __init__(self, job: Job, sender: Sender, head: str, batch: Batch, lines: list[str]) -> None:
        self._sender = sender
        self._head = head
        self._batch = batch
        self._lines = lines
        dialect = job.connection.dialect
        told = set(job.key) <= set(batch.columns)
        self._key = [batch.columns.index(column) for column in job.key] if told else []
        self._update = overwriting(job.table, batch, job.key, dialect) if told else None
        self._find = finding(job.table, batch.columns, job.key, dialect) if told else None

    def run(self, suspects: set[int], left_out: Collection[int], outcome: Outcome) -> dict[int, Refusal]:
        """Those that were refused, by index.

        Args:
            suspects: Rows whose key is likely to be there, or that may be refused. More may be found.
            left_out: Those of them that are refused already.
            outcome: Gets what was loaded and updated.
        """
        refused: dict[int, Refusal] = {}
        at, count = 0, len(self._lines)
        while at < count:
            stop = next((one for one in range(at, count) if one in suspects), count)
            if at in left_out:
                at += 1
                continue
            if stop > at:
                at = self._insert(at, stop, suspects, outcome)
                continue
            why = self._merge(at, outcome)
            if why is not None:
                refused[at] = why
            at += 1
        return refused

    def _insert(self, at: int, stop: int, suspects: set[int], outcome: Outcome) -> int:
        """Rows whose key is not there, as far as can be told; the first that is refused is looked at by itself."""
        done, bad = self._sender.first_refused(self._head, self._lines[at:stop])
        outcome.loaded += done
        if bad is not None:
            suspects.add(at + bad)
        return at + done

    def _merge(self, at: int, outcome: Outcome) -> Refusal | None:
        row = self._batch.rows[at]
        try:
            if self._find is not None and self._is_there(self._find, row):
                if self._update is not None:
                    self._sender.ask(self._update.sql, self._update.one(self._batch.changed(at)))
                outcome.updated += 1
                return None
        except DBAPIError as error:
            return self._sender.refusal(error)
        refused = self._sender.send(self._head, [self._lines[at]], set())
        outcome.loaded += not refused
        return refused.get(0)

    def _is_there(self, find: Statement, row: Row) -> bool:
        if any(row[at] is None for at in self._key):
            return False
        return bool(self._sender.ask(find.sql, find.one(row)))
