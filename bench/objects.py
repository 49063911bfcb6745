"""A nested rollback in a session that has many objects loaded, of which one was changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from sqlalchemy import insert, select, text

from bench.blocks import Undo
from bench.measure import Size, cpu, ratio, taken
from bench.places import Embedded
from bench.rivals import OurItem, PlainItem, Work, our_orm, plain_orm

LOADED = (0, 1_000, 100_000)
CHANGES = ("attribute", "UPDATE as text")
SIDES = {"SQLAlchemy": (plain_orm, PlainItem), "savepoints": (our_orm, OurItem)}

values = itertools.count(1)


class Objects(NamedTuple):
    """CPU in microseconds of a block with one change that is undone, and ours divided by SQLAlchemy's."""

    change: str
    loaded: int
    sqlalchemy: float
    ours: float
    ratio: float


def measured(size: Size, most: int = LOADED[-1]) -> Iterator[Objects]:
    """Each kind of change, with more and more objects loaded."""
    for loaded in (number for number in LOADED if number <= most):
        with ExitStack() as stack:
            sides = {name: _session(stack, name, loaded) for name in SIDES}
            for change in CHANGES:
                units = {name: unit(change, *side) for name, side in sides.items()}
                for once in units.values():
                    once()
                used = taken({name: _turn(once) for name, once in units.items()}, size)
                yield Objects(
                    change,
                    loaded,
                    min(used["SQLAlchemy"]),
                    min(used["savepoints"]),
                    ratio(used, "savepoints", "SQLAlchemy"),
                )


def _turn(once: Callable[[], None]) -> Callable[[int], float]:
    return lambda count: cpu(once, count)


def _session(stack: ExitStack, side: str, loaded: int) -> tuple[Work, Any, list[Any]]:
    """A session in a transaction, with one object to be changed and as many others as asked for, kept alive."""
    opened, item = SIDES[side]
    work = stack.enter_context(opened(Embedded(), lambda session: None))
    session = stack.enter_context(work.transaction())
    session.execute(insert(item.__table__), [{"id": number, "name": "x"} for number in range(1, loaded + 2)])
    return work, session, list(session.scalars(select(item).order_by(item.id)))


def unit(change: str, work: Work, session: Any, objects: list[Any]) -> Callable[[], None]:
    """One block with one change, undone."""
    one = objects[0]
    update = text("UPDATE item SET name = :name WHERE id = 1")

    def attribute() -> None:
        one.name = f"changed {next(values)}"
        session.flush()

    def as_text() -> None:
        session.execute(update, {"name": f"changed {next(values)}"})

    inside = attribute if change == "attribute" else as_text

    def once() -> None:
        try:
            with work.block(session):
                inside()
                raise Undo
        except Undo:
            pass

    return once
