"""What a load costs: CPU of this process, of the programs it starts and of its server's backend, and wall time."""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Of one load.

    Attributes:
        rows: How many rows were read.
        cpu: Seconds, client plus server.
        wall: Seconds.
    """

    rows: int
    cpu: float
    wall: float

    @property
    def per_cpu(self) -> float:
        """Rows in a second of CPU."""
        return self.rows / self.cpu

    @property
    def per_wall(self) -> float:
        """Rows in a second."""
        return self.rows / self.wall


def measured(work: Callable[[], int], server: Callable[[], float]) -> Cost:
    """Do it once.

    Args:
        work: Loads, and tells how many rows it has read.
        server: CPU seconds of the server so far; those of SQLite are ours.
    """
    gc.collect()
    gc.freeze()
    before, started = _ours() + server(), time.perf_counter()
    try:
        rows = work()
    finally:
        gc.unfreeze()
    wall = time.perf_counter() - started
    return Cost(rows, _ours() + server() - before, wall)


def _ours() -> float:
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + programs.ru_utime + programs.ru_stime


def of_process(pid: int) -> float:
    """CPU seconds of another process, by what Linux counts."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def of_family(pid: int) -> float:
    """Of a process and of all its children, also those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) / _TICKS + sum(map(of_process, map(int, children)))
