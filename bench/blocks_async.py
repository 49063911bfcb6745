"""The same on the async faces, for a block with one INSERT. CPU includes the drivers' own threads."""

from __future__ import annotations

from asyncio import Runner
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

from bench.blocks import COUNTED, WARM_UP, Line, Sent, lines
from bench.measure import Size, Turn, cpu_async, taken
from bench.places import Place, counting
from bench.rivals_async import AsyncRival, AsyncWork, rivals


def unit(work: AsyncWork, target: Any) -> Callable[[], Awaitable[None]]:
    """One block with one INSERT."""
    block, insert = work.block, work.insert

    async def one() -> None:
        async with block(target):
            await insert(target)

    return one


def turn(runner: Runner, work: AsyncWork) -> Turn:
    """One rival's turn in the one event loop that all share."""

    async def one_turn(count: int) -> float:
        async with work.transaction() as target:
            await work.insert(target)
            once = unit(work, target)
            for _ in range(WARM_UP):
                await once()
            return await cpu_async(once, count)

    return lambda count: runner.run(one_turn(count))


@contextmanager
def opened(runner: Runner, place: Place, driver: str) -> Iterator[list[tuple[AsyncRival, AsyncWork]]]:
    """All rivals on a driver, open."""
    stack = AsyncExitStack()

    async def enter(rival: AsyncRival) -> AsyncWork:
        return await stack.enter_async_context(rival.open(place))

    try:
        yield [(rival, runner.run(enter(rival))) for rival in rivals(driver)]
    finally:
        runner.run(stack.aclose())


def counts(place: Place, driver: str) -> Sent:
    """How much each rival sends per block."""
    with ExitStack() as stack:
        counted = stack.enter_context(counting(place))
        runner = stack.enter_context(Runner())
        works = stack.enter_context(opened(runner, counted, driver))
        return {rival.name: runner.run(_sent(counted, work)) for rival, work in works}


async def _sent(place: Place, work: AsyncWork) -> float:
    async with work.transaction() as target:
        await work.insert(target)
        once = unit(work, target)
        for _ in range(WARM_UP):
            await once()
        before = place.sent
        for _ in range(COUNTED):
            await once()
        return (place.sent - before) / COUNTED


def measured(place: Place, driver: str, size: Size) -> list[Line]:
    """Counts and CPU of all who can run on a driver."""
    sent = counts(place, driver)
    with Runner() as runner, opened(runner, place, driver) as works:
        used = taken({rival.name: turn(runner, work) for rival, work in works}, size)
        return lines([rival for rival, _ in works], sent, used)
