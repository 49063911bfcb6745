"""By which key a duplicate is known: one that the database keeps unique, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, UniqueConstraint, select, text

from savepoints import BadInput
from tests.harness.world import World
from tests.load.shop import good, ids, prepare, product

pytestmark = pytest.mark.needs("core")

metadata = MetaData()
Table(
    "keyed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("a", Integer),
    Column("b", Integer),
    Column("c", String(20)),
    UniqueConstraint("a", "b", name="both"),
    Index("of_c", "c", unique=True),
    Index("plain", "b"),
)
#: As an application may know it: of its keys, it says nothing.
keyed = Table(
    "keyed", MetaData(), *(Column(name, String if name == "c" else Integer) for name in ("id", "a", "b", "c"))
)


@pytest.fixture
def there(world: World) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        connection.execute(keyed.insert(), [{"id": 1, "a": 1, "b": 1, "c": "x"}, {"id": 2, "a": 1, "b": 2, "c": "y"}])


@pytest.mark.parametrize("on_conflict", ["skip", "update"])
async def test_a_key_that_is_not_unique_is_refused(world: World, on_conflict: Any) -> None:
    prepare(world)
    async with world.transaction(world.source) as target:
        await world.load(target, product, [good(1)])
        for key in ("name", ["id", "name"], ["maker_id", "stock"]):
            with pytest.raises(BadInput, match=r"not unique.*\(id\).*\(code\)"):
                await world.load(target, product, [good(1), good(2)], on_conflict=on_conflict, key=key)
        assert await ids(target) == [1]


async def test_a_key_without_a_use_is_refused(world: World) -> None:
    prepare(world)
    async with world.transaction(world.source) as target:
        with pytest.raises(BadInput, match="on_conflict"):
            await world.load(target, product, [good(1)], key="code")


async def test_a_primary_key_that_the_database_does_not_have_is_refused(world: World, there: None) -> None:
    table = Table("keyed", MetaData(), Column("b", Integer, primary_key=True), Column("c", String))
    async with world.transaction(world.source, rollback=True) as target:
        with pytest.raises(BadInput, match=r"\(a, b\)"):
            await world.load(target, table, [{"b": 1, "c": "z"}], on_conflict="update")


KEYS: dict[str, list[str]] = {"constraint": ["a", "b"], "turned round": ["b", "a"], "index": ["c"], "primary": ["id"]}


@pytest.mark.parametrize("key", KEYS.values(), ids=[*KEYS])
async def test_keys_that_the_database_keeps_unique(world: World, there: None, key: list[str]) -> None:
    """Rows that collide by the key are skipped, or update one row; a collision by another key alone rejects."""
    same = {"id": 1, "a": 1, "b": 1, "c": "x"}
    rest = {"id": 9, "a": 9, "b": 9, "c": "z"}
    by_key = {name: same[name] if name in key else value for name, value in rest.items()}
    other = "c" if "c" not in key else "id"
    by_other = {**rest, other: same[other]}
    async with world.transaction(world.source, rollback=True) as target:
        for more in ((), ("piece",) * 3000):  # also where rows are looked at before
            fill = [{"id": 100 + at, "a": at, "b": 0, "c": f"c{at}"} for at in range(len(more))]
            rows = [by_key, by_other, same, *fill, {**same, other: 77} if other == "id" else {**same, other: "new"}]
            report = await world.load(target, keyed, rows, on_conflict="skip", key=key, name="skipping")
            last = len(rows) - 1
            assert ([one.number for one in report.skips], [one.number for one in report.rejects]) == ([0, 2, last], [1])
            assert report.loaded == len(fill)
            await world.rollback_to(target, "skipping")
        given = [by_key, by_other]
        report = await world.load(target, keyed, given, on_conflict="update", key=key)
        assert (report.loaded, report.updated, [one.number for one in report.rejects]) == (0, 1, [1])
        found = [row._asdict() for row in (await target.execute(select(keyed).order_by(keyed.c.id))).all()]
        assert by_key in found
        assert len(found) == 2


PARTS = {
    "untyped": "CREATE UNIQUE INDEX part ON keyed (b) WHERE b > 5",
    "failed_state": "CREATE UNIQUE INDEX part ON keyed (b) WHERE b > 5",
    "lenient": "ALTER TABLE keyed ADD COLUMN d VARCHAR(20), ADD UNIQUE KEY part (d(3))",
}


async def test_an_index_over_a_part_is_no_key(world: World, there: None) -> None:
    part = next(sql for name, sql in PARTS.items() if name in world.site.has)
    with world.aside.begin() as connection:
        connection.execute(text(part))
    async with world.transaction(world.source, rollback=True) as target:
        with pytest.raises(BadInput, match="not unique"):
            key = "b" if "(b)" in part else "d"
            await world.load(target, "keyed", [{"id": 7, key: 7}], on_conflict="skip", key=key)
