"""A temporary table in which rows wait to be judged: typed as the target, without its rules, each row with its number.

Conversion is settled on the way in: `ON_ERROR ignore` (PostgreSQL 17) leaves out the rows whose values do not fit, and
their numbers are then missing. Before 17, or with a driver that takes no such option, rows come as text first, and
those that `pg_input_is_valid` (16) approves of are cast; before 16 a loop on the server casts each row by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from sqlalchemy.engine import Connection

from savepoints._databases import Fault
from savepoints._load.databases.postgresql.catalog import Column, Rules
from savepoints._load.databases.postgresql.copying import Destination, Driver, copy_in
from savepoints._load.databases.postgresql.sql import literal, quote, send
from savepoints._load.databases.postgresql.text import Writer
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

#: The row's number in the stage. No table has a column of that name.
NUMBER = "savepoints_n"
#: Small stages are planned well enough without.
ANALYZED = 5000
#: ANALYZE reads 300 times as many rows.
STATISTICS = 10

_made = count(1)


class Stage:
    """The stage for rows of some columns.

    Args:
        connection: Where it is made.
        driver: How rows are copied.
        rules: Of the target.
        columns: The names of the columns that rows hold, in order.
        writer: Writes values as text.
    """

    def __init__(
        self, connection: Connection, driver: Driver, rules: Rules, columns: tuple[str, ...], writer: Writer
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._rules = rules
        self._writer = writer
        version = connection.dialect.server_version_info or (0,)
        self._tolerant = driver.options and version >= (17,)
        self.asked = version >= (16,)  # `pg_input_is_valid` is there
        self.columns = columns
        self.name = f"savepoints_load_{next(_made)}"
        self.names = ", ".join(map(quote, columns))
        self.analyzed = False
        self._types = [rules.columns[name] for name in columns]
        self._make(self.name, [self._declared(column) for column in self._types])
        if not self._tolerant:
            self._make(f"{self.name}_text", [f"{quote(name)} text" for name in columns])

    def _declared(self, column: Column) -> str:
        collation = f" COLLATE {column.collation}" if column.collation else ""
        return f"{quote(column.name)} {column.type}{collation}"

    def _make(self, name: str, columns: list[str]) -> None:
        self.run(f"CREATE TEMPORARY TABLE {name} ({', '.join((f'{NUMBER} integer', *columns))}) ON COMMIT DROP")
        few = ", ".join(f"ALTER {quote(column)} SET STATISTICS {STATISTICS}" for column in (NUMBER, *self.columns))
        self.run(f"ALTER TABLE {name} {few}")

    def run(self, sql: str) -> Any:
        """Send a statement that has no parameters."""
        return send(self._connection, sql)

    def drop(self) -> None:
        """Leave nothing behind."""
        self.run(f"DROP TABLE {self.name}")
        if not self._tolerant:
            self.run(f"DROP TABLE {self.name}_text")

    def fill(self, batch: Batch, lines: Iterable[bytes]) -> dict[int, tuple[Reason, ...]]:
        """Put rows in; what does not fit its type stays out, and is answered for, by its index.

        Args:
            batch: The rows.
            lines: The same, written, each with its index in front.
        """
        self.run(f"TRUNCATE {self.name}")
        into = self.name if self._tolerant else f"{self.name}_text"
        if not self._tolerant:
            self.run(f"TRUNCATE {into}")
        options = "WITH (ON_ERROR ignore)" if self._tolerant else ""
        to = Destination(None, into, (NUMBER, *self.columns), options)
        there = copy_in(self._connection, self._driver, to, lines)
        if not self._tolerant:
            there = self._cast()
        refused = self._missing(batch) if there < len(batch.rows) else {}
        self.analyzed = len(batch.rows) >= ANALYZED
        if self.analyzed:
            self.run(f"ANALYZE {self.name}")
        return refused

    # -- casting text

    def _cast(self) -> int:
        """From text to the types; how many rows could be cast."""
        if self.asked:
            casts = ", ".join((NUMBER, *(f"{quote(one.name)}::{one.type}" for one in self._types)))
            valid = [self._valid(one) for one in self._types if one.type != "text"]
            where = f" WHERE {' AND '.join(valid)}" if valid else ""
            insert = f"INSERT INTO {self.name} SELECT {casts} FROM {self.name}_text{where}"
            there: int = self.run(insert).rowcount
            return there
        self.run(_CAST.format(stage=self.name, number=NUMBER, assign=self._assignments()))
        return int(self.run(f"SELECT count(*) FROM {self.name}").scalar())

    def _valid(self, one: Column) -> str:
        name = quote(one.name)
        return f"({name} IS NULL OR pg_input_is_valid({name}, {literal(one.type)}))"

    def _assignments(self) -> str:
        """Assigned in PL/pgSQL: a cast would cut what is too long."""
        return " ".join(f"typed.{quote(name)} := given.{quote(name)};" for name in self.columns)

    # -- reasons

    def _missing(self, batch: Batch) -> dict[int, tuple[Reason, ...]]:
        gone = self.run(
            f"SELECT before, n FROM (SELECT {NUMBER} AS n, lag({NUMBER}, 1, -1) OVER (ORDER BY {NUMBER}) AS before"
            f" FROM (SELECT {NUMBER} FROM {self.name} UNION ALL SELECT {len(batch.rows)}) t) gaps WHERE n - before > 1"
        ).all()
        return self.told(batch, [place for before, behind in gone for place in range(before + 1, behind)])

    def told(self, batch: Batch, places: Sequence[int]) -> dict[int, tuple[Reason, ...]]:
        """What is wrong with rows whose values do not fit their types."""
        found: dict[int, list[Reason]] = {place: [] for place in places}
        for start in range(0, len(places), 1000):
            some = places[start : start + 1000]
            for place, why in self._reasons(batch, some) if self.asked else self._reasons_one_by_one(batch, some):
                found[place].append(why)
            self._add_nulls(batch, some, found)
        return {place: tuple(reasons) or (reason(Fault.TYPE),) for place, reasons in found.items()}

    def _add_nulls(self, batch: Batch, places: Sequence[int], found: dict[int, list[Reason]]) -> None:
        """What else is wrong with rows that never came to be judged."""
        if self._rules.triggered:  # a trigger may fill it
            return
        for at, one in enumerate(self._types):
            for place in (place for place in places if one.not_null and batch.rows[place][at] is None):
                found[place].append(reason(Fault.NOT_NULL, one.name, code="23502"))

    def _reasons(self, batch: Batch, places: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        """Ask the server about each value of some rows."""
        doubtful = [(at, one) for at, one in enumerate(self._types) if one.type != "text"]
        if not doubtful:
            return
        value = self._writer.value
        rows = [[place, *(value(batch.rows[place][at]) for at, _ in doubtful)] for place in places]
        asked = " UNION ALL ".join(
            f"SELECT {at}, e.message, e.sql_error_code FROM pg_input_error_info(r ->> {nth}, {literal(one.type)}) AS e"
            for nth, (at, one) in enumerate(doubtful, start=1)
        )
        sql = (
            f"SELECT CAST(r ->> 0 AS integer), e.* FROM json_array_elements({literal(json.dumps(rows))}) AS r,"
            f" LATERAL ({asked}) AS e(place, message, code) WHERE e.message IS NOT NULL"
        )
        for number, at, message, code in self.run(sql).all():
            yield number, self._reason(self._types[at], code, message)

    def _reason(self, one: Column, code: str, detail: str) -> Reason:
        fault = _FAULTS.get(code, Fault.TYPE)
        told = f"the value of {one.name} does not fit its type {one.type}" if fault is Fault.TYPE else None
        return reason(fault, one.name, message=told, code=code, detail=detail)

    def _reasons_one_by_one(self, batch: Batch, places: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        """Before PostgreSQL 16 only a cast tells."""
        ask: Callable[[Column, str], Any] = self._ask_by_cast
        for place in places:
            for one, value in zip(self._types, map(self._writer.value, batch.rows[place]), strict=True):
                found = None if value is None else ask(one, value)
                if found is not None:
                    yield place, self._reason(one, *found)

    def _ask_by_cast(self, one: Column, value: str) -> tuple[str, str] | None:
        self.run(_ASK.format(type=one.type, value=literal(value)))
        told = str(self.run("SELECT current_setting('savepoints.fault')").scalar())
        code, _, message = told.partition(" ")
        return (code, message) if code else None


#: What a value that does not fit its type may be beside that; domains are inside of arrays and rows.
_FAULTS = {
    "22001": Fault.LENGTH,
    "22021": Fault.ENCODING,
    "22P05": Fault.ENCODING,
    "23502": Fault.NOT_NULL,
    "23514": Fault.CHECK,
}

_CAST = """
DO $savepoints$
DECLARE given record; typed {stage}%ROWTYPE;
BEGIN
    FOR given IN SELECT * FROM {stage}_text LOOP
        BEGIN
            typed.{number} := given.{number};
            {assign}
            INSERT INTO {stage} SELECT typed.*;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        END;
    END LOOP;
END $savepoints$
"""

_ASK = """
DO $savepoints$
DECLARE typed {type};
BEGIN
    typed := {value}::text;
    PERFORM set_config('savepoints.fault', '', true);
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    PERFORM set_config('savepoints.fault', SQLSTATE || ' ' || SQLERRM, true);
END $savepoints$
"""
