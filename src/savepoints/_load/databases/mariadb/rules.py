"""The rules of a table, as the server tells them: enough to foresee most refusals, and to name all that a row breaks.

What is foreseen decides nothing: the server refuses each bad row itself.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cached_property
from math import isfinite
from typing import Any, NamedTuple

from sqlalchemy import Table, types
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection

_TYPE = re.compile(r"(\w+)(?:\((\d+)(?:,(\d+))?\))?")

_WHOLE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
_KINDS: dict[str, types.TypeEngine[Any]] = {
    **dict.fromkeys(_WHOLE, types.BigInteger()),
    "decimal": types.Numeric(),
    "float": types.Float(),
    "double": types.Float(),
    "date": types.Date(),
    "datetime": types.DateTime(),
    "timestamp": types.DateTime(),
    "time": mysql.TIME(),
}
_WIDE = Context(prec=400)  # wider than any float is long
_PLAIN = frozenset({type(None), str, bytes, bool, int})


class Column:
    """A column as the server has it.

    Attributes:
        name: Its name.
        type: Its type, as SQL.
        collation: Of text.
        not_null: A NULL is refused, and nobody puts another value in its place.
    """

    def __init__(self, name: str, type: str, collation: str | None, null: str, extra: str) -> None:
        self.name = name
        self.type = type
        self.collation = collation
        self.not_null = null == "NO" and "auto_increment" not in extra and not type.startswith("timestamp")
        found = _TYPE.match(type)
        self._of: str = "" if found is None else found[1]
        first, second = (None, None) if found is None else found.groups()[1:]
        self._scale = int(second or 0)
        self._unsigned = "unsigned" in type
        #: The least and the largest number that it takes.
        self.range = _range(self._of, int(first or 0), self._scale, unsigned=self._unsigned)

    @property
    def is_text(self) -> bool:
        """Text of any sort."""
        return self._of in _TEXT

    @property
    def kind(self) -> types.TypeEngine[Any] | None:
        """SQLAlchemy's type of what it holds, where that is not for text and is known."""
        return _KINDS.get(self._of)

    @property
    def as_written(self) -> bool:
        """Whether a condition over the literal, as `compared` gives it, is the condition over the column."""
        if self._of in _WHOLE:
            return not self._unsigned and self._of != "year"
        return self._of in ("decimal", "date", "datetime", "varchar", "tinytext", "text", "mediumtext", "longtext")

    @property
    def equal_as_written(self) -> bool:
        """The same of whether it is equal to another."""
        padded = self._of == "char" and "nopad" not in (self.collation or "nopad")
        return self.as_written or padded or self._of in _WHOLE

    @cached_property
    def exact(self) -> frozenset[type]:
        """The classes of which it keeps each value, or refuses it."""
        if self._of in _WHOLE or self._of == "decimal":
            return _PLAIN
        if self._of in ("date", "datetime", "timestamp"):
            return _PLAIN | {datetime.date}
        return _PLAIN | {float, Decimal, datetime.date, datetime.datetime, datetime.time, datetime.timedelta}

    def keeps(self, value: Any) -> bool:
        """Whether it would not cut the value, beyond what its type rounds by nature."""
        if self._of in _WHOLE and isinstance(value, (float, Decimal)):
            return finite(value) and value == int(value)
        if isinstance(value, datetime.datetime):
            return value.tzinfo is None and (self._of != "date" or value.time() == datetime.time())
        return True

    def rounded(self, value: Any) -> Any:
        """A number with as many digits behind the point as a DECIMAL has: the server would do it, and say so."""
        if self._of in _WHOLE and isinstance(value, (float, Decimal)) and self.keeps(value):
            return int(value)
        if self._of != "decimal" or not isinstance(value, (float, Decimal)):
            return value
        if not finite(value):
            return value  # it is refused as such
        exact = Decimal(repr(value)) if isinstance(value, float) else value
        return exact.quantize(Decimal(1).scaleb(-self._scale), ROUND_HALF_UP, _WIDE)

    def compared(self, sql: str) -> str:
        """A literal in the form in which the column compares it."""
        if self._of == "decimal":
            return f"CAST({sql} AS {self.type.partition(' ')[0].upper()})"
        if self.collation:
            return f"CONVERT({sql} USING {self.collation.partition('_')[0]}) COLLATE {self.collation}"
        cast = {"date": "DATE", "datetime": "DATETIME(6)", "timestamp": "DATETIME(6)", "time": "TIME(6)"}.get(self._of)
        return sql if cast is None else f"CAST({sql} AS {cast})"


def finite(value: float | Decimal) -> bool:
    """Whether it is a number at all."""
    return value.is_finite() if isinstance(value, Decimal) else isfinite(value)


_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


