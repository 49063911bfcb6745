"""What a load is asked to do: options of a wrong kind, and where rejects go, are looked at before anything is done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, event

from savepoints import BadInput, LoadLimitExceeded, WrongArgument, load, rejects_table
from tests.harness.world import World
from tests.load.items import item, rows_of
from tests.load.shop import good, prepare

OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "null, a number": ({"null": 5}, r"null is the text .*, not int\. As null="),
    "null, numbers": ({"null": ["", 5]}, "null is the text .*, not int"),
    "null, None inside": ({"null": [None]}, "null is the text .*, not None"),
    "null, bytes": ({"null": b"x"}, "null is the text .*, not int"),
    "key, a number": ({"key": 3}, r"key is the name of a column, or several, not int\. As key="),
    "key, a column": ({"key": [item.c.id]}, "key is the name .*, not Column"),
    "columns, a text": ({"columns": "a"}, r"columns is a list of names or a mapping, not str\. As columns="),
    "columns, a number": ({"columns": 5}, "columns is a list of names or a mapping, not int"),
    "columns, a set": ({"columns": {"id", "name"}}, "columns is a list of names or a mapping, not set"),
    "columns, numbers": ({"columns": [1, 2]}, "columns is a list of names or a mapping, not int"),
    "columns, to a number": ({"columns": {"id": 1}}, "columns is a mapping to names of columns, not int"),
    "limit, a truth": ({"max_rejected": True}, r"max_rejected is a number, not bool\. Leave it out"),
    "limit, a text": ({"max_rejected": "1%"}, r"max_rejected is a number, not str\. As .*max_rejected_ratio=0\.01"),
    "limit, a share": ({"max_rejected": 0.01}, "max_rejected is a number, not float.*max_rejected_ratio"),
    "ratio, a text": ({"max_rejected_ratio": "1%"}, "max_rejected_ratio is a number, not str"),
    "ratio, a truth": ({"max_rejected_ratio": True}, "max_rejected_ratio is a number, not bool"),
    "convert, a list": ({"convert": [("size", int)]}, r"convert is a mapping of columns .*, not list\. As convert="),
    "convert, no function": ({"convert": {"size": 5}}, "convert is a mapping of columns to functions, and .* int"),
    "convert, no name": ({"convert": {1: int}}, "convert is a mapping of columns to functions, and .* int"),
    "encoding": ({"encoding": 8}, "encoding is the name of an encoding, not int"),
    "progress": ({"progress": "yes"}, "progress is a function, not str"),
    "rejects": ({"rejects": True}, "rejects is a path or a Table, not bool"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_of_a_wrong_kind(connection: Connection, case: str) -> None:
    options, told = OPTIONS[case]
    with pytest.raises(WrongArgument, match=told):
        load(connection, item, [(1, "one", 1)], **options)
    assert rows_of(connection) == []


@pytest.mark.parametrize("share", [1.5, -0.1, float("nan")])
def test_a_share_out_of_range(connection: Connection, share: float) -> None:
    with pytest.raises(BadInput, match="max_rejected_ratio is a share from 0 to 1"):
        load(connection, item, [(1, "one", 1)], max_rejected_ratio=share)


@pytest.mark.parametrize("columns", [{}, [], (), {"id": ""}, ["id", ""]], ids=repr)
def test_columns_that_take_nothing(connection: Connection, columns: Any) -> None:
    """Rows of nothing but defaults would come of it."""
    with pytest.raises(BadInput, match=r"columns= names (no|an empty) .*\. Leave it out"):
        load(connection, item, [{"id": 1, "name": "one", "size": 1}], columns=columns)
    assert rows_of(connection) == []


def test_names_of_columns_in_any_order_that_is_one(connection: Connection) -> None:
    given = {"id": 0, "name": 0}
    names: list[Any] = [given.keys(), iter(given), tuple(given)]
    for number, columns in enumerate(names):
        assert load(connection, item, [(number, "one")], columns=columns).loaded == 1


def test_a_limit_exceeded_is_told_as_undone(connection: Connection) -> None:
    with pytest.raises(LoadLimitExceeded) as caught:
        load(connection, item, [(1, None, 1)], max_rejected=0)
    report = caught.value.report
    assert (report.undone, report.savepoint) == (True, None)
    assert "1 rejected (undone)" in str(report)


# Where rejects go


@pytest.fixture
def sent(connection: Connection) -> Iterator[list[str]]:
    found: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *others: Any) -> None:
        found.append(statement)

    event.listen(connection.engine, "before_cursor_execute", note)
    yield found
    event.remove(connection.engine, "before_cursor_execute", note)


def test_rejects_that_cannot_be_written_are_refused_before_anything_is_loaded(
    connection: Connection, tmp_path: Path, sent: list[str]
) -> None:
    taken, file, folder = tmp_path / "taken.jsonl", tmp_path / "items.csv", tmp_path / "folder.jsonl"
    taken.write_text("")
    file.write_text("id,name\n1,one\n2,two\n")
    folder.mkdir()
    dangling = tmp_path / "dangling.jsonl"
    dangling.symlink_to(tmp_path / "nowhere.jsonl")
    rows = iter([(1, "one", 1)])
    for to in (taken, folder, dangling):
        with pytest.raises(FileExistsError, match="exists already"):
            load(connection, item, rows, rejects=to)
    for name, told in {
        "no/out.jsonl": "there is no folder",
        "items.csv/out.jsonl": "there is no folder",
        "out.txt": "does not tell how to write rejects",
        "items.csv": "is the input itself",
    }.items():
        with pytest.raises(BadInput, match=told):
            load(connection, item, file, rejects=tmp_path / name)
    assert next(rows) == (1, "one", 1)  # none was read
    assert not [statement for statement in sent if statement.startswith("INSERT")]
    assert {one.name for one in tmp_path.iterdir()} == {"taken.jsonl", "items.csv", "folder.jsonl", "dangling.jsonl"}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write into")
def test_a_folder_that_cannot_be_written_into(connection: Connection) -> None:
    with pytest.raises(BadInput, match="rejects cannot be written into /proc/self"):
        load(connection, item, [(1, "one", 1)], rejects="/proc/self/out.jsonl")
    assert rows_of(connection) == []


def test_a_table_for_rejects_that_is_not_there(connection: Connection) -> None:
    rows = iter([(1, None, 1)])
    with pytest.raises(BadInput, match=r"there is no table 'reject'; near: rejects"):
        load(connection, item, rows, rejects=rejects_table(MetaData(), "reject"))
    with pytest.raises(BadInput, match="has no column for rejects"):
        load(connection, item, rows, rejects=Table("item", MetaData(), Column("id", Integer)))
    assert next(rows) == (1, None, 1)


def test_without_rejects_there_is_no_file(connection: Connection, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    load(connection, item, [(1, "one", 1)], rejects=out)
    assert not out.exists()
    report = load(connection, item, [(1, "one", 1)], rejects=out)
    assert (report.rejected, len(out.read_text().splitlines())) == (1, 1)


def test_a_file_system_without_links(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    out = tmp_path / "out.jsonl"
    load(connection, item, [(1, None, 1)], rejects=out)
    assert (len(out.read_text().splitlines()), out.stat().st_mode & 0o777) == (1, 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(FileExistsError):
        load(connection, item, [(1, None, 1)], rejects=out)


# The table's name


@pytest.mark.needs("core", "loader")
async def test_a_name_in_other_letters(world: World) -> None:
    """Found where the database takes it for the same; else refused, with the one that is near."""
    prepare(world)
    async with world.transaction(world.source) as target:
        told = ""
        try:
            told = (await world.load(target, "Product", [good(1)])).table
        except BadInput as error:
            told = str(error)
        assert told == "product" or "there is no table 'Product'; near: product" in told


def test_a_name_in_other_letters_with_a_point(connection: Connection) -> None:
    tables = MetaData()
    Table("some.Thing", tables, Column("id", Integer), Column("name", String))
    tables.create_all(connection)
    found = [load(connection, name, [{"id": 1, "name": "x"}]).table for name in ("SOME.thing", "main.ITEM")]
    assert found == ["some.Thing", "main.item"]
