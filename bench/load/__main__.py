"""`python -m bench.load table|flights [--quick] [--on embedded|server|mariadb|all] [--write FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.load import dirt, journey, memory
from bench.load.dirt import DIRT, Size
from bench.load.places import PLACES, Place, opened
from bench.page import Result, fill, write
from bench.report import goals_table, show
from tests.servers import ServerMissing

FULL, QUICK = Size(200_000, 3), Size(2_000, 1)
MEMORY = {FULL: 1_000_000, QUICK: 20_000}


def run(place: Place, size: Size, result: Result) -> None:
    """The table and, in full, the flights on one database."""
    found = {share: dirt.measured_at(place, share, size) for share in DIRT}
    for table in dirt.tables(place, found):
        result.add(table)
    if size is FULL:
        result.add(journey.cost(place))
    result.goals += dirt.goals(place, found)
    result.goals.append(memory.goal(place, MEMORY[size]))


def tell_flights(places: list[Place], file: Path | None, command: str) -> None:
    """The reports, checked against the sets."""
    parts = [part for place in places for part in journey.page(place)]
    print(*parts, sep="\n")
    if file is not None:
        fill(file, command, parts)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Loading with bad rows, by everybody.")
    parser.add_argument("what", choices=["table", "flights"], help="everybody compared, or the flights' reports")
    parser.add_argument("--quick", action="store_true", help="few rows: shows that it runs; the times mean nothing")
    parser.add_argument("--on", choices=[*PLACES, "all"], default="all", help="the databases")
    parser.add_argument("--write", type=Path, metavar="FILE", help="fill this Markdown page below its marker")
    asked = parser.parse_args(arguments)
    command = f"python -m bench.load {' '.join(arguments)}"
    result = Result()
    with opened(asked.on) as places:
        if asked.what == "flights":
            tell_flights(places, asked.write, command)
            return
        for place in places:
            run(place, QUICK if asked.quick else FULL, result)
    show(goals_table(result.goals))
    if asked.write is not None:
        write(asked.write, command, result)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ServerMissing as missing:
        sys.exit(str(missing))
