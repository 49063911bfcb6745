"""Values that a database would alter, or that a type does not take, are refused alike on each of them."""

from __future__ import annotations

import datetime
import enum
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    String,
    Table,
    Text,
    Time,
    Uuid,
    func,
    select,
    text,
)
from sqlalchemy.types import TypeDecorator, UserDefinedType

from savepoints._databases import capabilities
from savepoints._load.intake import Intake, Piece
from tests.harness.world import World

pytestmark = pytest.mark.needs("core")


class Colour(enum.Enum):
    RED = "rouge"
    BLUE = "bleu"


class Unwanted(Exception):
    """Of an application's own."""


class Even(TypeDecorator[int]):
    """A type with an opinion."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if isinstance(value, int) and value % 2:
            raise Unwanted
        return value


class Short(TypeDecorator[str]):
    impl = String(5)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"<{value}>"


class Read(TypeDecorator[str]):
    """A type that has an opinion only of what it reads."""

    impl = String(20)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"read {value}"


class Veiled(UserDefinedType[str]):
    """A type of an application's own, which is stored otherwise: imagine a cipher."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARCHAR(20)"

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: None if value is None else f"<{value}>"


class VeiledText(String):
    """The same of a type of SQLAlchemy's."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: None if value is None else f"<{value}>"


class Upper(TypeDecorator[str]):
    """A type whose values go through a function of the database."""

    impl = String(20)
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.upper(bindvalue)


class Odd(float):
    """As numpy's, which are floats and are written otherwise."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


class Strange:
    def __reduce__(self) -> Any:
        raise Unwanted


TYPES: dict[str, Any] = {
    "price": Numeric(5, 2),
    "ratio": Float(53),
    "number": Integer,
    "name": String(5),
    "flag": Boolean,
    "data": LargeBinary,
    "uid": Uuid(as_uuid=False),
    "word": Enum("yes", "no", native_enum=False),
    "colour": Enum(Colour, native_enum=False),
    "shade": Enum(Colour, native_enum=False, values_callable=lambda cls: [one.value for one in cls], name="shade"),
    "span": Interval,
    "doc": JSON,
    "blob": PickleType,
    "even": Even,
    "short": Short,
}

