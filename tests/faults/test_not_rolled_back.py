"""Tables of an engine without transactions keep what was written to them, and who rolls back is told."""

from __future__ import annotations

import logging
import warnings

import pytest
from sqlalchemy import text

from savepoints import NotRolledBack
from tests.harness.world import World

pytestmark = pytest.mark.needs("implicit_commit")


@pytest.fixture(params=["MyISAM", "Aria", "MEMORY"])
def stays(request: pytest.FixtureRequest, world: World) -> None:
    with world.aside.begin() as aside:
        aside.exec_driver_sql(f"CREATE TABLE stays (id INTEGER) ENGINE = {request.param}")


def left(world: World) -> list[int]:
    with world.aside.connect() as aside:
        return list(aside.scalars(text("SELECT id FROM stays ORDER BY id")))


@pytest.mark.usefixtures("stays")
@pytest.mark.parametrize("whole", [False, True], ids=["savepoint", "transaction"])
async def test_rows_that_stay_are_told(world: World, whole: bool) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with world.transaction(world.source, rollback=whole) as t:
            await world.insert(t, 1)
            async with world.savepoint(t, rollback=not whole):
                await world.insert(t, 2)
                await t.execute(text("INSERT INTO stays VALUES (1)"))
    assert [warning.category for warning in told] == [NotRolledBack]
    assert "has left rows in tables whose engine has no transactions" in str(told[0].message)
    assert left(world) == [1]
    assert world.rows() == ([] if whole else [(1, None)])


@pytest.mark.usefixtures("stays")
async def test_each_rollback_of_a_bookmark_tells(world: World) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with world.transaction(world.source) as t:
            mark = await world.savepoint(t)
            for id in (1, 2):
                await t.execute(text(f"INSERT INTO stays VALUES ({id})"))
                await mark.rollback()
    assert [warning.category for warning in told] == [NotRolledBack] * 2
    assert left(world) == [1, 2]


@pytest.mark.usefixtures("stays")
async def test_it_is_no_error_in_the_middle_of_a_rollback(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Where a filter makes errors of warnings, as here: the rollback goes on, and the log tells."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1)
        async with world.savepoint(t, rollback=True):
            await t.execute(text("INSERT INTO stays VALUES (1)"))
        await world.insert(t, 2)
    ours = [record.levelno for record in caplog.records if record.name == "savepoints"]
    assert ours == [logging.WARNING]
    assert world.rows() == [(1, None), (2, None)]


async def test_other_warnings_are_not_taken_for_it(world: World) -> None:
    async with world.transaction(world.source) as t:
        async with world.savepoint(t, rollback=True):
            await world.insert(t, 1)
            await t.execute(text("SELECT 1 / 0"))
        await t.execute(text("DROP TEMPORARY TABLE IF EXISTS none_such"))
    assert world.rows() == []
