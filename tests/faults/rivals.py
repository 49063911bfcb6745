"""Another connection that wants the same rows: it closes the ring of a deadlock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.harness.world import Target, World

A = text("UPDATE item SET name = name || :by WHERE id = 1")
B = text("UPDATE item SET name = name || :by WHERE id = 2")
OURS, THEIRS = {"by": "+ours"}, {"by": "+theirs"}


def two_rows(world: World) -> None:
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b')"))


async def waits_in_vain(world: World, t: Target) -> DBAPIError:
    """Another transaction holds row A for longer than we wait."""
    await t.execute(text("SET innodb_lock_wait_timeout = 0"))
    with world.aside.begin() as other:
        other.execute(A, THEIRS)
        with pytest.raises(DBAPIError) as caught:
            await t.execute(A, OURS)
        other.rollback()
    assert world.code(caught.value) == "1205"
    return caught.value


class Rival:
    """Another connection: it holds B and waits for A, which we hold. If we ask for B then, the ring is closed.

    We are the victim: the rival does what makes it the stronger one.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection = world.aside.connect()
        self._connection.execute(world.sql("outlives us"))
        self._connection.execute(B, THEIRS)
        self._id = self._connection.scalar(world.sql("own id"))
        self._thread = ThreadPoolExecutor(1)

    def wait_for_a(self) -> None:
        self._waiting = self._thread.submit(self._connection.execute, A, THEIRS)
        with self._world.aside.connect().execution_options(isolation_level="AUTOCOMMIT") as asking:
            self._world.wait_until(asking, "waits", self._id)

    def has_a(self) -> None:
        """The victim's locks were freed: the rival got what it waited for, and commits."""
        self._waiting.result(20)
        self._connection.commit()

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()
