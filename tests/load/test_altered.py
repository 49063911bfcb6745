"""A value that PostgreSQL would cut or round without a word, to make it fit its column, refuses its row.

Each value is loaded into a column of the real server; what is stored, must mean what was given.
"""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from savepoints import Report, load
from savepoints._load.databases import postgresql as way_to_load
from savepoints._load.databases.postgresql import catalog, copying
from tests.harness.world import World

UTC = datetime.UTC

#: By the column's type: values, and the text of what is stored, or the kind of the reject.
CUT: dict[str, list[tuple[Any, str]]] = {
    "timestamp": [
        ("2024-01-02 03:04:05+02", "type"),
        ("2024-01-02 03:04:05+00", "type"),
        ("2024-01-02T03:04:05Z", "type"),
        ("2024-01-02 03:04:05 PST", "type"),
        ("2024-01-02 03:04:05 America/New_York", "type"),
        ("2024-01-02 03:04:05-05", "type"),
        ("2024-01-02 +02", "type"),
        ("1999-008 03:04:05-05", "type"),
        ("2024-01-02 03:04:05.1234567", "type"),
        ("soon", "type"),
    ],
    "timestamp(0)": [("2024-01-02 03:04:05.5", "type"), (datetime.datetime(2024, 1, 2, 3, 4, 5, 500_000), "type")],
    "timestamp(3)": [("2024-01-02 03:04:05.1234", "type"), ("Jan 2 2024 03:04:05.0005", "type")],
    "timestamptz(3)": [("2024-01-02 03:04:05.1234Z", "type")],
    "timestamptz": [("2024-01-02 03:04:05.1234567Z", "type")],
    "date": [
        ("2024-01-02 03:04", "type"),
        ("20240102T030405", "type"),
        ("2024-01-02 00:00:00+02", "type"),
        ("Jan 2 2024 4:05 PM", "type"),
        ("300000-01-01 03:04", "type"),
        ("2024-02-30", "type"),
        (datetime.datetime(2024, 1, 2, 3), "type"),
    ],
    "time": [
        ("2024-01-02 03:04:05", "type"),
        ("2024-01-02 24:00", "type"),
        ("03:04:05+02", "type"),
        ("2024-01-02 03:04:05+02", "type"),
        ("03:04:05.1234567", "type"),
        (datetime.time(3, 4, tzinfo=UTC), "type"),
    ],
    "time(1)": [("03:04:05.25", "type")],
    "timetz": [("2024-01-02 03:04:05+02", "type"), ("03:04:05.1234567+02", "type")],
    "interval(0)": [("1.5 seconds", "type")],
    "interval": [("00:00:00.1234567", "type")],
    "interval day to hour": [("1 day 02:03:00", "type"), ("1.5", "type")],
    "numeric(5,2)": [
        ("1.239", "type"),
        ("1.5e-4", "type"),
        ("-0.001", "type"),
        (Decimal("1.239"), "type"),
        (0.125, "type"),
        ("1000", "type"),
        ("one", "type"),
    ],
    "numeric(3)": [("1.5", "type")],
    "money": [("1.239", "type")],
    "varchar(3)": [("ab  ", "length"), ("abcd", "length"), ("é\u20ac    ", "length")],
    "char(3)": [("ab  ", "length"), ("abcd", "length")],
    '"char"': [("ab", "length"), ("é", "length")],
    "name": [("x" * 64, "length")],
    "bit(3)": [("1010", "type"), ("10", "type")],
    "varbit(3)": [("1010", "length")],
    "int2": [("1.5", "type"), ("70000", "type")],
    "float4": [("1e39", "type")],
    "numeric(5,2)[]": [("{1.23,1.239}", "type"), ([Decimal("1.239")], "type")],
    "timestamp[]": [('{"2024-01-02 03:04","2024-01-02 03:04+02"}', "type")],
    "varchar(3)[]": [('{abc,"ab  "}', "type")],
    "date[]": [("{{2024-01-02},{2024-01-02 03:04}}", "type")],
    "tsrange": [('["2024-01-02 03:04+02",)', "type"), ("(,2024-01-02 03:04 PST]", "type")],
    "daterange": [("[2024-01-02 03:04,2024-01-05)", "type")],
}
KEPT: dict[str, list[tuple[Any, str]]] = {
    "timestamp": [
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05"),
        ("2024-01-02T03:04:05.123456", "2024-01-02 03:04:05.123456"),
        ("2024-01-02 03:04:05.1200000", "2024-01-02 03:04:05.12"),
        ("2024-01-02 03:04", "2024-01-02 03:04:00"),
        ("2024-01-02", "2024-01-02 00:00:00"),
        ("20240102 030405", "2024-01-02 03:04:05"),
        ("Jan 2 2024 4:05 PM", "2024-01-02 16:05:00"),
        ("2024-01-02 03:04:05 BC", "2024-01-02 03:04:05 BC"),
        ("infinity", "infinity"),
        ("epoch", "1970-01-01 00:00:00"),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02 03:04:05.000006"),
    ],
    "timestamp(0)": [("2024-01-02 03:04:05.000", "2024-01-02 03:04:05"), ("1999.008", "1999-01-08 00:00:00")],
    "timestamptz": [("2024-01-02 03:04:05+02", "2024-01-02 01:04:05+00"), ("2024-01-02", "2024-01-02 00:00:00+00")],
    "date": [
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02 00:00:00", "2024-01-02"),
        ("January 8, 1999", "1999-01-08"),
        ("20240102", "2024-01-02"),
        ("2024.002", "2024-01-02"),
        ("300000-01-01", "300000-01-01"),
        ("infinity", "infinity"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.datetime(2024, 1, 2), "2024-01-02"),
    ],
    "time": [
        ("03:04", "03:04:00"),
        ("040506", "04:05:06"),
        ("2024.002", "20:24:00.002"),
        ("4:05 PM", "16:05:00"),
        ("24:00", "24:00:00"),
        ("allballs", "00:00:00"),
        (datetime.time(3, 4), "03:04:00"),
    ],
    "timetz": [("03:04:05+02", "03:04:05+02")],
    "interval": [("1 day 02:03:04.5", "1 day 02:03:04.5"), ("1.1234567 hours", "01:07:24.44412")],
    "interval(0)": [("1.0 seconds", "00:00:01")],
    "interval day to hour": [("1 day 02:00", "1 day 02:00:00"), ("3", "03:00:00")],
    "numeric(5,2)": [("1.2300", "1.23"), ("1e2", "100.00"), ("1.5e-1", "0.15"), (" 7 ", "7.00"), (7, "7.00"),
                     ("NaN", "NaN"), (0.25, "0.25"), (Decimal("1.230"), "1.23")],
    "numeric": [("1.239", "1.239")],
    "money": [("$1,234.50", "$1,234.50"), ("1.230", "$1.23")],
    "varchar(3)": [("ab ", "ab "), ("é€x", "é€x"), (None, "None")],
    "char(3)": [("ab", "ab")],
    '"char"': [("a", "a"), ("", "")],
    "name": [("x" * 63, "x" * 63)],
    "bit(3)": [("101", "101")],
    "float4": [("0.1", "0.1")],
    "numeric(5,2)[]": [("{1.23,NULL,1.230}", "{1.23,NULL,1.23}")],
    "timestamp[]": [("{2024-01-02}", '{"2024-01-02 00:00:00"}')],
    "varchar(3)[]": [('{abc,"b  "}', '{abc,"b  "}')],
    "tsrange": [("[2024-01-02 03:04,)", '["2024-01-02 03:04:00",)'), ("empty", "empty")],
    "daterange": [("[2024-01-02,2024-01-05)", "[2024-01-02,2024-01-05)")],
}  # fmt: skip


