"""Hooks in their number, and a statement in a transaction of ours beside a bare one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, column, create_engine, event, insert, table
from sqlalchemy.pool import StaticPool

import savepoints
from bench.measure import Size, Turn, cpu, ratio, taken
from bench.places import INSERT, TABLE

NUMBERS = (100, 1_000, 10_000)
WAYS = ("in the transaction", "each in a savepoint that is released")

ids = itertools.count(1)


class Hooks(NamedTuple):
    """CPU in microseconds for each hook, registered and run, and how many times that of the least number."""

    way: str
    number: int
    each: float
    to_least: float


class Statement(NamedTuple):
    """CPU in microseconds of one INSERT, and how many times a bare one's.

    ``listened``: on an engine with a listener that does nothing, and not even for statements. SQLAlchemy then prepares
    what it would tell, for each statement: with listeners of our own it cannot be had for less.
    """

    how: str
    bare: float
    listened: float
    managed: float
    listened_ratio: float
    ratio: float


def engine() -> Engine:
    """A database in memory, of one side only: listeners of ours must not slow the other down."""
    made = create_engine("sqlite://", poolclass=StaticPool)
    with made.begin() as connection:
        connection.exec_driver_sql(TABLE)
    return made


def nothing(*_: object) -> None:
    """What each hook does, and the listener."""


def transaction_with(made: Engine, number: int, way: str) -> Callable[[], None]:
    """One transaction with so many commit hooks."""

    def directly() -> None:
        with savepoints.transaction(made) as connection:
            for _ in range(number):
                savepoints.on_commit(connection, nothing)

    def in_savepoints() -> None:
        with savepoints.transaction(made) as connection:
            for _ in range(number // 100):
                with savepoints.savepoint(connection):
                    for _ in range(100):
                        savepoints.on_commit(connection, nothing)

    return directly if way == WAYS[0] else in_savepoints


def measured(rounds: int) -> Iterator[Hooks]:
    """More and more hooks in one transaction; a turn is as many transactions as make the same number of hooks."""
    made = engine()
    for way in WAYS:
        turns = {str(number): _turn(made, number, way) for number in NUMBERS}
        used = taken(turns, Size(1, rounds))
        for number in NUMBERS:
            yield Hooks(way, number, min(used[str(number)]), ratio(used, str(number), str(NUMBERS[0])))
    made.dispose()


def _turn(made: Engine, number: int, way: str) -> Turn:
    once = transaction_with(made, number, way)
    repeated = NUMBERS[-1] // number
    return lambda count: cpu(once, count * repeated) / number


def statements(size: Size) -> Iterator[Statement]:
    """An INSERT in SQLAlchemy's transaction and in ours; the blocks themselves are not counted."""
    for how, send in SENT.items():
        with ExitStack() as stack:
            plain = stack.enter_context(engine().connect())
            heard = engine()
            event.listen(heard, "begin", nothing)
            listened = stack.enter_context(heard.connect())
            ours = stack.enter_context(engine().connect())
            begin = partial(savepoints.transaction, ours, rollback=True)
            turns = {
                "bare": partial(_inserted, plain, plain.begin, send),
                "listened": partial(_inserted, listened, listened.begin, send),
                "managed": partial(_inserted, ours, begin, send),
            }
            used = taken(turns, size)
        least = (min(used[side]) for side in turns)
        yield Statement(how, *least, ratio(used, "listened", "bare"), ratio(used, "managed", "bare"))


ITEM = table("item", column("id"), column("name"))
SENT: dict[str, Callable[[Connection], object]] = {
    "`insert()`": lambda connection: connection.execute(insert(ITEM), {"id": next(ids), "name": "x"}),
    "the driver's SQL": lambda connection: connection.exec_driver_sql(INSERT.format(mark="?"), (next(ids), "x")),
}


def _inserted(
    connection: Connection, begin: Callable[[], Any], send: Callable[[Connection], object], count: int
) -> float:
    with begin():
        return cpu(lambda: send(connection), count)
