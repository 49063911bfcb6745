"""What rows break, asked of the server for many rows at once: before they are sent, and again of those it refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError

from savepoints._databases import Fault
from savepoints._load.databases.mariadb.literals import NULL, Cells
from savepoints._load.databases.mariadb.rules import ForeignKey, Rules
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

Ask = Callable[[str], Sequence[Sequence[Any]]]
Found = dict[int, list[Reason]]


class Examiner:
    """Asks about rows of some columns.

    Args:
        rules: The table's.
        names: The columns that rows hold.
        ask: Sends a SELECT and gives all rows of the answer.
    """

    def __init__(self, rules: Rules, names: Sequence[str], ask: Ask) -> None:
        self._rules = rules
        self._ask = ask
        self._place = {name: at for at, name in enumerate(names)}
        known = self._place.keys()
        self._uniques = {name: columns for name, columns in rules.uniques.items() if known >= set(columns)}
        self._foreign_keys = [one for one in rules.foreign_keys if known >= set(one.columns)]
        self._checks = self._known_checks()
        self._not_null = [name for name in names if name in rules.columns and rules.columns[name].not_null]

    def _known_checks(self) -> dict[str, tuple[str, list[str]]]:
        """Those over columns that rows hold, with these columns."""
        quote, found = self._rules.quote, {}
        for name, sql in self._rules.checks.items():
            used = [column for column in self._rules.columns if quote(column) in sql or f"`{column}`" in sql]
            if used and self._place.keys() >= set(used):
                found[name] = sql, used
        return found

    def breaks(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Found:
        """The reasons against some rows of a batch, by index, as the table is now; rows among each other apart."""
        found: Found = defaultdict(list)
        for name in self._not_null:
            column = cells[self._place[name]]
            for at in rows:
                if column[at] == NULL:
                    found[at].append(reason(Fault.NOT_NULL, name, code="1048"))
        for sort in (self._broken, self._orphans, self._duplicates):
            try:
                for at, why in sort(batch, cells, rows):
                    found[at].append(why)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # the server will tell, row by row; a transaction that is gone refuses the next statement
        return found

    def twice(self, cells: Cells) -> Iterator[int]:
        """Rows that look like duplicates of an earlier one, which the server may see otherwise."""
        for columns in self._uniques.values():
            keys = [list(map(str.lower, cells[self._place[name]])) for name in columns]
            if any(len(set(key)) == len(key) for key in keys):
                continue
            seen: set[tuple[str, ...]] = set()
            for at, key in enumerate(zip(*keys, strict=True)):
                if "null" in key:
                    continue
                if key in seen:
                    yield at
                seen.add(key)

    def own_key(self, cells: Cells, names: Sequence[str]) -> Iterator[int]:
        """As `twice`, by one key."""
        seen: set[tuple[str, ...]] = set()
        for at, key in enumerate(zip(*(map(str.lower, cells[self._place[name]]) for name in names), strict=True)):
            if "null" in key:
                continue
            if key in seen:
                yield at
            seen.add(key)

    # -- one sort of rule each

    def _given(self, columns: Sequence[str], cells: Cells, rows: Iterable[int]) -> str:
        """`WITH v`: the numbers of rows and their values in some columns, as these compare them."""
        quote = self._rules.quote
        places = [self._place[name] for name in columns]
        values = ",".join([f"({at},{','.join([cells[place][at] for place in places])})" for at in rows])
        plain = ", ".join(f"k{at}" for at in range(len(columns)))
        names = ", ".join(map(quote, columns))
        forms = ", ".join(self._rules.columns[name].compared(f"k{at}") for at, name in enumerate(columns))
        return f"WITH w(n, {plain}) AS (VALUES {values}), v(n, {names}) AS (SELECT n, {forms} FROM w) "

    def _broken(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        if not self._checks or not rows:
            return
        used = list(dict.fromkeys(name for _, names in self._checks.values() for name in names))
        tests = [f"({sql}) IS FALSE" for sql, _ in self._checks.values()]
        sql = f"{self._given(used, cells, rows)} SELECT n, {', '.join(tests)} FROM v WHERE {' OR '.join(tests)}"
        for number, *told in self._ask(sql):
            for breaks, (name, (_, columns)) in zip(told, self._checks.items(), strict=True):
                if breaks:
                    yield number, reason(Fault.CHECK, columns[0] if len(columns) == 1 else None, name, code="4025")

    def _orphans(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        quote = self._rules.quote
        for one in self._foreign_keys:
            if one.own:
                continue  # the parent may be among the rows
            with_key: dict[tuple[str, ...], list[int]] = defaultdict(list)
            places = [self._place[name] for name in one.columns]
            for at in rows:
                with_key[tuple([cells[place][at] for place in places])].append(at)
            first = [members[0] for key, members in with_key.items() if NULL not in key]
            if not first:
                continue
            same = " AND ".join(f"p.{quote(b)} = v.{quote(a)}" for a, b in zip(one.columns, one.referred, strict=True))
            sql = f"SELECT n FROM v WHERE NOT EXISTS (SELECT 1 FROM {one.parent} p WHERE {same})"
            for (number,) in self._ask(self._given(one.columns, cells, first) + sql):
                for at in with_key[tuple([cells[place][number] for place in places])]:
                    yield at, self.orphan(batch, at, one)

    def _duplicates(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        quote = self._rules.quote
        for name, columns in self._uniques.items():
            places = [self._place[column] for column in columns]
            some = [at for at in rows if all(cells[place][at] != NULL for place in places)]
            if not some:
                continue
            same = " AND ".join(f"t.{quote(column)} = v.{quote(column)}" for column in columns)
            key = ", ".join(f"t.{quote(column)}" for column in self._rules.primary) or "NULL"
            sql = f"SELECT STRAIGHT_JOIN v.n, {key} FROM v JOIN {self._rules.table} t ON {same}"
            for number, *there in self._ask(self._given(columns, cells, some) + sql):
                with_it = dict(zip(self._rules.primary, there, strict=False)) or None
                yield number, self.duplicate(name, with_it)

    # -- reasons

    def duplicate(self, name: str | None, collides_with: Any = None, *, detail: str | None = None) -> Reason:
        """A duplicate by a key."""
        columns = ", ".join(self._rules.uniques.get(name or "", ())) or None
        return reason(Fault.UNIQUE, columns, name, code="1062", detail=detail, collides_with=collides_with)

    def orphan(self, batch: Batch, at: int, one: ForeignKey, detail: str | None = None) -> Reason:
        """A row without a parent."""
        told = ", ".join(one.columns)
        known = self._place.keys() >= set(one.columns)
        parent = tuple(batch.rows[at][self._place[name]] for name in one.columns) if known else None
        message = f"{told} has no parent in {one.parent.rpartition('.')[2].strip('`')}"
        return reason(Fault.FOREIGN_KEY, told, one.name, message=message, code="1452", detail=detail, parent=parent)
