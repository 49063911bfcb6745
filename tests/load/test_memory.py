"""Memory is bounded by the piece, not by the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from tests.harness.world import World

STATUS = Path("/proc/self/status")


def resident() -> float:
    """What this process has in memory, in MiB."""
    return int(STATUS.read_text().split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell")
@pytest.mark.needs("loader", "core", "sync")
async def test_a_generator_of_many_rows(world: World) -> None:
    """Four times as many take no more, but for what is told of the rejected ones."""
    untyped = "untyped" in world.site.has
    count = 1_000_000 if untyped else 400_000
    metadata = MetaData()
    table = Table("many", metadata, Column("id", Integer, primary_key=True), Column("name", Text, nullable=False))
    with world.aside.begin() as connection:
        metadata.create_all(connection)
    early, late = [0.0], [0.0]

    def rows() -> Iterator[tuple[int, str | None]]:
        for number in range(count):
            if number % 10_000 == 0:
                (early if number <= count / 4 else late).append(resident())
            yield number, None if number % 100 == 50 else f"item number {number}"

    async with world.transaction(world.source, rollback=True) as target:
        report = await world.load(target, table, rows())
    assert (report.read, report.rejected) == (count, count // 100)
    assert max(late) - max(early) < 48
