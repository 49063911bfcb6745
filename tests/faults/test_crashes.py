"""F3 and F16: the server, or the program, is killed while it writes. Short in CI; `nox -s soak` is the long run.

What was acknowledged is there, what was undone is never seen, a transaction is there as a whole or not at all. No loss
in n crashes says that the rate is below about 3/n, with 95 % confidence.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from savepoints import CommitOutcomeUnknown, Outcome, Retry, TransactionLost, on_commit, savepoint, transaction
from savepoints._core.outcome import Track
from tests.conftest import started
from tests.faults.writer import INSERT, Undone
from tests.harness.models import tables
from tests.servers import MariaDB, Postgres

SOAK = bool(os.environ.get("SAVEPOINTS_SOAK"))
KILLS = 500 if SOAK else 3  # of each kind of file and driver, of which there are four
CRASHES = 100 if SOAK else 1
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="forks, and looks into /proc"),
    pytest.mark.timeout(3600 if SOAK else 120),
]


# -- the program is killed


@pytest.fixture
def writer() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.writer"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def killed_once(writer: subprocess.Popen[str], url: str, key: int, seconds: float) -> list[int]:
    """Let a child write for a while, kill it, and give back the keys that it has acknowledged."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    print(url, key, file=writer.stdin, flush=True)
    pid = int(writer.stdout.readline().removeprefix("pid "))
    acknowledged = [int(writer.stdout.readline())]
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    timer.start()
    for line in writer.stdout:
        if line == "dead\n":
            break
        with suppress(ValueError):  # cut off in the midst
            acknowledged.append(int(line))
    timer.join()
    return acknowledged


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("driver", ["pysqlite", "aiosqlite"])
def test_f16_the_program_is_killed(tmp_path: Path, writer: subprocess.Popen[str], driver: str, journal: str) -> None:
    file = tmp_path / "killed.db"
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode = {journal}")
        tables.create_all(connection)
    acknowledged: set[int] = set()
    start = 1
    for _ in range(KILLS):
        told = killed_once(writer, f"sqlite+{driver}:///{file}", start, random.uniform(0, 0.05))
        acknowledged.update(told)
        start = max(told) + 2  # the one after the last may be stored, too
        check_rows(engine, acknowledged)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    engine.dispose()
    print(f"{KILLS} kills, {len(acknowledged)} acknowledged")


def check_rows(engine: Engine, acknowledged: set[int]) -> set[int]:
    """All that was acknowledged, nothing by halves, nothing that was undone; the keys that are there."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, name FROM item")).all()
    assert {name for _, name in rows} <= {"kept"}
    ids = {id for id, _ in rows}
    keys = {id // 2 for id in ids}
    assert ids == {id for key in keys for id in (2 * key, 2 * key + 1)}
    assert acknowledged <= keys
    return keys


# -- the server is killed

Mortal = Postgres | MariaDB

SERVERS: dict[str, Callable[[], Mortal]] = {
    "commit_status": lambda: Postgres("synchronous_commit = on\nfull_page_writes = on"),
    "implicit_commit": lambda: MariaDB("innodb-flush-log-at-trx-commit = 1\ninnodb-doublewrite = ON\n"),
}


@pytest.fixture(scope="module", params=SERVERS)
def mortal(request: pytest.FixtureRequest) -> Iterator[Mortal]:
    """A server of this module's own: that it acknowledges only what it has written is not left out here."""
    yield from started(SERVERS[request.param])


def tracking(mortal: Mortal, id: int) -> Track:
    """How to find out what became of a COMMIT: the server is asked, or somebody looks for the row."""
    if isinstance(mortal, Postgres):
        return True
    return lambda connection: connection.scalar(text("SELECT 1 FROM item WHERE id = :id"), {"id": id}) is not None


class Storm:
    """Threads that write until the server dies under them."""

    def __init__(self, mortal: Mortal, engine: Engine, keys: Iterator[int]) -> None:
        self._mortal = mortal
        self.acknowledged: set[int] = set()
        self.unknown: dict[int, CommitOutcomeUnknown] = {}
        self.unexpected: list[BaseException] = []
        self._engine = engine
        self._keys = keys
        self._threads = [threading.Thread(target=self._write) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _write(self) -> None:
        while True:
            key = next(self._keys)
            try:
                self._one(key)
            except CommitOutcomeUnknown as error:
                self.unknown[key] = error
                return
            except (TransactionLost, DBAPIError):
                return
            except BaseException as error:
                self.unexpected.append(error)
                return

    def _one(self, key: int) -> None:
        with transaction(self._engine, track_commit=tracking(self._mortal, 2 * key)) as connection:
            connection.execute(INSERT, {"id": 2 * key, "name": "kept"})
            with suppress(Undone), savepoint(connection):
                connection.execute(INSERT, {"id": -key, "name": "undone"})
                raise Undone
            connection.execute(INSERT, {"id": 2 * key + 1, "name": "kept"})
            on_commit(connection, self.acknowledged.add, key)


def test_f3_the_server_is_killed_in_a_storm_of_commits(mortal: Mortal) -> None:
    engine = create_engine(mortal.url())
    with engine.begin() as connection:
        tables.create_all(connection)
    keys = itertools.count(1)
    acknowledged: set[int] = set()
    unknown = stored = 0
    for _ in range(CRASHES):
        storm = Storm(mortal, engine, keys)
        time.sleep(random.uniform(0.2, 0.5))
        mortal.crash()
        storm.join()
        assert storm.unexpected == []
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        mortal.recover()
        acknowledged |= storm.acknowledged
        there = check_rows(engine, acknowledged)
        for key, error in storm.unknown.items():
            assert error.resolve(engine) in possible(mortal, stored=key in there)
        unknown += len(storm.unknown)
        stored += len(there & storm.unknown.keys())
    engine.dispose()
    figures = f"{len(acknowledged)} acknowledged, {unknown} unknown, {stored} of them stored"
    print(f"{type(mortal).__name__}: {CRASHES} crashes, {figures}")


def possible(mortal: Mortal, *, stored: bool) -> tuple[Outcome, ...]:
    if not isinstance(mortal, Postgres):
        return (Outcome.COMMITTED if stored else Outcome.ROLLED_BACK,)
    # in another life of the server "committed" may be said of another transaction with the same number
    return (Outcome.UNKNOWN,) if stored else (Outcome.ROLLED_BACK, Outcome.UNKNOWN)


def test_f3_a_retry_goes_on_after_the_server_came_back(mortal: Mortal) -> None:
    engine = create_engine(mortal.url())
    with engine.begin() as connection:
        tables.create_all(connection)
    tries = []

    @transaction(engine, track_commit=tracking(mortal, 10_000_000), retry=Retry(wait=0.05))
    def write(connection: Connection, key: int) -> None:
        tries.append(key)
        connection.execute(INSERT, {"id": key, "name": "kept"})
        if len(tries) == 1:
            mortal.crash()
            mortal.recover()
        connection.execute(INSERT, {"id": key + 1, "name": "kept"})

    write(key=10_000_000)
    assert len(tries) == 2
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM item WHERE id >= 10000000")) == 2
    engine.dispose()
