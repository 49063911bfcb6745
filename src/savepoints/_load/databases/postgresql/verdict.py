"""Which of the staged rows would be refused, had they been inserted in order, one by one.

What concerns a row alone (NULLs, checks, foreign keys to other tables) and what collides with rows in the table is
asked of the server, a statement each. Among rows that share a key in the input, or whose parent is in the input, the
answer depends on which of the earlier ones got in: these are few, and are gone through in order here.
"""

# Note [Rows that did not get in]
# A row that is refused takes no key and is nobody's parent. So what is said of rows in their order holds only if
# nothing else refuses a row: where the INSERT shows that something does (an index over an expression, a trigger), it
# is forgotten, and the database decides these rows one after the other. What is said of a row alone holds in any case.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from savepoints._databases import Fault
from savepoints._load.databases.postgresql import keys
from savepoints._load.databases.postgresql.catalog import Check, ForeignKey, Rules, Unique
from savepoints._load.databases.postgresql.sql import literal, quote
from savepoints._load.databases.postgresql.stage import NUMBER, Stage
from savepoints._load.intake import Batch
from savepoints._load.reasons import Reason, reason

Refused = dict[int, list[Reason]]

#: What is looked at when it is known whether a row is a duplicate by the key that skips it.
_LATER = frozenset({Fault.UNIQUE.value, Fault.FOREIGN_KEY.value})

#: What is told by its columns.
_NAMED = frozenset({Fault.UNIQUE.value, Fault.FOREIGN_KEY.value, Fault.CHECK.value})


@dataclass(slots=True)
class Verdict:
    """Why rows are refused, and which duplicates are skipped, by index."""

    refused: Refused = field(default_factory=dict)
    skipped: dict[int, Reason] = field(default_factory=dict)

    def out(self) -> set[int]:
        """The rows that do not get in."""
        return {*self.refused, *self.skipped}

    def copy(self) -> Verdict:
        """One that can be added to."""
        return Verdict({at: list(reasons) for at, reasons in self.refused.items()}, dict(self.skipped))

    def settle(self) -> None:
        """What PostgreSQL does with a duplicate that breaks another rule, too: other keys are looked at later."""
        for at in self.skipped.keys() & self.refused.keys():
            if all(why.kind in _LATER for why in self.refused[at]):
                del self.refused[at]
            else:
                del self.skipped[at]


