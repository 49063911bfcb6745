"""Every type of column where columns take what is near: what is kept, what is refused, and why.

The slow way decides, row by row in strict mode, from the value as SQL: what it refuses is refused, for the same reason,
and what it keeps as it is, is kept as such. What it takes and keeps otherwise is refused as well: no row is altered.
"""

from __future__ import annotations

import csv
import datetime
import warnings
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    Uuid,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import NullType

from savepoints._databases import capabilities
from tests.harness.world import World

pytestmark = pytest.mark.needs("lenient")


class Value(NamedTuple):
    """A value.

    Attributes:
        sql: The same, as SQL.
        kind: Why it is refused, where the database refuses it for another reason or not at all.
        text: The same as a file has it; None where a file cannot.
    """

    given: Any
    sql: str
    kind: str = "type"
    text: str | None = ""

    def as_text(self) -> str | None:
        if self.text != "":
            return self.text
        if isinstance(self.given, str):
            return self.given
        return self.sql.strip("'")


@dataclass
class Kind:
    """A type of column.

    Attributes:
        sql: Its name.
        declared: What a program may say that it is.
        kept: What is stored as it is.
        refused: What the database refuses.
        altered: What the database takes, and keeps otherwise.
    """

    sql: str
    declared: Any
    kept: list[Value] = field(default_factory=list)
    refused: list[Value] = field(default_factory=list)
    altered: list[Value] = field(default_factory=list)


def number(value: Any, kind: str = "type") -> Value:
    return Value(value, str(value), kind)


def words(value: str, kind: str = "type") -> Value:
    return Value(value, f"'{value}'", kind)


def octets(value: bytes, kind: str = "type") -> Value:
    return Value(value, f"x'{value.hex()}'", kind, f"\\x{value.hex()}")


def moment(value: Any, kind: str = "type") -> Value:
    return Value(value, f"'{value}'", kind)


def whole(sql: str, least: int, most: int) -> Kind:
    return Kind(
        sql,
        BigInteger() if most >= 1 << 31 else Integer(),
        kept=[number(least), number(most), number(0), Value(Decimal("7"), "7"), Value(7.0, "7"),
              Value(True, "TRUE", text="1")],
        refused=[number(least - 1), number(most + 1), number(2**64), number(-(2**64)), words("x"), words("7x"),
                 words("1_0"), words("٣"), Value(1e300, "1e300", text=None)],
        altered=[Value(1.5, "1.5"), Value(Decimal("0.5"), "0.5"), words("1.5")],
    )  # fmt: skip


DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 30)
POINT = b"\0\0\0\0\1\1\0\0\0" + bytes(16)
SOME = "c0ffee00-0000-4000-8000-000000000001"
HOUR = datetime.timedelta(hours=1)


def micros(count: int) -> datetime.datetime:
    return NOON.replace(microsecond=count)


def spans(sql: str, declared: Any) -> Kind:
    return Kind(
        sql,
        declared,
        kept=[
            moment(datetime.time(12, 30)), Value(HOUR, "'01:00:00'"), Value(-HOUR, "'-01:00:00'"),
            Value(-1.5 * HOUR, "'-01:30:00'"), Value(100 * HOUR, "'100:00:00'"), Value(-838 * HOUR, "'-838:00:00'"),
            words("12:30:00"), words("-01:00:00"), words("100:00:00"), words("838:59:59"), words("12:30"),
        ],
        refused=[Value(839 * HOUR, "'839:00:00'"), words("839:00:00"), words("x"), words("12:61:00"),
                 words("12:30:00x")],
        altered=[Value(datetime.time(12, 30, 0, 1), "'12:30:00.000001'"),
                 Value(datetime.timedelta(microseconds=-1), "'-00:00:00.000001'"), words("12:30:00.5")],
    )  # fmt: skip


