"""What a reason names: columns, constraints, and the rows and parents that it is about."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, String, Table, create_engine, text

from savepoints import load, transaction
from tests.harness.world import World


@pytest.mark.parametrize("name", ['k"', 'Ch %s "k', "plain"])
def test_a_check_of_sqlite_is_told_once(name: str) -> None:
    engine = create_engine("sqlite://")
    thing = Table("thing", MetaData(), Column("id", Integer), CheckConstraint("id > 0", name=name))
    with transaction(engine) as connection:
        thing.metadata.create_all(connection)
        report = load(connection, thing, [{"id": 1}, {"id": -1}])
        assert [one.constraint for one in report.rejects[0].reasons] == [name]
    engine.dispose()


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
@pytest.mark.parametrize("on_conflict", ["reject", "update"])
async def test_what_postgresql_finds_by_trying_is_named(world: World, on_conflict: Any) -> None:
    metadata = MetaData()
    Table("owner", metadata, Column("id", Integer, primary_key=True))
    thing = Table(
        "thing",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("code", Integer, unique=True),
        Column("of", ForeignKey("owner.id")),
        Column("up", ForeignKey("thing.id")),
        Column("name", String(5)),
        Column("size", Integer),
        CheckConstraint("size > 0", name="some"),
        Index("large", "size", unique=True, postgresql_where=text("size > 5")),
        Index("low", text("lower(name)"), unique=True),
    )
    with world.aside.begin() as connection:
        metadata.create_all(connection)
    async with world.transaction(world.source, rollback=True) as target:
        first = [{"id": 1, "code": 1, "name": "red", "size": 7}, {"id": 2, "code": 2, "name": "b"}]
        assert (await world.load(target, thing, first)).loaded == 2
        rows = [
            {"id": 5, "code": 2},
            {"id": 6, "of": 9},
            {"id": 7, "up": 77},
            {"id": 8, "name": "B"},
            {"id": 9, "size": 7},
            {"id": 10, "size": 0},
            {"id": 11, "of": 9},
        ]
        report = await world.load(target, thing, rows, on_conflict=on_conflict, max_rejected=100)
        found = [
            [(why.kind, why.column, why.constraint, why.collides_with, why.parent) for why in one.reasons]
            for one in report.rejects
        ]
        assert [one[0] for one in found] == [
            ("unique", "code", "thing_code_key", {"id": 2}, None),
            ("foreign key", "of", "thing_of_fkey", None, (9,)),
            ("foreign key", "up", "thing_up_fkey", None, (77,)),
            ("unique", None, "low", None, None),
            ("unique", "size", "large", None, None),
            ("check", "size", "some", None, None),
            ("foreign key", "of", "thing_of_fkey", None, (9,)),
        ]
        assert report.rejects[3].message == "the key of index low is a duplicate"
        missing = [(one.column, one.values, one.rows) for one in report.missing_parents]
        assert missing == [("of", (9,), 2), ("up", (77,), 1)]
        if on_conflict == "update":
            report = await world.load(target, thing, [{"id": 1, "code": 2}], on_conflict=on_conflict)
            assert [one.reasons[0].collides_with for one in report.rejects] == [{"id": 2}]
            assert report.rejects[0].message == "code is a duplicate"


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_a_key_that_an_update_takes_from_a_child_is_no_missing_parent(world: World) -> None:
    metadata = MetaData()
    thing = Table(
        "thing",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("code", Integer, unique=True),
        Column("up", ForeignKey("thing.code")),
    )
    with world.aside.begin() as connection:
        metadata.create_all(connection)
    async with world.transaction(world.source, rollback=True) as target:
        assert (
            await world.load(target, thing, [{"id": 1, "code": 1, "up": 1}, {"id": 2, "code": 2, "up": 1}])
        ).loaded == 2
        report = await world.load(target, thing, [{"id": 1, "code": 7, "up": 7}], on_conflict="update")
        assert [(one.kind, one.column, one.constraint) for one in report.rejects] == [
            ("foreign key", None, "thing_up_fkey")]  # fmt: skip
        assert report.missing_parents == []


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_a_rule_of_another_table_is_not_taken_for_one_of_the_target(world: World) -> None:
    """A trigger's own statement may break a constraint that has the same name."""
    metadata = MetaData()
    Table("log", metadata, Column("n", Integer, CheckConstraint("n < 3", name="small")))
    thing = Table("thing", metadata, Column("id", Integer, primary_key=True), Column("size", Integer),
                  CheckConstraint("size > 0", name="small"))  # fmt: skip
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql(
            "CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO log VALUES (new.id); RETURN new; END $$;"
            "CREATE TRIGGER logs BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION logs()"
        )
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, thing, [{"id": 1, "size": 1}, {"id": 2, "size": 0}, {"id": 3, "size": 1}])
        told = [(one.kind, one.column, one.constraint) for one in report.rejects]
        assert told == [("check", "size", "small"), ("check", None, "small")]
