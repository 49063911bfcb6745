"""Random tables, and random rows for them: few values, so that they collide, and every kind of dirt."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st
from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

Kind = Literal["number", "text", "day"]
Form = Literal["mappings", "csv"]
OnConflict = Literal["reject", "skip", "update"]
Row = dict[str, Any]

LENGTH = 5
TYPES: dict[Kind, Any] = {"number": Integer(), "text": String(LENGTH), "day": Date()}
KINDS: dict[str, Kind] = {"a": "number", "b": "number", "s": "text", "t": "text", "d": "day", "of": "number"}
#: Names that a loader might have thought nobody else uses.
SHORT = ("n", "k0", "c0")
KINDS |= dict.fromkeys(SHORT, "number")

#: What the parents are; they are there before each case.
PARENTS = (1, 2, 3)
PAIRS = ((1, 1), (1, 2), (2, 3))


@dataclass(frozen=True)
class Field:
    """A column of the table.

    Attributes:
        default: Who fills it where a row leaves it out: nobody, SQLAlchemy, or the database.
    """

    name: str
    nullable: bool
    default: Literal["", "python", "server"] = ""


@dataclass(frozen=True)
class Schema:
    """A table, as data: its `repr` makes it again.

    Attributes:
        checks: Conditions over numbers.
        parents: Columns and what they refer to: a row of ``owner``, of ``pair``, or of the table itself.
        deferred: Foreign keys are looked at on COMMIT only.
    """

    fields: tuple[Field, ...]
    primary: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    checks: tuple[str, ...] = ()
    parents: tuple[tuple[tuple[str, ...], str], ...] = ()
    deferred: bool = False

    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    def tables(self) -> tuple[MetaData, Table]:
        """The parents and the table."""
        metadata = MetaData()
        Table("owner", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
        numbers = [Column(name, Integer, primary_key=True, autoincrement=False) for name in ("x", "y")]
        Table("pair", metadata, *numbers)
        rules: list[Any] = [PrimaryKeyConstraint(*self.primary)] if self.primary else []
        rules += [UniqueConstraint(*names, name=f"unique_{at}") for at, names in enumerate(self.uniques)]
        rules += [CheckConstraint(condition, name=f"check_{at}") for at, condition in enumerate(self.checks)]
        options: dict[str, Any] = {"deferrable": True, "initially": "DEFERRED"} if self.deferred else {}
        for at, (names, referred) in enumerate(self.parents):
            rules.append(ForeignKeyConstraint(names, REFERRED[referred], name=f"parent_{at}", **options))
        return metadata, Table("thing", metadata, *map(_column, self.fields), *rules)


REFERRED = {"owner": ["owner.id"], "pair": ["pair.x", "pair.y"], "itself": ["thing.a"]}
DEFAULTS: dict[Kind, Any] = {"number": 2, "text": "def", "day": datetime.date(2024, 1, 1)}


def _column(field: Field) -> Column[Any]:
    kind = KINDS[field.name]
    value = DEFAULTS[kind]
    given: dict[str, Any] = {"python": {"default": value}, "server": {"server_default": str(value)}}.get(
        field.default, {}
    )
    return Column(field.name, TYPES[kind], nullable=field.nullable, autoincrement=False, **given)


@dataclass(frozen=True)
class Case:
    """What is loaded into what.

    Attributes:
        before: Rows that are put into the table first.
        rows: The input.
        piece: So many rows are taken at once.
        form: Mappings, or a CSV file with the same rows as text.
        on_conflict: What happens to duplicates.
        filler: So many good rows stand before, and as many behind.
    """

    schema: Schema
    before: tuple[Row, ...]
    rows: tuple[Row, ...]
    piece: int = 1000
    form: Form = "mappings"
    on_conflict: OnConflict = "reject"
    filler: int = 0

    def input(self) -> list[Row]:
        """All rows."""
        head = [good(self.schema, 1000 + number) for number in range(self.filler)]
        tail = [good(self.schema, 1000 + self.filler + number) for number in range(self.filler)]
        return [*head, *self.rows, *tail]


def good(schema: Schema, number: int) -> Row:
    """A row that collides with no other, and breaks no rule that it can help breaking."""
    values: Row = {"a": number, "b": number + 1, "s": f"s{number}", "t": f"t{number}", "d": DEFAULTS["day"], "of": 1}
    values |= dict.fromkeys(SHORT, number)
    for names, referred in schema.parents:
        values |= {"owner": {names[0]: 1}, "pair": dict(zip(names, PAIRS[0], strict=False)), "itself": {}}[referred]
        if referred == "itself":
            values[names[0]] = number
    return {name: values[name] for name in schema.names()}


# -- what a value is worth

_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")


def number_of(value: Any) -> int:
    """A number, or text that is one; anything else is a ValueError."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError(value)
    return int(value)


