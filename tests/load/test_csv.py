"""CSV as it comes: quotes that are not closed, files that were cut, encodings, cells too many."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Connection, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from savepoints import BadInput, Report, load
from savepoints._load import records
from savepoints._load.files import Opened
from savepoints._load.records import Records
from savepoints._load.sources import Broken
from tests.load.items import in_memory, item, rows_of


def loaded(connection: Connection, folder: Path, content: str | bytes, **options: Any) -> Report:
    file = folder / "items.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(connection, item, file, **options)


def refused(report: Report) -> list[tuple[int, int | None, Any]]:
    return [(one.number, one.line, one.row) for one in report.rejects]


# Quotes


def test_a_quote_that_is_never_closed_costs_its_line_alone(connection: Connection, tmp_path: Path) -> None:
    report = loaded(connection, tmp_path, 'id,name,size\n1,one,10\n2,"two,20\n3,three,30\n4,four,40\n')
    assert refused(report) == [(1, 3, '2,"two,20')]
    assert report.rejects[0].kind == "structure"
    assert "quoted field is not closed" in report.rejects[0].message
    assert rows_of(connection) == [(1, "one", 10), (3, "three", 30), (4, "four", 40)]


ODD = {
    "closed by the next quote": '1,"one,1\n2,"two",2\n3,three,3\n',
    "text behind a quote": '1,"one"x,1\n2,"two",2\n3,three,3\n',
    "in the last line": '2,"two",2\n3,three,3\n1,"one,1',
    "in each line": '1,"one,1\n2,two,2\n1,"one,1\n3,three,3\n1,"one,1\n',
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_quote(connection: Connection, tmp_path: Path, case: str) -> None:
    report = loaded(connection, tmp_path, f"id,name,size\n{ODD[case]}")
    assert rows_of(connection) == [(2, "two", 2), (3, "three", 3)]
    lines = ["id,name,size", *ODD[case].splitlines()]
    for reject in report.rejects:
        assert reject.kind == "structure"
        assert reject.line is not None
        assert reject.row == lines[reject.line - 1]


def test_a_quote_inside_a_field_is_a_quote(connection: Connection, tmp_path: Path) -> None:
    report = loaded(connection, tmp_path, 'id,name,size\n1,5" pipe,1\n2,"6"" pipe",2\n')
    assert (report.rejected, rows_of(connection)) == (0, [(1, '5" pipe', 1), (2, '6" pipe', 2)])


def test_fields_over_lines_are_one_record_wherever_they_are_cut(tmp_path: Path) -> None:
    """However many are taken at once."""
    content = 'a,b\r\n1,"x\r\ny\n\nz"\r\n2,"open\r\n3,"a ""quote"""\n\n"4\n",plain\r5,"x"y\r\n6,end'
    file = tmp_path / "items.csv"
    file.write_bytes(content.encode())
    expected: list[Any] = [
        (1, ["a", "b"]),
        (2, ["1", "x\r\ny\n\nz"]),
        (6, '2,"open'),
        (7, ["3", 'a "quote"']),
        (8, []),
        (9, ["4\n", "plain"]),
        (11, '5,"x"y'),
        (12, ["6", "end"]),
    ]
    for count in range(1, 10):
        assert read(file, count) == expected


def read(file: Path, count: int) -> list[tuple[int, Any]]:
    """All records of a file, so many at a time, each with its line."""
    found: list[tuple[int, Any]] = []
    with file.open("rb") as raw:
        source = Records(Opened(file, raw, None))
        while True:
            taken, lines = source.take(count)
            if not taken:
                return found
            assert len(taken) <= count
            found += zip(lines, (row.raw if isinstance(row, Broken) else row for row in taken), strict=True)


CELLS = st.text(st.sampled_from('ab",\n\r; \u00e9'), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=8), st.integers(1, 5))
def test_what_csv_writes_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, rows: Any, count: int) -> None:
    file = tmp_path_factory.mktemp("csv") / "items.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    assert [row for _, row in read(file, count)] == rows


@given(st.text(st.sampled_from('a",\n'), max_size=40), st.integers(1, 5))
def test_no_line_is_lost(tmp_path_factory: pytest.TempPathFactory, content: str, count: int) -> None:
    """Whatever the quotes are like, each line is in a record or refused, and none is in two."""
    file = tmp_path_factory.mktemp("csv") / "items.csv"
    file.write_text(content)
    lines = content.splitlines(keepends=True)
    found = read(file, count)
    begins = [line for line, _ in found] + [len(lines) + 1]
    assert begins[0] == 1
    for (line, row), behind in zip(found, begins[1:], strict=True):
        part = "".join(lines[line - 1 : behind - 1])
        again = next(csv.reader(part.splitlines(keepends=True), strict=True)) if isinstance(row, list) else row
        assert again == (row if isinstance(row, list) else part.rstrip("\n"))


def test_how_far_an_open_quote_reaches(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "REACH", 1000)
    lines = [f"{number},row {number},1\n" for number in range(2000)]
    lines[3] = '3,"open,1\n'
    report = loaded(connection, tmp_path, "id,name,size\n" + "".join(lines))
    assert (report.loaded, refused(report)) == (1999, [(3, 5, '3,"open,1')])


