"""F13 in two phases: wherever a unit is cut off, it is stored or undone, or it is prepared and told to be unknown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.behaviours.steps import Oops
from tests.behaviours.test_n_two_phase import end_prepared, prepared
from tests.faults.suspensions import Strike, clear_frames
from tests.faults.test_interrupts import CALLS, CtrlC
from tests.faults.units import start_empty
from tests.harness.world import World

pytestmark = [pytest.mark.needs("two_phase"), pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


async def unit(world: World, log: list[str]) -> None:
    async with world.transaction(world.source, twophase=True) as t:
        for verb in ("on_commit", "on_rollback", "on_unknown"):
            world.hook(verb, t, log.append, verb)
        await world.insert(t, 1, "kept")
        async with world.savepoint(t, suppress=Oops):
            await world.insert(t, 2, "undone")
            raise Oops
    log.append("done")


def check(world: World, log: list[str], where: object) -> None:
    """Stored, or undone, or prepared and nobody was told what will become of it."""
    left = prepared(world)
    stored = world.rows() == [(1, "kept")]
    assert stored or world.rows() == []
    if left:
        assert (stored, log) == (False, ["on_unknown"]), where
        end_prepared(world, "ROLLBACK", *left)
    assert log[:1] in (["on_commit"], ["on_unknown"]) if stored else "on_commit" not in log, where
    world.check_pool()


@pytest.mark.needs("async")
@pytest.mark.usefixtures("drivers_at_rest")
@pytest.mark.parametrize("how", ["cancel_at", "interrupt_at"])
async def test_f13_cut_off_wherever_it_waits(world: World, how: str) -> None:
    async with world.open() as t:
        await world.seen(t)  # so that the pool has a connection: connecting is another matter
    for point in range(1, 80):
        start_empty(world)
        log: list[str] = []
        strike: Any = Strike(**{how: {point}})
        error = await strike.run(unit(world, log))
        check(world, log, point)
        if error is None:
            assert log == ["on_commit", "done"]
            assert point > 5
            return
    raise AssertionError("no run was spared")


@pytest.mark.needs("sync")
async def test_f13_ctrl_c_at_every_call_of_the_driver(world: World) -> None:
    ctrl_c = CtrlC(world.sync_engine, (*CALLS, "do_prepare_twophase", "do_commit_twophase"))
    await unit(world, [])
    start_empty(world)
    ctrl_c.calls = 0
    await unit(world, [])
    calls = ctrl_c.calls
    assert calls >= 7
    for number in range(1, calls + 1):
        for when in ("before", "after"):
            start_empty(world)
            log: list[str] = []
            ctrl_c.calls, ctrl_c.at = 0, (number, when)
            with pytest.raises(KeyboardInterrupt) as caught:
                await unit(world, log)
            ctrl_c.at = (0, "")
            clear_frames(caught.value)
            check(world, log, (number, when))
