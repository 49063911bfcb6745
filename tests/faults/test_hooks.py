"""F13 with hooks: cancelled or interrupted wherever a unit waits, they run when it is stored, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import savepoints
from savepoints import _awaiting
from tests.behaviours.steps import Oops, fails
from tests.faults.suspensions import Strike
from tests.faults.units import start_empty
from tests.harness.world import World

pytestmark = [
    pytest.mark.needs("async"),
    pytest.mark.usefixtures("drivers_at_rest"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


async def hooked(world: World, log: list[str]) -> None:
    """Hooks that wait, on a transaction that is to be stored and a part of it that is undone."""

    async def waits(name: str) -> None:
        await asyncio.sleep(0)
        log.append(name)

    async with world.transaction(world.source) as t:
        await world.insert(t, 1, "kept")
        savepoints.on_commit(t, waits, "stored 1")
        savepoints.on_rollback(t, waits, "undone")
        async with world.savepoint(t, suppress=Oops):
            savepoints.on_commit(t, waits, "never")
            savepoints.on_rollback(t, waits, "part undone")
            raise Oops
        savepoints.before_commit(t, waits, "before")
        savepoints.on_commit(t, waits, "stored 2")
    log.append("done")


@pytest.mark.parametrize("how", ["cancel_at", "interrupt_at"])
async def test_f13_hooks_and_cancellation(world: World, how: str) -> None:
    async with world.open() as t:
        await world.seen(t)  # so that the pool has a connection: connecting is another matter
    for point in range(1, 60):
        start_empty(world)
        log: list[str] = []
        strike = Strike(**{how: {point}})
        error = await strike.run(hooked(world, log))
        stored = world.rows() == [(1, "kept")]
        assert ("stored 1" in log) == ("stored 2" in log) == stored, (point, log)
        assert not (stored and "undone" in log), (point, log)
        assert "never" not in log
        world.check_pool()
        if error is None:
            assert log == ["part undone", "before", "stored 1", "stored 2", "done"]
            assert point > 5
            return
    raise AssertionError("no run was spared")


async def test_a_hook_that_does_not_end_is_cut_off(world: World, monkeypatch: Any, caplog: Any) -> None:
    """A program must be able to stop: after some patience the hook is cancelled, and the others do not run."""
    monkeypatch.setattr(_awaiting, "PATIENCE", 0.05)
    started = asyncio.Event()

    async def for_ever() -> None:
        started.set()
        await asyncio.Event().wait()

    async def unit() -> None:
        async with world.transaction(world.source) as t:
            savepoints.on_commit(t, for_ever)
            savepoints.on_commit(t, print, "never")
            await world.insert(t, 1)

    task = asyncio.create_task(unit())
    await started.wait()
    task.cancel()
    with fails(asyncio.CancelledError):
        await task
    assert world.rows() == [(1, None)]
    assert "on_commit hook print" in caplog.text
    assert "did not run" in caplog.text


async def helper_cancelled() -> None:
    """It waits for a task that somebody else has cancelled."""
    helper = asyncio.create_task(asyncio.sleep(60))
    helper.cancel()
    await helper


@pytest.mark.parametrize("occasion", ["on_commit", "on_rollback"])
async def test_a_hook_whose_own_helper_was_cancelled_has_failed(world: World, occasion: str) -> None:
    """Nobody has cancelled the block's task: the others run, and it goes on."""
    log: list[str] = []
    with fails(savepoints.HookErrors) as caught:
        async with world.transaction(world.source, rollback=occasion == "on_rollback") as t:
            await world.insert(t, 1)
            world.hook(occasion, t, helper_cancelled)
            world.hook(occasion, t, log.append, "told")
            world.hook(occasion, t, helper_cancelled)
    assert log == ["told"]
    assert [type(error.__cause__) for error in caught.value.exceptions] == [asyncio.CancelledError] * 2
    assert "hook helper_cancelled" in str(caught.value.exceptions[0])
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    world.check_pool()


async def test_with_an_error_under_way_it_is_a_note(world: World) -> None:
    with fails(Oops) as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            world.hook("on_rollback", t, helper_cancelled)
            raise Oops
    assert any("1 of 1 hooks failed" in note for note in caught.value.__notes__)


async def test_before_commit_it_rolls_everything_back(world: World) -> None:
    with fails(RuntimeError, match="hook helper_cancelled") as caught:
        async with world.transaction(world.source) as t:
            await world.insert(t, 1)
            world.hook("before_commit", t, helper_cancelled)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert world.rows() == []
