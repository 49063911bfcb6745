"""Values of Arrow that Python has none for: their rows are refused, and nothing is rounded."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, parquet
from sqlalchemy import Column, Connection, Date, DateTime, Integer, MetaData, Table, Time
from sqlalchemy.dialects import mysql

from savepoints import BadInput, load
from tests.harness.world import World
from tests.load.items import in_memory, item, rows_of

metadata = MetaData()
moments: Table = Table(
    "moments",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("moment", DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")),
    Column("day", Date),
    Column("time", Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")),
)


@pytest.fixture
def target() -> Iterator[Connection]:
    with in_memory(metadata) as connection:
        yield connection


DAY = datetime.date(2024, 2, 29)
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 5)
NANO = pyarrow.scalar(NOON, pyarrow.timestamp("ns")).value


def table(column: str, good: Any, bad: Any, kind: Any) -> Any:
    """Rows 0, 1 and 2, of which row 1 is bad, and no value in the last."""
    return pyarrow.table({"id": [0, 1, 2], column: pyarrow.array([good, bad, None], kind)})


TABLES = {
    "nanoseconds": (table("moment", NANO, NANO + 1, pyarrow.timestamp("ns")), NOON, "2024-02-29 12:00:00.000005001"),
    "nanoseconds of a time": (
        table("time", 5000, 5001, pyarrow.time64("ns")),
        datetime.time(0, 0, 0, 5),
        "00:00:00.000005001",
    ),
    "a day after 9999": (table("day", 19782, 10**7, pyarrow.date32()), DAY, "29349-01-26"),
    "a day before Christ": (table("day", 19782, -(10**6), pyarrow.date32()), DAY, "-0768-02-04"),
    "a moment after 9999": (
        table("moment", NANO // 1000, 2**62, pyarrow.timestamp("us")),
        NOON,
        f"{2**62} (timestamp[us])",
    ),
    "seconds": (
        table("moment", 1709208000, 2**62, pyarrow.timestamp("s")),
        NOON.replace(microsecond=0),
        f"{2**62} (timestamp[s])",
    ),
}


@pytest.mark.parametrize("source", ["frame", "parquet", "feather"])
@pytest.mark.parametrize("case", TABLES)
def test_a_value_that_python_has_none_for(target: Connection, tmp_path: Path, case: str, source: str) -> None:
    given, good, text = TABLES[case]
    column = given.column_names[1]
    rows: Any = given
    if source != "frame":
        rows = tmp_path / f"moments.{source}"
        try:
            (parquet.write_table if source == "parquet" else feather.write_feather)(given, rows)
        except pyarrow.ArrowInvalid:
            pytest.skip("the format has no such value")
    report = load(target, moments, rows)
    assert [(one.number, one.kind, one.column, str(one.row[column])) for one in report.rejects] == [
        (1, "type", column, text)
    ]
    place = moments.columns.keys().index(column)
    assert [(row[0], row[place]) for row in rows_of(target, moments)] == [(0, good), (2, None)]


@pytest.mark.needs("core", "loader")
async def test_on_each_database(world: World) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
    async with world.transaction(world.source) as target:
        for column in ("moment", "time"):
            frame = TABLES["nanoseconds" if column == "moment" else "nanoseconds of a time"][0]
            report = await world.load(target, moments, frame, rollback=True)
            assert [(one.number, one.kind, one.column) for one in report.rejects] == [(1, "type", column)]
            again = await world.load(target, moments, report.rejects)
            assert [(one.number, one.kind, one.column) for one in again.rejects] == [(1, "type", column)]


@pytest.mark.parametrize("way", ["memory", "jsonl", "csv"])
def test_it_is_not_rounded_later(target: Connection, tmp_path: Path, way: str) -> None:
    report = load(target, moments, TABLES["nanoseconds"][0])
    out = tmp_path / f"out.{way}"
    if way != "memory":
        report.rejects.write(out)
    again = load(target, moments, report.rejects if way == "memory" else out)
    assert [(one.number, one.kind) for one in again.rejects] == [(1, "type")]


def test_only_fields_that_are_taken_are_read(target: Connection) -> None:
    assert load(target, moments, TABLES["nanoseconds"][0], columns=["id"]).loaded == 3


def test_convert_may_say_what_it_is(target: Connection) -> None:
    report = load(target, moments, TABLES["nanoseconds"][0], convert={"moment": lambda one: str(one)[:26]})
    assert (report.loaded, report.rejected) == (2, 1)  # None has become "None"
    assert rows_of(target, moments)[1][1] == NOON


@pytest.mark.parametrize("text", ["2024-02-29 12:00:00.0000051", "2024-02-29T12:00:00,000005001"])
def test_text_of_a_moment_between_microseconds(target: Connection, text: str) -> None:
    report = load(target, moments, [{"id": 1, "moment": text}, {"id": 2, "moment": "2024-02-29 12:00:00.000005000"}])
    assert [(one.number, one.kind, one.column) for one in report.rejects] == [(0, "type", "moment")]
    assert rows_of(target, moments) == [(2, NOON, None, None)]


class Timestamp(datetime.datetime):
    """As that of pandas, which takes itself for a datetime."""

    nanosecond = 1


def test_a_class_of_moments_with_nanoseconds(target: Connection) -> None:
    report = load(target, moments, [{"id": 1, "moment": Timestamp(2024, 2, 29)}])
    assert [(one.kind, one.column) for one in report.rejects] == [("type", "moment")]


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow"])
def test_a_damaged_file_ends_the_load(connection: Connection, tmp_path: Path, kind: str) -> None:
    count = 50_000
    many = pyarrow.table({"id": range(count), "name": [f"x{number * 7919 % 10007}" for number in range(count)]})
    file = tmp_path / f"items.{kind}"
    if kind == "parquet":
        parquet.write_table(many, file, row_group_size=10_000)
    else:
        feather.write_feather(many, file, chunksize=10_000)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    if kind == "arrow":
        del content[middle:]
    else:
        content[middle : middle + 4000] = b"\xff" * 4000
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"items\.\w+ (cannot be read|is not an Arrow file)"):
        load(connection, item, file)
    assert rows_of(connection) == []
