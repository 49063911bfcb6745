"""What is not the fault of a row ends the load: no report, the state as the database left it, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from savepoints import TransactionLost, load, transaction
from savepoints._load.databases import postgresql
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


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_deferred_keys_without_a_right_to_temporary_tables(world: World) -> None:
    with world.aside.begin() as connection:
        database = connection.scalar(text("SELECT current_database()"))
        connection.execute(text("CREATE ROLE visitor"))
        for right in ("USAGE ON SCHEMA public", "ALL ON ALL TABLES IN SCHEMA public"):
            connection.execute(text(f"GRANT {right} TO visitor"))
        connection.execute(text(f"REVOKE TEMP ON DATABASE {database} FROM PUBLIC"))
    try:
        async with world.transaction(world.source) as target:
            await target.execute(parent.insert().values(id=1, name="p"))
            await target.execute(text("SET LOCAL ROLE visitor"))
            rows = [{"id": 1, "name": "a", "parent_id": 1}, {"id": 2, "name": "b", "parent_id": 9}]
            report = await world.load(target, Child, rows)
            assert (report.algorithm, report.loaded, report.rejects[0].kind) == ("bisection", 1, "foreign key")
            await target.execute(child.insert().values(id=8, name="later", parent_id=2))
            await target.execute(parent.insert().values(id=2, name="q"))  # deferred again
    finally:
        with world.aside.begin() as connection:
            connection.execute(text(f"GRANT TEMP ON DATABASE {database} TO PUBLIC"))
            connection.execute(text("DROP OWNED BY visitor"))
            connection.execute(text("DROP ROLE visitor"))


def test_a_value_that_the_driver_cannot_send_behind_a_duplicate() -> None:
    """sqlite3 raises the error of the statement before, for resetting it tells that again."""
    engine = create_engine("sqlite://")
    thing = Table("thing", MetaData(), Column("id", Integer, primary_key=True), Column("name", String, unique=True))
    with transaction(engine) as connection:
        thing.metadata.create_all(connection)
        report = load(connection, thing, [(5, "x"), (2**70, "y"), (5, "z"), (2**70, "y"), (7, "\ud800"), (6, "z")])
        kinds = [(one.number, one.kind) for one in report.rejects]
        assert kinds == [(1, "type"), (2, "unique"), (3, "type"), (4, "encoding")]
    engine.dispose()


def test_a_deferred_key_of_a_counted_column() -> None:
    """Nobody knows before the row is in what its key will be, and so whether that has a parent."""
    engine = create_engine("sqlite://")
    metadata = MetaData()
    owner = Table("owner", metadata, Column("id", Integer, primary_key=True))
    later: Any = {"deferrable": True, "initially": "DEFERRED"}
    thing = Table(
        "thing",
        metadata,
        Column("id", ForeignKey("owner.id", **later), primary_key=True, autoincrement=True),
        Column("up", ForeignKey("thing.id", **later)),
        Column("name", String, nullable=False),
    )
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    with transaction(engine) as connection:
        metadata.create_all(connection)
        connection.execute(owner.insert(), [{"id": number} for number in (1, 2, 4)])
        rows = [(None, 1, "own parent"), (None, 9, "none"), (None, None, "x"), (None, None, "no owner"),
                (4, 2, "y"), (None, None, "no owner"), (None, None, None)]  # fmt: skip
        report = load(connection, thing, rows)
        assert [(one.number, one.kind) for one in report.rejects] == [
            (1, "foreign key"), (3, "foreign key"), (5, "foreign key"), (6, "not null")]  # fmt: skip
        assert report.rejects[1].reasons[0].parent == (3,)
    with engine.connect() as connection:
        assert connection.scalars(select(thing.c.id)).all() == [1, 2, 4]
    engine.dispose()


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


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
@pytest.mark.parametrize("way", ["stage", "no stage"])
async def test_deferred_constraint_triggers_are_found_in_the_load(
    world: World, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be found at COMMIT, and take everything with them."""
    if way == "no stage":
        monkeypatch.setattr(postgresql, "DRIVERS", {})
    with world.aside.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF new.name = 'bad' THEN RAISE 'late'; END IF; RETURN NULL; END $$;"
            'CREATE CONSTRAINT TRIGGER "Late one" AFTER INSERT OR UPDATE ON child'
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()"
        )
    async with world.transaction(world.source) as target:
        rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "bad"}, {"id": 3, "name": "c"}]
        report = await world.load(target, Child, rows)
        assert (report.loaded, [(one.number, one.kind) for one in report.rejects]) == (2, [(1, "trigger")])
        rows = [{"id": 1, "name": "bad"}, {"id": 3, "name": "d"}]
        report = await world.load(target, Child, rows, on_conflict="update")
        assert (report.updated, [(one.number, one.kind) for one in report.rejects]) == (1, [(0, "trigger")])
        with pytest.raises(DBAPIError):  # deferred again
            async with world.savepoint(target):
                await target.execute(child.insert().values(id=8, name="bad"))
                await target.execute(text("SELECT 'it went in'"))
                await target.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    with world.aside.connect() as connection:
        assert connection.execute(select(child.c.id, child.c.name).order_by(child.c.id)).all() == [(1, "a"), (3, "d")]


@pytest.mark.needs("many_writers", "loader", "core", "deferred")
async def test_a_constraint_trigger_of_deletes_waits_for_the_commit(world: World) -> None:
    """The load itself may make good what it will ask for."""
    with world.aside.begin() as connection:
        connection.execute(child.insert().values(id=1, name="old"))
        connection.exec_driver_sql(
            "CREATE FUNCTION some_left() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NOT EXISTS (SELECT FROM child) THEN RAISE 'none left'; END IF; RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER some_left AFTER DELETE ON child"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION some_left()"
        )
    async with world.transaction(world.source) as target:
        await target.execute(child.delete())
        assert (await world.load(target, Child, [{"id": 2, "name": "new"}])).loaded == 1
    with world.aside.connect() as connection:
        assert connection.scalars(select(child.c.id)).all() == [2]