REFUSED: dict[str, tuple[str, Any, str]] = {
    "one digit more behind the point": ("price", Decimal("1.235"), "type"),
    "the same as text": ("price", "1.235", "type"),
    "the same as a float": ("price", 1.235, "type"),
    "and with an exponent": ("price", "1235e-3", "type"),
    "one digit more before it": ("price", Decimal(1000), "type"),
    "as a whole number": ("price", 1000, "type"),
    "as text, with zeros in front": ("price", "01000", "type"),
    "as a float": ("price", 1234567.5, "type"),
    "a large exponent": ("price", "1e400", "type"),
    "no number": ("price", "x", "type"),
    "endless": ("price", Decimal("Infinity"), "type"),
    "a float too large": ("ratio", "1e400", "type"),
    "a whole number that no float is": ("ratio", 2**53 + 1, "type"),
    "no float": ("ratio", "x", "type"),
    "a whole number that no float is, as a Decimal": ("ratio", Decimal(2**53 + 1), "type"),
    "what would be nothing": ("ratio", Decimal("1e-400"), "type"),
    "an exponent in a whole number": ("number", "1e3", "type"),
    "a part of a whole number": ("number", 1.5, "type"),
    "not one at all": ("number", float("inf"), "type"),
    "one character too many": ("name", "abcdef", "length"),
    "half a character": ("name", "\ud800", "encoding"),
    "more than two": ("flag", 2, "type"),
    "neither yes nor no": ("flag", "perhaps", "type"),
    "no hexadecimal digits": ("data", "\\xzz", "type"),
    "no mark in front": ("data", "abcd", "type"),
    "no identifier": ("uid", "abc", "type"),
    "an unknown word": ("word", "maybe", "type"),
    "an unknown name": ("colour", "GREEN", "type"),
    "a value that is none of its": ("shade", "vert", "type"),
    "a name where values are stored": ("shade", "RED", "type"),
    "no duration": ("span", "a while", "type"),
    "no JSON": ("doc", {1, 2}, "type"),
    "what cannot be pickled": ("blob", Strange(), "type"),
    "a type's own refusal": ("even", 3, "type"),
    "what it makes is too long": ("short", "abcd", "length"),
}
KEPT: dict[str, tuple[str, Any, Any]] = {
    "as many digits": ("price", Decimal("999.99"), Decimal("999.99")),
    "zeros behind": ("price", Decimal("1.230000"), Decimal("1.23")),
    "zeros behind, as text": ("price", " 1.500 ", Decimal("1.5")),
    "a float of two digits": ("price", 0.1, Decimal("0.1")),
    "a float of another class": ("price", Odd(1.5), Decimal("1.5")),
    "a large float": ("ratio", "1e23", 1e23),
    "nothing": ("ratio", "-0.0e-400", 0.0),
    "an exponent": ("price", "1e2", Decimal(100)),
    "less than nothing": ("price", "-.5", Decimal("-0.5")),
    "a large whole number": ("ratio", 2**60, float(2**60)),
    "a float": ("ratio", 0.1 + 0.2, 0.1 + 0.2),
    "zeros in front": ("number", "007", 7),
    "a whole float": ("number", 7.0, 7),
    "a truth as a number": ("number", True, 1),
    "as many characters": ("name", "äbcdé", "äbcdé"),
    "yes": ("flag", "yes", True),
    "0": ("flag", "0", False),
    "hexadecimal digits": ("data", "\\xABcd", b"\xab\xcd"),
    "an identifier": ("uid", uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "an identifier as text": ("uid", uuid.UUID(int=8).hex, str(uuid.UUID(int=8))),
    "a word": ("word", "no", "no"),
    "a member": ("colour", Colour.RED, Colour.RED),
    "its name": ("colour", "BLUE", Colour.BLUE),
    "its value": ("colour", "bleu", Colour.BLUE),
    "a member by value": ("shade", Colour.RED, Colour.RED),
    "what is stored of it": ("shade", "bleu", Colour.BLUE),
    "a duration": ("span", datetime.timedelta(hours=3, seconds=1), datetime.timedelta(hours=3, seconds=1)),
    "a duration as text": ("span", "1 day, 2:03:04", datetime.timedelta(days=1, hours=2, minutes=3, seconds=4)),
    "JSON": ("doc", {"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
    "an object": ("blob", {1, 2}, {1, 2}),
    "what the type takes": ("even", 4, 4),
    "what it makes": ("short", "abc", "<abc>"),
}


@contextmanager
def made(world: World, **columns: Any) -> Iterator[Table]:
    """A table with these columns, beside its key."""
    key = Column("id", Integer, primary_key=True, autoincrement=False)
    table = Table("values_of", MetaData(), key, *(Column(name, kind) for name, kind in columns.items()))
    with world.aside.begin() as connection:
        table.create(connection)
    yield table


@pytest.mark.parametrize("form", ["mappings", "tuples"])
async def test_what_a_column_would_not_keep_is_refused(world: World, form: str) -> None:
    given = [{"id": number, column: value} for number, (column, value, _) in enumerate(REFUSED.values())]
    given += [{"id": number, column: value} for number, (column, value, _) in enumerate(KEPT.values(), len(REFUSED))]
    names = ["id", *TYPES]
    rows = given if form == "mappings" else [tuple(row.get(name) for name in names) for row in given]
    with made(world, **TYPES) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, rows, max_rejected=len(rows))
            told = {one.number: (one.column, one.kind) for one in report.rejects}
            expected = [(label, (column, kind)) for label, (column, _, kind) in REFUSED.items()]
            assert [(label, told.get(at)) for at, (label, _) in enumerate(expected)] == expected
            found = {row.id: row._mapping for row in (await target.execute(select(table))).all()}
            stored = {label: found[at][column] if at in found else told[at]
                      for at, (label, (column, _, _)) in enumerate(KEPT.items(), len(REFUSED))}  # fmt: skip
            assert stored == {label: value for label, (_, _, value) in KEPT.items()}


OWN: dict[str, tuple[Any, str | None]] = {
    "read": (Read, "a"),
    "veiled": (Veiled, "<a>"),
    "veiled_text": (VeiledText(20), None),  # some drivers' dialects take no processor of a String of somebody's
    "upper": (Upper, "A"),  # it goes by SQLAlchemy's own statements, whatever else is in the table
}


@pytest.mark.parametrize("form", ["mappings", "tuples", "file"])
@pytest.mark.parametrize("on_conflict", ["reject", "update"])
@pytest.mark.parametrize("own", [[*OWN], ["read", "veiled", "veiled_text"]], ids=["all", "without SQL"])
async def test_types_of_an_application_are_asked(
    world: World, form: str, on_conflict: Any, own: list[str], tmp_path: Path
) -> None:
    types = {name: OWN[name][0] for name in own}
    names = ["id", *types]
    rows: Any = [(1, *["a"] * len(types)), (2, *[None] * len(types))]
    if form == "mappings":
        rows = [dict(zip(names, rows[0], strict=True)), {"id": 2}]
    elif form == "file":
        rows = tmp_path / "rows.csv"
        rows.write_text(f"{','.join(names)}\n1{',a' * len(types)}\n2{',' * len(types)}\n")
    with made(world, **types) as table:
        async with world.transaction(world.source, rollback=True) as target:
            for _ in range(2 if on_conflict == "update" else 1):
                report = await world.load(target, table, rows, on_conflict=on_conflict)
                assert report.rejects[:] == []
            await target.execute(table.insert(), [{"id": 3, **dict.fromkeys(types, "a")}])  # the slow way
            given, empty, slow = (await target.execute(text("SELECT * FROM values_of ORDER BY id"))).all()
            assert given[1:] == slow[1:]
            assert all(OWN[name][1] in (None, cell) for name, cell in zip(own, given[1:], strict=True))
            assert empty[1:] == (None,) * len(types)


@pytest.mark.lacks("untyped")  # whose numbers are floats
async def test_all_digits_of_an_exact_number(world: World) -> None:
    digits = [Decimal("9007199254740993"), Decimal("0.12345678901234567890"), 2**53 + 1]
    with made(world, exact=Numeric(40, 20)) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, [{"id": at, "exact": one} for at, one in enumerate(digits)])
            assert report.rejects[:] == []
            found = (await target.execute(select(table.c.exact).order_by(table.c.id))).scalars().all()
            assert [*found] == digits


async def test_a_field_that_is_not_there_is_null(world: World) -> None:
    """Of a type that makes something of None, too: it is left out, as in an INSERT."""
    with made(world, doc=JSON, name=String(5)) as table:
        rows = [{"id": 1, "doc": {"a": 1}}, {"id": 2, "name": "x"}, {"id": 3, "doc": None}]
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, rows)
            assert report.loaded == 3
            empty = await target.execute(text("SELECT id FROM values_of WHERE doc IS NULL"))
            assert empty.scalars().all() == [2]


