"""Rejects tried again, from memory and from files: nothing is taken for something else."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    select,
)

from savepoints import Rejects, Report, load
from tests.harness.world import World
from tests.load.items import in_memory, item, rows_of

metadata = MetaData()
pair: Table = Table(
    "pair",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("a", String(10)),
    Column("b", String(10)),
)
typed: Table = Table(
    "typed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("word", String(10), server_default="none given"),
    Column("price", Numeric(10, 2)),
    Column("day", Date),
    Column("moment", DateTime),
    Column("data", LargeBinary),
    Column("key", Uuid),
    Column("yes", Boolean),
)


@pytest.fixture
def target() -> Iterator[Connection]:
    with in_memory(metadata) as connection:
        yield connection


def again(connection: Connection, table: Table, report: Report, way: str, folder: Path, **options: Any) -> Report:
    """Load rejects again: the objects, or a file of them."""
    if way == "memory":
        return load(connection, table, report.rejects, **options)
    out = folder / f"rejects.{way}"
    report.rejects.write(out, overwrite=True)
    return load(connection, table, out, **options)


def rejected(connection: Connection, table: Table, rows: Any, **options: Any) -> Report:
    """All of these rows, refused for a reason that is gone afterwards."""
    ids = [row["id"] if isinstance(row, dict) else row[0] for row in rows]
    connection.execute(table.insert(), [{"id": number} for number in ids])
    report = load(connection, table, rows, **options)
    connection.execute(table.delete())
    assert report.rejected == len(rows)
    return report


WAYS = pytest.mark.parametrize("way", ["memory", "jsonl", "csv"])


@WAYS
def test_tuples_keep_the_columns_that_they_were_for(target: Connection, tmp_path: Path, way: str) -> None:
    report = rejected(target, pair, [(1, "for b", "for a"), (2, None, "a")], columns=["id", "b", "a"])
    assert report.rejects[0].row in ((1, "for b", "for a"), [1, "for b", "for a"])
    assert again(target, pair, report, way, tmp_path).loaded == 2
    assert rows_of(target, pair) == [(1, "for a", "for b"), (2, "a", None)]


@WAYS
def test_too_many_cells_do_not_fit_later(target: Connection, tmp_path: Path, way: str) -> None:
    """Three cells for two columns: they are not those of the table, which happen to be three."""
    report = load(target, pair, [(1, "one"), (2, "two", "three")], columns=["id", "b"])
    last = again(target, pair, report, way, tmp_path)
    assert [(one.number, one.kind) for one in last.rejects] == [(1, "structure")]
    assert "3 columns where 2 columns" in last.rejects[0].message
    assert again(target, pair, last, way, tmp_path).rejected == 1
    assert rows_of(target, pair) == [(1, None, "one")]


@WAYS
def test_a_file_with_too_many_cells_does_not_fit_later(target: Connection, tmp_path: Path, way: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("id,b\n1,one\n2,two,three\n")
    last = again(target, pair, load(target, pair, file), way, tmp_path)
    assert [(one.number, one.kind) for one in last.rejects] == [(1, "structure")]
    assert rows_of(target, pair) == [(1, None, "one")]


@WAYS
def test_a_line_that_is_no_row_is_none_later(tmp_path: Path, way: str) -> None:
    """Nor the one cell of a table with one column."""
    tables = MetaData()
    word = Table("word", tables, Column("word", String(20), primary_key=True))
    file = tmp_path / "words.csv"
    file.write_text('word\ngood\n"open\nbetter\n')
    with in_memory(tables) as connection:
        report = load(connection, word, file)
        for _ in range(2):
            report = again(connection, word, report, way, tmp_path)
            assert [(one.number, one.row, one.kind) for one in report.rejects] == [(1, '"open', "structure")]
            assert "quoted field is not closed" in report.rejects[0].message
        assert rows_of(connection, word) == [("better",), ("good",)]


VALUES: dict[str, Any] = {
    "id": 1,
    "word": "",
    "price": Decimal("1.50"),
    "day": datetime.date(2024, 2, 29),
    "moment": datetime.datetime(2024, 2, 29, 12, 0, 0, 5),
    "data": b"\x00\xff",
    "key": UUID(int=7),
    "yes": False,
}


@WAYS
def test_values_come_back(target: Connection, tmp_path: Path, way: str) -> None:
    rows = [VALUES, VALUES | {"id": 2, "word": None, "data": None, "day": None}, VALUES | {"id": 3, "word": "'x"}]
    report = rejected(target, typed, rows)
    assert again(target, typed, report, way, tmp_path).loaded == 3
    assert [dict(row._mapping) for row in target.execute(select(typed).order_by(typed.c.id))] == rows


@pytest.mark.needs("core", "loader")
@pytest.mark.parametrize("way", ["jsonl", "csv"])
async def test_values_come_back_on_each_database(world: World, tmp_path: Path, way: str) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection, checkfirst=False)
    values = {name: value for name, value in VALUES.items() if name not in ("data", "key")}
    values["moment"] = VALUES["moment"].replace(microsecond=0)  # some columns keep no more
    rows = [values, values | {"id": 2, "word": None, "day": None}, {"id": 3, "yes": True}]
    out = tmp_path / f"rejects.{way}"
    async with world.transaction(world.source) as target:
        first = await world.load(target, typed, rows)
        assert [str(one) for one in first.rejects] == []
        before = (await target.execute(select(typed).order_by(typed.c.id))).all()
        assert before[2].word == "none given"
        assert (await world.load(target, typed, rows, rejects=out)).rejected == 3
        await target.execute(typed.delete())
        report = await world.load(target, typed, out)
        assert [str(one) for one in report.rejects] == []
        assert (await target.execute(select(typed).order_by(typed.c.id))).all() == before


@WAYS
def test_fields_that_a_row_does_not_have_are_left_out(target: Connection, tmp_path: Path, way: str) -> None:
    rows = [{"id": 1, "price": Decimal(1)}, {"id": 2, "word": None}, {"id": 3, "word": "w", "yes": True}]
    report = rejected(target, typed, rows)
    assert again(target, typed, report, way, tmp_path).loaded == 3
    assert target.execute(select(typed.c.word, typed.c.price, typed.c.yes).order_by(typed.c.id)).all() == [
        ("none given", 1, None),
        (None, None, None),
        ("w", None, True),
    ]


@WAYS
def test_an_empty_cell_is_what_it_was(target: Connection, tmp_path: Path, way: str) -> None:
    """NULL in a file of text, unless another text was said to be it."""
    file = tmp_path / "pairs.csv"
    file.write_text("id,a,b\n1,,NA\nx,,\n")
    for null, expected in ((None, (1, None, "NA")), ("NA", (1, "", None))):
        target.execute(pair.insert().values(id=1))
        report = load(target, pair, file, null=null)
        assert report.rejected == 2
        target.execute(pair.delete())
        again(target, pair, report, way, tmp_path, null=null)
        assert rows_of(target, pair) == [expected]
        target.execute(pair.delete())


@WAYS
def test_what_a_first_row_lacks_is_no_error_of_all(target: Connection, tmp_path: Path, way: str) -> None:
    """An unknown field in the first row of an input ends the load; of rejects, each is by itself."""
    rows = [{"id": 1}, {"id": 2, "nosuch": 1}, {"id": 1, "a": "x"}]
    report = load(target, pair, rows)
    assert [one.number for one in report.rejects] == [1, 2]
    last = again(target, pair, report, way, tmp_path)
    assert [(one.number, one.kind) for one in last.rejects] == [(1, "structure"), (2, "unique")]


HALF = ["\ud800", "=\udfff\udcff", "caf\udce9"]


@pytest.mark.parametrize("value", HALF, ids=ascii)
@WAYS
def test_broken_text_can_be_written(target: Connection, tmp_path: Path, way: str, value: str) -> None:
    report = load(target, pair, [{"id": 1, "a": value}, {"id": 2, "a": value}])
    assert [one.kind for one in report.rejects] == ["encoding", "encoding"]
    last = again(target, pair, report, way, tmp_path)
    assert [(one.number, one.kind) for one in last.rejects] == [(0, "encoding"), (1, "encoding")]


@WAYS
def test_the_encoding_of_the_input_may_be_given_again(target: Connection, tmp_path: Path, way: str) -> None:
    """Files of rejects have their own."""
    file = tmp_path / "pairs.csv"
    file.write_bytes("id,a\n1,Zo\u00eb\n".encode("latin-1"))
    target.execute(pair.insert().values(id=1))
    report = load(target, pair, file, encoding="latin-1")
    for encoding in ("latin-1", "utf-16"):
        target.execute(pair.delete())
        assert again(target, pair, report, way, tmp_path, encoding=encoding).loaded == 1
    assert rows_of(target, pair) == [(1, "Zo\u00eb", None)]


@WAYS
def test_names_like_formulas(target: Connection, tmp_path: Path, way: str) -> None:
    report = rejected(target, pair, [{"id": 1, "=1+1": "x"}], columns={"id": "id", "=1+1": "a"})
    assert again(target, pair, report, way, tmp_path, columns={"id": "id", "=1+1": "a"}).loaded == 1
    assert rows_of(target, pair) == [(1, "x", None)]


def test_a_cell_of_a_bad_byte_is_that_byte(target: Connection, tmp_path: Path) -> None:
    file, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    file.write_bytes(b"id,a\n1,caf\xe9\n")
    load(target, pair, file, rejects=out)
    assert out.read_bytes().endswith(b",1,caf\xe9\r\n")


def test_values_that_have_no_text_are_told_by_the_guide(tmp_path: Path) -> None:
    """A CSV file has text alone: a list is written as JSON, which a JSON column reads."""
    kept = Rejects()
    with in_memory() as connection:
        report = load(connection, item, [{"id": 1, "name": ["a", None], "size": {"b": Decimal("0.5")}}])
    kept.add(report.rejects[0])
    kept.write(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8-sig") as file:
        cells = list(csv.reader(file))[1]
    assert cells[-2:] == ['["a", null]', '{"b": {"$type": "decimal", "value": "0.5"}}']


def test_cells_of_a_spreadsheet_with_other_delimiters(target: Connection, tmp_path: Path) -> None:
    """Some save with semicolons."""
    report = rejected(target, pair, [(1, "one", None)])
    out = tmp_path / "out.csv"
    report.rejects.write(out)
    rows = list(csv.reader(io.StringIO(out.read_text(encoding="utf-8-sig"))))
    with out.open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert load(target, pair, out).loaded == 1
    assert rows_of(target, pair) == [(1, "one", None)]


def test_lines_of_rejects_that_another_tool_has_written(target: Connection, tmp_path: Path) -> None:
    """Other spaces, other order of the fields."""
    file, out = tmp_path / "pairs.csv", tmp_path / "out.jsonl"
    file.write_text("id,a\nx,\n")
    load(target, pair, file, rejects=out)
    record = out.read_text()
    first = '"savepoints.reject": 1, "text": true, '
    assert first in record
    moved = record.replace(first, "").replace('"x"', '"1"').rstrip("}\n") + ',"text":true,"savepoints.reject":1}\n'
    out.write_text(moved + '{"id": 2}\n')
    last = load(target, pair, out)
    assert rows_of(target, pair) == [(1, None, None)]
    assert [one.message for one in last.rejects] == ["the line is no reject"]
