"""Rows that the database puts elsewhere than into the target: it does not tell what became of them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select, text

from savepoints import BadInput, load, transaction
from tests.harness.world import World

metadata = MetaData()
ruled = Table("ruled", metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("size", Integer))
ROWS: list[Any] = [{"id": 1, "size": 1}, {"id": 2, "size": None}, {"id": 1, "size": 5}, {"id": 3, "size": 3}]


@pytest.mark.parametrize("trigger", [True, False])
def test_a_view_of_sqlite_is_refused(trigger: bool) -> None:
    """What its trigger stored would be told as left out."""
    engine = create_engine("sqlite://")
    view = Table("seen", MetaData(), Column("id", Integer, primary_key=True), Column("size", Integer))
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE base (id INTEGER PRIMARY KEY, size INTEGER NOT NULL)")
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT * FROM base")
        if trigger:
            connection.exec_driver_sql(
                "CREATE TRIGGER stores INSTEAD OF INSERT ON seen BEGIN INSERT INTO base VALUES (new.id, new.size); END"
            )
        with pytest.raises(BadInput, match="seen is a view"):
            load(connection, view, ROWS)
        assert connection.exec_driver_sql("SELECT * FROM base").all() == []
    engine.dispose()


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
@pytest.mark.parametrize("does", ["NOTHING", "UPDATE item SET name = 'seen'"])
async def test_a_table_with_rules_that_replace_an_insert_is_refused(world: World, does: str) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql(f"CREATE RULE instead AS ON INSERT TO ruled WHERE new.size = 3 DO INSTEAD {does}")
    async with world.transaction(world.source, rollback=True) as target:
        with pytest.raises(BadInput, match="'instead'"):
            await world.load(target, ruled, ROWS)
        assert (await target.execute(select(ruled))).all() == []


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_a_rule_that_replaces_an_update_is_refused_where_rows_may_be_updated(world: World) -> None:
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql("CREATE RULE instead AS ON UPDATE TO ruled WHERE new.size = 3 DO INSTEAD NOTHING")
    async with world.transaction(world.source, rollback=True) as target:
        assert (await world.load(target, ruled, ROWS)).loaded == 3
        with pytest.raises(BadInput, match="'instead'"):
            await world.load(target, ruled, ROWS, on_conflict="update")


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_a_rule_that_does_something_else_too(world: World) -> None:
    """It acts once for each row, and refuses a row, as in the slow way."""
    with world.aside.begin() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql(
            "CREATE TABLE counted (n integer); INSERT INTO counted VALUES (0);"
            "CREATE RULE counts AS ON INSERT TO ruled DO ALSO UPDATE counted SET n = n + 1;"
            "CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO item VALUES (new.size, 'seen')"
        )
    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, ruled, [*ROWS, {"id": 4, "size": "many"}, {"id": 5, "size": 3}])
        assert (report.loaded, [one.number for one in report.rejects]) == (2, [1, 2, 4, 5])
        assert await world.seen(target) == [(1, "seen"), (3, "seen")]
        assert (await target.execute(text("SELECT n FROM counted"))).scalar() == 2