KINDS = [
    whole("TINYINT", -128, 127),
    whole("TINYINT UNSIGNED", 0, 255),
    whole("SMALLINT", -(2**15), 2**15 - 1),
    whole("SMALLINT UNSIGNED", 0, 2**16 - 1),
    whole("MEDIUMINT", -(2**23), 2**23 - 1),
    whole("MEDIUMINT UNSIGNED", 0, 2**24 - 1),
    whole("INT", -(2**31), 2**31 - 1),
    whole("INT UNSIGNED", 0, 2**32 - 1),
    whole("BIGINT", -(2**63), 2**63 - 1),
    whole("BIGINT UNSIGNED", 0, 2**64 - 1),
    Kind(
        "YEAR",
        Integer(),
        kept=[number(1901), number(2155), number(0), number(2024)],
        refused=[number(1900), number(2156), number(-1), number(2**64), words("x")],
        altered=[number(70), number(1), number(99)],
    ),
    Kind(
        "BIT(4)",
        mysql.BIT(4),
        kept=[number(0), number(15), Value(b"\5", "x'05'", text=None), Value(b"\0\5", "x'0005'", text=None)],
        refused=[number(16), number(-1), Value(b"\x10", "x'10'", "length", None), number(2**64),
                 Value("x", "'x'", text=None)],
        altered=[Value(1.5, "1.5")],
    ),
    Kind("BIT(64)", mysql.BIT(64), kept=[number(2**64 - 1)], refused=[number(2**64)], altered=[number(-1)]),
    Kind(
        "DECIMAL(6,2)",
        Numeric(6, 2),
        kept=[number(Decimal("1.23")), number(Decimal("-1.230")), number(1.25), number(7), number(9999),
              words("9999.99"), words("1e2")],
        refused=[number(Decimal(10000)), number(-10000), number(1e300), words("x"), words("1.5x"), words("1_0"),
                 number(2**64)],
        altered=[number(Decimal("1.235")), number(-0.125), Value(0.1 + 0.2, "0.30000000000000004e0"), words("0.001"),
                 number(Decimal("1E-30"))],
    ),
    Kind("DECIMAL(6,2) UNSIGNED", Numeric(6, 2), kept=[number(Decimal("0.10"))],
         refused=[number(Decimal("-0.01")), number(-1)]),
    Kind("DECIMAL(65,30)", Numeric(65, 30), kept=[number(Decimal("9" * 35 + "." + "9" * 30))], refused=[number(10**35)],
         altered=[number(Decimal("1E-31"))]),
    Kind("FLOAT", Float(), kept=[number(1.5), number(0.1), number(7), number(Decimal("0.25"))],
         refused=[number(1e39), words("x")], altered=[number(1e-50)]),
    Kind("FLOAT(6,2)", Float(), kept=[number(1.25), number(7)], refused=[number(10000)], altered=[number(1.235)]),
    Kind("DOUBLE", Float(), kept=[number(1.5), number(0.1), number(1e308), number(7)],
         refused=[words("x"), words("1_0")]),
    Kind("DOUBLE(6,2)", Float(), kept=[number(1.25)], refused=[number(12345.6)], altered=[number(Decimal("1.235"))]),
    Kind("DOUBLE UNSIGNED", Float(), kept=[number(1.25)], refused=[number(-1.5)]),
    Kind(
        "DATE",
        Date(),
        kept=[moment(DAY), Value(datetime.datetime(2024, 2, 29), "'2024-02-29'"), words("2024-02-29")],
        refused=[words("2023-02-29"), words("x"), words("2024-02-29x")],
        altered=[moment(NOON)],
    ),
    Kind(
        "DATETIME",
        DateTime(),
        kept=[moment(NOON), moment(DAY), words("2024-02-29T12:30:00"), words("2024-02-29 12:30"),
              words("2024-02-29 12:30:00.000")],
        refused=[words("2024-02-29 25:00:00"), words("x"), words("2024-02-29 12:30:00+02:00"),
                 moment(NOON.replace(tzinfo=datetime.UTC))],
        altered=[moment(micros(1)), words("2024-02-29 12:30:00.5")],
    ),
    Kind("DATETIME(3)", DateTime(), kept=[moment(micros(5000)), moment(NOON)],
         altered=[moment(micros(5)), moment(micros(1500))]),
    Kind("DATETIME(6)", DateTime(), kept=[moment(micros(1))]),
    Kind(
        "TIMESTAMP",
        DateTime(),
        kept=[moment(NOON), moment(DAY)],
        refused=[words("1960-01-01"), moment(NOON.replace(year=2040)), words("x")],
        altered=[moment(micros(1))],
    ),
    spans("TIME", Time()),
    Kind(
        "TIME(3)",
        mysql.TIME(fsp=3),
        kept=[moment(datetime.time(12, 30, 0, 1000)), words("-100:00:00.5"), Value(-HOUR / 8000, "'-00:00:00.450'")],
        altered=[moment(datetime.time(12, 30, 0, 1500)), words("12:30:00.0005")],
    ),
    Kind("CHAR(3)", String(3), kept=[words("abc"), words("äöü"), words("a"), words("it"), number(7)],
         refused=[words("abcd", "length")]),
    Kind(
        "VARCHAR(3)",
        String(),
        kept=[words("abc"), words("äöü"), words("ab "), words("😀"), number(123), Value("", "''", text="")],
        refused=[words("abcd", "length"), words("äöüä", "length"), number(1234, "length")],
        altered=[words("abc ", "length"), words("abc      ", "length")],
    ),
    Kind("VARCHAR(3) CHARACTER SET latin1", String(), kept=[words("äöü")],
         refused=[words("ł", "encoding"), words("abcd", "length")]),
    Kind("VARCHAR(3) CHARACTER SET utf8mb3", String(), kept=[words("äöü")], refused=[words("a😀", "encoding")]),
    Kind(
        "TINYTEXT",
        Text(),
        kept=[words("a" * 255), words("ä" * 127)],
        refused=[words("a" * 256, "length"), words("ä" * 128, "length"), words("ä" * 300, "length")],
        altered=[words("a" * 255 + " ", "length")],
    ),
    Kind("TINYTEXT CHARACTER SET latin1", Text(), kept=[words("ä" * 255)], refused=[words("ä" * 256, "length")]),
    Kind("TEXT", Text(), kept=[words("a" * 65535)], refused=[words("ä" * 32768, "length")],
         altered=[words("a" * 65535 + " ", "length")]),
    Kind("MEDIUMTEXT", Text(), kept=[words("ä" * 70000)]),
    Kind("LONGTEXT", Text(), kept=[words("ä" * 70000)]),
    Kind("BINARY(3)", LargeBinary(), kept=[octets(b"abc"), octets(b"\xff\0\0")], refused=[octets(b"abcd", "length")],
         altered=[octets(b"ab", "length"), octets(b"a", "length")]),
    Kind("VARBINARY(3)", LargeBinary(), kept=[octets(b"abc"), octets(b"\xff"), octets(b"a ")],
         refused=[octets(b"abcd", "length"), octets(b"abc ", "length")]),
    Kind("TINYBLOB", LargeBinary(), kept=[octets(b"\xff" * 255)], refused=[octets(b"\xff" * 256, "length")]),
    Kind("BLOB", LargeBinary(), kept=[octets(b"\xff" * 300)], refused=[octets(b"\xff" * 65536, "length")]),
    Kind("MEDIUMBLOB", LargeBinary(), kept=[octets(b"\xff" * 300)]),
    Kind("LONGBLOB", LargeBinary(), kept=[octets(b"\xff" * 300)]),
    Kind("JSON", Text(), kept=[words('{"a": [1, null]}'), words("7")],
         refused=[words("x", "check"), words("{", "check")]),
    Kind("INET4", NullType(), kept=[words("1.2.3.4")],
         refused=[words("x"), words("1.2.3.256"), words("::1"), Value(5, "5")]),
    Kind("INET6", NullType(), kept=[words("::1"), words("fe80::1")],
         refused=[words("x"), words("1.2.3.4"), Value(5, "5")]),
    Kind(
        "UUID",
        Uuid(),
        kept=[words(SOME), words(SOME.replace("-", "")), Value(UUID(SOME), f"'{SOME}'")],
        refused=[words("x"), words(SOME + "2"), Value(7, "7")],
    ),
    Kind("POINT", NullType(), kept=[Value(POINT, f"x'{POINT.hex()}'", text=None)],
         refused=[words("x"), words("POINT(1 1)"), Value(5, "5"), Value(b"x", "'x'", text=None)]),
    Kind("GEOMETRY", NullType(), kept=[Value(POINT, f"x'{POINT.hex()}'", text=None)], refused=[words("x")]),
    Kind(
        "ENUM('a','B','it''s','x,y','')",
        Enum("a", "B", "it's", "x,y", ""),
        kept=[words("a"), words("B"), Value("it's", "'it''s'"), words("x,y"), Value("", "''")],
        refused=[words("c"), words("ab"), words("a,B"), words("9")],
        altered=[words("A"), words("b"), words("1"), words("a ")],
    ),
    Kind(r"ENUM('b\\c','ä','x)','q\"')", Text(), kept=[Value("b\\c", r"'b\\c'"), words("ä"), words("x)"), words('q"')],
         refused=[words("bc"), words("b")]),
    Kind(
        "SET('a','B','it''s')",
        mysql.SET("a", "B", "it's"),
        kept=[
            words("a"), words("a,B"), words("B,a"), Value("", "''"), Value("a,it's", "'a,it''s'"),
            Value({"a", "B"}, "'a,B'", text="a,B"), Value(frozenset({"it's"}), "'it''s'", text="it's"),
            Value(set(), "''", text=""),
        ],
        refused=[words("c"), words("a,c"), words("a,"), words("a, B"), Value({"a", "c"}, "'a,c'", text="a,c"),
                 words("9")],
        altered=[words("A"), words("a,b"), words("1"), words("a ")],
    ),
]  # fmt: skip


