"""What a block costs: round trips counted, CPU compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from bench.measure import Size, Taken, Turn, cpu, ratio, taken
from bench.places import Place, counting
from bench.rivals import Rival, Work, against, rivals
from bench.rivals_async import AsyncRival

#: Before anything is counted or measured: drivers prepare what they see often.
WARM_UP = 8
COUNTED = 8


class Case(NamedTuple):
    """What is inside the innermost of `depth` blocks; an error undoes all of them where it is "rolled back"."""

    kind: str
    depth: int

    def __str__(self) -> str:
        return self.kind if self.depth == 1 else f"{self.kind}, {self.depth} deep"

    @property
    def writes(self) -> bool:
        return self.kind != "empty"

    @property
    def releases(self) -> int:
        """How many RELEASE follow a ROLLBACK TO: SQLAlchemy leaves them out, and the savepoints on the server."""
        return self.depth if self.kind == "rolled back" else 0


CASES = [Case(kind, depth) for kind in ("empty", "one INSERT", "rolled back") for depth in (1, 3)]


class Undo(Exception):
    """Raised where the blocks are to be undone."""


Sent = dict[str, float]


class Line(NamedTuple):
    """What was found out about one rival in one case."""

    name: str
    sent: float
    cpu: float
    to_raw: float
    to_sqlalchemy: float | None

    @property
    def against(self) -> str | None:
        """SQLAlchemy's own way of doing what ours does."""
        return against(self.name)


def unit(work: Work, target: Any, case: Case) -> Callable[[], None]:
    """One or three blocks, as they are written by hand."""
    block, insert = work.block, work.insert

    def inside() -> None:
        if case.writes:
            insert(target)
        if case.kind == "rolled back":
            work.flush(target)
            raise Undo

    def one() -> None:
        try:
            with block(target):
                inside()
        except Undo:
            pass

    def three() -> None:
        try:
            with block(target), block(target), block(target):
                inside()
        except Undo:
            pass

    return one if case.depth == 1 else three


def turn(work: Work, case: Case) -> Turn:
    """One rival's turn: a transaction that writes, and in it the blocks, of which alone the CPU is taken."""

    def one_turn(count: int) -> float:
        with work.transaction() as target:
            work.insert(target)
            once = unit(work, target, case)
            for _ in range(WARM_UP):
                once()
            return cpu(once, count)

    return one_turn


def counts(place: Place, cases: Iterable[Case] = CASES) -> dict[Case, Sent]:
    """How much each rival sends per block: statements where the database is embedded, else round trips."""
    found: dict[Case, Sent] = {case: {} for case in cases}
    with counting(place) as counted, ExitStack() as stack:
        for rival in rivals(counted):
            work = stack.enter_context(rival.open(counted))
            for case in found:
                found[case][rival.name] = _sent(counted, work, case)
    return found


def _sent(place: Place, work: Work, case: Case) -> float:
    with work.transaction() as target:
        work.insert(target)
        once = unit(work, target, case)
        for _ in range(WARM_UP):
            once()
        before = place.sent
        for _ in range(COUNTED):
            once()
        return (place.sent - before) / COUNTED


def measured(place: Place, size: Size) -> Iterator[tuple[Case, list[Line]]]:
    """Counts and CPU of all who can run on a database, case by case."""
    sent = counts(place)
    with ExitStack() as stack:
        works = [(rival, stack.enter_context(rival.open(place))) for rival in rivals(place)]
        for case in CASES:
            used = taken({rival.name: turn(work, case) for rival, work in works}, size)
            yield case, lines([rival for rival, _ in works], sent[case], used)


def lines(found: Sequence[Rival | AsyncRival], sent: Sent, used: Taken) -> list[Line]:
    """One line for each; the first of them is the raw driver."""
    raw = found[0].name
    return [
        Line(
            rival.name,
            sent[rival.name],
            min(used[rival.name]),
            ratio(used, rival.name, raw),
            None if rival.against is None else ratio(used, rival.name, rival.against),
        )
        for rival in found
    ]
