"""A row that two nodes of a cluster change at the same time: the second to commit is refused, or ended."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import TextClause, create_engine, text

from tests.harness.world import Target, World
from tests.servers import Galera

OURS = text("UPDATE item SET name = 'ours' WHERE id = 1")
THEIRS = text("UPDATE item SET name = 'theirs' WHERE id = 1")


def aborts(connection: Any) -> int:
    return int(connection.execute(text("SHOW STATUS LIKE 'wsrep_local_bf_aborts'")).one()[1])


async def conflict(world: World, t: Target, galera: Galera, *more: TextClause) -> None:
    """We change the row on the first node; the second commits a change of its own before us, and the first knows."""
    here = create_engine(galera.url())
    with here.connect() as watching:
        before = aborts(watching)
        for statement in (OURS, *more):
            await t.execute(statement)
        with world.aside.begin() as other:
            other.execute(THEIRS)
        deadline = time.monotonic() + 20
        while aborts(watching) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)  # nothing else is to run meanwhile, and the sync face awaits nothing
    here.dispose()
