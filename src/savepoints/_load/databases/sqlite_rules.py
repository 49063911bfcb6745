"""The rules of a table on SQLite, and which of them a row breaks.

SQLite names the first broken rule only, and of a foreign key not even that: so the rows it has refused are asked about
the others, one small statement each.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SAWarning

from savepoints._databases import Fault
from savepoints._load.convert import encodes
from savepoints._load.intake import Columns, Row
from savepoints._load.reasons import Reason, reason

_STRICT = re.compile(r"cannot store \w+ value in \w+ column (.*)")

#: How SQLite tells which of its own constraints a row breaks.
CONSTRAINT = "constraint failed"

_BRACES = str.maketrans({"{": "{{", "}": "}}"})
UNIQUE, FOREIGN_KEY = Fault.UNIQUE.value, Fault.FOREIGN_KEY.value
_BOUND = frozenset({int, float, str, bytes, type(None)})


@lru_cache(1000)
def _names(text: str) -> tuple[str, ...]:
    """The columns that an error of a unique key names."""
    told = text.partition(f"{CONSTRAINT}: ")[2]
    return tuple([part.rpartition(".")[2] for part in told.split(", ")])


def _unquoted(name: str | None) -> str | None:
    """SQLAlchemy takes the quotes around a name off, and leaves those in it doubled."""
    return None if name is None else name.replace('""', '"')


def _is_bound(cell: Any) -> bool:
    """Whether the driver takes a number or a text."""
    if type(cell) is int:
        return -(2**63) <= cell < 2**63
    return type(cell) is not str or cell.isascii() or encodes(cell)


class ForeignKey(NamedTuple):
    """A foreign key: its columns, the parent's, and whether it is checked at COMMIT only."""

    name: str | None
    columns: tuple[str, ...]
    schema: str | None
    parent: str
    referred: tuple[str, ...]
    deferred: bool


class Rules:
    """What the table asks of a row, read once."""

    def __init__(self, connection: Connection, table: Table) -> None:
        looked = inspect(connection)
        name, schema = table.name, table.schema
        quote = connection.dialect.identifier_preparer.quote_identifier
        self._quote = quote
        self.prefix = f"{quote(schema)}." if schema else ""
        self.table = self.prefix + quote(name)
        primary = looked.get_pk_constraint(name, schema=schema)
        self.primary = tuple(primary["constrained_columns"])
        self.uniques: dict[tuple[str, ...], str | None] = {}
        if self.primary:
            self.uniques[self.primary] = primary.get("name")
        with warnings.catch_warnings():  # of indexes that it does not read, and neither need we
            warnings.simplefilter("ignore", SAWarning)
            constraints = looked.get_unique_constraints(name, schema=schema)
        for unique in constraints:
            self.uniques[tuple(unique["column_names"])] = unique.get("name")
        for names, index in self._indexes(connection, name):
            self.uniques.setdefault(names, index)
        checks = looked.get_check_constraints(name, schema=schema)
        self.checks = {one["sqltext"]: _unquoted(one.get("name")) for one in checks}
        columns = looked.get_columns(name, schema=schema)
        self.not_null = {one["name"] for one in columns if not one["nullable"]}
        self.defaults: dict[str, str] = {one["name"]: one["default"] for one in columns if one["default"] is not None}
        info = connection.exec_driver_sql(f"PRAGMA {self.prefix}table_xinfo({quote(name)})")
        #: As they were declared.
        self.types: dict[str, str] = {row[1]: row[2] for row in info}
        #: The key that SQLite counts where a row leaves it out or has NULL there.
        whole = [one["name"] for one in columns if str(one["type"]).upper() == "INTEGER"]
        self.counted = self.primary[0] if len(self.primary) == 1 and self.primary[0] in whole else None
        self.foreign_keys = [
            ForeignKey(
                one["name"],
                tuple(one["constrained_columns"]),
                one["referred_schema"] or schema,
                one["referred_table"],
                tuple(one["referred_columns"]) or tuple(_primary_key(looked, one)),
                str(one["options"].get("initially", "")).upper() == "DEFERRED",
            )
            for one in looked.get_foreign_keys(name, schema=schema)
        ]

    def _indexes(self, connection: Connection, table: str) -> Iterator[tuple[tuple[str, ...], str | None]]:
        """Unique keys as SQLite itself knows them: not all that DDL written by hand says is found in its text."""
        ask, quote = connection.exec_driver_sql, self._quote
        for _, index, unique, origin, partial in ask(f"PRAGMA {self.prefix}index_list({quote(table)})").all():
            names = tuple(row[2] for row in ask(f"PRAGMA {self.prefix}index_info({quote(index)})"))
            if unique and not partial and None not in names:
                yield names, index if origin == "c" else None


