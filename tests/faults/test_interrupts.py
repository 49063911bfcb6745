"""F13 on the sync face: Ctrl-C at every call of the driver, before it was carried out or after."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.faults.suspensions import clear_frames
from tests.faults.units import UNITS, WHOLE, Unit, check, start_empty
from tests.harness.world import World

pytestmark = pytest.mark.needs("sync")

CALLS = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit", "do_rollback")


class CtrlC:
    """Raises KeyboardInterrupt at one of the calls in which the dialect hands over to the driver."""

    def __init__(self, engine: Engine, names: Iterable[str] = CALLS) -> None:
        self.calls = 0
        self.at = (0, "")  # number of the call, and whether before or after it
        for name in names:
            setattr(engine.dialect, name, self._interrupted(getattr(engine.dialect, name)))

    def _interrupted(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            number = self.calls
            self._strike(number, "before")
            try:
                return method(*args, **kwargs)
            finally:
                self._strike(number, "after")

        return call

    def _strike(self, number: int, when: str) -> None:
        if self.at == (number, when):
            raise KeyboardInterrupt


@pytest.fixture
def ctrl_c(world: World) -> CtrlC:
    return CtrlC(world.sync_engine)


async def interrupted(world: World, unit: Unit, ctrl_c: CtrlC, number: int, when: str) -> BaseException | None:
    start_empty(world)
    done: list[str] = []
    ctrl_c.calls, ctrl_c.at = 0, (number, when)
    error: BaseException | None = None
    try:
        await unit(world, done)
    except KeyboardInterrupt as interrupt:
        error = interrupt
        clear_frames(error)
    check(world, done)
    return error


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.__name__)
async def test_f13_ctrl_c_at_every_call_of_the_driver(world: World, ctrl_c: CtrlC, unit: Unit) -> None:
    """All or nothing, and KeyboardInterrupt reaches the caller."""
    for _ in range(2):  # once more, for SQLAlchemy asks the server a few things at first
        assert await interrupted(world, unit, ctrl_c, 0, "") is None
    assert world.rows() == WHOLE
    calls = ctrl_c.calls
    assert calls > 8
    for number in range(1, calls + 1):
        for when in ("before", "after"):
            error = await interrupted(world, unit, ctrl_c, number, when)
            assert error is not None, f"{when} call {number} of {calls}"
