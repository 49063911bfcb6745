"""Another connection that wants the same rows: it closes the ring of a deadlock."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from tests.harness.world import World

A = text("UPDATE item SET name = name || :by WHERE id = 1")
B = text("UPDATE item SET name = name || :by WHERE id = 2")
OURS, THEIRS = {"by": "+ours"}, {"by": "+theirs"}


def two_rows(world: World) -> None:
    with world.aside.begin() as aside:
        aside.execute(text("INSERT INTO item VALUES (1, 'a'), (2, 'b')"))


class Rival:
    """Another connection: it holds B and waits for A, which we hold. If we ask for B then, the ring is closed.

    We find out after the server's 0.2 s and are the victim; the rival would look only after 10.
    """

    def __init__(self, world: World) -> None:
        self._aside = world.aside
        self._connection = world.aside.connect()
        self._connection.execute(text("SET LOCAL deadlock_timeout = '10s'"))
        self._connection.execute(B, THEIRS)
        self._pid = self._connection.scalar(text("SELECT pg_backend_pid()"))
        self._thread = ThreadPoolExecutor(1)

    def wait_for_a(self) -> None:
        self._waiting = self._thread.submit(self._connection.execute, A, THEIRS)
        deadline = time.monotonic() + 20
        with self._aside.connect() as asking:
            while not asking.scalar(text("SELECT pg_blocking_pids(:pid) <> '{}'"), {"pid": self._pid}):
                assert time.monotonic() < deadline, "the rival never came to wait"

    def has_a(self) -> None:
        """The victim's locks were freed: the rival got what it waited for, and commits."""
        self._waiting.result(20)
        self._connection.commit()

    def close(self) -> None:
        self._thread.shutdown()
        self._connection.close()
