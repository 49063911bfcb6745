"""The table with a rule of each kind, at five shares of bad rows: everybody in one run, beside the fastest way."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from bench.load.cost import Cost, measured
from bench.load.places import Place, Server
from bench.load.rivals import OURS, Rival, make_ready, rivals
from bench.load.rows import Row, rows
from bench.report import Goal, Table

DIRT = (0.0, 0.0001, 0.001, 0.01, 0.1)


class Size(NamedTuple):
    """How many rows, and in how many rounds; the slow ones have a turn in the first round only."""

    rows: int
    rounds: int


Costs = dict[str, list[Cost]]


def measured_at(place: Place, dirt: float, size: Size) -> Costs:
    """Everybody at one share of bad rows."""
    found: Costs = {}
    data: dict[tuple[int, float], tuple[list[Row], set[int]]] = {}
    for number in range(size.rounds):
        for rival in rivals(place):
            if number and not (rival.base or rival.name == OURS):
                continue
            key = min(size.rows, rival.most), 0.0 if rival.clean else dirt
            if key not in data:
                data[key] = rows(*key, text=place.text)
            found.setdefault(rival.name, []).append(_one(place, rival, *data[key]))
    return found


def _one(place: Place, rival: Rival, given: list[Row], bad: set[int]) -> Cost:
    place.fresh()
    if rival.name == "COPY of ready bytes":
        make_ready(given)

    def work() -> int:
        rival.work(place, place.item, given)
        return len(given)

    cost = measured(work, place.server)
    kept = place.count(place.item)
    if kept != len(given) - len(bad) and rival.name != "pgloader":  # which is told in the table's note
        raise AssertionError(f"{rival.name} kept {kept} of {len(given)} rows, {len(bad)} of them bad")
    return cost


def ratio(found: Costs, name: str, base: str, what: str) -> float:
    """How many times as fast as another: the median over the rounds."""
    pairs = zip(found[name], found[base], strict=False)
    return median(getattr(mine, what) / getattr(theirs, what) for mine, theirs in pairs)


def tables(place: Place, found: dict[float, Costs]) -> Iterator[Table]:
    """By CPU and by wall time: a row for each, a column for each share of bad rows."""
    names = [rival.name for rival in rivals(place)]
    base = next(rival.name for rival in rivals(place) if rival.base)
    for what, title in (("per_cpu", "CPU second, client plus server"), ("per_wall", "second")):
        yield Table(
            f"{place.name}: thousand rows per {title}",
            ["bad rows", *(f"{dirt:g} %" for dirt in (100 * one for one in found))],
            [[name, *(_cell(costs, name, base, what) for costs in found.values())] for name in names],
            f"Medians; in brackets the ratio to {base}, by rounds. Who cannot leave out bad rows got good ones.",
        )


def _cell(costs: Costs, name: str, base: str, what: str) -> str:
    value = median(getattr(cost, what) for cost in costs[name]) / 1000
    return (
        f"{value:.0f} ({ratio(costs, name, base, what):.2f})"
        if value >= 10
        else (f"{value:.1f} ({ratio(costs, name, base, what):.3f})")
    )


def goals(place: Place, found: dict[float, Costs]) -> Iterator[Goal]:
    """What was to be reached, by CPU."""
    base = next(rival.name for rival in rivals(place) if rival.base)
    for dirt, costs in found.items():
        least = place.least(dirt)
        reached = ratio(costs, OURS, base, "per_cpu")
        what = f"{place.name}, {100 * dirt:g} % bad rows: at least {least} of {base}"
        yield Goal(what, f"{reached:.2f}", reached >= least)
    if isinstance(place, Server):
        times = min(ratio(costs, OURS, "SQLAlchemy ORM, savepoint per row", "per_cpu") for costs in found.values())
        yield Goal(f"{place.name}: at least 40 times a savepoint per row by the ORM", f"{times:.0f}", times >= 40)
