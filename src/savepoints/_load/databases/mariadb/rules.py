"""The rules of a table, as the server tells them: enough to foresee most refusals, and to name all that a row breaks.

What is foreseen decides nothing: the server refuses each bad row itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.engine import Connection

from savepoints._load.databases.mariadb.columns import Column


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

    @property
    def geometry(self) -> str | None:
        """The column of geometries, if there is one alone: errors about these name none."""
        found = [column.name for column in self.columns.values() if column.is_geometry]
        return found[0] if len(found) == 1 else None

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
