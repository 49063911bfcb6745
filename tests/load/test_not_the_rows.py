"""What meets a load from outside is no reject: there is no report, and all is as it was before the load.

Each fault comes while rows are copied into the table, while they are judged in the stage, and while the net tries them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from savepoints import TransactionLost
from savepoints._load.databases import postgresql
from savepoints._load.databases.postgresql.staging import Staging
from savepoints._load.databases.postgresql.verdict import Verdict
from tests.harness.models import Child, Parent
from tests.harness.world import World

pytestmark = [pytest.mark.needs("many_writers", "loader", "core"), pytest.mark.lacks("implicit_commit")]

child: Any = Child.__table__
parent: Any = Parent.__table__
TAKEN = 5
ROWS = [{"id": number, "name": "x", "parent_id": 1 if number % 2 else None} for number in range(2, 40)]


@pytest.fixture(params=["copy", "stage", "net"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the rows go in."""
    if request.param != "copy":
        monkeypatch.setattr(postgresql.Copying, "_why_staged", lambda self: "the test wants it")
    if request.param == "net":
        monkeypatch.setattr(Staging, "_judged", lambda _, judge, batch, unfit: (Verdict(unfit).copy(), None))
    return str(request.param)


async def temporary_tables(world: World, target: Any) -> list[str]:
    def ask(connection: Any) -> list[str]:
        found: list[str] = connection.dialect.get_temp_table_names(connection)
        return found

    found: list[str] = await world.run_sync(target, ask)
    return found


async def is_as_before(world: World, target: Any) -> None:
    """The row of before, no table of ours, and keys that wait for COMMIT wait for it again."""
    assert await world.seen(target) == [(1, "before")]
    assert (await target.execute(child.select())).all() == []
    assert await temporary_tables(world, target) == []
    assert world.current_transaction(target).savepoints == ()
    await target.execute(child.insert().values(id=8, name="later", parent_id=2))
    await target.execute(parent.insert().values(id=2, name="its parent"))


@contextmanager
def somebody_else(world: World) -> Iterator[Connection]:
    """Another transaction, which has put a row with the same key into the table."""
    with world.aside.connect() as other, other.begin() as whole:
        other.execute(text("SET LOCAL deadlock_timeout = '10s'"))
        other.execute(child.insert().values(id=TAKEN, name="theirs"))
        yield other
        whole.rollback()


async def prepared(world: World, target: Any) -> None:
    await target.execute(parent.insert().values(id=1, name="p"))
    await world.insert(target, 1, "before")


TIMEOUTS = {"lock_timeout": "55P03", "statement_timeout": "57014"}


@pytest.mark.parametrize("setting", TIMEOUTS)
async def test_a_timeout(world: World, way: str, setting: str) -> None:
    async with world.transaction(world.source, rollback=True) as target:
        await prepared(world, target)
        await target.execute(text(f"SET LOCAL {setting} = '300ms'"))
        with somebody_else(world), pytest.raises(DBAPIError) as caught:
            await world.load(target, Child, ROWS)
        assert world.code(caught.value) == TIMEOUTS[setting]
        assert (await target.execute(text(f"SHOW {setting}"))).scalar() == "300ms"
        await is_as_before(world, target)


async def test_a_deadlock(world: World, way: str) -> None:
    """The other one waits for our row, and we for its key: the server gives us up."""
    with world.aside.begin() as connection:
        connection.execute(parent.insert().values(id=9, name="fought for"))
    async with world.transaction(world.source, rollback=True) as target:
        await prepared(world, target)
        await target.execute(parent.update().where(parent.c.id == 9).values(name="ours"))
        with somebody_else(world) as other:
            theirs = parent.update().where(parent.c.id == 9).values(name="theirs")
            process = other.scalar(text("SELECT pg_backend_pid()"))
            waiting = threading.Thread(target=lambda: _ended(other, theirs))
            waiting.start()
            with world.aside.connect() as looking:
                world.wait_until(looking, "waits", process)
            with pytest.raises(DBAPIError) as caught:
                await world.load(target, Child, ROWS)
            assert world.code(caught.value) == "40P01"
            await is_as_before(world, target)
            # it still waits: for us
            with world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as looking:
                looking.execute(text("SELECT pg_cancel_backend(:id)"), {"id": process})
            waiting.join()


def _ended(connection: Connection, statement: Any) -> None:
    with pytest.raises(DBAPIError):
        connection.execute(statement)


async def test_a_right_that_is_taken_away(world: World, way: str) -> None:
    with world.aside.begin() as connection:
        connection.execute(text("CREATE ROLE loader"))
        connection.execute(text("GRANT USAGE ON SCHEMA public TO loader"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO loader"))

    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS
        with world.aside.begin() as connection:
            connection.execute(text("REVOKE INSERT ON child FROM loader"))

    try:
        async with world.transaction(world.source, rollback=True) as target:
            await prepared(world, target)
            await target.execute(text("SET LOCAL ROLE loader"))
            with pytest.raises(DBAPIError) as caught:
                await world.load(target, Child, rows())
            assert world.code(caught.value) == "42501"
            assert (await target.execute(text("SHOW role"))).scalar() == "loader"
            await target.execute(text("RESET ROLE"))
            await is_as_before(world, target)
    finally:
        with world.aside.begin() as connection:
            connection.execute(text("DROP OWNED BY loader"))
            connection.execute(text("DROP ROLE loader"))


async def test_a_backend_that_is_killed(world: World, way: str) -> None:
    def rows(process: int) -> Iterator[dict[str, Any]]:
        yield from ROWS
        world.kill(process)

    async def fails() -> None:
        async with world.transaction(world.source) as target:
            await prepared(world, target)
            process = (await target.execute(world.sql("own id"))).scalar_one()
            await world.load(target, Child, rows(process))

    with pytest.raises((TransactionLost, DBAPIError)):
        await fails()
    assert world.rows() == []
