"""Very many failed blocks one after the other in one transaction: does it get slower, and what stays on the server?"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from sqlalchemy import text

from bench.blocks import Case, unit
from bench.measure import Size, Turn, ratios, taken
from bench.places import Embedded, Place
from bench.rivals import SQLALCHEMY, Rival

CASE = Case("rolled back", 1)
CONTEXTS = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CurTransactionContext'"

#: When the many are done: blocks in each round, and rounds in which both transactions have their turn. Wall time with a
#: server scatters by half and more from round to round, so it takes many of them to see a fifth.
ROUNDS = Size(3, 400)


class Failed(NamedTuple):
    """Wall time per block in a fresh transaction and after the many, growth of this process, savepoints left open."""

    name: str
    blocks: int
    fresh: float
    aged: float
    slower: float
    quartiles: tuple[float, float]
    grown: float | None
    left: int


def measured(place: Place, many: int) -> Iterator[Failed]:
    """Ours on Core with `many` blocks, and with a tenth of them: ours on the ORM, SQLAlchemy on both."""
    found = {rival.name: rival for rival in SQLALCHEMY}
    yield failed(place, found["savepoints Core"], many)
    for name in ("savepoints ORM, add", "SQLAlchemy Core", "SQLAlchemy ORM, add"):
        yield failed(place, found[name], many // 10)


def failed(place: Place, rival: Rival, blocks: int) -> Failed:
    """One rival's blocks, each with an INSERT that is undone; then the same beside them in a fresh transaction."""
    with (
        rival.open(place) as work,
        rival.open(place) as other,
        work.transaction() as target,
        other.transaction() as fresh,
    ):
        work.insert(target)
        other.insert(fresh)
        names = savepoints_named(place, target)
        before = levels(place, target)
        once = unit(work, target, CASE)
        repeat(once, blocks // 10)
        start = resident()
        repeat(once, blocks - blocks // 10)
        grown = None if start is None else (resident() or start) - start
        left = levels(place, target) - before
        stop_naming(place, target)
        used = taken({"aged": turn(once), "fresh": turn(unit(other, fresh, CASE))}, ROUNDS)
        low, slower, high = quantiles(ratios(used, "aged", "fresh"), n=4)
        left += released(target, names)
        return Failed(rival.name, blocks, min(used["fresh"]), min(used["aged"]), slower, (low, high), grown, left)


def repeat(once: Callable[[], None], times: int) -> None:
    for _ in range(times):
        once()


def turn(once: Callable[[], None]) -> Turn:
    """Wall time per block, for the server's work counts here; the first block is not taken."""

    def one_turn(units: int) -> float:
        once()
        start = time.perf_counter()
        repeat(once, units)
        return (time.perf_counter() - start) / units * 1e6

    return one_turn


def resident() -> float | None:
    """MiB of memory that this process holds, where the system tells it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def levels(place: Place, target: Any) -> int:
    """How many levels a server keeps for this transaction; an embedded database does not tell."""
    found: int = 0 if isinstance(place, Embedded) else target.scalar(text(CONTEXTS))
    return found


def savepoints_named(place: Place, target: Any) -> dict[str, None]:
    """Collects the names of all savepoints that an embedded database is asked for, in order."""
    names: dict[str, None] = {}

    def note(statement: str) -> None:
        if statement.startswith("SAVEPOINT "):
            names[statement.split()[1]] = None

    if isinstance(place, Embedded):
        driver_connection(target).set_trace_callback(note)
    return names


def stop_naming(place: Place, target: Any) -> None:
    if isinstance(place, Embedded):
        driver_connection(target).set_trace_callback(None)


def released(target: Any, names: dict[str, None]) -> int:
    """How many of them are still open: only those can be released, the innermost first."""
    connection = driver_connection(target)
    found = 0
    for name in reversed(names):
        try:
            connection.execute(f"RELEASE {name}")
        except sqlite3.OperationalError:
            continue
        found += 1
    return found


def driver_connection(target: Any) -> sqlite3.Connection:
    """Of a session, or of a connection."""
    connection = target if hasattr(target, "exec_driver_sql") else target.connection()
    driver: sqlite3.Connection = connection.connection.driver_connection
    return driver
