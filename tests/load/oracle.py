"""The slow way, on the real database: each row by itself, in a savepoint of its own, failures left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, exists, insert, literal, select, update
from sqlalchemy.exc import SQLAlchemyError

from savepoints._databases import Fault, capabilities
from tests.load.cases import FITTING, KINDS, PAIRS, PARENTS, Case, Row, Schema


@dataclass
class Found:
    """What became of the rows.

    Attributes:
        refused: The kind of the first error of each refused row, by its number; None where the error tells none.
    """

    loaded: int = 0
    updated: int = 0
    skipped: list[int] = field(default_factory=list)
    refused: dict[int, str | None] = field(default_factory=dict)
    table: Counter[tuple[Any, ...]] = field(default_factory=Counter)


class Misfit(Exception):
    """A value does not belong into its column, and this database would take it."""


class Slow:
    """Loads row by row, by statements of its own.

    Args:
        connection: In autocommit mode; BEGIN and SAVEPOINT are sent as they stand here.
        untyped: The database puts any value into any column.
    """

    def __init__(self, connection: Connection, case: Case, *, untyped: bool) -> None:
        self._connection = connection
        self._case = case
        self._untyped = untyped
        self._fault = capabilities(connection.dialect).fault
        self.metadata, self.table = case.schema.tables()

    def prepare(self) -> None:
        """The tables, their parents, and the rows that were there before."""
        self.metadata.create_all(self._connection, checkfirst=False)
        owners, pairs = self.metadata.tables["owner"], self.metadata.tables["pair"]
        self._connection.execute(owners.insert(), [{"id": number} for number in PARENTS])
        self._connection.execute(pairs.insert(), [{"x": x, "y": y} for x, y in PAIRS])
        self._send("BEGIN")
        for row in self._case.before:
            self._row(row, Found(), 0, "reject")
        self._send("COMMIT")

    def drop(self) -> None:
        self.metadata.drop_all(self._connection)

    def load(self) -> Found:
        """Load, look, and undo it all."""
        found = Found()
        self._send("BEGIN")
        try:
            for number, row in enumerate(self._case.input()):
                self._row(row, found, number, self._case.on_conflict)
            found.table = contents(self._connection.execute(select(self.table)).all())
        finally:
            self._send("ROLLBACK")
        return found

    def _send(self, statement: str) -> None:
        self._connection.exec_driver_sql(statement)

    def _row(self, row: Row, found: Found, number: int, on_conflict: str) -> None:
        self._send("SAVEPOINT one")
        try:
            values = self._fitting(row)
            if on_conflict == "update" and self._update(values):
                found.updated += 1
            else:
                self._connection.execute(insert(self.table), values)
                found.loaded += 1
            self._look_for_orphans(found)
        except (SQLAlchemyError, Misfit, UnicodeError, OverflowError) as error:
            self._send("ROLLBACK TO SAVEPOINT one")
            kind = self._kind(error)
            if on_conflict == "skip" and kind == "unique":
                found.skipped.append(number)
            else:
                found.refused[number] = kind
        self._send("RELEASE SAVEPOINT one")

    def _update(self, row: Row) -> bool:
        """Whether there was a row with that primary key."""
        key = self.table.primary_key.columns
        if any(row.get(column.name) is None for column in key):
            return False
        same = and_(*(column == literal(row[column.name], column.type) for column in key))
        if not self._connection.execute(select(exists().where(same).select_from(self.table))).scalar_one():
            return False
        rest = {name: value for name, value in row.items() if name not in key}
        if rest:
            self._connection.execute(update(self.table).where(same).values(rest))
        return True

    def _look_for_orphans(self, found: Found) -> None:
        """A deferred key says nothing before COMMIT."""
        if not self._case.schema.deferred:
            return
        for key in self.table.foreign_key_constraints:
            mine = self.table.alias()
            parent = key.referred_table.alias()
            given = [mine.c[column.name].is_not(None) for column in key.columns]
            same = [mine.c[one.parent.name] == parent.c[one.column.name] for one in key.elements]
            orphans = select(1).select_from(mine).where(*given, ~exists().where(*same).select_from(parent))
            if self._connection.execute(orphans).first() is not None:
                found.loaded -= 1
                raise Misfit("foreign key")

    def _fitting(self, row: Row) -> Row:
        if not self._untyped:
            return row
        try:
            return {name: None if value is None else FITTING[KINDS[name]](value) for name, value in row.items()}
        except ValueError as error:
            raise Misfit("") from error

    def _kind(self, error: BaseException) -> str | None:
        if isinstance(error, Misfit):
            return str(error) or None
        fault = self._fault(getattr(error, "orig", None) or error)
        return None if fault in (None, Fault.OTHER) else fault.value


def contents(rows: Any) -> Counter[tuple[Any, ...]]:
    """What is in a table; the order is nobody's promise."""
    return Counter(map(tuple, rows))


def orphaned_by_order(schema: Schema) -> bool:
    """Whether a row that was refused may fit later: its parent came behind it."""
    return any(referred == "itself" for _, referred in schema.parents)
