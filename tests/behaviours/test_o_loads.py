"""O: loads. What `load` promises besides stands in `tests/load`."""

from __future__ import annotations

from tests.harness.models import item
from tests.harness.world import World


async def test_o199_a_bad_row_is_in_the_report_and_the_load_goes_on(world: World) -> None:
    async with world.transaction(world.source) as t:
        report = await world.load(t, item, [(1, "first"), (1, "again"), (2, "last")])
        assert (report.read, report.loaded, report.rejected) == (3, 2, 1)
        [reject] = report.rejects
        assert (reject.number, tuple(reject.row), reject.kind) == (1, (1, "again"), "unique")
        assert str(world.current_transaction(t).state) == "open"
    assert world.rows() == [(1, "first"), (2, "last")]
