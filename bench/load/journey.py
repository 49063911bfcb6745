"""The flights, loaded: the reports as they are, compared with what the sets say, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Integer

from bench.load import flights
from bench.load.cost import measured
from bench.load.dirt import Costs, ratio
from bench.load.places import Place
from bench.load.rivals import OURS, rivals
from bench.load.rows import Row
from bench.report import Table, markdown
from savepoints import Report, transaction

ROUNDS = 3


def page(place: Place) -> Iterator[str]:
    """What the run on one database says, as Markdown.

    Raises:
        AssertionError: A report does not agree with the sets.
    """
    expected = flights.counted()
    place.make(flights.metadata)
    with transaction(place.engine) as connection:
        reports = list(flights.load_all(connection))
    yield f"## {place.name}\n"
    for report in reports:
        check(report, expected[report.table])
        yield f"```text\n{report}\n```\n"
    yield markdown(_compared(place, reports, expected))


def check(report: Report, expected: flights.Counted) -> None:
    """The same rows, not only as many."""
    found = {reject.number for reject in report.rejects}
    assert report.read == expected.read, report
    assert found == expected.rejected, (report, sorted(found ^ expected.rejected)[:20])


def _compared(place: Place, reports: list[Report], expected: dict[str, flights.Counted]) -> Table:
    rows = [
        [one.table, f"{one.read:,}", f"{one.loaded:,}", f"{one.rejected:,}", f"{len(expected[one.table].rejected):,}"]
        for one in reports
    ]
    header = ["file", "rows", "loaded", "rejected", "to be rejected, by the sets"]
    return Table(f"{place.name}: counted twice", header, rows, "The numbers of the rows are the same, too.")


# -- what it costs


def cost(place: Place) -> Table:
    """The flights alone: all of them by `load`, only the good ones by the fastest way."""
    all_rows, good = _rows(place)
    place.make(flights.metadata)
    with transaction(place.engine) as connection:
        for table, _ in zip(flights.TABLES[:-1], flights.load_all(connection), strict=False):
            assert table is not flights.flights
    found: Costs = {}
    for number in range(ROUNDS):
        for rival in rivals(place):
            slow = rival.most < len(all_rows)
            if not (rival.base or rival.name == OURS or (slow and rival.name.startswith("SQLAlchemy") and not number)):
                continue
            given = (good if rival.base else all_rows)[: rival.most]
            with place.engine.begin() as connection:
                connection.execute(flights.flights.delete())

            def work(rival: Any = rival, given: list[Row] = given) -> int:
                rival.work(place, flights.flights, given)
                return len(given)

            found.setdefault(rival.name, []).append(measured(work, place.server))
    base = next(rival.name for rival in rivals(place) if rival.base)
    rows = [
        [
            name,
            f"{costs[0].rows:,}",
            *(f"{costs[0].rows / getattr(costs[0], what):.1f}" for what in ("cpu", "wall")),
            *(f"{ratio(found, name, base, what):.2f}" for what in ("per_cpu", "per_wall")),
        ]
        for name, costs in found.items()
    ]
    header = ["", "rows", "rows per CPU second", "rows per second", f"CPU, ratio to {base}", "time, ratio"]
    share = 1 - len(good) / len(all_rows)
    return Table(f"{place.name}: the flights, {share:.0%} of them bad", header, rows)


def _rows(place: Place) -> tuple[list[Row], list[Row]]:
    """All flights and the good ones, as text or as Python values."""
    rejected = flights.counted()["flights"].rejected
    numbers = [isinstance(column.type, Integer) for column in flights.flights.columns]
    found: list[Row] = []
    for record in flights.records("flights"):
        cells = [None if cell == flights.NULL else cell for cell in record.values()]
        found.append(
            cells
            if place.text
            else [int(cell) if number and cell else cell for number, cell in zip(numbers, cells, strict=True)]
        )
    return found, [row for number, row in enumerate(found) if number not in rejected]