async def test_rows_of_several_forms_go_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lack now this field and now that are not sent one by one."""
    counts: list[int] = []
    piece_of = Intake.piece

    def counted(self: Intake, count: int) -> Piece | None:
        piece = piece_of(self, count)
        counts.extend([] if piece is None else [len(piece.batches)])
        return piece

    monkeypatch.setattr(Intake, "piece", counted)
    rows = [{"id": at, **({"doc": at} if at % 2 else {"name": "x"} if at % 3 else {})} for at in range(50)]
    with made(world, doc=JSON, name=String(5)) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, rows, convert={"doc": lambda number: [number]})
            assert (report.loaded, counts) == (50, [1])
            found = (await target.execute(select(table.c.doc).where(table.c.doc.is_not(None)))).scalars()
            assert sorted(found, key=str) == sorted(([at] for at in range(1, 50, 2)), key=str)


async def test_no_number_is_refused_where_it_would_be_null_or_an_error(world: World) -> None:
    rows = [(1, math.nan), (2, "nan"), (3, 1.5), (4, None)]
    with made(world, ratio=Float(53)) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, rows)
            kept = capabilities(world.sync_engine.dialect).nans
            assert [(one.number, one.kind) for one in report.rejects] == ([] if kept else [(0, "type"), (1, "type")])
            found = (await target.execute(select(table.c.ratio).order_by(table.c.id))).scalars().all()
            assert [str(one) for one in found] == ["nan", "nan"] * kept + ["1.5", "None"]


#: Of a column that the Table knows nothing of, or takes for another: what SQLite makes of text and numbers in it.
AFFINITIES: list[tuple[str, Any, Any, bool]] = [
    ("INTEGER", Text, "007", False),
    ("INTEGER", Text, "1e3", False),
    ("INTEGER", Text, " 7", False),
    ("INTEGER", Text, "7", True),
    ("INTEGER", Text, "x7", True),
    ("INTEGER", Text, "9223372036854775808", False),
    ("WHATEVER", String(9), "3.0", False),
    ("WHATEVER", String(9), "1.5", True),
    ("WHATEVER", None, "+5", False),
    ("REAL", Text, "1", False),
    ("REAL", Integer, 2**53 + 1, False),
    ("REAL", Integer, 2**53, True),
    ("TEXT", Float, 0.1 + 0.2, False),
    ("TEXT", Float, 0.5, True),
    ("", None, "007", True),
    ("", None, math.nan, False),
    ("NUMERIC", JSON, 12345678901234567890, False),
    ("NUMERIC", JSON, {"a": 1}, True),
    ("DATE", Date, datetime.date(2024, 1, 1), True),
]


@pytest.mark.needs("untyped")
async def test_what_the_file_says_of_a_column_alters_no_value(world: World) -> None:
    for declared, kind, value, keeps in AFFINITIES:
        given = (declared, kind, value)
        table = Table("affinity", MetaData(), Column("id", Integer), Column("x", *([kind] if kind else [])))
        with world.aside.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS affinity"))
            connection.execute(text(f"CREATE TABLE affinity (id INTEGER, x {declared})"))
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, [(1, value), (2, None)])
            assert ([one.kind for one in report.rejects], given) == ([] if keeps else ["type"], given)
            assert report.loaded == 1 + keeps


async def test_bytes_of_another_encoding_are_told_apart_from_text_that_has_none(world: World, tmp_path: Path) -> None:
    file = tmp_path / "names.jsonl"
    file.write_bytes(b'{"id": 1, "name": "b\xff"}\n{"id": 2, "name": "\\ud800"}\n{"id": 3, "name": "good"}\n')
    with made(world, name=String(5)) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, file)
            assert [(one.number, one.kind, one.message) for one in report.rejects] == [
                (0, "encoding", "name holds bytes that are not of the input's encoding"),
                (1, "encoding", "name holds text that cannot be encoded"),
            ]
            assert report.loaded == 1


#: Words and forms of moments that PostgreSQL reads from text by rules of its own, as any INSERT there does.
LOOSE = {
    "day": ["today", "tomorrow", "01/02/2020"],
    "hour": ["now", "10:00 PM"],
    "at": ["now", "2020-01-01 24:00:00"],
}


@pytest.mark.parametrize("column", LOOSE)
async def test_forms_of_moments_that_one_database_alone_reads(world: World, tmp_path: Path, column: str) -> None:
    given = LOOSE[column]
    file = tmp_path / "moments.csv"
    file.write_text(f"id,{column}\n" + "".join(f"{at},{value}\n" for at, value in enumerate(given)))
    with made(world, day=Date, hour=Time, at=DateTime) as table:
        async with world.transaction(world.source, rollback=True) as target:
            report = await world.load(target, table, file)
            assert {one.kind for one in report.rejects} <= {"type"}
            reads_them = capabilities(world.sync_engine.dialect).zones  # the same database
            assert report.loaded == (len(given) if reads_them else 0)
