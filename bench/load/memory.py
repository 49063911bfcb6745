"""How much memory a load takes: `python -m bench.load.memory URL ROWS` prints the process's peak in MiB."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine

from bench.load.places import Embedded, Place
from bench.report import Goal
from savepoints import load, transaction


def peak(url: str, count: int) -> float:
    """Load so many rows of a generator, one of a hundred bad, in this process."""
    metadata = MetaData()
    table = Table("many", metadata, Column("id", Integer, primary_key=True), Column("name", Text, nullable=False))

    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(count):
            yield number, None if number % 100 == 50 else f"item number {number}"

    engine = create_engine(url)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with transaction(engine) as connection:
        report = load(connection, table, rows())
    assert report.rejected == count // 100
    status = Path("/proc/self/status").read_text()  # `ru_maxrss` would be the parent's, if that is larger
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def goal(place: Place, count: int) -> Goal:
    """Ten times the rows must not take more memory, but for what is told of the rejected ones."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/many.db" if isinstance(place, Embedded) else place.url()
        few, many = _in_a_process(url, count // 10), _in_a_process(url, count)
    grown = many - few
    what = f"{place.name}: {count:,} rows of a generator take at most 32 MiB more than {count // 10:,}"
    return Goal(what, f"{grown:.1f} MiB", grown <= 32)


def _in_a_process(url: str, count: int) -> float:
    command = [sys.executable, "-m", "bench.load.memory", url, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    print(peak(sys.argv[1], int(sys.argv[2])))
