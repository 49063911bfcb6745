"""Measuring: many short rounds, everybody's turn in each; within a round the machine is equally fast for all.

CPU of this process, not time: other processes on the machine change time far more. The result is ratios.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

Turn = Callable[[int], float]


class Size(NamedTuple):
    """How much is done: so many units in each of so many rounds."""

    units: int
    rounds: int


Taken = dict[str, list[float]]


def taken(turns: Mapping[str, Turn], size: Size) -> Taken:
    """CPU in microseconds of one unit of each, round by round; a turn is given how many units it is to do."""
    found: Taken = {name: [] for name in turns}
    with gc_of_new_objects_only():
        for _ in range(size.rounds):
            for name, turn in turns.items():
                found[name].append(turn(size.units))
    return found


def ratio(found: Taken, name: str, other: str) -> float:
    """How many times the CPU of another: the median over the rounds, for within one the machine is equally fast."""
    return median(ratios(found, name, other))


def ratios(found: Taken, name: str, other: str) -> list[float]:
    """Round by round: how far they lie apart tells how much a median is worth."""
    return [mine / theirs for mine, theirs in zip(found[name], found[other], strict=True)]


@contextmanager
def gc_of_new_objects_only() -> Iterator[None]:
    """What is there already (modules, others' objects) is not looked through again at anybody's cost."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def cpu(unit: Callable[[], object], count: int) -> float:
    """CPU in microseconds of one unit."""
    gc.collect()
    start = time.process_time()
    for _ in range(count):
        unit()
    return (time.process_time() - start) / count * 1e6


async def cpu_async(unit: Callable[[], Awaitable[object]], count: int) -> float:
    """The same, where a unit is awaited."""
    gc.collect()
    start = time.process_time()
    for _ in range(count):
        await unit()
    return (time.process_time() - start) / count * 1e6