@pytest.fixture(params=["copied", "staged", "staged as text"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the rows go in."""
    if request.param == "copied":
        monkeypatch.setattr(way_to_load, "FEW", 100)
    else:
        monkeypatch.setattr(way_to_load.Copying, "_why_staged", lambda self: "the test wants it")
    if request.param == "staged as text":
        drivers = {name: driver._replace(options=False) for name, driver in copying.DRIVERS.items()}
        monkeypatch.setattr(way_to_load, "DRIVERS", drivers)
    return str(request.param)


def loaded(connection: Connection, kind: str, values: list[Any]) -> tuple[Report, dict[int, str]]:
    connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
    connection.exec_driver_sql(f"CREATE TABLE thing (id int PRIMARY KEY, cell {kind})")
    table = Table("thing", MetaData(), autoload_with=connection)
    report = load(connection, table, list(enumerate(values)), max_rejected=len(values))
    found = connection.execute(text("SELECT id, CAST(cell AS text) FROM thing")).all()
    return report, {number: str(cell) for number, cell in found}


@pytest.mark.filterwarnings("ignore:Did not recognize type")
@pytest.mark.parametrize("kind", sorted({*CUT, *KEPT}))
def test_no_value_is_stored_altered(engine: Engine, kind: str, way: str) -> None:
    cut, kept = CUT.get(kind, []), KEPT.get(kind, [])
    with engine.connect() as connection, connection.begin() as whole:
        given = [*cut, *kept]
        report, stored = loaded(connection, kind, [value for value, _ in given])
        zone = connection.scalar(text("SELECT current_setting('TimeZone')"))
        whole.rollback()
    refused = {reject.number: reject.kind for reject in report.rejects}
    found = [(value, (stored | refused).get(number)) for number, (value, _) in enumerate(given)]
    assert found == given
    assert refused.keys() == set(range(len(cut)))
    assert zone == "UTC"


def test_a_row_tells_all_that_is_wrong_with_it(engine: Engine, way: str) -> None:
    columns = "id int PRIMARY KEY, at timestamp, price numeric(5,2), code varchar(3), size int NOT NULL"
    rows = [
        (1, "2024-01-02 03:04+02", "1.239", "ab  ", None),
        (2, "2024-01-02 03:04+02", "many", "a\0b", "x"),
        (3, "2024-01-02 03:04", "1.5", "abc", 1),
        ("x", "2024-01-02 03:04+02", "1.5", "abc", 1),
    ]
    with engine.connect() as connection, connection.begin() as whole:
        connection.exec_driver_sql(f"CREATE TABLE thing ({columns})")
        report = load(connection, Table("thing", MetaData(), autoload_with=connection), rows, max_rejected=100)
        whole.rollback()
    told = {one.number: {(why.column, why.kind) for why in one.reasons} for one in report.rejects}
    assert told == {
        0: {("at", "type"), ("price", "type"), ("code", "length"), ("size", "not null")},
        1: {("at", "type"), ("price", "type"), ("code", "encoding"), ("size", "type")},
        3: {("at", "type"), ("id", "type")},
    }


def test_a_file_in_a_form_of_its_own_is_kept(engine: Engine, way: str) -> None:
    """No value is of a shape that is known, and only some lose something."""
    days = [f"{number % 12 + 1:02d}/{number % 28 + 1:02d}/{2000 + number // 400}" for number in range(12_000)]
    rows = [(number, f"{day} 03:04" if number % 1000 == 7 else day) for number, day in enumerate(days)]
    with engine.connect() as connection, connection.begin() as whole:
        connection.exec_driver_sql("CREATE TABLE thing (id int PRIMARY KEY, day date)")
        report = load(connection, Table("thing", MetaData(), autoload_with=connection), rows, max_rejected=100)
        assert (report.loaded, report.by_kind) == (11_988, {"type": 12})
        assert connection.scalar(text("SELECT count(*) FROM thing WHERE extract(year FROM day) >= 2000")) == 11_988
        whole.rollback()


DAYS = ["", "2024-01-02", "20240102", "1/2/2024", "Jan 2 2024", "1999.008", "2024-01-02 BC"]
HOURS = ["", "03:04", "03:04:05", "030405", "03:04:05.120", "03:04:05.1234567", "3:04 PM", "00:00", "24:00"]
ZONES = ["", "Z", "+02", "-05:30", " +0000", " PST", " America/New_York", " UTC+3"]
#: Of what a column keeps: the day, the hours, the zone, and so many digits of the second.
KEEPS = {
    "timestamp": (True, True, False, 6),
    "timestamp(0)": (True, True, False, 0),
    "timestamptz": (True, True, True, 6),
    "timestamptz(1)": (True, True, True, 1),
    "date": (True, False, False, 6),
    "time": (False, True, False, 6),
    "time(1)": (False, True, False, 1),
    "timetz": (False, True, True, 6),
}


def loses(kind: str, day: str, hours: str, zone: str) -> bool:
    """Whether the column would drop a part of it."""
    keeps_day, keeps_hours, keeps_zone, digits = KEEPS[kind]
    fraction = hours.partition(".")[2].rstrip("0")
    return bool(
        (day and not keeps_day)
        or (hours not in ("", "00:00") and (day or ":" in hours) and not keeps_hours)  # digits alone may be a day
        or (zone and not keeps_zone)
        or (keeps_hours and len(fraction) > digits)
    )


def takes(connection: Connection, kind: str, value: str) -> bool:
    """Whether the server reads it at all."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SELECT '{value}'::text::{kind}")
    except DBAPIError:
        return False
    return True


@pytest.mark.parametrize("kind", KEEPS)
def test_all_ways_to_write_a_moment(engine: Engine, kind: str) -> None:
    """Of what the server reads, exactly that is refused of which it drops a part."""
    parts = [one for one in itertools.product(DAYS, HOURS, ZONES) if one[0] or one[1]]
    values = [f"{f'{day} {hours}'.strip()}{zone}" for day, hours, zone in parts]
    with engine.connect() as connection, connection.begin() as whole:
        connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
        read = [takes(connection, kind, value) for value in values]
        report, _ = loaded(connection, kind, values)
        whole.rollback()
    refused = {reject.number for reject in report.rejects}
    expected = {at for at, one in enumerate(parts) if not read[at] or loses(kind, *one)}
    assert sorted(values[at] for at in refused ^ expected) == []


CELLS = MetaData()
cells = Table(
    "cells",
    CELLS,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", postgresql.TIMESTAMP(precision=0)),
    Column("code", String(3)),
    Column("price", Numeric(5, 2)),
)


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
@pytest.mark.parametrize("temporary", [True, False])
async def test_each_driver_asks(world: World, temporary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rights to a temporary table, and without."""
    with world.aside.begin() as connection:
        CELLS.create_all(connection)
    if not temporary:
        monkeypatch.setattr(catalog, "read", without_stage(catalog.read))
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    rows = [
        (1, moment, "abc", Decimal("1.230")),
        (2, moment.replace(microsecond=500_000), "ab", None),
        (3, moment.replace(tzinfo=UTC), "ab", None),
        (4, moment, "ab  ", None),
        (5, None, None, Decimal("1.239")),
        (6, moment, "x", Decimal(7)),
    ]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, cells, rows, max_rejected=100)
        kinds = {one.number: (one.column, one.kind) for one in report.rejects}
        assert kinds == {1: ("at", "type"), 2: ("at", "type"), 3: ("code", "length"), 4: ("price", "type")}
        assert (report.algorithm != "bisection") is temporary


def without_stage(read: Any) -> Any:
    def bare(*arguments: Any, **options: Any) -> catalog.Rules:
        rules: catalog.Rules = read(*arguments, **options)
        rules.staged = False
        return rules

    return bare