class Judge:
    """Judges the rows in a stage.

    Args:
        rules: The table's.
        table: Its name, as SQL.
        stage: Where the rows are.
        given: The columns whose values tell what a row will be; rules over others are left to the database.
        skips: The key by which duplicates are skipped; empty means by any, None that they are refused.
        updates: Duplicates are updated.
    """

    def __init__(
        self,
        rules: Rules,
        table: str,
        stage: Stage,
        given: Sequence[str],
        skips: tuple[str, ...] | None,
        *,
        updates: bool,
    ) -> None:
        self._stage = stage
        self._table = table
        self._rules = rules
        self._skips = skips
        known = set(given)
        self._not_null = [name for name in given if rules.columns[name].not_null]
        self._checks = [one for one in rules.checks if one.columns <= known]
        self._domains = {name: rules.columns[name].domain for name in given if rules.columns[name].domain is not None}
        self._foreign_keys = [one for one in rules.foreign_keys if known.issuperset(one.columns) and not one.own]
        self._own_keys = [one for one in rules.foreign_keys if one.own and known.issuperset(one.columns + one.referred)]
        # where rows are updated, what looks like a duplicate by another key may be the row itself
        # and where they are skipped, a check that also sees what the database fills in comes before the key
        unsure = updates or (
            skips is not None and any(known & one.columns and one.columns - known for one in rules.checks)
        )
        self._uniques = [] if unsure else [one for one in rules.uniques if known.issuperset(one.columns)]
        judged = {one.name for one in self._own_keys}
        #: Nothing but the order of the rows decides who is a parent of whom, and that is known here.
        self.foresees_order = not any(
            name not in judged and all(at in known or rules.columns[at].filled for at in columns)
            for name, columns in rules.own_keys.items()
        )
        self.predicted = [
            *(f"not null {name}" for name in self._not_null),
            *(f"check {one.name}" for one in self._checks),
            *(f"foreign key {one.name}" for one in (*self._foreign_keys, *self._own_keys)),
            *(f"unique {one.name}" for one in self._uniques),
        ]

    def alone(self, batch: Batch, unfit: Refused) -> Verdict:
        """What holds whatever becomes of the other rows; see Note [Rows that did not get in]."""
        verdict = Verdict(unfit).copy()
        for at, why in self._alone():
            verdict.refused.setdefault(at, []).append(why)
        for unique in self._uniques:
            for at, key in self._in_table(unique):
                self.enter(verdict, at, unique, key)
        if self._skips is None:  # else a duplicate is skipped, if it is one, before its parent is looked for
            self._look_for_parents(batch, verdict)
        verdict.settle()
        return verdict

    def in_order(self, batch: Batch, unfit: Refused, alone: Verdict) -> Verdict:
        """What else follows, if these are all rows that are refused."""
        verdict = alone.copy()
        if self._skips is not None:
            self._look_for_parents(batch, verdict)
        _Order(self, batch, verdict, frozenset(unfit)).decide()
        verdict.settle()
        return verdict

    def _look_for_parents(self, batch: Batch, verdict: Verdict) -> None:
        for one in self._foreign_keys:
            for at in self._orphans(one):
                verdict.refused.setdefault(at, []).append(self.orphan(one, batch, at))

    def enter(self, verdict: Verdict, at: int, one: Unique, collides: Any) -> None:
        """A duplicate is skipped or refused."""
        why = reason(Fault.UNIQUE, ", ".join(one.columns), one.name, code="23505", collides_with=collides)
        if self._skips is not None and (not self._skips or set(self._skips) == set(one.columns)):
            verdict.skipped[at] = why
        else:
            verdict.refused.setdefault(at, []).append(why)

    # -- each row alone

    def _alone(self) -> Iterator[tuple[int, Reason]]:
        rules: list[tuple[str, Reason]] = [
            (f"{quote(name)} IS NULL", reason(Fault.NOT_NULL, name, code="23502")) for name in self._not_null
        ]
        rules += [(f"({one.sql}) IS FALSE", self._broken(one)) for one in self._checks]
        for name, domain in self._domains.items() if self._stage.asked else ():
            valid = f"pg_input_is_valid(CAST({quote(name)} AS text), {literal(domain or '')})"
            told = f"the value of {name} breaks a rule of its type {domain}"
            rules.append((f"NOT {valid}", reason(Fault.CHECK, name, message=told, code="23514")))
        if not rules:
            return
        columns = ", ".join(f"{sql} AS r{at}" for at, (sql, _) in enumerate(rules))
        where = " OR ".join(sql for sql, _ in rules)
        for found in self._stage.run(f"SELECT {NUMBER}, {columns} FROM {self._stage.name} WHERE {where}").all():
            number, *broken = found
            for breaks, (_, why) in zip(broken, rules, strict=True):
                if breaks:
                    yield number, why

    @staticmethod
    def _broken(one: Check) -> Reason:
        told = ", ".join(sorted(one.columns)) if len(one.columns) == 1 else None
        return reason(Fault.CHECK, told, one.name, code="23514")

    # -- foreign keys

    def _equal(self, left: Sequence[str], right: Sequence[str]) -> str:
        return " AND ".join(f"p.{quote(a)} = s.{quote(b)}" for a, b in zip(left, right, strict=True))

    def _given(self, columns: Sequence[str]) -> str:
        return " AND ".join(f"s.{quote(name)} IS NOT NULL" for name in columns)

    def _orphans(self, one: ForeignKey) -> Iterator[int]:
        """Rows without a parent in the other table."""
        return iter(
            self._stage.run(
                f"SELECT s.{NUMBER} FROM {self._stage.name} s WHERE {self._given(one.columns)} AND NOT EXISTS"
                f" (SELECT FROM {one.parent} p WHERE {self._equal(one.referred, one.columns)})"
            )
            .scalars()
            .all()
        )

    def orphans_within(self, one: ForeignKey) -> Mapping[int, list[int]]:
        """Rows without a parent in this table before the load, with those of the input that may be it."""
        found: dict[int, list[int]] = defaultdict(list)
        for at, parent in self._stage.run(
            f"SELECT s.{NUMBER}, q.{NUMBER} AS parent FROM {self._stage.name} s LEFT JOIN {self._stage.name} q ON"
            f" {self._equal(one.referred, one.columns).replace('p.', 'q.')} WHERE {self._given(one.columns)}"
            f" AND NOT EXISTS (SELECT FROM {one.parent} p WHERE {self._equal(one.referred, one.columns)})"
        ).all():
            found[at].extend(() if parent is None else (parent,))
        return found

    def own_keys(self) -> list[ForeignKey]:
        """Foreign keys to the table itself."""
        return self._own_keys

    def orphan(self, one: ForeignKey, batch: Batch, at: int, because: int | None = None) -> Reason:
        told = ", ".join(one.columns)
        row = batch.rows[at]
        parent = tuple(row[self._stage.columns.index(name)] for name in one.columns)
        message = f"{told} has no parent in {one.parent}"
        number = None if because is None else batch.number(because)
        return reason(
            Fault.FOREIGN_KEY, told, one.name, message=message, code="23503", parent=parent, because_of=number
        )

    # -- what was found by trying

    def explained(self, at: int, why: Reason, batch: Batch, collides: Mapping[str, Any] | None) -> Reason:
        """The reason that the database gave, with what the catalog knows of the constraint."""
        columns = self._rules.named.get(why.constraint or "")
        foreign_key = next((one for one in self._rules.foreign_keys if one.name == why.constraint), None)
        if columns is None or why.kind not in _NAMED:
            return why
        if foreign_key is not None and not self._rules.triggered and set(columns) <= set(self._stage.columns):
            return replace(self.orphan(foreign_key, batch, at), detail=why.detail)
        told = ", ".join(columns)
        return reason(Fault(why.kind), told, why.constraint, code=why.code, detail=why.detail, collides_with=collides)

    def collisions(self, refused: Mapping[int, Reason]) -> dict[int, dict[str, Any]]:
        """The primary keys of the rows that refused duplicates have met."""
        found: dict[int, dict[str, Any]] = {}
        for one in self._rules.uniques:
            numbers = [at for at, why in refused.items() if why.constraint == one.name]
            if numbers and self._rules.primary and set(one.columns) <= set(self._stage.columns):
                found.update(self._in_table(one, f"WHERE s.{NUMBER} = ANY('{{{','.join(map(str, numbers))}}}')"))
        return found

    # -- duplicates

    def _same(self, one: Unique, left: str, right: str) -> str:
        sign = "=" if one.nulls_distinct else "IS NOT DISTINCT FROM"
        return " AND ".join(f"{left}.{quote(name)} {sign} {right}.{quote(name)}" for name in one.columns)

    def _in_table(self, one: Unique, where: str = "") -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows whose key a row in the table has, with the primary key of that row."""
        if self._stage.analyzed and self._lies_beyond(one):
            return
        primary = self._rules.primary
        found = ", ".join(f"t.{quote(name)}" for name in primary) or "1"
        for number, *key in self._stage.run(
            f"SELECT s.{NUMBER}, {found} FROM {self._stage.name} s {self._beside(one)} {where}"
        ).all():
            yield number, dict(zip(primary, key, strict=False))

    def _lies_beyond(self, one: Unique) -> bool:
        """Whether all keys of the rows come behind those in the table, as counted ones do: two looks at an index."""
        name = quote(one.columns[0])
        if len(one.columns) > 1 or not one.nulls_distinct:
            return False
        # not by max() and min(), which not every type has; what can be unique has an order
        most = f"(SELECT {name} FROM {self._table} WHERE {name} IS NOT NULL ORDER BY 1 DESC LIMIT 1)"
        least = f"(SELECT {name} FROM {self._stage.name} WHERE {name} IS NOT NULL ORDER BY 1 LIMIT 1)"
        return self._stage.run(f"SELECT coalesce({most} < {least}, {most} IS NULL)").scalar() is True

    def _beside(self, one: Unique) -> str:
        """The rows of the table with the same key: by its index where few are asked for, else as the planner likes."""
        if self._stage.analyzed:
            return f"JOIN {self._table} t ON {self._same(one, 's', 't')}"
        return f", LATERAL (SELECT * FROM {self._table} t WHERE {self._same(one, 's', 't')} OFFSET 0) t"

    def in_input(self, one: Unique, batch: Batch, unfit: frozenset[int]) -> Iterator[tuple[int, int]]:
        """Rows that share a key with others of the input, with the first row of that key."""
        if one.nulls_distinct:
            places = [self._stage.columns.index(name) for name in one.columns]
            found = keys.shared(batch, places, [self._rules.columns[name] for name in one.columns], unfit)
            if found is not None:
                yield from found
                return
        names = ", ".join(map(quote, one.columns))
        given = f"WHERE {self._given(one.columns)}" if one.nulls_distinct else ""
        pairs = self._stage.run(
            f"SELECT min({NUMBER}), max({NUMBER}), count(*) FROM {self._stage.name} s {given}"
            f" GROUP BY {names} HAVING count(*) > 1"
        ).all()
        if all(count == 2 for _, _, count in pairs):  # nearly always, and looking for more is dear
            for first, second, _ in pairs:
                yield from ((first, first), (second, first))
            return
        for number, first in self._stage.run(
            f"SELECT s.{NUMBER}, d.first FROM {self._stage.name} s JOIN (SELECT {names}, min({NUMBER}) AS first"
            f" FROM {self._stage.name} s {given} GROUP BY {names} HAVING count(*) > 1) d ON {self._same(one, 's', 'd')}"
        ).all():
            yield number, first

    def uniques(self) -> list[Unique]:
        """The keys that are judged here."""
        return self._uniques


class _Claim(NamedTuple):
    """A row has a key that others of the input have, too."""

    unique: Unique
    first: int


class _Order:
    """Goes through those rows in order whose fate depends on earlier ones."""

    def __init__(self, judge: Judge, batch: Batch, verdict: Verdict, unfit: frozenset[int]) -> None:
        self._judge = judge
        self._batch = batch
        self._verdict = verdict
        self._claims: dict[int, list[_Claim]] = defaultdict(list)
        self._children: dict[int, list[tuple[ForeignKey, list[int]]]] = defaultdict(list)
        for one in judge.uniques():
            for at, first in judge.in_input(one, batch, unfit):
                self._claims[at].append(_Claim(one, first))
        for foreign_key in judge.own_keys():
            for at, parents in judge.orphans_within(foreign_key).items():
                self._children[at].append((foreign_key, parents))

    def decide(self) -> None:
        """Enter those that do not get in."""
        taken: dict[tuple[str, int], int] = {}
        for at in sorted(self._claims.keys() | self._children.keys()):
            self._look(at, taken)
            if self._got_in(at):
                taken.update({(claim.unique.name, claim.first): at for claim in self._claims.get(at, ())})

    def _look(self, at: int, taken: dict[tuple[str, int], int]) -> None:
        for foreign_key, parents in self._children.get(at, ()):
            if not any(parent == at or (parent < at and self._got_in(parent)) for parent in parents):
                earlier = [parent for parent in parents if parent < at]
                why = self._judge.orphan(foreign_key, self._batch, at, earlier[0] if earlier else None)
                self._verdict.refused.setdefault(at, []).append(why)
        for claim in self._claims.get(at, ()):
            before = taken.get((claim.unique.name, claim.first))
            if before is not None:
                self._judge.enter(self._verdict, at, claim.unique, self._batch.number(before))

    def _got_in(self, at: int) -> bool:
        return at not in self._verdict.refused and at not in self._verdict.skipped
