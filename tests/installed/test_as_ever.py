"""What plain code with the line goes on with as ever: SQLAlchemy's own ways, and its own words."""

from __future__ import annotations

import pytest

import savepoints
from tests.behaviours.steps import Oops, fails
from tests.behaviours.tools import row
from tests.faults.losses import connection_of
from tests.harness.world import World

#: SQLAlchemy never closes what was detached from the pool of an async driver.
detached = pytest.mark.lacks("async")


@detached
async def test_a_connection_detached_from_its_pool(world: World) -> None:
    """The pool tells its driver's connection no more."""
    savepoints.install(world.engine)
    async with world.open() as t:
        await world.run_sync(t, lambda target: connection_of(target).detach())
        async with t.begin_nested():
            await t.execute(row(1))
        with fails(Oops):
            async with t.begin_nested():
                await t.execute(row(2))
                raise Oops
        await t.commit()
    assert world.rows() == [(1, None)]


@detached
@pytest.mark.parametrize("verb", ["transaction", "savepoint"])
async def test_blocks_on_a_connection_detached_from_its_pool(world: World, verb: str) -> None:
    async with world.open() as t:
        await world.run_sync(t, lambda target: connection_of(target).detach())
        await t.rollback()
        if verb == "transaction":
            async with world.transaction(t):
                await t.execute(row(1))
        else:
            with fails(Oops):
                async with world.savepoint(t):
                    await t.execute(row(2))
                    raise Oops
            await t.execute(row(1))
            await t.commit()
    assert world.rows() == [(1, None)]
