"""What the one line costs: the same plain code on an engine with it and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table, insert, select
from sqlalchemy.orm import sessionmaker

import savepoints
from bench.blocks import WARM_UP
from bench.measure import Size, Turn, cpu, ratio, taken
from bench.places import Place, counting
from bench.rivals import OurItem, PlainItem, PlainSession, engine_of, ids

SIDES = {"without": PlainItem, "with the line": OurItem}

Unit = Callable[[Any], object]


class Cost(NamedTuple):
    """CPU in microseconds of one unit of plain code without the line and with it, and the one divided by the other."""

    style: str
    what: str
    without: float
    installed: float
    ratio: float

    @property
    def most(self) -> float | None:
        """How many times as much it was to be at most."""
        return None if self.what.startswith("a transaction") else 1.1 if self.what in STATEMENTS else 1.2


STATEMENTS = ("SELECT", "INSERT", "SELECT, after a savepoint", "INSERT, after a savepoint")
WHAT = (
    *STATEMENTS,
    "an empty block",
    "a block with one INSERT",
    "a block that is rolled back",
    "a transaction with one INSERT",
    "a transaction with one block",
)


def units(table: Table) -> dict[str, Unit]:
    """Plain code, as it is written for a connection or a session; `target` is in a transaction."""
    row = select(table.c.name).where(table.c.id == 0)
    new = insert(table)

    def read(target: Any) -> None:
        target.execute(row).all()

    def write(target: Any) -> None:
        target.execute(new, {"id": next(ids), "name": "x"})

    def empty(target: Any) -> None:
        with target.begin_nested():
            pass

    def block(target: Any) -> None:
        with target.begin_nested():
            write(target)

    def undone(target: Any) -> None:
        nested = target.begin_nested()
        write(target)
        nested.rollback()

    def transaction(target: Any) -> None:
        write(target)
        target.commit()

    def with_a_block(target: Any) -> None:
        block(target)
        target.commit()

    return dict(zip(WHAT, (read, write, read, write, empty, block, undone, transaction, with_a_block), strict=True))


@contextmanager
def line(engine: Engine, side: str) -> Iterator[None]:
    """With the line, as long as it is somebody's turn: it hears of all sessions, and must not slow the others down."""
    if side == "without":
        yield
        return
    savepoints.install(engine, without={"warn"})
    try:
        yield
    finally:
        savepoints.uninstall(engine)


def turn(side: str, engine: Engine, opener: Callable[[], Any], what: str) -> Turn:
    once = units(SIDES[side].__table__)[what]

    def one_turn(count: int) -> float:
        with line(engine, side), opener() as target:
            if what.endswith("after a savepoint"):
                with target.begin_nested():
                    target.execute(select(SIDES[side].__table__.c.id)).all()
            once(target)
            used = cpu(lambda: once(target), count)
            target.rollback()
        return used

    return one_turn


def counts(place: Place, style: str, side: str) -> dict[str, float]:
    """How much each unit sends inside a transaction that has written."""
    found: dict[str, float] = {}
    with counting(place) as counted, engine_of(counted) as engine, line(engine, side):
        for what, once in units(SIDES[side].__table__).items():
            if not what.startswith("a transaction"):
                with _opener(style, engine)() as target:
                    target.execute(insert(SIDES[side].__table__), {"id": next(ids), "name": "x"})
                    for _ in range(WARM_UP):
                        once(target)
                    before = counted.sent
                    once(target)
                    found[what] = counted.sent - before
                    target.rollback()
    return found


def measured(place: Place, size: Size) -> Iterator[Cost]:
    """Each unit, on a connection and on a session."""
    with ExitStack() as stack:
        engines = {side: stack.enter_context(engine_of(place)) for side in SIDES}
        for style in ("Core", "ORM"):
            for what in WHAT:
                turns = {side: turn(side, engine, _opener(style, engine), what) for side, engine in engines.items()}
                used = taken(turns, size)
                yield Cost(
                    style,
                    what,
                    min(used["without"]),
                    min(used["with the line"]),
                    ratio(used, "with the line", "without"),
                )


def _opener(style: str, engine: Engine) -> Callable[[], Any]:
    return engine.connect if style == "Core" else sessionmaker(engine, class_=PlainSession)
