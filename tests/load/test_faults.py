"""What is not the fault of a row ends the load: no report, the state as the database left it, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from savepoints import TransactionLost, load
from tests.harness.models import Child, Item, Parent
from tests.harness.world import World

item: Any = Item.__table__
child: Any = Child.__table__
parent: Any = Parent.__table__


@pytest.mark.needs("kill")
async def test_a_killed_connection_is_no_reject(world: World) -> None:
    async def fails() -> None:
        async with world.transaction(world.source) as target:
            mine = (await target.execute(world.sql("own id"))).scalar_one()

            def rows() -> Iterator[dict[str, Any]]:
                for number in range(20_000):
                    if number == 5000:
                        world.kill(mine)
                    yield {"id": number, "name": None if number % 3 else "x"}

            await world.load(target, Item, rows())

    with pytest.raises((TransactionLost, DBAPIError)):
        await fails()
    assert world.rows() == []


@pytest.mark.needs("full")
async def test_a_full_disk_is_no_reject(world: World) -> None:
    with pytest.raises((TransactionLost, DBAPIError)):
        async with world.transaction(world.source) as target:
            pages = (await target.execute(text("PRAGMA page_count"))).scalar_one()
            await target.execute(text(f"PRAGMA max_page_count = {pages}"))
            await world.load(target, Item, [{"id": number, "name": "x" * 500} for number in range(2000)])
    assert world.rows() == []


@pytest.mark.needs("async")
async def test_a_cancelled_load_leaves_nothing(world: World) -> None:
    began = asyncio.Event()

    async def rows() -> Any:
        for number in range(1_000_000):
            if number == 3000:
                began.set()
            if number > 3000:
                await asyncio.sleep(0.01)
            yield {"id": number, "name": "x"}

    async def run() -> None:
        async with world.transaction(world.source) as target:
            await world.load(target, Item, rows())

    task = asyncio.create_task(run())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.rows() == []


@pytest.mark.needs("loader", "deferred")
async def test_deferred_foreign_keys_are_found_in_the_load(world: World) -> None:
    """They would be found at COMMIT, and take everything with them."""
    async with world.transaction(world.source) as target:
        await target.execute(parent.insert().values(id=1, name="p"))
        rows = [{"id": 1, "name": "a", "parent_id": 1}, {"id": 2, "name": "b", "parent_id": 9}, {"id": 3, "name": "c"}]
        report = await world.load(target, Child, rows)
        assert (report.loaded, report.rejects[0].number, report.rejects[0].kind) == (2, 1, "foreign key")
        assert report.missing_parents[0].rows == 1
        await target.execute(child.insert().values(id=8, name="later", parent_id=2))
        await target.execute(parent.insert().values(id=2, name="q"))  # deferred again
    with world.aside.connect() as connection:
        assert set(connection.scalars(select(child.c.id))) == {1, 3, 8}


@pytest.mark.needs("many_writers", "loader", "deferred")
async def test_an_earlier_violation_of_the_callers_is_not_the_loads(world: World) -> None:
    async with world.transaction(world.source, rollback=True) as target:
        async with world.savepoint(target, suppress=IntegrityError) as level:
            await target.execute(child.insert().values(id=8, name="mine", parent_id=77))
            await world.load(target, Child, [{"id": 1, "name": "a", "parent_id": None}])
        assert isinstance(level.error, IntegrityError)


@pytest.mark.needs("transactional_ddl")
async def test_no_temporary_table_is_left(world: World) -> None:
    rows = [{"id": number // 2, "name": "x"} for number in range(200)]
    async with world.transaction(world.source) as target:
        report = await world.load(target, Item, rows)
        assert (report.loaded, report.rejected) == (100, 100)

        def temporary(connection: Any) -> list[str]:
            found: list[str] = connection.dialect.get_temp_table_names(connection)
            return found

        def on_connection(inner: Any) -> list[str]:
            return temporary(inner if world.style == "core" else inner.connection())

        assert await world.run_sync(target, on_connection) == []


def test_a_table_that_refers_to_itself_is_loaded_in_order(postgres: Any) -> None:
    from sqlalchemy import create_engine

    metadata = MetaData()
    tree = Table("tree", metadata, Column("id", Integer, primary_key=True), Column("up", ForeignKey("tree.id")))
    engine = create_engine(postgres.url())
    with engine.connect() as connection, connection.begin() as whole:
        metadata.create_all(connection)
        report = load(connection, tree, [(2, 1), (1, None), (3, 1), (4, 2), (5, 5)])
        assert [(one.number, one.reasons[0].because_of) for one in report.rejects] == [(0, None), (3, 0)]
        assert set(connection.scalars(select(tree.c.id))) == {1, 3, 5}
        whole.rollback()
    engine.dispose()


@pytest.mark.needs("orm")
async def test_objects_of_the_session_see_an_update(world: World) -> None:
    async with world.transaction(world.source) as target:
        await world.insert(target, 1, "before")
        found = await target.get(Item, 1)
        await world.load(target, Item, [{"id": 1, "name": "after"}], on_conflict="update")
        assert found.name == "after"
