"""Group H on a cluster: a conflict between nodes, wherever it is found, has the whole run again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from savepoints import Retry, classify
from savepoints.testing import instant_retries
from tests.behaviours.tools import notes, row
from tests.faults.nodes import OURS, THEIRS, conflict
from tests.harness.world import World
from tests.servers import Galera

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with instant_retries():
        yield


def rows_elsewhere(world: World) -> list[Any]:
    """What the second node has, once all that was acknowledged before has come over."""
    with world.aside.connect() as other:
        other.execute(text("SET SESSION wsrep_sync_wait = 1"))
        return [tuple(row) for row in other.execute(text("SELECT id, name FROM item ORDER BY id"))]


@pytest.mark.parametrize("found_at", ["a statement", "ROLLBACK TO", "COMMIT"])
async def test_h129_a_conflict_of_nodes_is_retried_as_a_whole(on_a_node: World, galera: Galera, found_at: str) -> None:
    world = on_a_node
    told: list[BaseException] = []

    async def work(session: Any) -> str:
        await world.insert(session, 10 + len(told), "of this try")
        mark = await world.savepoint(session, "part")
        if told:
            await session.execute(OURS)
            return "stored"
        if found_at == "COMMIT":
            await session.execute(OURS)
            with world.aside.begin() as other:
                other.execute(THEIRS)
            return "refused"
        await conflict(world, session, galera)
        await (mark.rollback() if found_at == "ROLLBACK TO" else session.execute(row(20)))
        raise AssertionError("it was not found")

    def before(number: int, error: BaseException, seconds: float) -> None:
        told.append(error)

    assert await world.decorated(work, retry=Retry(before_retry=before))() == "stored"
    [error] = told
    found = classify(error)
    assert (found.kind, found.code, found.retry_from) == ("deadlock", "1213", "the transaction")
    assert "1305" not in f"{error} {notes(error)}"
    assert rows_elsewhere(world) == [(1, "ours"), (2, "b"), (11, "of this try")]
