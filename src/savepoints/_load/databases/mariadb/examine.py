"""What rows break, asked of the server for many rows at once: before they are sent, and again of those it refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError

from savepoints._databases import Fault
from savepoints._load.databases.mariadb.literals import NULL, Cells
from savepoints._load.databases.mariadb.rules import ForeignKey, Rules
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

Ask = Callable[[str], Sequence[Sequence[Any]]]
Found = dict[int, list[Reason]]

#: As an INSERT does, it reads what is there now, whatever older state the transaction sees.
_NOW = " LOCK IN SHARE MODE"

#: Names beside those of columns, which conditions of checks are over as well: nobody has a column of such a name.
_NUMBER, _CELL, _TEST = "savepoints_number", "savepoints_cell_{}", "savepoints_test_{}"

#: So many keys of parents that are there are kept in mind, for each foreign key.
KNOWN = 100_000


class Examiner:
    """Asks about rows of some columns.

    Args:
        rules: The table's.
        names: The columns that rows hold.
        ask: Sends a SELECT and gives all rows of the answer.

    Attributes:
        sure: The rules that are asked in just the words in which the server itself looks at them: what breaks one of
            these is refused for certain. None are where a trigger may change a row before.
        all_known: No check and no foreign key is over a column that rows do not hold.
    """

    def __init__(self, rules: Rules, names: Sequence[str], ask: Ask) -> None:
        self._rules = rules
        self._ask = ask
        self._place = {name: at for at, name in enumerate(names)}
        known = self._place.keys()
        self._uniques = {name: columns for name, columns in rules.uniques.items() if known >= set(columns)}
        self._foreign_keys = [one for one in rules.foreign_keys if known >= set(one.columns)]
        self._checks = dict(self._known_checks())
        self.all_known = len(self._checks) == len(rules.checks) and len(self._foreign_keys) == len(rules.foreign_keys)
        self._not_null = [name for name in names if name in rules.columns and rules.columns[name].not_null]
        self._parents: dict[str, set[Any]] = defaultdict(set)
        self.sure = frozenset() if rules.triggered else frozenset(self._sure_ones())

    def _known_checks(self) -> Iterator[tuple[str, tuple[str, list[str]]]]:
        """Those over columns that rows hold, with these columns."""
        for name, sql in self._rules.checks.items():
            used = [column for column in self._rules.columns if f"`{column}`" in sql]
            if used and self._place.keys() >= set(used):
                yield name, (sql, used)

    def _sure_ones(self) -> Iterator[tuple[str, str | None]]:
        columns = self._rules.columns
        yield Fault.NOT_NULL.value, None
        for one in self._foreign_keys:
            if not one.own and all(columns[name].equal_as_written for name in one.columns):
                yield Fault.FOREIGN_KEY.value, one.name
        for key, used in self._uniques.items():
            if all(columns[name].equal_as_written for name in used):
                yield Fault.UNIQUE.value, key
        for check, (_, names) in self._checks.items():
            if all(columns[name].as_written for name in names):
                yield Fault.CHECK.value, check

    # -- before

    def nulls(self, cells: Cells) -> Iterator[tuple[int, Reason]]:
        """Rows with a NULL where none may be."""
        for name in self._not_null:
            column = cells[self._place[name]]
            if NULL in column:
                why = reason(Fault.NOT_NULL, name, code="1048")
                yield from ((at, why) for at, cell in enumerate(column) if cell == NULL)

    def suspects(self, cells: Cells, names: Collection[str | None]) -> set[int]:
        """Rows that seem to break one of the rules with these names."""
        found: set[int] = set()
        for look in (self._looked_at, self._unparented, self._orphaned_within):
            try:
                found.update(look(cells, names))
            except DBAPIError as error:  # the server will tell, row by row; if the transaction is gone, at once
                if error.connection_invalidated:
                    raise
        return found

    def _looked_at(self, cells: Cells, names: Collection[str | None]) -> Iterable[int]:
        """Duplicates and broken checks, all in one look: rows are parsed once."""
        quote = self._rules.quote
        checks = [one for name, one in self._checks.items() if name in names]
        uniques = [columns for name, columns in self._uniques.items() if name in names]
        if not (checks or uniques):
            return ()
        tests, joins = [f"x.{_TEST.format(at)}" for at in range(len(checks))], []
        for at, columns in enumerate(uniques):
            joins.append(f" LEFT JOIN {self._rules.table} t{at} ON {self._same(f't{at}', columns, columns, 'x')}")
            tests.append(f"t{at}.{quote(columns[0])} IS NOT NULL")
        used = [*(name for _, some in checks for name in some), *(name for columns in uniques for name in columns)]
        broken = "".join(f", ({sql}) IS FALSE AS {_TEST.format(at)}" for at, (sql, _) in enumerate(checks))
        given_rows = self._given(list(dict.fromkeys(used)), cells, range(len(cells[0])))
        where = " OR ".join(f"({test})" for test in tests)
        sql = f"{given_rows}, x AS (SELECT v.*{broken} FROM v) SELECT x.{_NUMBER} FROM x{''.join(joins)} WHERE {where}"
        return [number for (number,) in self._ask(sql)]

    def _unparented(self, cells: Cells, names: Collection[str | None]) -> Iterator[int]:
        """Rows without a parent in another table. Those that were found there once are not asked about again."""
        for one in self._foreign_keys:
            if one.own or one.name not in names:
                continue
            columns = [cells[self._place[name]] for name in one.columns]
            keys: list[Any] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
            known = self._parents[one.name]
            strange = set(keys) - known
            if not strange:
                continue
            first = {key: at for at, key in enumerate(keys) if key in strange}
            without = {keys[at] for (at,) in self._ask(self._anti_join(one, cells, sorted(first.values()), ""))}
            known |= strange - without
            if len(known) > KNOWN:
                known.clear()
            if without:
                yield from (at for at, key in enumerate(keys) if key in without)

    def _orphaned_within(self, cells: Cells, names: Collection[str | None]) -> Iterator[int]:
        """Rows that refer to a row of their own table which is neither there nor before them."""
        for one in self._foreign_keys:
            if not one.own or one.name not in names:
                continue
            without = {number for (number,) in self._ask(self._anti_join(one, cells, range(len(cells[0])), ""))}
            known = self._place.keys() >= set(one.referred)
            earlier: set[tuple[str, ...]] = set()
            for at in range(len(cells[0])):
                if known:
                    earlier.add(tuple(cells[self._place[name]][at].lower() for name in one.referred))
                if at in without and tuple(cells[self._place[name]][at].lower() for name in one.columns) not in earlier:
                    yield at

    def twice(self, cells: Cells, rows: Sequence[int]) -> Iterator[int]:
        """Those of some rows that look like duplicates of an earlier one; the server may see it otherwise."""
        for columns in self._uniques.values():
            yield from self.twice_by(columns, cells, rows)

    def twice_by(self, columns: Sequence[str], cells: Cells, rows: Sequence[int]) -> Iterator[int]:
        """The same by one key."""
        if not self._place.keys() >= set(columns):
            return
        keys = [_lower([cells[self._place[name]][at] for at in rows]) for name in columns]
        if any(len(set(key)) == len(key) for key in keys):
            return
        key: list[Any] = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
        twice = {one for one, count in Counter(key).items() if count > 1}
        seen: set[Any] = set()
        for at, one in [(at, one) for at, one in zip(rows, key, strict=True) if one in twice]:
            if one in seen and "null" not in ((one,) if len(keys) == 1 else one):
                yield at
            seen.add(one)

    # -- reasons

    def breaks(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Found:
        """All reasons against some rows of a batch, by index, as the table is now; rows among each other apart."""
        found: Found = defaultdict(list)
        if not rows:
            return found
        for at, why in self.nulls([[column[at] for at in rows] for column in cells]):
            found[rows[at]].append(why)
        for sort in (self._broken, self._orphans, self._duplicates):
            try:
                for at, why in sort(batch, cells, rows):
                    found[at].append(why)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
        return found

    def _same(self, table: str, there: Sequence[str], here: Sequence[str], given: str = "v") -> str:
        quote = self._rules.quote
        return " AND ".join(f"{table}.{quote(a)} = {given}.{quote(b)}" for a, b in zip(there, here, strict=True))

    def _given(self, columns: Sequence[str], cells: Cells, rows: Iterable[int]) -> str:
        """`WITH v`: the numbers of rows and their values in some columns, as these compare them."""
        chosen = [cells[self._place[name]] for name in columns]
        if not isinstance(rows, range):
            chosen = [[column[at] for at in rows] for column in chosen]
        values = map(",".join, zip(map(str, rows), *chosen, strict=True))
        plain = [_CELL.format(at) for at in range(len(columns))]
        given = ", ".join((_NUMBER, *plain))
        names = ", ".join((_NUMBER, *map(self._rules.quote, columns)))
        forms = [self._rules.columns[name].compared(cell) for name, cell in zip(columns, plain, strict=True)]
        form = ", ".join((_NUMBER, *forms))
        return f"WITH w({given}) AS (VALUES ({'),('.join(values)})), v({names}) AS (SELECT {form} FROM w)"

    def _broken(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        if not self._checks:
            return
        used = list(dict.fromkeys(name for _, names in self._checks.values() for name in names))
        tests = [f"({sql}) IS FALSE" for sql, _ in self._checks.values()]
        sql = f"{self._given(used, cells, rows)} SELECT {_NUMBER}, {', '.join(tests)} FROM v WHERE {' OR '.join(tests)}"
        for number, *told in self._ask(sql):
            for breaks, (name, (_, columns)) in zip(told, self._checks.items(), strict=True):
                if breaks:
                    yield number, reason(Fault.CHECK, columns[0] if len(columns) == 1 else None, name, code="4025")

    def _anti_join(self, one: ForeignKey, cells: Cells, rows: Iterable[int], lock: str = _NOW) -> str:
        given = " AND ".join(f"v.{self._rules.quote(column)} IS NOT NULL" for column in one.columns)
        there = f"SELECT 1 FROM {one.parent} p WHERE {self._same('p', one.referred, one.columns)}{lock}"
        return f"{self._given(one.columns, cells, rows)} SELECT {_NUMBER} FROM v WHERE {given} AND NOT EXISTS ({there})"

    def _orphans(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        for one in self._foreign_keys:
            if not one.own:  # the parent may be among the rows
                for (number,) in self._ask(self._anti_join(one, cells, rows)):
                    yield number, self.orphan(batch, number, one)

    def _duplicates(self, batch: Batch, cells: Cells, rows: Sequence[int]) -> Iterator[tuple[int, Reason]]:
        key = ", ".join(f"t.{self._rules.quote(column)}" for column in self._rules.primary) or "NULL"
        for name, columns in self._uniques.items():
            there = f"v JOIN {self._rules.table} t ON {self._same('t', columns, columns)}"
            sql = f"{self._given(columns, cells, rows)} SELECT STRAIGHT_JOIN v.{_NUMBER}, {key} FROM {there}{_NOW}"
            for number, *primary in self._ask(sql):
                with_it = dict(zip(self._rules.primary, primary, strict=False)) or None
                yield number, self.duplicate(name, with_it)

    def duplicate(self, name: str | None, collides_with: Any = None, *, detail: str | None = None) -> Reason:
        """A duplicate by a key."""
        columns = ", ".join(self._rules.uniques.get(name or "", ())) or None
        return reason(Fault.UNIQUE, columns, name, code="1062", detail=detail, collides_with=collides_with)

    def orphan(
        self, batch: Batch, at: int, one: ForeignKey, detail: str | None = None, because_of: int | None = None
    ) -> Reason:
        """A row without a parent."""
        told = ", ".join(one.columns)
        known = self._place.keys() >= set(one.columns)
        parent = tuple(batch.rows[at][self._place[name]] for name in one.columns) if known else None
        message = f"{told} has no parent in {one.parent.rpartition('.')[2].strip('`')}"
        return reason(
            Fault.FOREIGN_KEY, told, one.name, message=message, code="1452", detail=detail, parent=parent,
            because_of=because_of,
        )  # fmt: skip


def _lower(texts: list[str]) -> list[str]:
    """All at once, as far as that can be undone."""
    found = "\n".join(texts).lower().split("\n")
    return found if len(found) == len(texts) else [text.lower() for text in texts]