def _range(of: str, digits: int, scale: int, *, unsigned: bool) -> tuple[int, int] | None:
    if of == "decimal":
        most: int = 10 ** (digits - scale)
        return (0 if unsigned else 1 - most, most - 1)
    if of not in _BITS:
        return None
    bits = _BITS[of]
    return (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


class ForeignKey(NamedTuple):
    """A foreign key; ``parent`` is the other table's name as SQL, ``own`` says that it is this one."""

    name: str
    columns: tuple[str, ...]
    parent: str
    referred: tuple[str, ...]
    own: bool


def _quoted(name: str) -> str:
    """A name as SQL, for a driver's cursor, which gets no parameters: SQLAlchemy would double percent signs in it."""
    return "`" + name.replace("`", "``") + "`"


def table_of(table: Table) -> str:
    """The table's name, as SQL."""
    return ".".join(map(_quoted, filter(None, (table.schema, table.name))))


class Rules:
    """What the table asks of a row, read once.

    Attributes:
        table: Its name, as SQL.
        columns: Its columns, by name.
        primary: The columns of the primary key.
        uniques: The columns of each unique key, by its name; keys over a part of a text are left out.
        checks: The conditions, by name.
        foreign_keys: The foreign keys that are looked at.
        triggered: There are triggers that may change a row, or nobody can tell.
        unchecked: What this connection does not look at.
    """

    def __init__(self, connection: Connection, table: Table, name: str) -> None:
        self._ask = connection.exec_driver_sql
        self.quote = _quoted
        self.table = name
        place = (table.schema or str(self._ask("SELECT DATABASE()").scalar()), table.name)
        self.columns = {row[0]: Column(row[0], row[1], row[2], row[3], row[6]) for row in self._show("FULL COLUMNS")}
        self.uniques = self._uniques()
        self.primary = self.uniques.get("PRIMARY", ())
        looks = self._ask("SELECT @@foreign_key_checks, @@check_constraint_checks").one()
        self.foreign_keys = self._foreign_keys(place)
        self.checks = self._checks(place)
        self.unchecked = []
        if self.foreign_keys and not looks[0]:
            self.unchecked.append("foreign keys: foreign_key_checks is off on this connection")
            self.foreign_keys = []
        if self.checks and not looks[1]:
            self.unchecked.append("checks: check_constraint_checks is off on this connection")
            self.checks = {}
        self.triggered = self._triggered(place)

    def _show(self, what: str) -> Any:
        return self._ask(f"SHOW {what} FROM {self.table}".replace("%", "%%")).all()

    def _uniques(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[tuple[int, str | None, int | None]]] = defaultdict(list)
        for row in self._show("INDEX"):
            if not row[1]:
                found[row[2]].append((row[3], row[4], row[7]))
        return {
            name: tuple(str(column) for _, column, _ in sorted(parts))
            for name, parts in found.items()
            if all(column is not None and part is None for _, column, part in parts)
        }

    def _foreign_keys(self, place: tuple[str, str]) -> list[ForeignKey]:
        sql = (
            "SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name,"
            " referenced_column_name FROM information_schema.key_column_usage WHERE table_schema = %s"
            " AND table_name = %s AND referenced_table_name IS NOT NULL ORDER BY constraint_name, ordinal_position"
        )
        parts: dict[str, list[Any]] = defaultdict(list)
        for row in self._ask(sql, place):
            parts[row[0]].append(row)
        return [
            ForeignKey(
                name,
                tuple(row[1] for row in rows),
                ".".join(map(self.quote, rows[0][2:4])),
                tuple(row[4] for row in rows),
                (rows[0][2], rows[0][3]) == place,
            )
            for name, rows in parts.items()
        ]

    def _checks(self, place: tuple[str, str]) -> dict[str, str]:
        sql = (
            "SELECT constraint_name, check_clause FROM information_schema.check_constraints"
            " WHERE constraint_schema = %s AND table_name = %s"
        )
        return {row[0]: row[1] for row in self._ask(sql, place)}

    def _triggered(self, place: tuple[str, str]) -> bool:
        sql = (
            "SELECT 1 FROM information_schema.triggers WHERE event_object_schema = %s AND event_object_table = %s"
            " AND event_manipulation = 'INSERT' LIMIT 1"
        )
        return self._ask(sql, place).first() is not None or not self._sees_triggers(place)

    def _sees_triggers(self, place: tuple[str, str]) -> bool:
        """Whether triggers are shown at all: that takes the right to make them, and a role's is not looked for."""
        user, _, host = str(self._ask("SELECT CURRENT_USER()").scalar()).rpartition("@")
        right = "SELECT 1 FROM information_schema.{}_privileges WHERE privilege_type = 'TRIGGER' AND grantee = %s"
        sql = (
            f"{right.format('user')} UNION ALL {right.format('schema')} AND %s LIKE table_schema"
            f" UNION ALL {right.format('table')} AND table_schema = %s AND table_name = %s"
        )
        who = f"'{user}'@'{host}'"
        return self._ask(sql, (who, who, place[0], who, *place)).first() is not None