class Slow(NamedTuple):
    """What became of a value in strict mode: the kind of the error, or what is stored."""

    kind: str | None
    stored: Any = None


def slowly(connection: Connection, values: list[Value]) -> list[Slow]:
    """Each value by itself."""
    fault = capabilities(connection.dialect).fault
    found = []
    for at, value in enumerate(values):
        nested = connection.begin_nested()
        try:
            connection.exec_driver_sql(f"INSERT INTO slow VALUES ({at}, {value.sql})")
        except DBAPIError as error:
            nested.rollback()
            told = fault(error.orig or error)
            found.append(Slow(None if told is None else told.value))
        else:
            nested.commit()
            found.append(Slow(None, _stored(connection, "slow")[at]))
    return found


def _stored(connection: Connection, table: str) -> dict[int, Any]:
    rows = connection.exec_driver_sql(f"SELECT id, HEX(v), v FROM {table} ORDER BY id").all()
    return {row[0]: tuple(row[1:]) for row in rows}


def tables(connection: Connection, kind: Kind) -> list[Table]:
    """The table as the database tells it, and as a program may say that it is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type")
        reflected = Table("fast", MetaData(), autoload_with=connection)
    number = Column("id", Integer, primary_key=True, autoincrement=False)
    return [reflected, Table("fast", MetaData(), number, Column("v", kind.declared))]


def as_file(values: list[Value], folder: Path) -> Path:
    file = folder / "values.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "v"])
        writer.writerows((at, value.as_text()) for at, value in enumerate(values) if value.as_text() is not None)
    return file


@pytest.mark.needs("core")
@pytest.mark.parametrize("kind", KINDS, ids=[kind.sql for kind in KINDS])
async def test_a_value_is_kept_as_it_is_or_refused(world: World, kind: Kind, tmp_path: Path) -> None:
    values = [*kind.kept, *kind.refused, *kind.altered]
    bad = {at: value.kind for at, value in enumerate(values) if at >= len(kind.kept)}
    with world.aside.begin() as connection:
        for name in ("slow", "fast"):
            connection.execute(text(f"CREATE TABLE {name} (id INT PRIMARY KEY, v {kind.sql} NOT NULL)"))
        told = slowly(connection, values)
        both = tables(connection, kind)
    refused = [told[at].kind is not None or told[at].stored is None for at in range(len(values))]
    assert refused == [len(kind.kept) <= at < len(kind.kept) + len(kind.refused) for at in range(len(values))]

    for table in both:
        for rows in (list(enumerate(value.given for value in values)), as_file(values, tmp_path)):
            numbers = [at for at, value in enumerate(values) if isinstance(rows, list) or value.as_text() is not None]
            async with world.transaction(world.source, rollback=True) as target:
                report = await world.load(target, table, rows, max_rejected=100, null=())
                found = {numbers[one.number]: [(why.kind, why.column) for why in one.reasons] for one in report.rejects}
                assert found == {at: [(bad[at], "v")] for at in bad if at in numbers}
                stored = await world.run_sync(target, _stored, "fast")
                assert stored == {at: told[at].stored for at in range(len(kind.kept)) if at in numbers}
