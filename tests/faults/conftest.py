"""What tests need that cut drivers off in the midst of their work."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.faults.rivals import Rival, two_rows
from tests.harness.world import World


@pytest.fixture
async def drivers_at_rest(world: World) -> AsyncIterator[None]:
    """What a cancelled driver leaves behind is none of our business, but must not come up in a later test.

    One that connects leaves a socket, and an error that nobody fetches; one with threads goes on closing in them.
    """
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    threads = set(threading.enumerate())

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), ConnectionError):
            assert handler is not None
            handler(loop, context)

    loop.set_exception_handler(handle)
    gc.freeze()  # what is there by now is left alone, so that collecting is quick
    yield
    gc.unfreeze()
    await world.engine.dispose()
    async with asyncio.timeout(20):
        while set(threading.enumerate()) - threads:
            await asyncio.sleep(0.01)
    gc.collect()
    loop.set_exception_handler(handler)


@pytest.fixture
def rival(world: World) -> Iterator[Rival]:
    two_rows(world)
    rival = Rival(world)
    yield rival
    rival.close()