def text_of(value: Any) -> str:
    if len(value) > LENGTH:
        raise ValueError(value)
    return str(value)


def day_of(value: Any) -> datetime.date:
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


#: For databases that put any value into any column: what belongs into it, by rules of the test's own.
FITTING: dict[Kind, Callable[[Any], Any]] = {"number": number_of, "text": text_of, "day": day_of}


# -- strategies

_NUMBERS = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, "1", "007", "+2", " 3 "])
_TEXTS = st.sampled_from(["x", "x", "y", "z", "X", "x ", "é", "'", "\\N", "a\tb"])
_DAYS = st.sampled_from([datetime.date(2024, 2, 29), datetime.date(1999, 12, 31), "2024-02-29"])
_GOOD: dict[Kind, st.SearchStrategy[Any]] = {"number": _NUMBERS, "text": _TEXTS, "day": _DAYS}
_BAD: dict[Kind, st.SearchStrategy[Any]] = {
    "number": st.sampled_from([-1, 77, None, "many", "1e3", "", 2**70, "1.5"]),
    "text": st.sampled_from([None, "longer", "\ud800", "four\r\n"]),
    "day": st.sampled_from([None, "2024-02-30", "soon"]),
}


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Tables with up to three keys, with rules of each kind."""
    names = ["a", "b", *sorted(draw(st.sets(st.sampled_from(["s", "t", "d", "of", *SHORT]))))]
    fields = tuple(
        Field(name, draw(st.booleans()), draw(st.sampled_from(["", "", "python", "server"]))) for name in names
    )
    keys = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True).map(tuple)
    primary = draw(st.sampled_from([("a",), ("a",), ("a", "b"), ()]))
    uniques = tuple(draw(st.lists(keys.filter(lambda key: key != primary), max_size=2, unique_by=frozenset)))
    checks = draw(st.sets(st.sampled_from(["a >= 0", "b >= 0", "a <= b", "a <> 4"]), max_size=2))
    checks |= {f"{name} > 0" for name in SHORT if name in names}
    parents: list[tuple[tuple[str, ...], str]] = []
    if "of" in names and draw(st.booleans()):
        parents.append((("of",), "owner"))
    if draw(st.integers(0, 3)) == 0:
        parents.append((("a", "b"), "pair"))
    if ("a",) in (primary, *uniques) and draw(st.booleans()):
        parents.append((("b",), "itself"))
    # where the database counts a key, nobody knows before COMMIT whether it is a deferred foreign key's parent
    counted = primary == ("a",) and any("a" in names for names, _ in parents)
    deferred = not counted and draw(st.integers(0, 4)) == 0
    return Schema(fields, primary, uniques, tuple(sorted(checks)), tuple(parents), deferred)


@st.composite
def rows(draw: st.DrawFn, schema: Schema) -> Row:
    """A row: mostly good values, with some dirt, and sometimes without fields that somebody fills."""
    row = {}
    dirty = draw(st.integers(0, 2)) == 0
    for field in schema.fields:
        kind = KINDS[field.name]
        row[field.name] = draw(_BAD[kind] if dirty and draw(st.booleans()) else _GOOD[kind])
    left_out = draw(st.sets(st.sampled_from([field.name for field in schema.fields if field.default] or [""])))
    return {name: value for name, value in row.items() if name not in left_out} if draw(st.booleans()) else row


@st.composite
def cases(draw: st.DrawFn, *, filler: int = 0) -> Case:
    """Anything that may be loaded."""
    schema = draw(schemas())
    given = draw(st.lists(rows(schema), min_size=1, max_size=25))
    forms: list[Form] = ["mappings", "mappings", "csv"]
    form = draw(st.sampled_from(forms))
    if form == "csv":
        given = [as_text(schema, row) for row in given]
    # a key that somebody else fills tells no duplicate
    told = schema.primary and all(not field.default for field in schema.fields if field.name in schema.primary)
    conflicts: list[OnConflict] = ["reject", "reject", "reject", "skip", "update"]
    return Case(
        schema,
        tuple(draw(st.lists(rows(schema), max_size=3))),
        tuple(given),
        draw(st.sampled_from([1, 3, 7, 1000])),
        form,
        draw(st.sampled_from(conflicts if told else conflicts[:-1])),
        filler,
    )


def as_text(schema: Schema, row: Row) -> Row:
    """The row as a file has it: text or an empty cell, which is NULL, in every column."""
    values = {name: row.get(name) for name in schema.names()}
    return {name: None if value in (None, "") else str(value).replace("\ud800", "?") for name, value in values.items()}
