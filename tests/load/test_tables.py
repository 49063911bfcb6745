"""Tables of every sort: in a schema, with keys that the database makes, with parents that cannot be seen."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    select,
    text,
)

from savepoints import BadInput
from savepoints._load import databases
from savepoints._load.databases import postgresql
from tests.harness.models import item
from tests.harness.world import World

pytestmark = pytest.mark.needs("loader", "core")


def make(world: World, *statements: str, tables: MetaData | None = None) -> None:
    with world.aside.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        if tables is not None:
            tables.create_all(connection)


@pytest.mark.needs("many_writers")
async def test_a_table_whose_schema_is_translated(world: World) -> None:
    """Rows go where SQLAlchemy's own statements go, not into the table of the same name beside it."""
    make(world, "CREATE SCHEMA tenant")
    with world.aside.begin() as connection:
        item.create(connection.execution_options(schema_translate_map={None: "tenant"}))
    try:
        engine = world.engine.execution_options(schema_translate_map={None: "tenant"})
        async with world.transaction(engine) as target:
            for into in (item, World.Item):
                report = await world.load(target, into, [(1, "a"), (1, "b"), (2, "c")])
                assert report.loaded == (2 if into is item else 0)
            assert await world.seen(target) == [(1, "a"), (2, "c")]
        assert world.rows() == []
    finally:
        make(world, "DROP TABLE tenant.item", "DROP SCHEMA tenant")


@pytest.mark.needs("many_writers", "deferred")
async def test_a_table_in_a_schema(world: World) -> None:
    """With percent signs, spaces and capitals in its names."""
    metadata = MetaData(schema="The shop")
    Table("Maker", metadata, Column("a%", Integer, primary_key=True))
    thing = Table(
        "100% {good}",
        metadata,
        Column("Id", Integer, primary_key=True),
        Column("a%", ForeignKey("The shop.Maker.a%")),
        Column("the \"name\"", String(5), unique=True, key="name"),
    )  # fmt: skip
    make(world, 'CREATE SCHEMA "The shop"', tables=metadata)
    make(world, 'INSERT INTO "The shop"."Maker" VALUES (1)')
    try:
        async with world.transaction(world.source, rollback=True) as target:
            rows = [(1, 1, "x"), (2, 9, "y"), (3, 1, "x"), (3, 1, "y"), (4, 1, "longer"), ("q", None, "z")]
            for given in (rows, [*rows, (5, None, "z")] * 3):
                report = await world.load(target, thing, given, name="part", max_rejected=100)
                assert [one.number for one in report.rejects][:4] == [1, 2, 4, 5]
                assert report.loaded == len({key for key, _, _ in given} - {"q", 2, 4})
                await world.rollback_to(target, "part")
            report = await world.load(target, thing, [(1, 1, "x"), (1, 1, "y")], on_conflict="update")
            assert (report.loaded, report.updated) == (1, 1)
            named = await world.load(target, "The shop.100% {good}", [{"Id": 7, "a%": 1, 'the "name"': "v"}])
            assert named.loaded == 1
    finally:
        make(world, 'DROP SCHEMA "The shop" CASCADE')


async def test_a_name_with_a_dot_in_it(world: World) -> None:
    """It is that of a table, if there is one; else a schema stands before the last dot."""
    tables = MetaData()
    Table("item.old", tables, Column("id", Integer, primary_key=True, autoincrement=False))
    make(world, tables=tables)
    async with world.transaction(world.source, rollback=True) as target:
        assert (await world.load(target, "item.old", [{"id": 1}])).loaded == 1
        with pytest.raises(BadInput, match=r"there is no table 'new' in schema item\.old"):
            await world.load(target, "item.old.new", [{"id": 1}])