def test_long_fields_and_those_of_others_threads(connection: Connection, tmp_path: Path) -> None:
    """`csv` has one limit for the whole process: it is as before, and nobody's load meets it."""
    before = csv.field_size_limit()
    file = tmp_path / "items.csv"
    file.write_text("id,name,size\n" + "".join(f"{number},{'x' * 200_000},1\n" for number in range(20)))
    found: list[Report] = []

    def run() -> None:
        with in_memory() as mine:
            found.append(load(mine, item, file))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [dict(report.by_kind) for report in found] == [{"length": 20}] * 4
    assert csv.field_size_limit() == before


def test_a_header_whose_quote_is_not_closed(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the header of .* is not CSV"):
        loaded(connection, tmp_path, 'id,"name,size\n1,one,1\n')


def test_a_header_over_lines_and_behind_empty_ones(connection: Connection, tmp_path: Path) -> None:
    columns = {"the\nid": "id", "name": "name"}
    report = loaded(connection, tmp_path, '\n\n"the\nid",name\n1,one\nx,two\n', columns=columns)
    assert [(one.number, one.line) for one in report.rejects] == [(1, 6)]


def test_a_file_of_rejects_with_a_line_that_is_none(connection: Connection, tmp_path: Path) -> None:
    out = tmp_path / "rejects.csv"
    loaded(connection, tmp_path, "id,name,size\n1,,1\n", rejects=out)
    good = out.read_bytes()
    for line in (b'"0,2,not null,x\r\n', b"x,y\r\n", b"7\r\n"):
        out.write_bytes(good + line)
        with pytest.raises(BadInput, match=r"line 3 of .* is no reject"):
            load(connection, item, out)


# Names and cells


def test_cells_beyond_the_header_of_a_dictreader(connection: Connection) -> None:
    """It has them in a list under None, in whatever row it is, and whichever fields are taken."""
    content = "id,name,size\n1,one,1,beyond\n2,two,2\n3,three,3,x,y\n"
    for columns in (None, ["id", "name"], {"id": "id", "name": "name"}):
        rows = csv.DictReader(io.StringIO(content))
        report = load(connection, item, rows, columns=columns, rollback=True)
        assert [(one.number, one.kind, one.row[None]) for one in report.rejects] == [
            (0, "structure", ["beyond"]),
            (2, "structure", ["x", "y"]),
        ]
        assert "more cells than there are names" in report.rejects[0].message
        assert load(connection, item, report.rejects).rejected == 2
    assert rows_of(connection) == []


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_cells_beyond_the_header_in_a_file_of_rejects(connection: Connection, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    load(connection, item, csv.DictReader(io.StringIO("id,name\n1,one,1\n")), rejects=out)
    assert [(one.number, one.kind) for one in load(connection, item, out).rejects] == [(0, "structure")]
    assert rows_of(connection) == []


def test_columns_without_a_name_may_be_empty(connection: Connection, tmp_path: Path) -> None:
    """As spreadsheets leave them at the end."""
    report = loaded(connection, tmp_path, "id,name,,\n1,one,,\n2,two,,x\n3,three,,\n")
    assert [(one.number, one.kind, one.message) for one in report.rejects] == [
        (1, "structure", "column 4 has a value and no name")
    ]
    assert rows_of(connection) == [(1, "one", None), (3, "three", None)]


@pytest.mark.parametrize("way", ["memory", "jsonl", "csv"])
def test_columns_without_a_name_later(connection: Connection, tmp_path: Path, way: str) -> None:
    """Empty ones do not matter; a value in one is not left out when its row is tried again, unless it may be."""
    content = "id,name,,\n1,,,\n2,two,x,\n3,three,x,y\n"
    report = loaded(connection, tmp_path, content.replace("1,,,", "0,zero,,\n1,,,"))
    assert [one.number for one in report.rejects] == [1, 2, 3]
    assert [one.row for one in report.rejects] == [
        {"id": "1", "name": ""},
        {"id": "2", "name": "two", "": "x"},
        ["3", "three", "x", "y"],
    ]
    out = tmp_path / f"out.{way}"
    if way != "memory":
        report.rejects.write(out)
    rows = report.rejects if way == "memory" else out
    again = load(connection, item, rows)
    assert [(one.number, one.kind) for one in again.rejects] == [(1, "not null"), (2, "structure"), (3, "structure")]
    again = load(connection, item, rows, columns=["id", "name"])
    assert [(one.number, one.kind) for one in again.rejects] == [(1, "not null"), (3, "structure")]


def test_a_field_without_a_name(connection: Connection) -> None:
    rows: list[dict[str, Any]] = [{"id": 1, "name": "one", "": None}, {"id": 2, "name": "two", "": 0}]
    assert [one.number for one in load(connection, item, rows).rejects] == [1]
    assert load(connection, item, rows[1:], columns=["id", "name"]).loaded == 1


def test_a_column_without_a_name_that_has_values(connection: Connection, tmp_path: Path) -> None:
    """As pandas writes its index."""
    content = ",id,name\n0,1,one\n1,2,two\n"
    with pytest.raises(BadInput, match="column 1 of the input has values and no name"):
        loaded(connection, tmp_path, content)
    assert loaded(connection, tmp_path, content, columns=["id", "name"]).loaded == 2


@pytest.mark.parametrize("columns", [["id", "name", "name"], {"id": "id", "name": "name", "size": "name"}])
def test_two_fields_for_one_column(connection: Connection, tmp_path: Path, columns: Any) -> None:
    with pytest.raises(BadInput, match=r"fields '\w+' and '\w+' are both for column 'name'"):
        loaded(connection, tmp_path, "id,name,size\n1,one,1\n", columns=columns)


class Base(DeclarativeBase):
    pass


class Renamed(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column("name")


def test_an_attribute_and_its_column(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("id,name,title\n1,one,two\n")
    for rows in (file, [{"id": 1, "name": "one", "title": "two"}]):
        with pytest.raises(BadInput, match="'name' and 'title' are both for column 'name'"):
            load(connection, Renamed, rows)
    report = load(connection, Renamed, [{"id": 1, "name": "one"}, {"id": 2, "name": "one", "title": "two"}])
    assert [(one.number, one.kind) for one in report.rejects] == [(1, "structure")]


@pytest.mark.parametrize("key", [1, b"id", ("a", "b")])
def test_fields_that_are_not_named_by_text(connection: Connection, key: Any) -> None:
    with pytest.raises(BadInput, match="a field is named by"):
        load(connection, item, [{key: 1, "name": "one"}])
    report = load(connection, item, [{"id": 1, "name": "one"}, {key: 2, "name": "two"}])
    assert [(one.number, one.kind) for one in report.rejects] == [(1, "structure")]
    assert load(connection, item, [{key: 3, "name": "three"}], columns={key: "id", "name": "name"}).loaded == 1


def test_a_short_tuple_does_not_decide_for_the_others() -> None:
    """Which columns tuples are for, the first of all tells; not the first of each piece."""
    tables = MetaData()
    counted = Table("counted", tables, SqlColumn("id", Integer, primary_key=True), SqlColumn("name", String))
    with in_memory(tables) as mine:
        rows: list[tuple[Any, ...]] = [(number, "x") for number in range(1, 20_001)]
        rows[5000] = ("x",)
        report = load(mine, counted, rows)
        assert ([one.number for one in report.rejects], report.loaded) == ([5000], 19_999)


# Encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "UTF8", "cp1252"])
def test_an_encoding(connection: Connection, tmp_path: Path, encoding: str) -> None:
    report = loaded(connection, tmp_path, "id,name\n1,Zo\u00eb\n".encode(encoding), encoding=encoding)
    assert (report.rejected, rows_of(connection)) == (0, [(1, "Zo\u00eb", None)])


def test_a_mark_of_the_byte_order_is_no_part_of_a_name(connection: Connection, tmp_path: Path) -> None:
    content = "id,name\n1,one\n".encode("utf-8-sig")
    assert loaded(connection, tmp_path, content).loaded == 1
    assert loaded(connection, tmp_path, content, encoding="utf-8", on_conflict="skip").skipped == 1


@pytest.mark.parametrize("encoding", ["nope", "base64", "utf\0"])
def test_no_such_encoding(connection: Connection, tmp_path: Path, encoding: str) -> None:
    with pytest.raises(BadInput, match="there is no encoding"):
        loaded(connection, tmp_path, "id,name\n1,one\n", encoding=encoding)


def test_bytes_that_an_encoding_cannot_leave_in_a_cell(connection: Connection, tmp_path: Path) -> None:
    content = "id,name\n1,one\n".encode("utf-16") + b"\x00\xd8a"
    with pytest.raises(BadInput, match="cannot be read"):
        loaded(connection, tmp_path, content, encoding="utf-16")
    assert rows_of(connection) == []


# Damaged files


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.csv", data)
    return out.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: bytes(pyarrow.compress(data, "zstd", asbytes=True)),
    "zip": zipped,
}


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(suffix, damage) for suffix in PACK for damage in ("cut", "changed") if (suffix, damage) != ("zst", "changed")],
)  # zstd need not have a checksum
def test_a_damaged_file_ends_the_load(connection: Connection, tmp_path: Path, suffix: str, damage: str) -> None:
    content = "id,name,size\n" + "".join(f"{n},{n * 7919 % 10007},{n * 104729 % 99991}\n" for n in range(60_000))
    packed = bytearray(PACK[suffix](content.encode()))
    middle = len(packed) // 2
    if damage == "cut":
        del packed[middle:]
    else:
        packed[middle : middle + 50] = bytes(50)
    file = tmp_path / f"items.csv.{suffix}"
    file.write_bytes(packed)
    with pytest.raises(BadInput, match=r"items\.csv\.\w+ cannot be read"):
        load(connection, item, file)
    assert rows_of(connection) == []
