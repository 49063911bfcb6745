"""Files in, and files of rejects out."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import io
import lzma
import os
import stat
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet
from sqlalchemy import Connection, select

from savepoints import BadInput, Rejects, load
from savepoints._load.exact import line_of, reject_of
from savepoints._load.reasons import Reason, Reject
from savepoints._load.written import marked, unmarked
from tests.load.items import item, rejects, rows_of

TEXT = 'id,name,size\n1,one,10\n2,"two\nlines",\n\n3,three,x\n1,again,4\n4,four\n'
GOOD = [(1, "one", 10), (2, "two\nlines", None)]
BAD = [(2, 6), (3, 7), (4, 8)]  # number and line


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("inside.csv", data)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    packed: bytes = pyarrow.compress(data, "zstd", asbytes=True)
    return packed


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "csv": lambda data: data,
    "csv.gz": gzip.compress,
    "csv.bz2": bz2.compress,
    "csv.xz": lzma.compress,
    "csv.zst": zstd,
    "csv.zip": zipped,
}


@pytest.mark.parametrize("suffix", PACKED)
def test_csv_packed_or_not_with_lines_and_null(connection: Connection, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"items.{suffix}"
    file.write_bytes(PACKED[suffix](TEXT.encode()))
    report = load(connection, item, file)
    assert rows_of(connection) == GOOD
    assert [(reject.number, reject.line) for reject in report.rejects] == BAD
    assert [reject.kind for reject in report.rejects] == ["type", "unique", "structure"]
    assert report.rejects[0].row == {"id": "3", "name": "three", "size": "x"}


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_found(connection: Connection, tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "items.csv"
    file.write_text(f"id{delimiter}name\n1{delimiter}a,b\n")
    assert load(connection, item, file).loaded == 1
    assert rows_of(connection) == [(1, "a,b", None)]


def test_bytes_that_are_no_text_reject_their_row_alone(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_bytes(b"id,name\n1,good\n2,b\xffd\n3,fine\n")
    report = load(connection, item, file)
    assert (report.loaded, report.rejects[0].kind, report.rejects[0].line) == (2, "encoding", 3)
    assert report.rejects[0].message == "name holds bytes that are not of the input's encoding"
    latin = load(connection, item, file, encoding="latin-1", on_conflict="skip")
    assert (latin.loaded, latin.skipped) == (1, 2)


def test_json_lines(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "name": "one", "size": 10}\n\n{"id": 2, "name":\n{"name": "three", "id": 3}\n[4, 5]\n')
    report = load(connection, item, file)
    assert rows_of(connection) == [(1, "one", 10), (3, "three", None)]
    assert [(reject.line, reject.kind) for reject in report.rejects] == [(3, "structure"), (5, "structure")]


TABLE = pyarrow.table({"id": [1, 2, 2], "name": ["one", "two\nlines", "again"], "size": [10, None, 3]})


@pytest.mark.parametrize("kind", ["parquet", "feather", "frame"])
def test_arrow(connection: Connection, tmp_path: Path, kind: str) -> None:
    given: Any = TABLE
    if kind != "frame":
        given = tmp_path / f"items.{kind}"
        (parquet.write_table if kind == "parquet" else feather.write_feather)(TABLE, given)
    report = load(connection, item, given)
    assert rows_of(connection) == GOOD
    assert (report.rejected, report.rejects[0].kind) == (1, "unique")


HEADERS = {
    "unknown column": ("id,nam\n1,a\n", "near: name"),
    "missing column": ("id,size\n1,2\n", "'name'"),
    "column twice": ("id,name,id\n1,a,1\n", "twice"),
    "empty": ("", "empty"),
    "no text": ("id,name\0\n", "no"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_does_not_fit(connection: Connection, tmp_path: Path, case: str) -> None:
    content, told = HEADERS[case]
    file = tmp_path / "items.csv"
    file.write_text(content)
    with pytest.raises(BadInput, match=told):
        load(connection, item, file)
    assert rows_of(connection) == []


def test_a_file_of_another_format(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "items.parquet"
    file.write_text(TEXT)
    with pytest.raises(BadInput, match="Parquet"):
        load(connection, item, file)
    parquet.write_table(TABLE, tmp_path / "items.csv")
    with pytest.raises(BadInput, match="not a file of text"):
        load(connection, item, tmp_path / "items.csv")


# Rejects


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_file_of_rejects_is_loaded_again_with_its_numbers(
    connection: Connection, tmp_path: Path, suffix: str
) -> None:
    file, out = tmp_path / "items.csv", tmp_path / f"rejects.{suffix}"
    file.write_text(TEXT)
    load(connection, item, file, rejects=out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = load(connection, item, out)
    assert (again.loaded, [reject.number for reject in again.rejects]) == (0, [2, 3, 4])
    out.write_bytes(out.read_bytes().replace(b'"x"', b'"7"').replace(b",x\r\n", b",7\r\n"))
    last = load(connection, item, out)
    assert (last.loaded, [(reject.number, reject.line) for reject in last.rejects]) == (1, BAD[1:])


def test_rejects_never_overwrite(connection: Connection, tmp_path: Path) -> None:
    file, out = tmp_path / "items.csv", tmp_path / "rejects.csv"
    file.write_text(TEXT)
    out.write_text("mine")
    with pytest.raises(FileExistsError):
        load(connection, item, file, rejects=out)
    assert rows_of(connection) == []  # rejects without a record would be lost in silence
    os.link(file, tmp_path / "other.csv")
    with pytest.raises(BadInput, match="input itself"):
        load(connection, item, file, rejects=tmp_path / "other.csv")
    assert (out.read_text(), file.read_text()) == ("mine", TEXT)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["items.csv", "other.csv", "rejects.csv"]


def test_rejects_into_a_table(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text(TEXT)
    report = load(connection, item, file, rejects=rejects)
    found = connection.execute(select(rejects.c.number, rejects.c.kind, rejects.c.line)).all()
    assert found == [(2, "type", 6), (3, "unique", 7), (4, "structure", 8)]
    report.savepoint.rollback()
    assert connection.execute(select(rejects)).all() == []


def test_many_rejects_are_spooled(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("savepoints._load.rejects.IN_MEMORY", 3)
    rows = [(number, None if number % 2 else "x", None) for number in range(20)]
    report = load(connection, item, rows)
    assert [reject.number for reject in report.rejects] == list(range(1, 20, 2))
    assert report.rejects[7].row == [15, None, None]
    assert len(report.rejects[2:5]) == 3
    assert load(connection, item, report.rejects).rejected == 10


LEAVES = (
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=())),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.binary(),
)
VALUES = st.recursive(
    st.one_of(*LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_json_lines_are_exact(row: dict[str, Any]) -> None:
    reject = Reject(3, 4, row, (Reason("type", "no", parent=(1, Decimal("1.50"))),))
    back = reject_of(line_of(reject))
    assert back == reject
    assert [*map(type, back.row.values())] == [*map(type, row.values())]


@given(st.none() | st.text())
def test_marked_cells_come_back(cell: str | None) -> None:
    assert unmarked(marked(cell)) == cell


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'quoted"]
)
def test_no_cell_is_a_formula(cell: str, tmp_path: Path) -> None:
    kept = Rejects()
    kept.add(Reject(0, None, {cell: cell, "n": "-5"}, (Reason("type", "no"),)))
    kept.write(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8-sig") as file:
        head, row = csv.reader(file)
    assert head[0].startswith("reject.number")
    assert head[-2:] == [f"'{cell}", "n"]
    assert row[-2:] == [f"'{cell}", "-5"]


def test_classes_of_values_that_json_does_not_have() -> None:
    moment = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    row = {"a": moment, "b": UUID(int=7), "c": b"\xff", "d": {"$type": "mine", "value": 1}}
    assert reject_of(line_of(Reject(0, None, row, ()))).row == row