async def test_columns_that_the_database_fills(world: World) -> None:
    metadata = MetaData()
    thing = Table(
        "thing",
        metadata,
        Column("id", Integer, Identity(always=True), primary_key=True),
        Column("name", String(5), nullable=False, unique=True),
        Column("size", Integer, server_default="3"),
        Column("twice", Integer, Computed("size * 2", persisted=True)),
    )
    make(world, tables=metadata)
    async with world.transaction(world.source) as target:
        rows = [{"name": "a"}, {"name": "b", "size": 5}, {"name": "a"}, {"name": None}, {"name": "c", "size": None}]
        report = await world.load(target, thing, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [(2, "unique"), (3, "not null")]
        found = (await target.execute(select(thing.c.name, thing.c.size, thing.c.twice).order_by(thing.c.name))).all()
        assert found == [("a", 3, 6), ("b", 5, 10), ("c", None, None)]
        keys = (await target.execute(select(thing.c.id))).scalars().all()
        assert len(set(keys)) == 3


async def test_keys_of_many_columns(world: World) -> None:
    """More rows than one look at the table is made for; some of the parents are missing."""
    metadata = MetaData()
    names = ["a", "b", "c", "d", "e"]
    whole = Table("whole", metadata, *(Column(name, String(20), primary_key=True) for name in names))
    part = Table(
        "part",
        metadata,
        *(Column(name, String(20), primary_key=True) for name in names),
        Column("n", Integer, primary_key=True, autoincrement=False),
        ForeignKeyConstraint(names, [f"whole.{name}" for name in names]),
        UniqueConstraint("e", "n", "a", "d"),
    )
    make(world, tables=metadata)

    def key(number: int) -> list[str]:
        return [f"{name} {number}" for name in names]

    async with world.transaction(world.source) as target:
        parents = await world.load(target, whole, [key(number) for number in (*range(300), 7)])
        assert (parents.loaded, parents.rejected) == (300, 1)
        rows = [(*key(number % 310), number // 310) for number in range(6000)]
        report = await world.load(target, part, [*rows, rows[5], rows[0]], max_rejected=1000)
        missing = {number for number in range(6000) if number % 310 >= 300}
        assert {one.number for one in report.rejects} == missing | {6000, 6001}
        assert len(report.missing_parents) == 10


@pytest.mark.needs("many_writers", "deferred")
async def test_keys_of_a_type_that_has_no_maximum(world: World) -> None:
    from uuid import UUID

    metadata = MetaData()
    thing = Table("thing", metadata, Column("id", Uuid, primary_key=True), Column("name", String(5), nullable=False))
    make(world, tables=metadata)
    rows: list[Any] = [(UUID(int=number), None if number % 100 == 3 else "x") for number in range(12_000)]
    async with world.transaction(world.source) as target:
        report = await world.load(target, thing, [*rows, rows[0]], max_rejected=1000)
        assert (report.loaded, report.rejected) == (11_880, 121)
        assert report.algorithm == "stage"
        assert set(report.checks.values()) == {"predicted"}


@pytest.mark.needs("many_writers", "deferred")
@pytest.mark.parametrize("hides", ["rows", "the table"])
async def test_a_parent_that_cannot_be_seen(world: World, hides: str) -> None:
    """The database looks at it as its owner: the rows are good."""
    metadata = MetaData()
    Table("hidden", metadata, Column("id", Integer, primary_key=True))
    thing = Table("thing", metadata, Column("id", Integer, primary_key=True), Column("up", ForeignKey("hidden.id")))
    make(world, "CREATE ROLE blind", tables=metadata)
    make(
        world,
        "INSERT INTO hidden VALUES (1), (2)",
        "GRANT INSERT, SELECT ON thing TO blind",
        "GRANT USAGE ON SCHEMA public TO blind",
    )
    if hides == "rows":
        make(world, "GRANT SELECT ON hidden TO blind", "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
    try:
        async with world.transaction(world.source, rollback=True) as target:
            await target.execute(text("SET LOCAL ROLE blind"))
            rows = [(1, 1), (2, 9), (2, 2), ("x", 1), (3, None)]
            report = await world.load(target, thing, rows * 3, max_rejected=100)
            assert report.loaded == 3
            assert [one.number for one in report.rejects][:2] == [1, 3]
            assert all(why.startswith("left") for rule, why in report.checks.items() if "foreign key" in rule)
    finally:
        make(world, "DROP OWNED BY blind", "DROP ROLE blind")


@pytest.mark.parametrize("way", ["its own", "cautious"])
async def test_rows_without_any_column(world: World, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database fills all of them."""
    if way == "cautious":
        monkeypatch.setattr(postgresql, "DRIVERS", {})
        monkeypatch.setattr(databases, "BY_DATABASE", {"postgresql": databases.BY_DATABASE["postgresql"]})
    metadata = MetaData()
    thing = Table(
        "thing",
        metadata,
        Column("id", Integer, Identity(), primary_key=True),
        Column("size", Integer, server_default="3", nullable=False),
        Column("name", String(5), unique=True),
    )
    strict = Table(
        "strict", metadata, Column("id", Integer, primary_key=True), Column("name", String(5), nullable=False)
    )
    make(world, tables=metadata)
    async with world.transaction(world.source, rollback=True) as target:
        rows = [{}, {"size": 5}, {"size": "many"}, {"name": "a"}, {"name": "a"}, {}, {}]
        report = await world.load(target, thing, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [(2, "type"), (4, "unique")]
        assert report.loaded == 5
        found = (await target.execute(select(thing.c.size, thing.c.name).order_by(thing.c.id))).all()
        assert sorted(found, key=str) == sorted([(3, None), (5, None), (3, "a"), (3, None), (3, None)], key=str)
        report = await world.load(target, thing, [{}, {}])
        assert report.loaded == 2
        report = await world.load(target, strict, [{}, {"name": "a"}, {}], max_rejected=5)
        assert (report.loaded, [(one.number, one.kind) for one in report.rejects]) == (
            1, [(0, "not null"), (2, "not null")])  # fmt: skip
