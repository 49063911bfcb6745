"""The names that a column goes by: its own, its key in the Table, and the attribute of a class."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from savepoints import BadInput
from savepoints._load import databases
from tests.harness.world import World

pytestmark = pytest.mark.needs("core")


class Base(DeclarativeBase):
    pass


class Named(Base):
    __tablename__ = "named"
    number: Mapped[int] = mapped_column("Nr", Integer, primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column("the title", String(20), key="heading")
    size: Mapped[int | None] = mapped_column("a%b (c)", Integer, key="width", onupdate=3)


table: Any = Named.__table__

ROWS: dict[str, list[Any]] = {
    "attributes": [{"number": 1, "title": "a", "size": 7}, {"number": 2, "title": "b", "size": None}],
    "keys": [{"Nr": 1, "heading": "a", "width": 7}, {"Nr": 2, "heading": "b", "width": None}],
    "names": [{"Nr": 1, "the title": "a", "a%b (c)": 7}, {"Nr": 2, "the title": "b", "a%b (c)": None}],
    "one by one": [{"number": 1, "the title": "a", "size": 7}, {"Nr": 2, "heading": "b", "width": None}],
}


@pytest.fixture(params=["its own", "bisection"])
def there(world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "bisection":
        monkeypatch.setattr(databases, "BY_DATABASE", {})
    with world.aside.begin() as connection:
        Base.metadata.create_all(connection, checkfirst=False)


async def test_a_column_goes_by_each_of_its_names(world: World, there: None) -> None:
    names = (table.c.Nr, table.c.heading, table.c.width)
    async with world.transaction(world.source, rollback=True) as target:
        for rows in ROWS.values():
            report = await world.load(target, Named, [*rows, {"number": 1, "title": "twice"}], name="rows")
            assert (report.loaded, [one.kind for one in report.rejects]) == (2, ["unique"])
            assert (await target.execute(select(*names).order_by(names[0]))).all() == [(1, "a", 7), (2, "b", None)]
            more = [{"number": 1, "title": "c"}, {"Nr": 3, "heading": "d", "width": 1}]
            report = await world.load(target, Named, more, on_conflict="update", key="number")
            assert (report.loaded, report.updated) == (1, 1)
            found = (await target.execute(select(*names).order_by(names[0]))).all()
            assert found == [(1, "c", 3), (2, "b", None), (3, "d", 1)]
            report = await world.load(target, Named, more, on_conflict="skip", key="Nr")
            assert (report.loaded, report.skipped) == (0, 2)
            await world.rollback_to(target, "rows")
        await world.load(target, Named, [(1, "a")], columns=["number", "heading"])


async def test_a_name_of_two_columns_is_refused(world: World, there: None) -> None:
    columns: list[Any] = [Column("the title", String, key="Nr2"), Column("a%b (c)", Integer, key="the title")]
    crossed = Table("named", MetaData(), Column("Nr", Integer, primary_key=True), *columns)
    async with world.transaction(world.source) as target:
        with pytest.raises(BadInput, match=r"'the title' .*'the title'.*'a%b"):
            await world.load(target, crossed, [{"Nr": 1, "the title": "x"}])
        report = await world.load(target, crossed, [{"Nr": 1, "Nr2": "x"}])
        assert report.loaded == 1


async def test_a_column_by_two_names_at_once_is_refused(world: World, there: None, tmp_path: Any) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("Nr,title,the title\n1,a,b\n")
    async with world.transaction(world.source) as target:
        with pytest.raises(BadInput, match="'title' and 'the title'"):
            await world.load(target, Named, file)
        with pytest.raises(BadInput, match="'title' and 'heading'"):
            await world.load(target, Named, [{"number": 1, "title": "a", "heading": "b"}])
        rows = [{"number": 1, "title": "a"}, {"number": 2, "title": "a", "heading": "b"}, {"number": 3, "heading": "b"}]
        report = await world.load(target, Named, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [(1, "structure")]
        report = await world.load(target, Named, [{"number": 5, "title": "a"}, {"number": 6, "heading": "b"}])
        assert report.loaded == 2