def _primary_key(looked: Any, foreign_key: Any) -> list[str]:
    found: list[str] = looked.get_pk_constraint(foreign_key["referred_table"])["constrained_columns"]
    return found


Ask = Callable[[str, Sequence[Any]], list[Any]]

#: A statement has so many at most, on any SQLite.
PARAMETERS = 900


class Examiner:
    """Finds the reasons of a refused row.

    Args:
        rules: The table's.
        columns: What rows hold.
        ask: Sends a SELECT and gives its rows.
    """

    def __init__(self, rules: Rules, columns: Columns, ask: Ask, *, foreign_keys: bool) -> None:
        self._rules = rules
        self._all = ask
        self._place = dict(zip((column.name for column in columns), count(), strict=False))
        self._enforced = rules.foreign_keys if foreign_keys else []
        known = self._place
        #: The first reasons that are the same for all rows, by what SQLite said.
        self.same: dict[str, tuple[Reason]] = {}
        # where a NULL is refused: its place in a row. The only column of a key may count by itself
        self._needed = {
            at: reason(Fault.NOT_NULL, name, code="SQLITE_CONSTRAINT_NOTNULL")
            for name, at in known.items()
            if name in rules.not_null and rules.primary != (name,)
        }
        self._uniques = {names: name for names, name in rules.uniques.items() if known.keys() >= set(names)}
        quote = rules._quote
        cast = ", ".join(f"CAST(? AS {rules.types.get(name) or 'BLOB'}) AS {quote(name)}" for name in known)
        self._checks = {name: f"SELECT NOT ({text}) FROM (SELECT {cast})" for text, name in rules.checks.items()}
        #: Of duplicates by each key: constraint, column and message.
        self._told_of: dict[tuple[str, ...], tuple[str | None, str, str]] = {}
        self._find = {names: self._finding(names) for names in self._uniques}
        self._find_many = {names: self._finding_many(names) for names in self._uniques if len(names) == 1}
        self._parents = {one: self._parent(one) for one in self._enforced}
        told = [(one, ", ".join(one.columns)) for one in self._enforced]
        self._orphans = {one: (names, f"{names} has no parent in {one.parent}") for one, names in told}
        of_keys = {name for one in rules.foreign_keys for name in one.columns}
        left_out = [name for name in rules.defaults if name in of_keys and name not in known]
        #: What SQLite will put where rows leave out a column of a foreign key.
        self._filled = {name: ask(f"SELECT {rules.defaults[name]}", ())[0][0] for name in left_out}
        keys = (*self._uniques, *(names for one in rules.foreign_keys for names in (one.columns, one.referred)))
        self._getters = {names: self._getter(names) for names in keys}

    def _ask(self, sql: str, parameters: Sequence[Any]) -> Any:
        found = self._all(sql, parameters)
        return found[0] if found else None

    def _finding(self, names: tuple[str, ...]) -> str:
        quote = self._rules._quote
        found = ", ".join(map(quote, self._rules.primary)) or "rowid"
        where = " AND ".join(f"{quote(name)} = ?" for name in names)
        return f"SELECT {found} FROM {self._rules.table} WHERE {where}"

    def _finding_many(self, names: tuple[str, ...]) -> str:
        quote = self._rules._quote
        key, found = quote(names[0]), ", ".join(map(quote, self._rules.primary)) or "rowid"
        return f"SELECT {key}, {found} FROM {self._rules.table} WHERE {key} IN (".translate(_BRACES) + "{})"

    def _parent(self, one: ForeignKey) -> str:
        quote = self._rules._quote
        prefix = f"{quote(one.schema)}." if one.schema else ""
        where = " AND ".join(f"{quote(name)} = ?" for name in one.referred)
        return f"SELECT 1 FROM {prefix}{quote(one.parent)} WHERE {where}"

    def _getter(self, names: tuple[str, ...]) -> Callable[[Row], Any] | None:
        """Takes the values of a key out of a row; None where one is left to the database."""
        place, filled = self._place, self._filled
        if not names or not {*place, *filled} >= set(names):
            return None
        if filled.keys().isdisjoint(names):
            return itemgetter(*(place[name] for name in names))

        def found(row: Row) -> Any:
            return tuple(row[place[name]] if name in place else filled[name] for name in names)

        return found if len(names) > 1 else lambda row: found(row)[0]

    def cells(self, row: Row, names: tuple[str, ...]) -> tuple[Any, ...] | None:
        """The values of a key; None where one is NULL or left to the database: then there is nothing to compare."""
        getter = self._getters.get(names)
        if getter is None:
            return None
        found: tuple[Any, ...] = getter(row) if len(names) > 1 else (getter(row),)
        return None if None in found else found

    def first(self, row: Row, fault: Fault, text: str, code: str | None) -> Reason:
        """The reason that SQLite itself gave, in its words."""
        if text in self.same:
            return self.same[text][0]
        if fault is Fault.UNIQUE:
            return next(self.duplicates([(row, text, code)]))
        if fault is Fault.FOREIGN_KEY:
            orphan = self._only_orphan(row, code)
            if orphan is not None:
                return orphan
        column, constraint = self._named(fault, text)
        found = reason(fault, column, constraint, code=code, detail=text)
        if fault in (Fault.NOT_NULL, Fault.CHECK):
            self.same[text] = (found,)
        return found

    def _named(self, fault: Fault, text: str) -> tuple[str | None, str | None]:
        """The column and the constraint of an error."""
        told = text.partition(f"{CONSTRAINT}: ")[2]
        if fault is Fault.NOT_NULL:
            return told.rpartition(".")[2], None
        if fault is Fault.CHECK:
            return None, self._rules.checks.get(told, told)
        if fault is Fault.TYPE and (strict := _STRICT.search(text)):
            return strict[1].rpartition(".")[2], None
        return None, None

    def _only_orphan(self, row: Row, code: str | None) -> Reason | None:
        if len(self._enforced) == 1:
            return self._orphan(self._enforced[0], row, code)
        return next(self.orphaned(row, self._enforced), None)

    def unbound(self, row: Row) -> Iterator[Reason]:
        """What is wrong with a row that the driver cannot even send."""
        if _BOUND.issuperset(map(type, row)) and all(map(_is_bound, row)):
            return
        for name, at in self._place.items():
            try:
                self._ask("SELECT ?", (row[at],))
            except Exception:
                yield reason(Fault.ENCODING if isinstance(row[at], str) else Fault.TYPE, name)

    def duplicates(self, told: Sequence[tuple[Row, str, str | None]]) -> Iterator[Reason]:
        """The reasons of rows, from what SQLite said of them and its code."""
        by_key: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        keys = [_names(text) for _, text, _ in told]
        for names, (row, _, _) in zip(keys, told, strict=True):
            by_key[names].append(row)
        found = {names: self._collisions(rows, names) for names, rows in by_key.items()}
        for names, (_, text, code) in zip(keys, told, strict=True):
            yield self._unique(names, code, text, next(found[names]))

    def _unique(
        self, names: tuple[str, ...], code: str | None, text: str | None, collides: dict[str, Any] | None
    ) -> Reason:
        found = self._told_of.get(names)
        if found is None:
            constraint, column = self._uniques.get(names), ", ".join(names)
            if names not in self._uniques and names[0].startswith("index "):
                constraint, column = names[0].removeprefix("index ").strip("'"), "the key of an index"
            found = self._told_of[names] = constraint, column, f"{column} is a duplicate"
        constraint, column, message = found
        return Reason(UNIQUE, message, column, constraint, code, text, collides)

    def _collisions(self, rows: list[Row], names: tuple[str, ...]) -> Iterator[dict[str, Any] | None]:
        """The primary keys of the rows that have these keys already; of one column, many in one statement."""
        found: dict[Any, Any] = {}
        if len(names) == 1 and names in self._find:  # of more columns, SQLite would go through the whole table
            keys = [key[0] for key in (self.cells(row, names) for row in rows) if key is not None]
            for start in range(0, len(keys), PARAMETERS):
                some = keys[start : start + PARAMETERS]
                sql = self._find_many[names].format(", ".join("?" * len(some)))
                found.update((key, there) for key, *there in self._all(sql, some))
        primary, at = self._rules.primary or ("rowid",), self._place.get(names[0], 0)
        for row in rows:
            there = found.get(row[at])
            yield self.collision(row, names) if there is None else dict(zip(primary, there, strict=True))

    def duplicate(self, row: Row, names: tuple[str, ...]) -> Reason | None:
        """Whether another row has this key already."""
        collides = self.collision(row, names)
        return None if collides is None else self._unique(names, None, None, collides)

    def collision(self, row: Row, names: tuple[str, ...]) -> dict[str, Any] | None:
        """The primary key of the row that has this key already."""
        cells = self.cells(row, names) if names in self._find else None
        found = None if cells is None else self._ask(self._find[names], cells)
        return None if found is None else dict(zip(self._rules.primary or ("rowid",), found, strict=True))

    def orphaned(self, row: Row, foreign_keys: list[ForeignKey]) -> Iterator[Reason]:
        """The foreign keys that have no parent."""
        for one in foreign_keys:
            cells = self.cells(row, one.columns)
            if cells is not None and not self._own_parent(row, one, cells) and self._missing(one, cells):
                yield self._orphan(one, row, "SQLITE_CONSTRAINT_FOREIGNKEY")

    def _missing(self, one: ForeignKey, cells: tuple[Any, ...]) -> bool:
        try:
            return self._ask(self._parents[one], cells) is None
        except (OverflowError, UnicodeError):  # it cannot be sent, and the INSERT will tell
            return False

    def _orphan(self, one: ForeignKey, row: Row, code: str | None) -> Reason:
        return self._unparented(one, self.cells(row, one.columns), code)

    def _unparented(self, one: ForeignKey, parent: tuple[Any, ...] | None, code: str | None) -> Reason:
        told, message = self._orphans[one]
        return Reason(FOREIGN_KEY, message, told, one.name, code, None, None, parent)

    def counted(self, row: Row, foreign_keys: list[ForeignKey]) -> bool:
        """Whether one of the foreign keys holds, or points to, a key that is counted as the row goes in."""
        key = self._rules.counted
        at = self._place.get(key or "")
        if key is None or not (at is None or row[at] is None):
            return False
        return any(key in one.columns or (key in one.referred and self._is_own(one)) for one in foreign_keys)

    def orphaned_as_stored(self, rowid: int, foreign_keys: list[ForeignKey]) -> Iterator[Reason]:
        """The foreign keys of a row in the table that have no parent."""
        for one in foreign_keys:
            names = ", ".join(map(self._rules._quote, one.columns))
            found = tuple(self._ask(f"SELECT {names} FROM {self._rules.table} WHERE rowid = ?", (rowid,)))
            if None not in found and self._ask(self._parents[one], found) is None:
                yield self._unparented(one, found, "SQLITE_CONSTRAINT_FOREIGNKEY")

    def _is_own(self, one: ForeignKey) -> bool:
        return self._rules.table.endswith(self._rules._quote(one.parent))

    def _own_parent(self, row: Row, one: ForeignKey, cells: tuple[Any, ...]) -> bool:
        return self._is_own(one) and self.cells(row, one.referred) == cells

    def others(self, row: Row, known: Reason) -> Iterator[Reason]:
        """What else is wrong with a row; the rule that is known already is left out."""
        for why in self._broken(row):
            if (why.kind, why.column, why.constraint) != (known.kind, known.column, known.constraint):
                yield why

    def _broken(self, row: Row) -> Iterator[Reason]:
        for at, why in self._needed.items():
            if row[at] is None:
                yield why
        # a value that cannot be bound cannot be asked about
        yield from [*self.unbound(row)] or self._asked(row)

    def _asked(self, row: Row) -> Iterator[Reason]:
        for constraint, sql in self._checks.items():
            if self._breaks(sql, row):
                yield reason(Fault.CHECK, None, constraint)
        yield from self.orphaned(row, self._enforced)
        yield from filter(None, (self.duplicate(row, names) for names in self._uniques))

    def _breaks(self, sql: str, row: Row) -> bool:
        try:
            found = self._ask(sql, tuple(row))
        except Exception:  # it needs a column that the database fills, or fails for this row
            return False
        return bool(found and found[0] == 1)
