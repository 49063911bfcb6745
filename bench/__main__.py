"""`python -m bench blocks|failed|objects|hooks|installed|all [--quick] [--write docs/benchmarks.md]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import blocks, blocks_async, failed, hooks, installed, objects
from bench.blocks import Case, Line
from bench.measure import Size
from bench.page import Result, write
from bench.places import Embedded, Place, Server
from bench.report import Goal, Table, goals_table, number, show
from tests.servers import Postgres, ServerMissing


class Sizes(NamedTuple):
    """How much is done."""

    blocks: Size
    failed: int
    objects: Size
    loaded: int
    installed: Size
    statements: Size


FULL = Sizes(
    blocks=Size(15, 40),
    failed=100_000,
    objects=Size(5, 15),
    loaded=100_000,
    installed=Size(60, 60),
    statements=Size(300, 40),
)
QUICK = Sizes(
    blocks=Size(2, 2), failed=200, objects=Size(2, 2), loaded=1_000, installed=Size(2, 2), statements=Size(2, 2)
)


# -- blocks


def run_blocks(places: list[Place], sizes: Sizes, result: Result) -> None:
    """Blocks on both faces, and what they were to cost."""
    for place in places:
        found = dict(blocks.measured(place, sizes.blocks))
        for table in block_tables(place, found):
            result.add(table)
        result.goals += block_goals(place, found)
        for driver in place.async_drivers:
            lines = blocks_async.measured(place, driver, sizes.blocks)
            result.add(async_table(driver, place, lines))
            result.goals.append(sent_goal(f"{driver}, async", place, Case("one INSERT", 1), lines))
            result.goals += cpu_goals(f"{driver}, async", Case("one INSERT", 1), lines)


def block_tables(place: Place, found: dict[Case, list[Line]]) -> Iterator[Table]:
    """What is sent, what it costs, and the comparison: a row for each rival, a column for each case."""
    header = ["", *map(str, found)]
    rivals = list(zip(*found.values(), strict=True))
    yield Table(
        f"{place.name}: {place.unit} per block",
        header,
        [[lines[0].name, *(number(line.sent) for line in lines)] for lines in rivals],
        NOTES[place.name],
    )
    yield Table(
        f"{place.name}: CPU per block in microseconds (times the driver's)",
        header,
        [[lines[0].name, *(f"{line.cpu:.0f} ({number(line.to_raw)})" for line in lines)] for lines in rivals],
        "The best round; in brackets the median of the ratios.",
    )
    yield Table(
        f"{place.name}: CPU, times SQLAlchemy's",
        header,
        [
            [lines[0].name, *(number(line.to_sqlalchemy) for line in lines)]
            for lines in rivals
            if lines[0].to_sqlalchemy is not None
        ],
    )


EMPTY = (
    "An empty block of SQLAlchemy's ORM sends nothing, for it waits for the session's first use (and lets the work of "
    "other users of the connection slip out of the savepoint). Ours sends SAVEPOINT at once. After a rollback ours "
    "sends a RELEASE for each level, which SQLAlchemy leaves out; so its savepoints stay on the server. On a "
    "connection psycopg takes it in the same round trip."
)
NOTES = {
    Embedded.name: EMPTY,
    Server.name: f"{EMPTY} Fractions are psycopg's: it prepares what it sees often, and forgets it at a rollback.",
}


def async_table(driver: str, place: Place, lines: list[Line]) -> Table:
    header = ["", place.unit, "CPU, us", "times the driver", "times SQLAlchemy"]
    rows = [
        [line.name, number(line.sent), f"{line.cpu:.0f}", number(line.to_raw), number(line.to_sqlalchemy)]
        for line in lines
    ]
    return Table(f"{driver}, async: a block with one INSERT", header, rows)


def block_goals(place: Place, found: dict[Case, list[Line]]) -> Iterator[Goal]:
    for case, lines in found.items():
        if case.writes:
            yield sent_goal(place.name, place, case, lines)
        if case.kind == "one INSERT":
            yield from cpu_goals(place.name, case, lines)


def cpu_goals(title: str, case: Case, lines: list[Line]) -> Iterator[Goal]:
    """At every depth and on both faces."""
    for line in lines:
        if line.to_sqlalchemy is not None:
            most = 1.0 if line.name.endswith("Core") else 1.3
            what = f"{title}, {case}: {line.name}, CPU at most {most} times SQLAlchemy's"
            yield Goal(what, f"{line.to_sqlalchemy:.2f}", line.to_sqlalchemy <= most)


def sent_goal(title: str, place: Place, case: Case, lines: list[Line]) -> Goal:
    """Never more is sent than by SQLAlchemy, the RELEASE of each undone level apart."""
    sent = {line.name: line.sent for line in lines}
    pairs = [(sent[line.against], line.sent) for line in lines if line.against]
    told = ", ".join(f"{number(theirs)} → {number(ours)}" for theirs, ours in pairs)
    reached = all(ours <= theirs + case.releases for theirs, ours in pairs)
    apart = f" (+ {case.releases} RELEASE)" if case.releases else ""
    return Goal(f"{title}, {case}: {place.unit}, at most SQLAlchemy's{apart}", told, reached)


# -- failed


def run_failed(places: list[Place], sizes: Sizes, result: Result) -> None:
    """Very many failed blocks in one transaction."""
    for place in places:
        found = list(failed.measured(place, sizes.failed))
        header = [
            "",
            "blocks",
            "us in a fresh transaction",
            "us after them",
            "times (quartiles)",
            "MiB more",
            "savepoints left",
        ]
        rows = [
            [
                f.name,
                f"{f.blocks:,}",
                f"{f.fresh:.0f}",
                f"{f.aged:.0f}",
                _slower(f),
                _memory(f.grown),
                f"{f.left:,}",
            ]
            for f in found
        ]
        result.add(Table(f"{place.name}: failed savepoints in one transaction", header, rows, FAILED))
        for one in found:
            if one.name.startswith("savepoints"):
                result.goals += failed_goals(place, one)


FAILED = (
    "Wall time for another block, beside a transaction that is new: the best rounds, and the median and quartiles of "
    "the ratios, which scatter on a busy machine. With no earlier blocks at all the median comes out between 0.96 and "
    "1.08. Memory is that of this process, not of a server: what it holds more than after the first tenth; what one "
    "run has freed, the next may use, so only the larger numbers tell."
)


def _slower(one: failed.Failed) -> str:
    low, high = one.quartiles
    return f"{one.slower:.2f} ({low:.2f} to {high:.2f})"


def _memory(grown: float | None) -> str:
    return "not known" if grown is None else f"{grown:.1f}"


def failed_goals(place: Place, one: failed.Failed) -> Iterator[Goal]:
    what = f"{place.name}: {one.name}, {one.blocks:,} failed savepoints"
    yield Goal(f"{what}: none left", f"{one.left:,}", one.left == 0)
    yield Goal(f"{what}: flat, one more at most 1.2 times a first one", _slower(one), one.slower <= 1.2)
    if one.grown is not None:
        yield Goal(f"{what}: less than 5 MiB more", f"{one.grown:.1f} MiB", one.grown < 5)


# -- objects


def run_objects(sizes: Sizes, result: Result) -> None:
    """Nested rollbacks with objects loaded."""
    found = list(objects.measured(sizes.objects, sizes.loaded))
    header = ["change", "objects loaded", "SQLAlchemy, CPU us", "savepoints, CPU us", "times SQLAlchemy"]
    rows = [[f.change, f"{f.loaded:,}", f"{f.sqlalchemy:.0f}", f"{f.ours:.0f}", number(f.ratio)] for f in found]
    result.add(Table("Nested rollback with objects loaded", header, rows))
    for one in found:
        if one.loaded == objects.LOADED[-1]:
            result.goals.append(
                Goal(
                    f"nested rollback, {one.change}, {one.loaded:,} objects: at most a twentieth of SQLAlchemy's CPU",
                    f"1/{1 / one.ratio:.0f}",
                    one.ratio <= 1 / 20,
                )
            )


# -- installed


def run_installed(places: list[Place], sizes: Sizes, result: Result) -> None:
    """Plain code with the line and without it."""
    for place in places:
        found = list(installed.measured(place, sizes.installed))
        header = ["", "", "without, CPU us", "with the line, CPU us", "times"]
        rows = [[f.style, f.what, f"{f.without:.1f}", f"{f.installed:.1f}", f"{f.ratio:.2f}"] for f in found]
        result.add(Table(f"{place.name}: plain code with `install` and without it", header, rows, INSTALLED))
        for one in found:
            if one.most is not None:
                what = f"{place.name}, installed, {one.style}: {one.what}, at most {one.most} times the CPU"
                result.goals.append(Goal(what, f"{one.ratio:.2f}", one.ratio <= one.most))


INSTALLED = (
    "A block that is rolled back sends one statement more with the line, its RELEASE, which psycopg takes in the same "
    "round trip. On a server CPU is that of the client."
)


# -- hooks


def run_hooks(sizes: Sizes, result: Result) -> None:
    """Hooks in their number, and what a statement costs that we watch."""
    found = list(hooks.measured(sizes.objects.rounds))
    header = ["", "hooks in one transaction", "CPU of each, us", f"times that with {hooks.NUMBERS[0]}"]
    rows = [[f.way, f"{f.number:,}", f"{f.each:.1f}", number(f.to_least)] for f in found]
    result.add(Table("Commit hooks, registered and run", header, rows))
    for last in found:
        if last.number == hooks.NUMBERS[-1]:
            what = f"{last.number:,} hooks {last.way}: linear, one costs at most 1.3 times one of {hooks.NUMBERS[0]}"
            result.goals.append(Goal(what, f"{last.to_least:.2f}", last.to_least <= 1.3))
    sent = list(hooks.statements(sizes.statements))
    rows = [
        [one.how, *(f"{us:.1f}" for us in (one.bare, one.listened, one.managed)), *map(number, one[-2:])]
        for one in sent
    ]
    header = [
        "",
        "bare, CPU us",
        "listened to, us",
        "in a transaction of ours, us",
        "listened to, times",
        "ours, times",
    ]
    note = (
        "Listened to: on an engine with one listener, for BEGIN, that does nothing. SQLAlchemy then prepares for each "
        "statement what it would tell; that is most of what a statement in a transaction of ours costs more."
    )
    result.add(Table("SQLite in memory: one INSERT, Core", header, rows, note))
    for one in sent:
        what = f"SQLite in memory, Core: {one.how} in a transaction of ours, CPU at most 1.3 times a bare one"
        result.goals.append(Goal(what, f"{one.ratio:.2f}", one.ratio <= 1.3))


# -- all


@contextmanager
def opened(names: str) -> Iterator[list[Place]]:
    """The databases asked for; a server runs as long as the benchmark."""
    if names == "embedded":
        yield [Embedded()]
        return
    postgres = Postgres()
    try:
        server = Server(postgres)
        server.prepare()
        yield [server] if names == "server" else [Embedded(), server]
    finally:
        postgres.stop()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Round trips counted, CPU compared.")
    parser.add_argument("what", choices=["blocks", "failed", "objects", "hooks", "installed", "all"])
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it runs; the times mean nothing")
    parser.add_argument("--on", choices=["embedded", "server", "both"], default="both", help="the databases")
    parser.add_argument("--write", type=Path, metavar="FILE", help="fill this Markdown page below its marker")
    asked = parser.parse_args(arguments)
    sizes = QUICK if asked.quick else FULL
    result = Result()
    with opened(asked.on if asked.what not in ("objects", "hooks") else "embedded") as places:
        if asked.what in ("blocks", "all"):
            run_blocks(places, sizes, result)
        if asked.what in ("failed", "all"):
            run_failed(places, sizes, result)
        if asked.what in ("installed", "all"):
            run_installed(places, sizes, result)
    if asked.what in ("objects", "all"):
        run_objects(sizes, result)
    if asked.what in ("hooks", "all"):
        run_hooks(sizes, result)
    show(goals_table(result.goals))
    if asked.write is not None:
        write(asked.write, f"python -m bench {' '.join(arguments)}", result)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ServerMissing as missing:
        sys.exit(str(missing))
