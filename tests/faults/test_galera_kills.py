"""F18 and F19 together: everybody counts up one row, while one node after the other is killed and comes back.

Short in CI; `nox -s soak` is the long run. Each count is a key of the program's own and a step of the counter, in one
transaction: what became of a COMMIT without an answer is found out by the key.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import tenacity
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from savepoints import CommitOutcomeUnknown, Retry, classify, savepoint, transaction
from tests.conftest import new
from tests.servers import Galera, Node

SOAK = bool(os.environ.get("SAVEPOINTS_SOAK"))
COUNTS = 10_000 if SOAK else 300
PAUSE = 5.0 if SOAK else 0.2  # seconds of peace between two kills

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if SOAK else 300)]

KEEP = text("INSERT INTO counted VALUES (:key)")
INCREMENT = text("UPDATE counter SET number = number + 1")
FIND = text("SELECT 1 FROM counted WHERE id = :key")


class Seen:
    """What the writers were told."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self.unknown: Counter[str] = Counter()  # COMMITs without an answer, by what was found out
        self.retried: Counter[str] = Counter()  # tries that failed, by what they failed with

    def rule(self) -> Retry:
        """Until it is known; a node that is down comes back."""

        def count(number: int, error: BaseException, seconds: float) -> None:
            found = classify(error)
            if isinstance(error, CommitOutcomeUnknown):
                self.unknown["rolled back"] += 1
            else:
                self.retried[f"{found.kind} {found.code}"] += 1

        wait = tenacity.wait_random_exponential(multiplier=0.01, max=0.5)
        return Retry(attempts=None, timeout=300, wait=wait, before_retry=count)

    def stored(self, key: int, error: CommitOutcomeUnknown) -> None:
        """The retry has asked, and does not go on: it must have been told that it is stored."""
        assert any("the answer is 'committed'" in note for note in error.__notes__), error.__notes__
        self.unknown["committed"] += 1
        self.acknowledged.add(key)


def is_there(key: int) -> Callable[[Connection], bool]:
    """Whether the work is stored, asked on a node that has applied all that the others have."""

    def look(connection: Connection) -> bool:
        connection.execute(text("SET SESSION wsrep_sync_wait = 1"))
        return connection.execute(FIND, {"key": key}).first() is not None

    return look


def count_up(url: str, keys: Iterator[int], seen: Seen) -> None:
    engine = create_engine(url)
    for key in keys:

        @transaction(engine, track_commit=is_there(key), retry=seen.rule())
        def increment(connection: Connection, key: int) -> None:
            connection.execute(KEEP, {"key": key})
            with savepoint(connection, "part"):
                connection.execute(INCREMENT)

        try:
            increment(key=key)
        except CommitOutcomeUnknown as error:
            seen.stored(key, error)
        else:
            seen.acknowledged.add(key)
    engine.dispose()


async def count_up_async(url: str, keys: Iterator[int], seen: Seen) -> None:
    engine = create_async_engine(url)
    for key in keys:

        @transaction(engine, track_commit=is_there(key), retry=seen.rule())
        async def increment(connection: AsyncConnection, key: int) -> None:
            await connection.execute(KEEP, {"key": key})
            async with savepoint(connection, "part"):
                await connection.execute(INCREMENT)

        try:
            await increment(key=key)
        except CommitOutcomeUnknown as error:
            seen.stored(key, error)
        else:
            seen.acknowledged.add(key)
    await engine.dispose()


def is_whole(node: Node) -> bool:
    """Whether the node has all that the others have, and is one of three."""
    engine = create_engine(node.url())
    try:
        with engine.connect() as connection:
            found = {name: value for name, value in connection.execute(text("SHOW STATUS LIKE 'wsrep_%'"))}
    except DBAPIError:
        return False
    finally:
        engine.dispose()
    return (found["wsrep_local_state_comment"], found["wsrep_cluster_size"]) == ("Synced", "3")


def wait_until_whole(cluster: Galera) -> None:
    deadline = time.monotonic() + 120
    while not all(map(is_whole, cluster.nodes)):
        assert time.monotonic() < deadline, cluster.log()
        time.sleep(0.1)


def kill_them(cluster: Galera, stop: threading.Event) -> int:
    """One after the other; the next only when all three are there again."""
    kills = 0
    while not stop.wait(PAUSE):
        node = cluster.nodes[kills % 3]
        node.kill()
        kills += 1
        node.recover()
        wait_until_whole(cluster)
    return kills


def test_f19_nothing_acknowledged_is_lost_while_nodes_are_killed() -> None:
    cluster = new(Galera)
    try:
        first, second, third = cluster.nodes
        engine = create_engine(first.url())
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE counter (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)"))
            connection.execute(text("CREATE TABLE counted (id INTEGER PRIMARY KEY)"))
            connection.execute(text("INSERT INTO counter VALUES (1, 0)"))
        engine.dispose()
        compiled = "mariadb+pymysql" if find_spec("MySQLdb") is None else "mariadb+mysqldb"
        seen, stop = Seen(), threading.Event()
        keys = [iter(range(start, COUNTS, 3)) for start in range(3)]
        with ThreadPoolExecutor(4) as threads:
            writing = [
                threads.submit(count_up, first.url(), keys[0], seen),
                threads.submit(count_up, second.url(compiled), keys[1], seen),
                threads.submit(lambda: asyncio.run(count_up_async(third.url("mariadb+asyncmy"), keys[2], seen))),
            ]
            killing = threads.submit(kill_them, cluster, stop)
            try:
                for writer in writing:
                    writer.result()
            finally:
                stop.set()
            kills = killing.result()
        wait_until_whole(cluster)
        assert len(seen.acknowledged) == COUNTS
        for node in cluster.nodes:
            elsewhere = create_engine(node.url())
            with elsewhere.connect() as connection:
                connection.execute(text("SET SESSION wsrep_sync_wait = 1"))
                assert set(connection.scalars(text("SELECT id FROM counted"))) == seen.acknowledged
                assert connection.scalar(text("SELECT number FROM counter")) == COUNTS
            elsewhere.dispose()
        assert kills > 0
        print(f"{COUNTS} increments, {kills} kills, {dict(seen.unknown)} unknown, {dict(seen.retried)} retried")
    finally:
        cluster.stop()
