"""What SQLAlchemy fills in: defaults of new rows, and `onupdate` of updated ones, as its own statements would."""

from __future__ import annotations

import datetime
from itertools import count
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Date,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    bindparam,
    func,
    literal,
    select,
)

from savepoints._load import databases
from tests.harness.world import World

pytestmark = pytest.mark.needs("core")

NOW = datetime.datetime(2024, 2, 29, 12)


class Broken(Exception):
    """Of an application's own."""


def made(world: World, *columns: Any) -> Table:
    table = Table("filled", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False), *columns)
    with world.aside.begin() as connection:
        table.create(connection)
    return table


async def found(target: Any, table: Table, *names: str) -> list[Any]:
    columns = [table.c[name] for name in names]
    return [tuple(row) for row in (await target.execute(select(*columns).order_by(table.c.id))).all()]


ALGORITHMS = pytest.mark.parametrize("cautious", [False, True], ids=["its own", "bisection"])


@pytest.fixture
def algorithm(cautious: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if cautious:
        monkeypatch.setattr(databases, "BY_DATABASE", {})


@ALGORITHMS
async def test_what_an_update_fills_in(world: World, algorithm: None) -> None:
    """Where the row gives no value: a scalar, a function of Python's, with and without a context, and SQL."""
    numbers = count(100)
    table = made(
        world,
        Column("name", String(20)),
        Column("status", String(20), default="new", onupdate="changed"),
        Column("moment", DateTime, default=None, onupdate=lambda: NOW),
        Column("number", Integer, default=0, onupdate=lambda: next(numbers)),
        Column("title", String(20), onupdate=lambda context: context.get_current_parameters()["name"] + "!"),
        Column("width", Integer, onupdate=func.length(func.coalesce(bindparam("b", "it's 100%"), literal("x")))),
        Column("old", Integer, onupdate=7, server_default="1"),
    )
    names = ("id", "name", "status", "moment", "title", "width", "old")
    async with world.transaction(world.source, rollback=True) as target:
        await target.execute(table.insert(), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}])
        rows = [{"id": 1, "name": "A"}, {"id": 4, "name": "d"}, {"id": 2, "name": "B"}, {"id": 4, "name": "D"}]
        report = await world.load(target, table, rows, on_conflict="update")
        assert (report.loaded, report.updated, report.rejected) == (1, 3, 0)
        assert await found(target, table, *names) == [
            (1, "A", "changed", NOW, "A!", 9, 7),
            (2, "B", "changed", NOW, "B!", 9, 7),
            (3, "c", "new", None, None, None, 1),
            (4, "D", "changed", NOW, "D!", 9, 7),
        ]
        numbered = await found(target, table, "number")
        assert len({*numbered[:2], numbered[3]}) == 3
        assert all(number >= 100 for at, (number,) in enumerate(numbered) if at != 2)
        given = {"id": 3, "name": "C", "status": "mine", "moment": None, "title": "own", "width": 1, "old": 2}
        report = await world.load(target, table, [given, {"id": 1}], on_conflict="update")
        assert (report.updated, report.rejected) == (2, 0)
        after = await found(target, table, *names)
        assert after[2] == tuple(given.values())
        assert after[0] == (1, "A", "changed", NOW, "A!", 9, 7)  # nothing but its key: there is no UPDATE


@ALGORITHMS
async def test_a_default_that_is_sql_with_values_in_it(world: World, algorithm: None) -> None:
    numbers = Table("numbers", MetaData(), Column("n", Integer))
    with world.aside.begin() as connection:
        numbers.create(connection)
        connection.execute(numbers.insert(), [{"n": 3}, {"n": 8}])
    table = made(
        world,
        Column("word", String(20), default=func.coalesce(literal(None, String), literal("it's 100%"))),
        Column("highest", Integer, default=select(func.max(numbers.c.n)).where(numbers.c.n < 5).scalar_subquery()),
        Column("day", Date, default=literal(NOW.date())),
        Column("name", String(20)),
    )
    rows = [{"id": number, "name": None if number % 3 else "x"} for number in range(30)]
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, [*rows, {"id": 1, "name": "twice"}, {"id": 70, "name": "y" * 21}])
        assert (report.loaded, report.rejected) == (30, 2)
        assert {*await found(target, table, "word", "highest", "day")} == {("it's 100%", 3, NOW.date())}


async def test_a_default_sees_the_values_as_they_are(world: World, tmp_path: Any) -> None:
    """As the types of the columns have them, by the columns' keys, those filled in before among them."""
    seen: list[dict[str, Any]] = []

    def by_context(context: Any) -> str:
        seen.append(dict(context.get_current_parameters()))
        return "late" if seen[-1]["day"] > datetime.date(2024, 1, 1) else "early"

    table = made(
        world,
        Column("day", Date),
        Column("price", Numeric(6, 2), key="cost"),
        Column("first", Integer, default=5),
        Column("kind", String(20), default=by_context),
    )
    file = tmp_path / "rows.csv"
    file.write_text("id,day,price\n1,2024-02-29,1.50\n2,soon,1\n3,1999-12-31,\n")
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, file)
        assert [(one.number, one.column) for one in report.rejects] == [(1, "day")]
        assert await found(target, table, "id", "kind") == [(1, "late"), (3, "early")]
    days = [row for row in seen if row["id"] != 2]
    assert [(row["day"], row["first"]) for row in days] == [(NOW.date(), 5), (datetime.date(1999, 12, 31), 5)]
    assert [row["cost"] if row["cost"] is None else float(row["cost"]) for row in days] == [1.5, None]


async def test_an_error_of_a_default_is_the_rows(world: World) -> None:
    def default(context: Any) -> str:
        if context.get_current_parameters()["id"] == 2:
            raise Broken("secret")
        return "fine" if context.current_parameters["id"] != 3 else "much too long for that"

    def changed(context: Any) -> str:
        if context.get_current_parameters()["id"] == 1:
            raise Broken
        return "changed"

    table = made(world, Column("kind", String(10), default=default), Column("status", String(10), onupdate=changed))
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, [{"id": number} for number in (4, 2, 3, 5)])
        assert [(one.number, one.kind, one.column) for one in report.rejects] == [
            (1, "type", "kind"), (2, "length", "kind"),
        ]  # fmt: skip
        assert "Broken" in report.rejects[0].message
        assert "secret" not in str(report)
        assert await found(target, table, "id", "kind") == [(4, "fine"), (5, "fine")]
        rows = [{"id": number, "kind": "x"} for number in (1, 4)]
        report = await world.load(target, table, rows, on_conflict="update")
        assert [(one.number, one.column) for one in report.rejects] == [(0, "status")]
        assert await found(target, table, "id", "kind", "status") == [(4, "x", "changed"), (5, "fine", None)]
