"""What bookmarks send: made, rolled back to again and again, released, ended with what is around them."""

from __future__ import annotations

from sqlalchemy import update

from tests.harness.models import item
from tests.harness.world import World
from tests.transcripts.wire import sent

RENAME = update(item).values(name="Jane")


async def test_rolled_back_twice_then_committed(world: World) -> None:
    """One statement for each rollback. A session's savepoint is SQLAlchemy's, which releases it before COMMIT."""
    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "John")
        mark = await world.savepoint(t)
        for _ in range(2):
            await t.execute(RENAME)
            await mark.rollback()
    assert sent(world) == [
        *["BEGIN", "INSERT item", "SAVEPOINT 1"],
        *["UPDATE item", "ROLLBACK TO 1"],
        *["UPDATE item", "ROLLBACK TO 1"],
        *(["RELEASE 1"] if world.style == "orm" else []),
        "COMMIT",
    ]
