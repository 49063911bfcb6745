"""Three nodes that are one database (F17, F18, F19): conflicts are found at the end, and a node may have no quorum.

The cluster is started for this file, on loopback, by the programs of the system.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import pytest
import tenacity
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from savepoints import (
    CommitOutcomeUnknown,
    NotSupported,
    Retry,
    TransactionLost,
    attempts,
    classify,
    is_retryable,
    savepoint,
    transaction,
)
from savepoints._databases import capabilities
from tests.behaviours.steps import fails
from tests.conftest import new
from tests.faults.nodes import OURS, THEIRS, conflict
from tests.harness.world import World
from tests.servers import Galera, Node

pytestmark = pytest.mark.slow

# -- the same row on two nodes


async def theirs_alone(world: World) -> None:
    """Theirs stands, nothing of ours does, and the next transaction works."""
    assert world.rows() == [(1, "theirs"), (2, "b")]
    async with world.transaction(world.source) as t, world.savepoint(t):
        await world.insert(t, 7, "next")
    with world.aside.begin() as other:
        other.execute(text("SET SESSION wsrep_sync_wait = 1"))
        assert other.scalar(text("SELECT name FROM item WHERE id = 7")) == "next"


async def test_f17_a_conflict_found_at_commit_is_a_refusal(on_a_node: World) -> None:
    world = on_a_node
    with fails(DBAPIError) as caught:
        async with world.transaction(world.source) as t:
            told = world.current_transaction(t)
            await world.insert(t, 5, "ours")
            async with world.savepoint(t):
                await t.execute(OURS)
            with world.aside.begin() as other:
                other.execute(THEIRS)
    assert world.code(caught.value) == "1213"
    assert str(told.state) == "rolled back"
    await theirs_alone(world)


async def test_f17_an_abort_found_by_the_next_statement_loses_all(on_a_node: World, galera: Galera) -> None:
    world = on_a_node
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 5, "ours")
            mark = await world.savepoint(t, "mark")
            await conflict(world, t, galera)
            with fails(DBAPIError) as first:
                await t.execute(text("INSERT INTO item VALUES (6, 'ours')"))
            sent = world.transcript.sent()
            for call in (lambda: mark.rollback(), lambda: world.insert(t, 8, "alone"), lambda: world.savepoint(t)):
                with pytest.raises(TransactionLost):
                    await call()
            assert world.transcript.sent() == sent
            assert str(mark.state) == "lost"
    assert world.code(first.value) == "1213"
    assert lost.value.__cause__ is first.value
    await theirs_alone(world)


async def test_f17_an_abort_found_by_rollback_to_loses_all(on_a_node: World, galera: Galera) -> None:
    """The rollback itself says 1213; a second one would say that there is no such savepoint."""
    world = on_a_node
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            await world.insert(t, 5, "ours")
            mark = await world.savepoint(t, "mark")
            await conflict(world, t, galera)
            with fails(DBAPIError) as first:
                await mark.rollback()
            with fails(TransactionLost):
                await mark.rollback()
            with fails(TransactionLost):
                await world.insert(t, 8, "alone")
    assert world.code(first.value) == "1213"
    assert lost.value.__cause__ is first.value
    await theirs_alone(world)


async def test_f17_an_abort_found_by_release_loses_all(on_a_node: World, galera: Galera) -> None:
    world = on_a_node
    with fails(TransactionLost, r"RELEASE .* \(deadlock 1213\)"):
        async with world.transaction(world.source) as t, world.savepoint(t):
            await conflict(world, t, galera)
    await theirs_alone(world)


async def test_f17_an_abort_found_behind_a_procedure_is_no_commit_unseen(on_a_node: World, galera: Galera) -> None:
    """What a CALL has done is asked by a RELEASE: a conflict that this is told of is one, and worth another try."""
    world = on_a_node
    with create_engine(galera.url()).connect() as connection:
        connection.execute(text("CREATE OR REPLACE PROCEDURE harmless() DO 1"))
    log: list[str] = []
    with fails(TransactionLost) as lost:
        async with world.transaction(world.source) as t:
            for verb in ("on_rollback", "on_unknown"):
                world.hook(verb, t, log.append, verb)
            await world.insert(t, 5, "ours")
            await conflict(world, t, galera, text("CALL harmless()"))
            await world.insert(t, 6, "ours")
    assert is_retryable(lost.value)
    assert log == ["on_rollback"]
    assert lost.value.__cause__ is not None
    assert lost.value.__cause__.args[0] == 1213
    await theirs_alone(world)


async def test_f17_an_abort_found_by_the_end_of_a_block(on_a_node: World, galera: Galera) -> None:
    """An error of the code's own passes through the savepoint that cannot be undone any more, and is told the loss."""
    world = on_a_node
    own = ValueError("mine")
    with fails(ValueError) as caught:
        async with world.transaction(world.source) as t, world.savepoint(t):
            await conflict(world, t, galera)
            raise own
    assert caught.value is own
    assert any("nothing of transaction" in note for note in own.__notes__)
    await theirs_alone(world)


async def test_n_a_cluster_prepares_nothing(on_a_node: World) -> None:
    """The server says so when the transaction begins, and it is told in our words."""
    world = on_a_node
    for _ in range(2):
        with fails(NotSupported, "Galera has no XA transactions"):
            async with world.transaction(world.source, twophase=True) as t:
                await world.insert(t, 5, "ours")
    with world.aside.begin() as other:
        other.execute(THEIRS)
    await theirs_alone(world)


# -- 3,000 increments of one row, from three nodes at once

EACH = 1000
INCREMENT = text("UPDATE counter SET number = number + 1")


def rule(seen: Counter[str]) -> Retry:
    """Until it is acknowledged; what came in the way is counted by the code of the database."""

    def count(number: int, error: BaseException, seconds: float) -> None:
        seen[str(classify(error).code)] += 1

    return Retry(attempts=None, timeout=60, wait=tenacity.wait_random(0, 0.02), before_retry=count)


def count_up(url: str) -> Counter[str]:
    """By the decorator."""
    engine, seen = create_engine(url), Counter[str]()

    @transaction(engine, retry=rule(seen))
    def increment(connection: Connection) -> None:
        with savepoint(connection, "part"):
            connection.execute(INCREMENT)

    for _ in range(EACH):
        increment()
        seen["acknowledged"] += 1
    engine.dispose()
    return seen


def count_up_in_a_loop(url: str) -> Counter[str]:
    """By `attempts`."""
    engine, seen = create_engine(url), Counter[str]()
    retry = rule(seen)
    for _ in range(EACH):
        for attempt in attempts(engine, retry):
            with attempt as connection, savepoint(connection, "part"):
                connection.execute(INCREMENT)
        seen["acknowledged"] += 1
    engine.dispose()
    return seen


async def count_up_async(url: str) -> Counter[str]:
    """By `attempts`, async."""
    engine, seen = create_async_engine(url), Counter[str]()
    retry = rule(seen)
    for _ in range(EACH):
        async for attempt in attempts(engine, retry):
            async with attempt as connection, savepoint(connection, "part"):
                await connection.execute(INCREMENT)
        seen["acknowledged"] += 1
    await engine.dispose()
    return seen


def test_f18_every_acknowledged_increment_is_there(galera: Galera) -> None:
    one, two, three = galera.nodes
    engine = create_engine(one.url())
    with engine.begin() as connection:
        connection.execute(text("CREATE OR REPLACE TABLE counter (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO counter VALUES (1, 0)"))
    compiled = "mariadb+pymysql" if find_spec("MySQLdb") is None else "mariadb+mysqldb"
    with ThreadPoolExecutor(3) as threads:
        running = [
            threads.submit(count_up, one.url()),
            threads.submit(count_up_in_a_loop, two.url(compiled)),
            threads.submit(lambda: asyncio.run(count_up_async(three.url("mariadb+asyncmy")))),
        ]
        seen = sum((counting.result() for counting in running), Counter[str]())
    assert seen.pop("acknowledged") == 3 * EACH
    assert set(seen) <= {"1213"}
    assert seen["1213"] > 0, "nobody has come in anybody's way"
    for node in galera.nodes:
        elsewhere = create_engine(node.url())
        with elsewhere.connect() as connection:
            connection.execute(text("SET SESSION wsrep_sync_wait = 1"))
            assert connection.scalar(text("SELECT number FROM counter")) == 3 * EACH
        elsewhere.dispose()
    engine.dispose()


# -- a killed node, and a lost quorum


class Writer:
    """Writes one row after the other, in a savepoint each, and keeps what was acknowledged and what is not known."""

    def __init__(self, node: Node) -> None:
        self.engine = create_engine(node.url(), pool_pre_ping=False)
        self.acknowledged: list[int] = []
        self.unknown: list[int] = []
        self.next = 0

    def write(self) -> None:
        self.next += 1
        try:
            with transaction(self.engine) as connection, savepoint(connection):
                connection.execute(text("INSERT INTO item VALUES (:id, 'row')"), {"id": self.next})
        except CommitOutcomeUnknown:
            self.unknown.append(self.next)
            raise
        self.acknowledged.append(self.next)


def rows_of(engine: Engine) -> set[int]:
    with engine.connect() as connection:
        connection.execute(text("SET SESSION wsrep_dirty_reads = ON"))  # also from a node without a quorum
        return set(connection.scalars(text("SELECT id FROM item")))


def within(seconds: float, call: Callable[[], None]) -> float:
    start = time.monotonic()
    call()
    took = time.monotonic() - start
    assert took < seconds
    return took


def test_f19_a_killed_node_and_a_lost_quorum_lose_nothing_acknowledged() -> None:
    """176: after the quorum is lost there is an error, no hang; "not now" is said at once from then on."""
    cluster = new(Galera)
    first, second, third = cluster.nodes
    try:
        writer, elsewhere = Writer(first), Writer(third)
        with writer.engine.begin() as connection:
            connection.execute(text("CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(200))"))
        for _ in range(50):
            writer.write()

        # one of three is killed while it is at work: its client is told, the others go on
        with fails(TransactionLost) as gone, transaction(elsewhere.engine) as connection:
            connection.execute(text("INSERT INTO item VALUES (1000, 'on the third')"))
            with savepoint(connection):
                third.kill()
                connection.execute(text("INSERT INTO item VALUES (1001, 'on the third')"))
        assert "connection lost" in str(gone.value)
        within(30, writer.write)
        for _ in range(50):
            writer.write()
        assert writer.unknown == []

        # the second as well: one of three has no quorum, and must not write
        second.kill()

        def no_quorum() -> None:
            with pytest.raises((CommitOutcomeUnknown, DBAPIError, TransactionLost)) as told:
                for _ in range(1000):
                    writer.write()
            assert any(words in f"{told.value} {told.value.__cause__}" for words in ("1180", "1047", "not ready"))

        within(30, no_quorum)
        row = capabilities(writer.engine.dialect)
        for _ in range(3):
            with pytest.raises((OperationalError, TransactionLost)) as not_now:
                within(5, writer.write)
            error: Any = not_now.value
            error = error if isinstance(error, DBAPIError) else error.__cause__
            assert str(row.kind(error.orig)) == "not now"
        assert set(writer.acknowledged) <= rows_of(writer.engine) <= {*writer.acknowledged, *writer.unknown}
        writer.engine.dispose()
        elsewhere.engine.dispose()
    finally:
        cluster.stop()
